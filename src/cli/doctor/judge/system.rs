//! What the machine offers.

use super::super::{
    facts::{Limit, Memory, Swap, SwapKind, System, Yama},
    row::{Area, Row, State},
};
use crate::sandbox::REQUIRED_ABI;

/// Linux 6.3: memory that can't be made executable. `enforce` does not start on an older one.
const REQUIRED_KERNEL: (u32, u32) = (6, 3);
/// Linux 6.5: a handle on the process that connected.
const WANTED_KERNEL: (u32, u32) = (6, 5);
/// What the daemon locks for its secrets at the start, in bytes; under `enforce` it does not start without.
const LOCKED: u64 = 4 << 20;

pub(super) fn rows(system: &System) -> Vec<Row> {
    let swapped = system.swaps.as_ref().is_none_or(|swaps| {
        swaps.iter().any(|swap| matches!(swap.kind, SwapKind::Unencrypted | SwapKind::Unknown))
    });
    vec![
        kernel(&system.kernel),
        landlock(system.landlock),
        seccomp(system.seccomp),
        memory(&system.memory, swapped),
        yama(&system.yama),
        swap(system.swaps.as_deref()),
    ]
}

fn row(name: &str, found: impl Into<String>, means: impl Into<String>) -> Row {
    Row::ok(Area::System, name, found, means)
}

fn kernel(release: &str) -> Row {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return row("kernel", release, "its version can't be told")
            .but(State::Unknown, "the daemon needs Linux 6.3 or later: compare uname -r");
    };
    let version = (major, minor);
    if version < REQUIRED_KERNEL {
        let means = "it can't give every protection: memory can be made executable (Linux 6.3)";
        return row("kernel", release, means).but(State::Bad, "use Linux 6.5 or later");
    }
    if version < WANTED_KERNEL {
        let means =
            "callers are pinned by their address space only; from 6.5 on also by a handle on the process";
        return row("kernel", release, means).but(State::Warn, "use Linux 6.5 or later");
    }
    row("kernel", release, "it has what the daemon asks of a kernel")
}

fn landlock(abi: Option<u32>) -> Row {
    let Some(abi) = abi else {
        return row("landlock", "none", "files outside the daemon's folders would stay in its reach")
            .but(State::Bad, "boot a kernel with Landlock (Linux 6.2), named in lsm= on its command line");
    };
    // what each ABI added; the seccomp list denies the rest in any case
    let rights: Vec<&str> = [
        (1, "reading and changing files"),
        (2, "links across folders"),
        (3, "truncating"),
        (4, "TCP"),
        (5, "device controls"),
        (6, "signals and abstract sockets"),
    ]
    .into_iter()
    .filter(|(since, _)| abi >= *since)
    .map(|(_, right)| right)
    .collect();
    let row = row("landlock", format!("ABI {abi}"), format!("the kernel can deny {}", rights.join(", ")));
    if i64::from(abi) < REQUIRED_ABI as i64 {
        row.but(State::Bad, "use Linux 6.2 or later, whose Landlock controls every change of a file")
    } else {
        row
    }
}

fn seccomp(known: Option<bool>) -> Row {
    let means = "the kernel can end a process that makes a system call beyond its list";
    match known {
        Some(true) => row("seccomp", "offered", means),
        Some(false) => row("seccomp", "none", "a daemon that was taken over could make any system call")
            .but(State::Bad, "use a kernel with CONFIG_SECCOMP_FILTER"),
        None => row("seccomp", "not told", means)
            .but(State::Unknown, "start the daemon: it does not start where seccomp is missing"),
    }
}

fn memory(memory: &Memory, swapped: bool) -> Row {
    let whose = if memory.of_daemon { "the daemon" } else { "a program that you start here" };
    let limit = match memory.limit {
        Limit::Unlimited => "any amount".to_owned(),
        Limit::Bytes(bytes) => format!("{} KiB", bytes / 1024),
    };
    let used = memory.locked.map(|locked| format!(", {locked} KiB used")).unwrap_or_default();
    let row = row(
        "memory locking",
        format!("{limit}{used}"),
        format!("{whose} may lock that much memory, which then never reaches the swap"),
    );
    if matches!(memory.limit, Limit::Bytes(bytes) if bytes < LOCKED) {
        return row.but(State::Bad, "raise it to 8 MiB: ulimit -l 8192, or LimitMEMLOCK=8M in its unit");
    }
    if memory.locked == Some(0) && swapped {
        return row.but(
            State::Warn,
            "the daemon has locked nothing, so secrets in use could be swapped out: turn swap off, or encrypt it",
        );
    }
    row
}

fn yama(yama: &Yama) -> Row {
    const SCOPE: &str = "sysctl kernel.yama.ptrace_scope=1, as root";
    let open = "any process of yours can read a registered program while it holds a secret (not the daemon)";
    match yama {
        Yama::Scope(0) => row("yama", "ptrace_scope 0", open).but(State::Warn, SCOPE),
        Yama::Scope(scope) => row(
            "yama",
            format!("ptrace_scope {scope}"),
            "a process of yours can't trace one that it did not start",
        ),
        Yama::Absent => {
            row("yama", "none", open).but(State::Warn, "use a kernel with Yama (CONFIG_SECURITY_YAMA)")
        }
        Yama::Unknown => row("yama", "not told", open).but(State::Unknown, SCOPE),
    }
}

fn swap(swaps: Option<&[Swap]>) -> Row {
    let Some(swaps) = swaps else {
        return row("swap", "not told", "memory that is swapped out is on the disk")
            .but(State::Unknown, "compare with: swapon --show");
    };
    let names = |kind| {
        let names = swaps.iter().filter(|swap| swap.kind == kind).map(|swap| swap.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let (plain, unknown) = (names(SwapKind::Unencrypted), names(SwapKind::Unknown));
    let programs = "secrets in a program's memory may be written there, and stay after a shutdown";
    if !plain.is_empty() {
        return row("swap", format!("not encrypted: {plain}"), programs).but(
            State::Warn,
            "encrypt it (crypttab with a random key), use zram, or turn it off: swapoff -a",
        );
    }
    if !unknown.is_empty() {
        return row("swap", unknown, format!("if it is not encrypted, {programs}"))
            .but(State::Unknown, "make sure that the disk below it is encrypted");
    }
    let found = match (swaps.is_empty(), names(SwapKind::Encrypted)) {
        (true, _) => "none".to_owned(),
        (false, encrypted) if encrypted.is_empty() => "compressed memory".to_owned(),
        (false, encrypted) => format!("encrypted: {encrypted}"),
    };
    row("swap", found, "no secret reaches a disk in the clear by swapping")
}
