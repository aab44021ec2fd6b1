//! The lists: every system call that keeper, witness and broker may make once they serve, each with its reason.
//!
//! Not on them, among all others: execve, ptrace, process_vm_readv, kill, clone, fork, socket, connect, bind, chmod,
//! chown, link, symlink, mkdir, mount, bpf, io_uring_setup, userfaultfd, keyctl, rt_sigaction, seccomp, setns, unshare.
//! The broker alone has two of these: socket, of one kind, and connect.

use super::filter::{Call, Only};

const EXEC: u32 = libc::PROT_EXEC.cast_unsigned();
/// Everything in open flags that could change a file.
const CHANGING: u32 =
    (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND | libc::O_TMPFILE)
        .cast_unsigned()
        & !libc::O_DIRECTORY.cast_unsigned();

macro_rules! calls {
    ($($name:ident $(if $($only:expr),+)? => $why:literal),+ $(,)?) => {
        [$(Call {
            number: libc::$name,
            // "SYS_" is in front of every one
            name: stringify!($name).split_at(4).1,
            why: $why,
            only: &[$($($only),+)?],
        }),+]
    };
}

/// Calls that any Rust program makes: memory without execution, locks, time, its end.
const RUNTIME: &[Call] = &calls! {
    SYS_mmap if Only::Lacks(2, EXEC) => "memory; never executable",
    SYS_mprotect if Only::Lacks(2, EXEC) => "the allocator's arenas; never executable",
    SYS_munmap => "memory given back",
    SYS_madvise => "memory given back",
    SYS_brk => "the allocator's heap",
    SYS_futex => "locks and waiting threads",
    SYS_sched_yield => "contended channels of the standard library",
    SYS_clock_gettime => "deadlines and timestamps where the vDSO does not serve",
    SYS_rt_sigprocmask => "abort, and the end of threads",
    SYS_sigaltstack => "the end of threads",
    SYS_exit => "the end of threads",
    SYS_exit_group => "the end",
    SYS_getpid => "abort; the pid in STATUS",
    SYS_gettid => "abort",
    SYS_tgkill if Only::Own(0) => "abort: a signal to itself, to no other process",
    SYS_writev if Only::Is(0, 2) => "the C library's last words before abort",
    SYS_setitimer if Only::Is(0, libc::ITIMER_REAL.cast_unsigned()) => "the end, where somebody holds up the last words",
};

/// Calls that both processes make on descriptors that they hold.
const DESCRIPTORS: &[Call] = &calls! {
    SYS_read => "files, the runtime's wake-up pipe",
    SYS_pread64 => "the vault, the log's tail, and one byte that proves a caller's address space",
    SYS_close => "connections and files",
    SYS_recvmsg => "requests with their writers; messages between keeper and witness",
    SYS_sendmsg => "messages between keeper and witness; the operator's log where it is a socket",
    SYS_fcntl if Only::Is(1, libc::F_GETFD.cast_unsigned()) => "the standard library's checks in debug builds",
    SYS_newfstatat => "the state of files",
};

const KEEPER_ONLY: &[Call] = &calls! {
    SYS_getrandom => "nonces, and the seeds of hash tables",
    SYS_clock_nanosleep => "waiting for the lock of the queue of strangers",
    SYS_restart_syscall => "that wait again, when the process was stopped and continued in it",
    SYS_rt_sigreturn => "the return from the signals that ask the daemon to end",
    SYS_accept4 => "connections",
    SYS_sendto => "replies; READY to the service manager",
    SYS_shutdown => "the half-close after a refusal",
    SYS_getsockopt => "who connected, and its pidfd",
    SYS_epoll_wait => "the event loop",
    SYS_epoll_ctl => "the event loop's connections",
    SYS_ppoll => "whether a caller's process has ended; whether standard error takes a line",
    SYS_recvfrom => "the runtime's signal pipe",
    SYS_openat => "the policy, the queue of strangers, a log that was moved away; where, Landlock says",
    SYS_fstat => "the state of open files",
    SYS_statx => "the state of files",
    SYS_readlink => "config.json may be a link",
    SYS_faccessat2 => "config.json may be a link that leads through `..`; only a question",
    SYS_write => "audit lines, the queue of strangers, the operator's log",
    SYS_pwrite64 => "the vault",
    SYS_ftruncate => "the vault grows and shrinks; half a line is cut off the log",
    SYS_fsync => "files and folders on the disk",
    SYS_fdatasync => "files on the disk",
    SYS_fcntl if Only::Is(1, libc::F_DUPFD_CLOEXEC.cast_unsigned()) => "the log's descriptor for the thread that syncs it; a connection whose reply waits for its reader",
    SYS_fcntl if Only::Is(1, libc::F_OFD_SETLK.cast_unsigned()) => "the vault's lock",
    SYS_fcntl if Only::Is(1, libc::F_OFD_GETLK.cast_unsigned()) => "the vault's lock, when it is opened again after the disk failed",
    SYS_flock => "the queue of strangers, which the commands change too; the vault's lock",
    SYS_rename => "the new queue of strangers in place of the old",
    SYS_unlink => "temporary files; the socket's file at the end",
    SYS_unlinkat if Only::Is(2, 0) => "a file that came out with another mode than it must have",
    SYS_prctl if Only::Is(0, libc::PR_GET_SECCOMP.cast_unsigned()),
        Only::Is(0, libc::PR_GET_NO_NEW_PRIVS.cast_unsigned()), Only::Is(0, libc::PR_GET_DUMPABLE.cast_unsigned()),
        Only::Is(0, 66) => "the probe of what is really enforced; only questions",
    SYS_prlimit64 if Only::Null(2) => "the probe of what is really enforced; only questions",
    SYS_mlock => "secrets beyond the slab",
    SYS_capget => "the probe of what is really enforced",
    SYS_geteuid => "whose a file must be that takes the place of a moved log; only a question",
};

const WITNESS_ONLY: &[Call] = &calls! {
    SYS_openat if Only::Lacks(2, CHANGING) => "/proc and executables, to read",
    SYS_readlinkat => "which executable a process runs, and which sockets it holds",
    SYS_fstat => "the state of open executables",
    SYS_getdents64 => "a process's descriptors",
    SYS_fstatfs => "the filesystem of an executable",
    SYS_statfs => "whether a filesystem shows two device numbers of one file, as btrfs does",
    SYS_ppoll => "whether a caller's process has ended; whether standard error takes a line",
    SYS_sendto => "questions to the kernel about sockets",
    SYS_recvfrom => "the kernel's answers",
    SYS_write if Only::Is(0, 2) => "the message of a violation or a panic",
};

/// The one process that may open sockets, of one kind only: those of this machine.
const BROKER_ONLY: &[Call] = &calls! {
    SYS_socket if Only::Is(0, libc::AF_UNIX.cast_unsigned()) => "the session bus, also when it is lost and found again",
    SYS_connect => "the session bus",
    SYS_getsockopt => "whether the connection was made",
    SYS_geteuid => "who it says it is, on the session bus",
    SYS_epoll_wait => "the event loop",
    SYS_epoll_ctl => "the event loop's connections",
    SYS_ppoll => "whether standard error takes the message of a panic",
    SYS_write => "the event loop's wake-up; the message of a violation or a panic",
    SYS_recvmsg => "orders of the keeper; answers of the session bus",
    SYS_sendmsg => "items and what was done, to the keeper; orders to the session bus",
    SYS_close => "a connection to the session bus that was lost",
    SYS_fcntl if Only::Is(1, libc::F_GETFD.cast_unsigned()) => "the standard library's checks in debug builds",
};

/// The broker's list: no way to a file, to another machine, or to start anything.
pub fn broker() -> Vec<Call> {
    [RUNTIME, BROKER_ONLY].concat()
}

/// The keeper's list, once it serves.
pub fn keeper() -> Vec<Call> {
    [RUNTIME, DESCRIPTORS, KEEPER_ONLY].concat()
}

/// The witness's list: no way to write a file, to open a socket, or to start anything.
pub fn witness() -> Vec<Call> {
    [RUNTIME, DESCRIPTORS, WITNESS_ONLY].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_is_made_void_by_another_of_the_same_call() {
        for list in [keeper(), witness(), broker()] {
            for (index, call) in list.iter().enumerate() {
                let others = list.iter().enumerate().filter(|(other, _)| *other != index);
                let same = others.map(|(_, other)| other).find(|other| other.number == call.number);
                let void = same.is_some_and(|other| {
                    other.only.is_empty() || call.only.iter().any(|only| other.only.contains(only))
                });
                assert!(!void, "{} is listed twice", call.name);
            }
        }
    }

    #[test]
    fn none_of_the_calls_that_the_head_of_this_file_excludes_is_listed() {
        let source = include_str!("calls.rs");
        let (_, head) = source.split_once("Not on them, among all others: ").unwrap_or_default();
        let (head, _) = head.split_once('.').unwrap_or_default();
        let excluded: Vec<&str> =
            head.split(',').map(|name| name.trim_start_matches(['\n', '/', '!', ' '])).collect();
        assert!(excluded.len() > 20, "{excluded:?}");
        for call in [keeper(), witness()].concat() {
            assert!(!excluded.contains(&call.name), "{}", call.name);
        }
        let its_own: Vec<&str> =
            broker().iter().map(|call| call.name).filter(|name| excluded.contains(name)).collect();
        assert_eq!(its_own, ["socket", "connect"]);
    }
}
