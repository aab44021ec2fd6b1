"""Starts a program as a service manager does that holds its socket: `activate.py SOCKET PROGRAM ARGS…`"""

import os
import socket
import sys

listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
os.umask(0o177)
listener.bind(sys.argv[1])
os.umask(0o077)
listener.listen(64)
os.dup2(listener.fileno(), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
