//! What a process does to itself before it touches a secret, and how the witness comes to be.
#![allow(unsafe_code)]

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    process::ExitCode,
};

use rustix::{
    fs::{Mode, OFlags},
    io::{Errno, retry_on_intr},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::{
        DumpableBehavior, Pid, Resource, Rlimit, Signal, WaitOptions, getpid, getppid, getrlimit,
        set_dumpable_behavior, set_parent_process_death_signal, setpgid, setrlimit, waitpid,
    },
};

/// No core dumps, no ptrace and no reading of `/proc/self/{mem,environ,maps,fd}` by other processes of the same user.
///
/// The environment must have been read before: afterwards `/proc/self/environ` belongs to root.
pub fn close_to_others() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

/// No trace of calls is printed from now on, by this process or its children, when memory is short or the program is at
/// fault: the standard library asks for the current folder for that, a call that is not on the lists, and the end would
/// look like that of a daemon that was taken over. Nothing happens where there is a second thread already.
pub fn forget_backtraces() {
    if threads().is_ok_and(|threads| threads == 1) {
        for name in ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"] {
            // SAFETY: this process has one thread, so nobody reads the environment meanwhile
            unsafe { std::env::remove_var(name) };
        }
    }
}

/// A child of this process and the channels to it: `SEQPACKET` sockets that keep messages whole.
#[derive(Debug)]
pub struct Child<const CHANNELS: usize = 1> {
    /// Its process id.
    pub pid: u32,
    /// Our ends. Both ends see the other's death as end of stream.
    pub channels: [OwnedFd; CHANNELS],
}

impl<const CHANNELS: usize> Child<CHANNELS> {
    /// Waits for its end.
    pub fn wait(self) {
        let pid = Pid::from_raw(self.pid.cast_signed());
        // how it ended is told on its channels, or not at all
        let _ = retry_on_intr(|| waitpid(pid, WaitOptions::empty()));
    }
}

/// Forks a child that runs `body` with its ends of the channels, and exits with what it returns. It has everything else open
/// that this process has, unless it calls [`close_all_but`].
///
/// A fork without exec: after an exec the child would be dumpable again for a moment, in which any process of the same
/// user could take it over. Called while this process has one thread and no secret.
///
/// The child ignores the terminal's and the service manager's signals, since it is over when its parent is: the kernel
/// kills it then.
pub fn spawn<const CHANNELS: usize>(
    body: impl FnOnce([BorrowedFd<'_>; CHANNELS]) -> ExitCode,
) -> io::Result<Child<CHANNELS>> {
    let pair = || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let pairs = (0..CHANNELS).map(|_| pair()).collect::<Result<Vec<_>, _>>()?;
    let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let counted = |_| io::Error::other("as many channels as were made");
    let channels = <[OwnedFd; CHANNELS]>::try_from(ours).map_err(counted)?;
    let theirs = <[OwnedFd; CHANNELS]>::try_from(theirs).map_err(counted)?;
    if threads()? != 1 {
        return Err(io::Error::other("a child must be started before any thread"));
    }
    let parent = getpid();
    // SAFETY: this process has one thread, so no lock of another one can be held for ever in the child
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let theirs = theirs.each_ref().map(AsFd::as_fd);
            let code = match settle(parent) {
                Ok(()) => body(theirs),
                Err(_) => ExitCode::FAILURE,
            };
            // SAFETY: ends this process at once; nothing of the parent's is flushed or run a second time
            unsafe { libc::_exit(i32::from(code != ExitCode::SUCCESS)) }
        }
        child => Ok(Child { pid: child.unsigned_abs(), channels }),
    }
}

/// Closes, in a child, what its parent had open: another child's channel, a passphrase, a socket that the service manager
/// passed. Standard input, output and error stay. The parent's objects that own these descriptors are never dropped in the
/// child.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for kept in kept.into_iter().chain([u32::MAX]) {
        // SAFETY: no object of this process uses these descriptors from here on
        if first < kept && unsafe { libc::syscall(libc::SYS_close_range, first, kept - 1, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        first = kept.saturating_add(1);
    }
    Ok(())
}

/// The child's own settings.
fn settle(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(parent) {
        return Err(io::ErrorKind::NotFound.into());
    }
    setpgid(None, None)?;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: SIG_IGN runs no code of ours in a signal context
        if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn threads() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// What the kernel says of the calling thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// A seccomp filter decides about its system calls.
    pub seccomp: bool,
    /// It can't gain privileges by execve.
    pub no_new_privileges: bool,
    /// Its memory can't be read by other processes of its user.
    pub not_dumpable: bool,
    /// Its process leaves no core dump.
    pub no_core: bool,
    /// It can't make memory executable.
    pub no_executable_memory: bool,
}

/// Asks the kernel about the calling thread.
pub fn answers() -> Answers {
    // SAFETY: these options take no argument that is a pointer, and only return a number
    let ask = |option: libc::c_int| unsafe { libc::prctl(option, 0, 0, 0, 0) };
    Answers {
        seccomp: ask(libc::PR_GET_SECCOMP) == libc::SECCOMP_MODE_FILTER as libc::c_int,
        no_new_privileges: ask(libc::PR_GET_NO_NEW_PRIVS) == 1,
        not_dumpable: ask(libc::PR_GET_DUMPABLE) == 0,
        no_core: getrlimit(Resource::Core).current == Some(0),
        no_executable_memory: refuses_executable_memory(ask(PR_GET_MDWE)),
    }
}

/// What `PR_GET_MDWE` answered. A kernel that does not know the question answers -1, in which every bit is set.
fn refuses_executable_memory(answer: libc::c_int) -> bool {
    answer >= 0 && answer & PR_MDWE_REFUSE_EXEC_GAIN != 0
}

/// Memory that was writable never becomes executable in this process and its children (Linux 6.3).
pub fn refuse_executable_memory() -> io::Result<()> {
    // SAFETY: the option takes flags and no pointer
    let result = unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

// linux/prctl.h
const PR_SET_MDWE: libc::c_int = 65;
const PR_GET_MDWE: libc::c_int = 66;
const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_int = 1;

/// Whether the kernel keeps a file from being written while it runs. Without that, a digest says nothing a moment later.
///
/// Tried on this program's own file. Where this user may not write it anyway, the kernel's release decides: 6.11 and
/// 6.12 are said to have dropped the rule.
pub fn running_files_are_protected() -> bool {
    match rustix::fs::open("/proc/self/exe", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_writable) => false,
        Err(Errno::TXTBSY) => true,
        Err(_) => {
            let release = rustix::system::uname();
            let release = release.release().to_string_lossy();
            !["6.11.", "6.12."].iter().any(|dropped| release.starts_with(dropped))
        }
    }
}

/// Raises the limit of open descriptors to what is allowed, and says what that is.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}
