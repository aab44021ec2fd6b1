//! No way to more privileges, and none left.

use caps::{CapSet, Capability, CapsHashSet};

/// Which capability a process keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// None.
    Nothing,
    /// To look at processes with more capabilities than it has: only for a witness that runs as root, which else could
    /// not examine root's own tools.
    Looking,
}

/// Gives up all capabilities but `keep`, the bounding set too where that is allowed, and every way to get new ones.
///
/// Returns what could not be done, in words.
pub fn drop_privileges(keep: Keep) -> Vec<String> {
    let mut missing = Vec::new();
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        missing.push(format!("no new privileges: {error}"));
    }
    let kept: CapsHashSet = match keep {
        Keep::Nothing => CapsHashSet::new(),
        Keep::Looking => CapsHashSet::from([Capability::CAP_SYS_PTRACE]),
    };
    // first, since it needs a capability itself; without that one there is nothing the bounding set could give back
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false)
        && let Err(error) = caps::clear(None, CapSet::Bounding)
    {
        missing.push(format!("empty bounding set: {error}"));
    }
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        if let Err(error) = caps::clear(None, set) {
            missing.push(format!("empty {set:?} capabilities: {error}"));
        }
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        if let Err(error) = caps::set(None, set, &kept) {
            missing.push(format!("empty {set:?} capabilities: {error}"));
        }
    }
    missing
}
