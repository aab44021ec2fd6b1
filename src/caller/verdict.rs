//! The verdict over the facts: pure, total, and the only maker of [`VerifiedCaller`].

use std::{collections::BTreeSet, sync::Arc};

use super::{
    check::Check,
    facts::{Custody, Facts, Namespace},
};
use crate::digest::Digest;

/// What the daemon knows of itself, to compare a caller with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observer {
    /// The user that the daemon serves.
    pub uid: u32,
    /// The daemon's user namespace.
    pub user_namespace: Namespace,
    /// The daemon's pid namespace.
    pub pid_namespace: Namespace,
    /// The daemon's mount namespace.
    pub mount_namespace: Namespace,
}

/// What the entry of this executable asks of its callers.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Checks that the entry turns off.
    pub relax: &'a BTreeSet<Check>,
    /// Digests of libraries that the entry admits although the user can write them.
    pub libraries: &'a [(String, Digest)],
}

/// A process that passed every check of its entry. Made only by [`verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct VerifiedCaller(Arc<Passed>);

#[derive(Debug, PartialEq, Eq)]
struct Passed {
    pid: u32,
    path: String,
    digest: Digest,
    relaxed: Vec<Check>,
    own_mounts: bool,
}

impl VerifiedCaller {
    /// The process.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// The canonical path of its executable.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The digest of its executable.
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// Whether it lives in another mount namespace than the daemon, as services with `PrivateTmp=` do: recorded, not
    /// refused, since its executable and libraries were looked at as the inodes that they are.
    pub fn has_own_mounts(&self) -> bool {
        self.0.own_mounts
    }

    /// Checks that failed and that its entry turns off: part of every record.
    pub fn relaxed(&self) -> &[Check] {
        &self.0.relaxed
    }
}

/// The check that refused, and what it saw.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}")]
pub struct Untrusted {
    /// The first check that failed and is not relaxed.
    pub check: Check,
    /// The file that made it fail, where one did.
    pub subject: Option<String>,
    /// Its digest, where it is a library that the user could admit.
    pub digest: Option<Digest>,
}

impl Untrusted {
    /// A check that failed without a file to show.
    pub fn new(check: Check) -> Self {
        Self { check, subject: None, digest: None }
    }
}

/// What a `descriptor_inherited` is about where a filter could have put the connection there.
pub const UNDER_FILTER: &str = "a seccomp filter";
/// What it is about where another network namespace hides who holds the connection.
pub const OTHER_NETWORK: &str = "another network namespace";

/// Checks that no entry can turn off: without them the other facts are about nobody, or about somebody else.
pub const UNRELAXABLE: [Check; 4] =
    [Check::PeerGone, Check::ForeignUid, Check::ExecutableChanged, Check::ForeignSender];

/// Judges the facts. The first failing check that the entry does not turn off refuses.
pub fn verify(facts: &Facts, observer: &Observer, terms: Terms<'_>) -> Result<VerifiedCaller, Untrusted> {
    let mut relaxed = Vec::new();
    for failure in failures(facts, observer, terms.libraries) {
        if UNRELAXABLE.contains(&failure.check) || !terms.relax.contains(&failure.check) {
            return Err(failure);
        }
        relaxed.push(failure.check);
    }
    Ok(VerifiedCaller(Arc::new(Passed {
        pid: facts.pid,
        path: facts.executable.path.clone(),
        digest: facts.digest,
        relaxed,
        own_mounts: facts.mount_namespace != observer.mount_namespace,
    })))
}

/// Every check that these facts fail, most telling first, each at most once.
fn failures(
    facts: &Facts,
    observer: &Observer,
    libraries: &[(String, Digest)],
) -> impl Iterator<Item = Untrusted> {
    let foreign_code = facts.foreign_code.iter().find(|code| {
        !code
            .digest
            .is_some_and(|digest| libraries.iter().any(|(path, hash)| *path == code.path && *hash == digest))
    });
    let foreign_namespace =
        facts.user_namespace != observer.user_namespace || facts.pid_namespace != observer.pid_namespace;
    let foreign_uid = facts.uids.iter().any(|uid| *uid != observer.uid);
    let custodian = match facts.custody {
        Custody::HeldUnderFilter => Some(UNDER_FILTER.to_owned()),
        Custody::Untold => Some(OTHER_NETWORK.to_owned()),
        Custody::NotHeld | Custody::HeldAcrossExec | Custody::HeldCloseOnExec => None,
    };
    let exe = || Some(facts.executable.path.clone());
    [
        (!facts.alive, Check::PeerGone, None),
        (foreign_uid, Check::ForeignUid, None),
        (!facts.executable_stable, Check::ExecutableChanged, exe()),
        (foreign_namespace, Check::ForeignNamespace, None),
        (facts.custody != Custody::HeldCloseOnExec, Check::DescriptorInherited, custodian),
        (facts.tracer != 0, Check::Traced, None),
        // what runs is not the file that /proc names: a forged link, so the digest is somebody else's
        (!facts.executable_mapped, Check::ExecutableChanged, exe()),
        (foreign_code.is_some(), Check::InjectedCode, foreign_code.map(|code| code.path.clone())),
        (!facts.executable.exact || !facts.faithful_filesystem, Check::UnreadablePeer, exe()),
    ]
    .into_iter()
    .filter(|(failed, ..)| *failed)
    .map(move |(_, check, subject)| {
        let digest = foreign_code.filter(|_| check == Check::InjectedCode).and_then(|code| code.digest);
        Untrusted { check, subject, digest }
    })
}
