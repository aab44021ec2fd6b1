"""Starts a program as a service manager does that holds its socket: `activate.py NAMED SOCKET PROGRAM ARGS…`

NAMED is yes or no, what a unit says as PassCredentials=.
"""

import os
import socket
import sys

listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
if sys.argv[1] == "yes":
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
os.umask(0o177)
listener.bind(sys.argv[2])
os.umask(0o077)
listener.listen(64)
if listener.fileno() == 3:
    os.set_inheritable(3, True)
else:
    os.dup2(listener.fileno(), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[3], sys.argv[3:])
