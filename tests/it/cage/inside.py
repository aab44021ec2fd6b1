"""Makes system calls inside a process, as code that took it over would. Root runs it: inside.py PID

Reads from the file in $CALLS one JSON object {"thread", "number", "args"} a line, a function of the C library instead of a
number where one is named; an argument is a number, the text of a path, or a list of bytes. Prints one JSON object a line:
{"result"}, {"errno"}, {"trapped": NUMBER} where the filter sent SIGSYS, or {"ended"}. With DELIVER=1 signals reach the process.

Only general registers are touched: a debugger that saves all of them fails on processors with larger ones than it knows.
"""

import ctypes
import json
import os
import signal
import sys

CONT, GETREGS, SETREGS, DETACH, GETSIGINFO, SEIZE, INTERRUPT = 7, 12, 13, 17, 0x4202, 0x4206, 0x4207
WALL = 0x40000000
# of struct user_regs_struct
NAMES = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
).split()
SYSCALL_ARGS = "rdi rsi rdx r10 r8 r9".split()
FUNCTION_ARGS = "rdi rsi rdx rcx r8 r9".split()
# syscall; int3
MADE = b"\x0f\x05\xcc"
# beneath the red zone and far from what a signal's frame could need
SCRATCH = 64 * 1024
# SIGSYS with SYS_SECCOMP
SECCOMP = (signal.SIGSYS, 1)
DELIVER = os.environ["DELIVER"] == "1"

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class Ended(Exception):
    """No thread of the process is left."""


def ptrace(request, thread, address=None, data=None):
    if libc.ptrace(request, thread, address, data) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace({request:#x}, {thread})")


def registers(thread):
    values = (ctypes.c_ulonglong * len(NAMES))()
    ptrace(GETREGS, thread, None, ctypes.addressof(values))
    return dict(zip(NAMES, values))


def set_registers(thread, values):
    values = (ctypes.c_ulonglong * len(NAMES))(*(values[name] % 2**64 for name in NAMES))
    ptrace(SETREGS, thread, None, ctypes.addressof(values))


def siginfo(thread):
    info = ctypes.create_string_buffer(128)
    ptrace(GETSIGINFO, thread, None, ctypes.addressof(info))
    number = lambda at: int.from_bytes(info.raw[at : at + 4], "little", signed=True)
    # behind si_call_addr in the part that differs from signal to signal
    return (number(0), number(8)), number(24)


def library_at(pid):
    """Where the C library begins in a process, and which file it is."""
    for line in open(f"/proc/{pid}/maps"):
        name = line.split()[-1]
        if os.path.basename(name).startswith("libc.so"):
            return int(line.split("-")[0], 16), name
    sys.exit(f"no C library in process {pid}")


class Process:
    def __init__(self, pid):
        self.threads = {int(name) for name in os.listdir(f"/proc/{pid}/task")}
        for thread in self.threads:
            ptrace(SEIZE, thread)
            ptrace(INTERRUPT, thread)
            os.waitpid(thread, WALL)
        self.memory = open(f"/proc/{pid}/mem", "r+b", buffering=0)
        (self.base, theirs), (self.own_base, ours) = library_at(pid), library_at("self")
        if theirs != ours:
            sys.exit(f"{theirs} and {ours} are two libraries")
        self.gate = self.address("getppid")
        self.behind_gate = self.read(self.gate, len(MADE))

    def address(self, function):
        own = ctypes.cast(getattr(libc, function), ctypes.c_void_p).value
        return own - self.own_base + self.base

    def read(self, at, length):
        self.memory.seek(at)
        return self.memory.read(length)

    def write(self, at, content):
        self.memory.seek(at)
        self.memory.write(content)

    def resume(self, thread, number=0):
        """Lets one thread run until it stops again; the signal that it stopped for."""
        ptrace(CONT, thread, None, number)
        while self.threads:
            stopped, status = os.waitpid(-1, WALL)
            if os.WIFSTOPPED(status):
                if stopped == thread:
                    return os.WSTOPSIG(status)
            else:
                self.threads.discard(stopped)
        raise Ended

    def release(self):
        self.write(self.gate, self.behind_gate)
        for thread in self.threads:
            ptrace(DETACH, thread)


def placed(process, stack, args):
    """The arguments as numbers; texts and bytes are put on the thread's stack."""
    numbers, at = [], stack
    for arg in args:
        if isinstance(arg, int):
            numbers.append(arg)
            continue
        content = arg.encode() + b"\0" if isinstance(arg, str) else bytes(arg)
        process.write(at, content)
        numbers.append(at)
        at += (len(content) + 15) & ~15
    return numbers


def made(process, call):
    thread = call["thread"]
    before = registers(thread)
    stack = (before["rsp"] - SCRATCH) & ~15
    args = placed(process, stack, call["args"])
    # no call is under way any more that could be made again
    changed = {**before, "orig_rax": -1}
    if isinstance(call["number"], str):
        process.write(process.gate, process.behind_gate)
        target = process.address(call["number"])
        process.write(target, bytes(call.get("code", b"")))
        # it returns to nowhere
        process.write(stack - 8, bytes(8))
        changed |= {"rip": target, "rsp": stack - 8, "rax": 0, **dict(zip(FUNCTION_ARGS, args))}
    else:
        process.write(process.gate, MADE)
        args = args + [0] * (len(SYSCALL_ARGS) - len(args))
        changed |= {"rip": process.gate, "rsp": stack, "rax": call["number"], **dict(zip(SYSCALL_ARGS, args))}
    set_registers(thread, changed)
    stopped = process.resume(thread)
    while stopped not in (signal.SIGTRAP, signal.SIGSEGV) and DELIVER:
        stopped = process.resume(thread, stopped)
    if stopped == signal.SIGTRAP:
        result = ctypes.c_long(registers(thread)["rax"]).value
        answer = {"errno": -result} if -4096 < result < 0 else {"result": result}
    else:
        kind, trapped = siginfo(thread)
        answer = {"trapped": trapped} if kind == SECCOMP else {"signal": stopped}
        if DELIVER:
            process.resume(thread, stopped)
    # out of a call that did not happen, back to where the thread was
    set_registers(thread, before)
    return answer


process = Process(int(sys.argv[1]))
try:
    with open(os.environ["CALLS"]) as calls:
        for line in calls:
            print(json.dumps(made(process, json.loads(line))), flush=True)
    process.release()
except Ended:
    print(json.dumps({"ended": "no thread is left"}), flush=True)
