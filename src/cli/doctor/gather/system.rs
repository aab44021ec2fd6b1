//! What the machine offers, as the kernel tells everybody.

use std::{fs, io, path::Path};

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use rustix::process::{Resource, getrlimit};

use super::super::facts::{Limit, Memory, Swap, SwapKind, System, Yama};

/// The ABIs that this build knows, the newest first.
const ABIS: [ABI; 7] = [ABI::V7, ABI::V6, ABI::V5, ABI::V4, ABI::V3, ABI::V2, ABI::V1];

/// `daemon` is its pid, where it runs.
pub(super) fn system(daemon: Option<u32>) -> System {
    System {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        landlock: ABIS.into_iter().find(|abi| offers(*abi)).map(|abi| abi as u32),
        seccomp: fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail")
            .ok()
            .map(|actions| actions.split_whitespace().any(|action| action == "trap")),
        memory: memory(daemon),
        yama: yama(),
        swaps: fs::read_to_string("/proc/swaps").ok().map(|swaps| read_swaps(&swaps, swap_kind)),
    }
}

/// Whether the kernel takes a ruleset of this ABI. Making one restricts nobody.
fn offers(abi: ABI) -> bool {
    let ruleset = || {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(abi))?;
        if abi >= ABI::V4 {
            ruleset = ruleset.handle_access(AccessNet::from_all(abi))?;
        }
        if abi >= ABI::V6 {
            ruleset = ruleset.scope(Scope::from_all(abi))?;
        }
        ruleset.create()
    };
    ruleset().is_ok()
}

fn memory(daemon: Option<u32>) -> Memory {
    let theirs = daemon.and_then(|pid| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        Some((locked_limit(&limits)?, fs::read_to_string(format!("/proc/{pid}/status")).ok()?))
    });
    match theirs {
        Some((limit, status)) => Memory { of_daemon: true, limit, locked: locked(&status) },
        None => {
            let limit = getrlimit(Resource::Memlock).current.map_or(Limit::Unlimited, Limit::Bytes);
            Memory { of_daemon: false, limit, locked: None }
        }
    }
}

/// The soft limit in `/proc/P/limits`.
fn locked_limit(limits: &str) -> Option<Limit> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(Limit::Unlimited) } else { soft.parse().ok().map(Limit::Bytes) }
}

/// `VmLck` in `/proc/P/status`, in KiB.
fn locked(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn yama() -> Yama {
    match fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") {
        Ok(scope) => scope.trim().parse().map_or(Yama::Unknown, Yama::Scope),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Yama::Absent,
        Err(_) => Yama::Unknown,
    }
}

fn read_swaps(swaps: &str, kind: impl Fn(&str, &str) -> SwapKind) -> Vec<Swap> {
    let lines = swaps.lines().skip(1);
    let swap = |line: &str| {
        let mut columns = line.split_whitespace();
        let (name, form) = (columns.next()?, columns.next()?);
        Some(Swap { name: name.to_owned(), kind: kind(name, form) })
    };
    lines.filter_map(swap).collect()
}

fn swap_kind(name: &str, form: &str) -> SwapKind {
    let real = fs::canonicalize(name).unwrap_or_else(|_| name.into());
    let device = real.file_name().and_then(|device| device.to_str()).unwrap_or_default();
    if form != "partition" {
        SwapKind::Unknown
    } else if device.starts_with("zram") {
        SwapKind::Memory
    } else if device.starts_with("dm-") {
        let uuid = fs::read_to_string(Path::new("/sys/class/block").join(device).join("dm/uuid"));
        // a mapping of another kind may lie on an encrypted disk
        if uuid.is_ok_and(|uuid| uuid.starts_with("CRYPT-")) {
            SwapKind::Encrypted
        } else {
            SwapKind::Unknown
        }
    } else {
        SwapKind::Unencrypted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max core file size        0                    0                    bytes     \n\
                      Max locked memory         8388608              unlimited            bytes     \n";
        assert_eq!(locked_limit(limits), Some(Limit::Bytes(8 << 20)));
        assert_eq!(locked_limit(&limits.replace("8388608", "unlimited")), Some(Limit::Unlimited));
        assert_eq!(locked_limit(""), None);
        assert_eq!(locked("VmPin:\t0 kB\nVmLck:\t    4096 kB\n"), Some(4096));
        let swaps = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/dm-1  partition 1 0 -2\n/swapfile file 1 0 -3\n";
        let read =
            read_swaps(swaps, |_, form| if form == "file" { SwapKind::Unknown } else { SwapKind::Encrypted });
        let read: Vec<_> = read.iter().map(|swap| (swap.name.as_str(), swap.kind)).collect();
        assert_eq!(read, [("/dev/dm-1", SwapKind::Encrypted), ("/swapfile", SwapKind::Unknown)]);
        assert!(read_swaps("Filename Type Size Used Priority\n", |_, _| SwapKind::Unknown).is_empty());
    }
}
