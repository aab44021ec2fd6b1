//! What is really enforced, asked of the kernel by the thread that wants to know. Landlock and seccomp bind threads, so
//! only a worker's answer counts for the workers.

use std::{fs::File, io::ErrorKind};

use caps::CapSet;
use serde::Serialize;

use crate::sys::{
    locked::{self, Kept},
    process,
};

/// One protection and whether the kernel says that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Protection {
    /// Its name.
    pub name: &'static str,
    /// Whether it holds for the thread that asked.
    pub enforced: bool,
    /// What it means.
    pub means: &'static str,
}

const LOCKED_MEMORY: &str = "locked_memory";

impl Protection {
    /// What is true of it now: that not all secrets found room is known only when it happens.
    pub fn now(&self) -> Self {
        let spilled = self.enforced && self.name == LOCKED_MEMORY && locked::spilled();
        let means = if spilled {
            "secrets in memory are never swapped to the disk, but for what did not fit since the daemon started"
        } else {
            self.means
        };
        Self { means, ..*self }
    }
}

/// What was put in force without an error. The kernel tells of any filter and any closed folder, and a daemon in a
/// container has some that are not its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Applied {
    /// [`super::cage`] missed nothing.
    pub landlock: bool,
    /// [`super::filter`] filtered all threads.
    pub seccomp: bool,
}

/// Asks the kernel, from this thread, whether what was `applied` holds.
pub fn probe(applied: Applied) -> Vec<Protection> {
    let protection = |name, enforced, means| Protection { name, enforced, means };
    let answers = process::answers();
    vec![
        protection(
            "landlock",
            applied.landlock && outside_is_closed(),
            "files outside the daemon's own folders are out of reach",
        ),
        protection(
            "seccomp",
            applied.seccomp && answers.seccomp,
            "only listed system calls; another one ends the daemon",
        ),
        protection("no_new_privs", answers.no_new_privileges, "no set-uid program can give privileges"),
        protection("capabilities", no_capabilities(), "no capability is held"),
        protection(
            "not_dumpable",
            answers.not_dumpable,
            "other processes of this user can't read its memory or trace it",
        ),
        protection("no_core", answers.no_core, "a crash leaves no memory on the disk"),
        protection(
            LOCKED_MEMORY,
            locked::prepare() != Kept::Swappable,
            "secrets in memory are never swapped to the disk",
        ),
        protection("no_exec_memory", answers.no_executable_memory, "memory can't be made executable"),
    ]
}

/// A folder that everybody may read, unless a sandbox says otherwise.
fn outside_is_closed() -> bool {
    File::open("/").is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

fn no_capabilities() -> bool {
    [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable]
        .into_iter()
        .all(|set| caps::read(None, set).is_ok_and(|held| held.is_empty()))
}
