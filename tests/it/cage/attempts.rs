//! What code that took the daemon over could attempt.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::world::{World, ordinary_uid};

/// What the cage makes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is within what the process is for. Shows that attempts are really made.
    Allowed,
    /// Landlock refuses it.
    Denied,
    /// The filter ends the process.
    Fatal,
}
use Fate::{Allowed, Denied, Fatal};

/// What it is, the number of the call, its arguments, and what must come of it.
pub type Attempt = (&'static str, i64, Value, Fate);

pub const HERE: i32 = libc::AT_FDCWD;
pub const READ: i32 = libc::O_RDONLY;
pub const MAKE: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;

/// Files of the user that he could change himself, and so could the daemon without its cage.
pub struct Places {
    pub key: PathBuf,
    pub config: PathBuf,
    pub fresh_config: PathBuf,
    pub fresh: PathBuf,
    pub data: PathBuf,
}

pub fn places(world: &World) -> Places {
    let key = world.home().join(".ssh/id");
    world.write(&key, b"another program's secret");
    let config = world.config();
    let fresh_config = config.with_file_name("fresh");
    Places { key, config, fresh_config, fresh: world.home().join("fresh"), data: world.data().join("stage") }
}

/// Attempts on files through calls that the keeper has.
pub fn on_files(at: &Places) -> Vec<Attempt> {
    let Places { key, config, fresh_config, fresh, data } = at;
    vec![
        ("open its policy", libc::SYS_openat, json!([HERE, config, READ, 0]), Allowed),
        ("make a file of its own", libc::SYS_openat, json!([HERE, data, MAKE, 0o600]), Allowed),
        ("read another program's file", libc::SYS_openat, json!([HERE, key, READ, 0]), Denied),
        ("read a file of everybody", libc::SYS_openat, json!([HERE, "/etc/passwd", READ, 0]), Denied),
        ("list a folder", libc::SYS_openat, json!([HERE, "/", libc::O_DIRECTORY, 0]), Denied),
        ("read its own memory", libc::SYS_openat, json!([HERE, "/proc/self/mem", READ, 0]), Denied),
        ("write its own memory", libc::SYS_openat, json!([HERE, "/proc/self/mem", libc::O_RDWR, 0]), Denied),
        ("open a terminal", libc::SYS_openat, json!([HERE, "/dev/tty", libc::O_RDWR, 0]), Denied),
        ("make a file outside", libc::SYS_openat, json!([HERE, fresh, MAKE, 0o600]), Denied),
        ("make a file beside its policy", libc::SYS_openat, json!([HERE, fresh_config, MAKE, 0o600]), Denied),
        ("write its policy", libc::SYS_openat, json!([HERE, config, libc::O_WRONLY, 0]), Denied),
        ("empty its policy", libc::SYS_openat, json!([HERE, config, libc::O_TRUNC, 0]), Denied),
        ("change another file", libc::SYS_openat, json!([HERE, key, libc::O_RDWR, 0]), Denied),
        ("remove another file", libc::SYS_unlink, json!([key]), Denied),
        ("remove its policy", libc::SYS_unlink, json!([config]), Denied),
        ("replace its policy", libc::SYS_rename, json!([data, config]), Denied),
        ("carry its policy away", libc::SYS_rename, json!([config, data]), Denied),
        ("carry its data out", libc::SYS_rename, json!([data, fresh]), Denied),
        ("remove its policy from its folder", libc::SYS_unlinkat, json!([HERE, config, 0]), Denied),
        ("remove the file of its own", libc::SYS_unlink, json!([data]), Allowed),
    ]
}

/// Attempts on files through calls that no process of the daemon has.
fn on_names(at: &Places) -> Vec<Attempt> {
    let Places { key, config, fresh, .. } = at;
    let own = ordinary_uid();
    vec![
        ("open the old way", libc::SYS_open, json!([key, READ, 0]), Fatal),
        ("open the new way", libc::SYS_openat2, json!([HERE, key, vec![0; 24], 24]), Fatal),
        ("creat", libc::SYS_creat, json!([fresh, 0o600]), Fatal),
        ("truncate", libc::SYS_truncate, json!([config, 0]), Fatal),
        ("mkdir", libc::SYS_mkdir, json!([fresh, 0o700]), Fatal),
        ("mkdirat", libc::SYS_mkdirat, json!([HERE, fresh, 0o700]), Fatal),
        ("rmdir", libc::SYS_rmdir, json!([fresh]), Fatal),
        ("mknod", libc::SYS_mknod, json!([fresh, libc::S_IFIFO | 0o600, 0]), Fatal),
        ("link", libc::SYS_link, json!([config, fresh]), Fatal),
        ("linkat", libc::SYS_linkat, json!([HERE, config, HERE, fresh, 0]), Fatal),
        ("symlink", libc::SYS_symlink, json!([config, fresh]), Fatal),
        ("symlinkat", libc::SYS_symlinkat, json!([config, HERE, fresh]), Fatal),
        ("unlinkat of a folder", libc::SYS_unlinkat, json!([HERE, config, libc::AT_REMOVEDIR]), Fatal),
        ("renameat", libc::SYS_renameat, json!([HERE, key, HERE, config]), Fatal),
        ("renameat2", libc::SYS_renameat2, json!([HERE, key, HERE, config, libc::RENAME_EXCHANGE]), Fatal),
        ("chmod", libc::SYS_chmod, json!([config, 0o666]), Fatal),
        ("fchmod", libc::SYS_fchmod, json!([2, 0o666]), Fatal),
        ("fchmodat", libc::SYS_fchmodat, json!([HERE, config, 0o666]), Fatal),
        ("chown", libc::SYS_chown, json!([config, own, own]), Fatal),
        ("fchown", libc::SYS_fchown, json!([2, own, own]), Fatal),
        ("lchown", libc::SYS_lchown, json!([config, own, own]), Fatal),
        ("fchownat", libc::SYS_fchownat, json!([HERE, config, own, own, 0]), Fatal),
        ("utimensat", libc::SYS_utimensat, json!([HERE, config, 0, 0]), Fatal),
        ("setxattr", libc::SYS_setxattr, json!([config, "user.x", "y", 1, 0]), Fatal),
        ("chdir", libc::SYS_chdir, json!(["/"]), Fatal),
        ("chroot", libc::SYS_chroot, json!(["/"]), Fatal),
    ]
}

/// Attempts to talk to others.
fn on_the_network() -> Vec<Attempt> {
    let loopback = [2, 0, 0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let (stream, datagram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
    vec![
        ("a TCP socket", libc::SYS_socket, json!([libc::AF_INET, stream, 0]), Fatal),
        ("a TCP socket over IPv6", libc::SYS_socket, json!([libc::AF_INET6, stream, 0]), Fatal),
        ("a UDP socket", libc::SYS_socket, json!([libc::AF_INET, datagram, 0]), Fatal),
        ("a raw socket", libc::SYS_socket, json!([libc::AF_INET, libc::SOCK_RAW, 1]), Fatal),
        ("a packet socket", libc::SYS_socket, json!([libc::AF_PACKET, datagram, 0]), Fatal),
        ("a netlink socket", libc::SYS_socket, json!([libc::AF_NETLINK, libc::SOCK_RAW, 0]), Fatal),
        ("a vsock socket", libc::SYS_socket, json!([libc::AF_VSOCK, stream, 0]), Fatal),
        ("a Unix socket", libc::SYS_socket, json!([libc::AF_UNIX, stream, 0]), Fatal),
        ("a pair of sockets", libc::SYS_socketpair, json!([libc::AF_UNIX, stream, 0, vec![0; 8]]), Fatal),
        ("connect", libc::SYS_connect, json!([3, loopback, 16]), Fatal),
        ("bind", libc::SYS_bind, json!([3, loopback, 16]), Fatal),
        ("listen", libc::SYS_listen, json!([3, 8]), Fatal),
        (
            "setsockopt",
            libc::SYS_setsockopt,
            json!([3, libc::SOL_SOCKET, libc::SO_PASSCRED, vec![0; 4], 4]),
            Fatal,
        ),
    ]
}

/// Attempts to start, watch or harm processes. `pid` is one of the same user.
fn on_processes(pid: u32) -> Vec<Attempt> {
    let io = vec![0; 16];
    let program = "/bin/true";
    vec![
        ("execve", libc::SYS_execve, json!([program, 0, 0]), Fatal),
        ("execveat", libc::SYS_execveat, json!([HERE, program, 0, 0, 0]), Fatal),
        ("fork", libc::SYS_fork, json!([]), Fatal),
        ("vfork", libc::SYS_vfork, json!([]), Fatal),
        ("clone", libc::SYS_clone, json!([libc::SIGCHLD, 0, 0, 0, 0]), Fatal),
        ("clone3", libc::SYS_clone3, json!([vec![0; 88], 88]), Fatal),
        ("ptrace", libc::SYS_ptrace, json!([libc::PTRACE_ATTACH, pid, 0, 0]), Fatal),
        ("process_vm_readv", libc::SYS_process_vm_readv, json!([pid, io, 1, io, 1, 0]), Fatal),
        ("process_vm_writev", libc::SYS_process_vm_writev, json!([pid, io, 1, io, 1, 0]), Fatal),
        ("pidfd_open", libc::SYS_pidfd_open, json!([pid, 0]), Fatal),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, json!([0, 0, 0]), Fatal),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal, json!([0, libc::SIGKILL, 0, 0]), Fatal),
        ("kill", libc::SYS_kill, json!([pid, libc::SIGKILL]), Fatal),
        ("tkill", libc::SYS_tkill, json!([pid, libc::SIGKILL]), Fatal),
        ("tgkill of another", libc::SYS_tgkill, json!([pid, pid, libc::SIGKILL]), Fatal),
        ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo, json!([pid, libc::SIGKILL, vec![0; 128]]), Fatal),
        ("kcmp", libc::SYS_kcmp, json!([pid, pid, 0, 0, 0]), Fatal),
        (
            "change another's limits",
            libc::SYS_prlimit64,
            json!([pid, libc::RLIMIT_CORE, vec![0; 16], 0]),
            Fatal,
        ),
        ("setpriority", libc::SYS_setpriority, json!([0, pid, 19]), Fatal),
        ("wait4", libc::SYS_wait4, json!([-1, 0, libc::WNOHANG, 0]), Fatal),
    ]
}

/// Attempts on the kernel.
fn on_the_kernel() -> Vec<Attempt> {
    vec![
        ("mount", libc::SYS_mount, json!(["none", "/tmp", "tmpfs", 0, 0]), Fatal),
        ("umount", libc::SYS_umount2, json!(["/tmp", 0]), Fatal),
        ("move_mount", libc::SYS_move_mount, json!([HERE, "/tmp", HERE, "/tmp", 0]), Fatal),
        ("pivot_root", libc::SYS_pivot_root, json!(["/", "/"]), Fatal),
        ("setns", libc::SYS_setns, json!([0, 0]), Fatal),
        ("unshare", libc::SYS_unshare, json!([libc::CLONE_NEWUSER]), Fatal),
        ("bpf", libc::SYS_bpf, json!([0, vec![0; 64], 64]), Fatal),
        ("io_uring_setup", libc::SYS_io_uring_setup, json!([8, vec![0; 120]]), Fatal),
        ("userfaultfd", libc::SYS_userfaultfd, json!([1]), Fatal),
        ("perf_event_open", libc::SYS_perf_event_open, json!([vec![0; 128], 0, -1, -1, 0]), Fatal),
        ("keyctl", libc::SYS_keyctl, json!([0, -3, 1]), Fatal),
        ("add_key", libc::SYS_add_key, json!(["user", "k", "v", 1, -3]), Fatal),
        ("request_key", libc::SYS_request_key, json!(["user", "k", 0, 0]), Fatal),
        ("ioctl", libc::SYS_ioctl, json!([0, libc::TIOCSTI, "x"]), Fatal),
        ("init_module", libc::SYS_init_module, json!(["x", 1, ""]), Fatal),
        ("kexec_load", libc::SYS_kexec_load, json!([0, 0, 0, 0]), Fatal),
        ("reboot", libc::SYS_reboot, json!([0, 0, 0, 0]), Fatal),
        ("syslog", libc::SYS_syslog, json!([2, 0, 0]), Fatal),
        ("inotify_init1", libc::SYS_inotify_init1, json!([0]), Fatal),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, json!([HERE, vec![0; 16], 0]), Fatal),
        ("landlock_create_ruleset", libc::SYS_landlock_create_ruleset, json!([0, 0, 1]), Fatal),
        ("a call of the x32 interface", 0x4000_0000 | libc::SYS_open, json!(["/etc/passwd", 0, 0]), Fatal),
        ("a call that no kernel has", 0x0fff_ffff, json!([]), Fatal),
    ]
}

/// Attempts to run foreign code or to loosen the cage.
fn on_itself() -> Vec<Attempt> {
    let (rwx, shared) =
        (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    vec![
        ("wake nobody", libc::SYS_futex, json!([vec![0; 8], libc::FUTEX_WAKE, 1, 0, 0, 0]), Allowed),
        ("executable memory", libc::SYS_mmap, json!([0, 4096, rwx, shared, -1, 0]), Fatal),
        ("a file as code", libc::SYS_mmap, json!([0, 4096, libc::PROT_EXEC, libc::MAP_PRIVATE, 0, 0]), Fatal),
        ("data made executable", libc::SYS_mprotect, json!([vec![0; 8], 4096, libc::PROT_EXEC]), Fatal),
        ("data made executable by key", libc::SYS_pkey_mprotect, json!([vec![0; 8], 4096, rwx, -1]), Fatal),
        ("shared memory", libc::SYS_shmget, json!([0, 4096, 0o1600]), Fatal),
        ("memfd_create", libc::SYS_memfd_create, json!(["x", 0]), Fatal),
        ("memfd_secret", libc::SYS_memfd_secret, json!([0]), Fatal),
        ("personality", libc::SYS_personality, json!([0x0040_0000]), Fatal),
        ("modify_ldt", libc::SYS_modify_ldt, json!([1, vec![0; 16], 16]), Fatal),
        ("arch_prctl", libc::SYS_arch_prctl, json!([0x1001, 0]), Fatal),
        ("be dumpable again", libc::SYS_prctl, json!([libc::PR_SET_DUMPABLE, 1, 0, 0, 0]), Fatal),
        ("another name", libc::SYS_prctl, json!([libc::PR_SET_NAME, "x"]), Fatal),
        ("outlive the parent", libc::SYS_prctl, json!([libc::PR_SET_PDEATHSIG, 0]), Fatal),
        ("other memory maps", libc::SYS_prctl, json!([libc::PR_SET_MM, 0, 0, 0, 0]), Fatal),
        ("core dumps", libc::SYS_prlimit64, json!([0, libc::RLIMIT_CORE, vec![0xff; 16], 0]), Fatal),
        ("core dumps the old way", libc::SYS_setrlimit, json!([libc::RLIMIT_CORE, vec![0xff; 16]]), Fatal),
        ("rt_sigaction", libc::SYS_rt_sigaction, json!([libc::SIGSYS, vec![0; 32], 0, 8]), Fatal),
        ("seccomp", libc::SYS_seccomp, json!([0, 0, 0]), Fatal),
        ("capset", libc::SYS_capset, json!([vec![0; 8], vec![0; 24]]), Fatal),
        ("setuid", libc::SYS_setuid, json!([0]), Fatal),
        ("setgroups", libc::SYS_setgroups, json!([0, 0]), Fatal),
        ("inherit descriptors", libc::SYS_fcntl, json!([2, libc::F_SETFD, 0]), Fatal),
        ("signals from descriptors", libc::SYS_fcntl, json!([2, libc::F_SETOWN, 1]), Fatal),
        ("a second standard error", libc::SYS_dup2, json!([2, 1]), Fatal),
        ("a timer", libc::SYS_timer_create, json!([0, 0, vec![0; 8]]), Fatal),
    ]
}

/// What only the witness may not do: it writes nowhere and reads no terminal.
pub fn on_files_by_the_witness(at: &Places) -> Vec<Attempt> {
    let Places { key, config, fresh, data, .. } = at;
    let changing = [
        ("write", libc::O_WRONLY),
        ("read and write", libc::O_RDWR),
        ("make", libc::O_CREAT),
        ("empty", libc::O_TRUNC),
        ("append", libc::O_APPEND),
    ];
    let mut attempts = vec![
        ("look at /proc", libc::SYS_openat, json!([HERE, "/proc/self/status", READ, 0]), Allowed),
        (
            "a file without a name",
            libc::SYS_openat,
            json!([HERE, "/tmp", libc::O_TMPFILE | libc::O_WRONLY, 0o600]),
            Fatal,
        ),
        ("make a file", libc::SYS_openat, json!([HERE, fresh, MAKE, 0o600]), Fatal),
        ("remove a policy", libc::SYS_unlink, json!([config]), Fatal),
        ("replace a policy", libc::SYS_rename, json!([key, config]), Fatal),
        ("write to its standard output", libc::SYS_write, json!([1, "x", 1]), Fatal),
        ("write to its channel", libc::SYS_write, json!([3, "x", 1]), Fatal),
        ("pwrite64", libc::SYS_pwrite64, json!([2, "x", 1, 0]), Fatal),
        ("ftruncate", libc::SYS_ftruncate, json!([2, 0]), Fatal),
        ("accept connections", libc::SYS_accept4, json!([3, 0, 0, 0]), Fatal),
        ("lock a file", libc::SYS_flock, json!([2, libc::LOCK_EX]), Fatal),
        ("lock memory", libc::SYS_mlock, json!([vec![0; 8], 8]), Fatal),
    ];
    for (what, flags) in changing {
        attempts.push((what, libc::SYS_openat, json!([HERE, config, flags, 0o600]), Fatal));
        attempts.push((what, libc::SYS_openat, json!([HERE, data, flags | libc::O_CLOEXEC, 0o600]), Fatal));
    }
    attempts
}

/// Attempts through calls that neither process has; `bystander` is a process of the same user.
pub fn on_everything(at: &Places, bystander: u32) -> Vec<Attempt> {
    [on_names(at), on_the_network(), on_processes(bystander), on_the_kernel(), on_itself()].concat()
}
