"""Runs a command on a terminal of its own, and types when it is asked: terminal.py ASKED TYPED COMMAND..."""
import os, pty, select, sys, time

asked, typed, command = sys.argv[1].encode(), sys.argv[2].encode(), sys.argv[3:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(command[0], command)
shown, done, until = b"", False, time.monotonic() + 60
while time.monotonic() < until:
    if not select.select([terminal], [], [], 1)[0]:
        continue
    try:
        piece = os.read(terminal, 4096)
    except OSError:  # the other end is closed
        break
    if not piece:
        break
    shown += piece
    if asked in shown and not done:
        os.write(terminal, typed)
        done = True
sys.stdout.write(shown.decode(errors="replace"))
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
