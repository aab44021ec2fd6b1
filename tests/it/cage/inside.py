"""Makes system calls inside a process, as code that took it over would. Runs within gdb.

Reads from the file in $CALLS one JSON object {"thread", "number", "args"} a line, a function of the C library instead of a
number where one is named; an argument is a number, the text of a path, or a list of bytes. Prints one JSON object a line:
{"result"}, {"errno"}, {"trapped": NUMBER} where the filter sent SIGSYS, or {"ended"}. With DELIVER=1 signals reach the process.
"""

import json
import os

import gdb

CALL = "((long(*)(long,long,long,long,long,long,long)){})({})"
ERRNO = "*((int*(*)(void))__errno_location)()"
# beneath the red zone and far from what a signal's frame could need
SCRATCH = 64 * 1024
PARTS = ("si_signo", "si_code", "_sifields._pad[2]")
# SIGSYS with SYS_SECCOMP
SECCOMP = (31, 1)


def on(thread):
    for candidate in gdb.selected_inferior().threads():
        if candidate.ptid[1] == thread:
            candidate.switch()
            return
    raise gdb.GdbError(f"no thread {thread}")


def placed(args):
    """The arguments as numbers; texts and bytes are put on the thread's stack."""
    at = (int(gdb.parse_and_eval("(unsigned long)$rsp")) - SCRATCH) & ~15
    numbers = []
    for arg in args:
        if isinstance(arg, int):
            numbers.append(arg)
            continue
        content = arg.encode() + b"\0" if isinstance(arg, str) else bytes(arg)
        gdb.selected_inferior().write_memory(at, content)
        numbers.append(at)
        at += (len(content) + 15) & ~15
    return numbers


def made(call):
    args = placed(call["args"])
    name, args = (call["number"], args) if isinstance(call["number"], str) else ("syscall", [call["number"], *args])
    args += [0] * (7 - len(args))
    if "code" in call:
        # a debugger writes where the process itself can't
        gdb.selected_inferior().write_memory(int(gdb.parse_and_eval(f"(long)&{name}")), bytes(call["code"]))
    try:
        result = int(gdb.parse_and_eval(CALL.format(name, ", ".join(map(str, args)))))
    except gdb.error as error:
        if "signaled" not in str(error):
            return {"ended": str(error)}
        # behind si_call_addr in the part that differs from signal to signal
        signal, code, trapped = (int(gdb.parse_and_eval(f"$_siginfo.{part}")) for part in PARTS)
        # out of the call that did not happen, back to where the thread was
        gdb.execute("return", to_string=True)
        return {"trapped": trapped} if (signal, code) == SECCOMP else {"signal": signal}
    if result == -1:
        return {"errno": int(gdb.parse_and_eval(ERRNO))}
    return {"result": result}


gdb.execute("set language c")
gdb.execute("set scheduler-locking on")
gdb.execute("set confirm off")
consequence = "nostop noprint pass" if os.environ.get("DELIVER") == "1" else "stop nopass"
for signal in ["SIGSYS", "SIGABRT", "SIGSEGV"]:
    gdb.execute(f"handle {signal} {consequence}", to_string=True)
with open(os.environ["CALLS"]) as calls:
    for line in calls:
        call = json.loads(line)
        on(call["thread"])
        print(json.dumps(made(call)), flush=True)
