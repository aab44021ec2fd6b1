"""Runs a command on a terminal of its own, and types each answer when it is asked: terminal.py '[[ASKED, TYPED]…]' COMMAND…"""
import json, os, pty, select, sys, time

answers, command = json.loads(sys.argv[1]), sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(command[0], command)
shown, seen, until = b"", 0, time.monotonic() + 60
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
    while answers and answers[0][0].encode() in shown[seen:]:
        asked, typed = answers.pop(0)
        seen = shown.index(asked.encode(), seen) + len(asked.encode())
        os.write(terminal, typed.encode())
else:
    os.kill(pid, 9)
sys.stdout.write(shown.decode(errors="replace"))
sys.stdout.flush()
sys.exit(abs(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
