//! Where a fault can be played: which thread makes which call on what, and how it can fail there.

use std::{collections::BTreeMap, fmt};

use rustix::io::Errno;

/// A call of one thread on one kind of object, of which a session makes several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    pub role: String,
    pub call: String,
    pub object: String,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// It is not made, and the next one is.
    Once,
    /// It is made, and said to have failed.
    Late,
    /// Neither it nor any like it is made any more.
    Onward,
    /// It takes half of what it was given.
    Short,
    /// The daemon is killed before it.
    Kill,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    pub site: Site,
    /// The first is 1.
    pub nth: usize,
    pub kind: Kind,
}

/// What becomes of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    pub how: How,
    pub errno: &'static str,
}

const fn once(errno: &'static str) -> Kind {
    Kind { how: How::Once, errno }
}

const fn late(errno: &'static str) -> Kind {
    Kind { how: How::Late, errno }
}

const fn onward(errno: &'static str) -> Kind {
    Kind { how: How::Onward, errno }
}

const KILL: Kind = Kind { how: How::Kill, errno: "-" };
const SHORT: Kind = Kind { how: How::Short, errno: "-" };

/// Calls that no fault is played on, and why.
pub const SPARED: &[(&str, &str)] = &[
    (
        "close",
        "of what is no file of the store: the kernel closes a descriptor whatever it says, and nobody asks",
    ),
    ("fcntl", "with F_GETFD: made by debug builds only, to find their own mistakes"),
    ("write", "of the operator's log: a session waits for what is said there"),
    (
        "sendto, recvfrom",
        "of the runtime to itself: a connected pair of sockets has no error when neither is closed",
    ),
    ("futex", "gives no error to correct arguments but those that say: look again"),
    ("exit, exit_group, rt_sigreturn, restart_syscall", "do not return"),
    ("getpid, gettid, geteuid, getuid, getppid, getpriority, umask, uname, sched_yield", "have no error"),
    (
        "rt_sigaction, rt_sigprocmask, sigaltstack, set_robust_list, rseq, sched_getaffinity, clock_gettime, \
         clock_nanosleep",
        "have no error for the arguments that the C library and the runtime give",
    ),
];

/// How a call can fail on this object, as the kernel's pages say, for calls that a fault is played on.
///
/// Every change of a file of the store is also a moment at which the daemon may be killed.
pub fn kinds(site: &Site) -> Vec<Kind> {
    let changes = matches!(
        site.call.as_str(),
        "write"
            | "pwrite64"
            | "fsync"
            | "fdatasync"
            | "ftruncate"
            | "rename"
            | "renameat"
            | "renameat2"
            | "unlink"
            | "unlinkat"
            | "open"
            | "openat"
            | "mkdir"
    );
    let mut kinds = failures(site);
    if changes && site.is_stored() {
        kinds.push(KILL);
    }
    kinds
}

fn failures(site: &Site) -> Vec<Kind> {
    let stored = site.is_stored();
    match site.call.as_str() {
        "read" | "pread64" | "lseek" | "getdents64" => vec![once("EIO")],
        "write" | "pwrite64" if stored => vec![once("ENOSPC"), once("EIO"), SHORT, onward("ENOSPC")],
        "write" if site.object == "standard-stream" => vec![],
        // it has no other error, and the runtime knows this one
        "write" if site.object == "eventfd" => vec![once("EAGAIN")],
        "write" => vec![once("EIO"), onward("ENOSPC")],
        "fsync" | "fdatasync" => vec![once("EIO"), late("EIO"), onward("EIO")],
        "ftruncate" => vec![once("ENOSPC"), once("EIO")],
        "open" | "openat" if stored => vec![once("EMFILE"), once("EACCES"), once("ENOENT")],
        "open" | "openat" => vec![once("EMFILE"), once("EACCES")],
        "newfstatat" | "statx" | "readlink" | "readlinkat" | "faccessat2" | "statfs" => {
            vec![once("EIO"), once("EACCES")]
        }
        "fstat" | "fstatfs" => vec![once("EIO")],
        "rename" | "renameat" | "renameat2" | "unlink" | "unlinkat" | "mkdir" | "mkdirat" => {
            vec![once("EIO"), once("EACCES"), late("EIO")]
        }
        "close" if stored => vec![late("EIO")],
        "recvfrom" | "sendto" if site.object == "signal-pipe" => vec![],
        "recvmsg" | "recvfrom" => vec![once("ENOMEM"), once("ECONNRESET"), once("EINTR")],
        "sendmsg" | "sendto" => vec![once("ENOBUFS"), once("EPIPE"), once("EINTR")],
        "accept4" => vec![once("EMFILE"), once("ECONNABORTED"), once("ENOMEM")],
        "epoll_ctl" => vec![once("ENOMEM"), once("ENOSPC")],
        "epoll_wait" | "wait4" => vec![once("EINTR")],
        "ppoll" | "poll" => vec![once("ENOMEM"), once("EINTR")],
        // F_GETFD
        "fcntl" if site.object.ends_with(":1") => vec![],
        "fcntl" => vec![once("EMFILE"), once("ENOLCK")],
        "flock" => vec![once("ENOLCK"), once("EINTR")],
        "getsockopt" | "setsockopt" | "ioctl" => vec![once("ENOBUFS"), once("ENOPROTOOPT")],
        "shutdown" => vec![once("ENOTCONN")],
        "bind" | "listen" | "connect" => vec![once("EADDRINUSE"), once("EACCES")],
        "mmap" | "mprotect" | "munmap" | "brk" => vec![once("ENOMEM")],
        "mlock" | "madvise" => vec![once("ENOMEM"), once("EAGAIN")],
        "memfd_secret" => vec![once("ENOSYS"), once("EMFILE")],
        "socket" | "socketpair" | "eventfd2" | "epoll_create1" | "pipe2" => vec![once("EMFILE")],
        "inotify_init1" => vec![once("EMFILE"), once("ENOMEM")],
        "inotify_add_watch" => vec![once("ENOSPC"), once("EACCES")],
        "close_range" => vec![once("ENOSYS")],
        "clone" | "clone3" | "fork" => vec![once("EAGAIN")],
        "prctl" => vec![once("EINVAL"), once("EPERM")],
        "capset" | "capget" | "setrlimit" | "prlimit64" | "setpgid" => vec![once("EPERM")],
        "setpriority" | "sched_setattr" | "ioprio_set" => vec![once("EPERM")],
        "seccomp" | "landlock_create_ruleset" | "landlock_add_rule" | "landlock_restrict_self" => {
            vec![once("EINVAL"), once("ENOMEM"), once("ENOSYS")]
        }
        "getrandom" => vec![once("EINTR"), once("ENOSYS")],
        _ => vec![],
    }
}

/// Whether a call is one of those that are spared.
pub fn is_spared(site: &Site) -> bool {
    SPARED.iter().any(|(names, _)| names.split(", ").any(|name| name == site.call))
}

/// The sites of a trace, and how often each was passed.
pub fn sites(trace: &str) -> BTreeMap<Site, usize> {
    let mut sites = BTreeMap::new();
    for line in trace.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [role, call, object] = words[..] else { continue };
        let site = Site { role: role.to_owned(), call: call.to_owned(), object: object.to_owned() };
        *sites.entry(site).or_default() += 1;
    }
    sites
}

impl Site {
    /// Whether it is about a file that the daemon makes.
    fn is_stored(&self) -> bool {
        let stored = ["vault", "audit", "pending", "daemon.lock", "agent.sock", "keychain-auth"];
        stored.iter().any(|name| self.object.starts_with(name))
    }

    /// Whether it is about what the daemon keeps for its clients, or about what protects it.
    pub fn is_vital(&self) -> bool {
        let changes = ["pwrite64", "write", "fsync", "fdatasync", "ftruncate", "renameat2", "openat"];
        let protects = ["seccomp", "landlock_create_ruleset", "landlock_restrict_self", "memfd_secret"];
        let kept = self.object.starts_with("vault") || self.object.starts_with("audit");
        kept && changes.contains(&self.call.as_str()) || protects.contains(&self.call.as_str())
    }
}

impl Fault {
    /// Arguments for `clients/fault.c`.
    pub fn arguments(&self) -> [String; 7] {
        let errno = number(self.kind.errno).to_string();
        let Site { role, call, object } = self.site.clone();
        ["FAIL".to_owned(), role, call, object, self.nth.to_string(), self.kind.how.word().to_owned(), errno]
    }
}

impl How {
    fn word(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Late => "late",
            Self::Onward => "onward",
            Self::Short => "short",
            Self::Kill => "kill",
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.role, self.call, self.object)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            How::Once => f.write_str(self.errno),
            How::Short => f.write_str("short"),
            How::Kill => f.write_str("killed"),
            how => write!(f, "{} {}", self.errno, how.word()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {}", self.site, self.kind, self.nth)
    }
}

fn number(errno: &str) -> i32 {
    let errno = match errno {
        "EACCES" => Errno::ACCESS,
        "EADDRINUSE" => Errno::ADDRINUSE,
        "EAGAIN" => Errno::AGAIN,
        "ECONNABORTED" => Errno::CONNABORTED,
        "ECONNRESET" => Errno::CONNRESET,
        "EINTR" => Errno::INTR,
        "EINVAL" => Errno::INVAL,
        "EIO" => Errno::IO,
        "EMFILE" => Errno::MFILE,
        "ENOBUFS" => Errno::NOBUFS,
        "ENOENT" => Errno::NOENT,
        "ENOLCK" => Errno::NOLCK,
        "ENOMEM" => Errno::NOMEM,
        "ENOPROTOOPT" => Errno::NOPROTOOPT,
        "ENOSPC" => Errno::NOSPC,
        "ENOSYS" => Errno::NOSYS,
        "ENOTCONN" => Errno::NOTCONN,
        "EPERM" => Errno::PERM,
        "EPIPE" => Errno::PIPE,
        "-" => return 0,
        other => panic!("no number for {other}"),
    };
    errno.raw_os_error()
}
