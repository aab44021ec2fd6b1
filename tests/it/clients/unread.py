"""A terminal that nobody reads: its name, and what was written there once standard input ends."""
import os
import pty
import sys

master, slave = pty.openpty()
print(os.ttyname(slave), flush=True)
sys.stdin.read()
os.close(slave)
while True:
    try:
        piece = os.read(master, 4096)
    except OSError:  # nobody has the terminal open any more
        break
    if not piece:
        break
    sys.stdout.buffer.write(piece)
    sys.stdout.flush()
