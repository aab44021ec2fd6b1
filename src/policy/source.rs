//! config.json as it is now: re-read when it changed, refused when anybody else could have written it.

use std::{
    fs::{self, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};

use super::{document::Policy, parse::ConfigError, stamp::Stamp};
use crate::{digest::Digest, sys::filesystem::open};

/// Largest config.json, in bytes: some ten thousand entries. What is larger is a mistake or an attack on our memory.
pub const MAX_CONFIG: u64 = 4 * 1024 * 1024;

/// Write permission of group and others. A POSIX ACL that lets somebody else write shows in the group's bits too.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why there is no policy. Every request is denied meanwhile; the last good policy is never used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The content is not a policy.
    #[error("{}:{}:{}: {}", file.display(), error.line, error.column, error.what)]
    Broken {
        /// The file.
        file: PathBuf,
        /// Where and what.
        error: ConfigError,
    },
    /// Somebody else could have written it.
    #[error("{} is not trusted: {why}", file.display())]
    Untrusted {
        /// The file or folder.
        file: PathBuf,
        /// What speaks against it.
        why: Distrust,
    },
    /// It is not what was sealed.
    #[error("{} is not the policy that was sealed{}", file.display(), broken_too(.file, .broken.as_ref()))]
    Unsealed {
        /// The file.
        file: PathBuf,
        /// The SHA-256 of what is there instead; none where nothing is.
        found: Option<Digest>,
        /// Where it is no policy at all, and why: an edit that was never finished.
        broken: Option<ConfigError>,
    },
    /// The system did not let it be read.
    #[error("{} can't be read: {kind}", file.display())]
    Unreadable {
        /// The file or folder.
        file: PathBuf,
        /// What the system said.
        kind: io::ErrorKind,
    },
}

fn broken_too(file: &Path, broken: Option<&ConfigError>) -> String {
    broken.map_or_else(String::new, |ConfigError { line, column, what }| {
        format!("; {}:{line}:{column}: {what}", file.display())
    })
}

/// What speaks against a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Distrust {
    /// A folder, fifo, socket or device.
    #[error("it is not a regular file")]
    NotAFile,
    /// Its owner could change it at any time.
    #[error("its owner is neither the user nor root")]
    ForeignOwner,
    /// Others can change it.
    #[error("group or others can write it")]
    Writable,
    /// Beyond [`MAX_CONFIG`].
    #[error("it is larger than 4 MiB")]
    TooLarge,
    /// The link's target is gone, for example because it lies on a disk that is not there now.
    #[error("it is a symbolic link to a file that does not exist")]
    DanglingLink,
}

/// Where the policy comes from. Keeps the last reading and repeats it whenever that may matter.
///
/// A symbolic link is followed, since users keep such files in a repository of their own; then the file it leads to and
/// that file's folder must be trusted too.
#[derive(Debug)]
pub struct PolicySource {
    path: PathBuf,
    seen: Option<Seen>,
    policy: Arc<Policy>,
    effective: Effective,
    generation: u64,
    /// The SHA-256 that the file must have, where the policy is sealed.
    seal: Option<[u8; 32]>,
}

/// The state of the file at the last good reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    uid: u32,
    stamp: Stamp,
    /// Whether the stamp was old enough to be believed.
    settled: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Effective {
    /// Nothing was read yet, or it was refused.
    Refused,
    /// There is no file.
    Missing,
    /// The SHA-256 of the file.
    Bytes([u8; 32]),
}

impl PolicySource {
    /// The policy in the file at `path`. Nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let policy = Arc::new(Policy::empty());
        Self {
            path: path.into(),
            seen: None,
            policy,
            effective: Effective::Refused,
            generation: 0,
            seal: None,
        }
    }

    /// The policy as it is now, for the user `uid`. A missing file is the empty policy.
    ///
    /// Costs one stat when nothing changed. Errors: see [`PolicyError`]; an error is never remembered, so that a repair
    /// counts at once, also one of a folder's rights, which the file's stamp doesn't show.
    pub fn current(&mut self, uid: u32) -> Result<Arc<Policy>, PolicyError> {
        self.current_at(uid, SystemTime::now())
    }

    /// From now on only a file with this SHA-256 is the policy; None for any file.
    pub fn accept_only(&mut self, seal: Option<[u8; 32]>) {
        if self.seal != seal {
            self.seal = seal;
            self.seen = None;
        }
    }

    /// Grows whenever another content became effective, or none. An open connection compares it with the number that it
    /// was verified under.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The policy that was looked at last, without another look; the empty one where it was refused.
    pub fn last(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The hash of the file that is in force; none where there is no file, or none that can be used.
    pub fn digest(&self) -> Option<Digest> {
        match self.effective {
            Effective::Bytes(hash) => Some(Digest::new(hash)),
            Effective::Refused | Effective::Missing => None,
        }
    }

    fn current_at(&mut self, uid: u32, now: SystemTime) -> Result<Arc<Policy>, PolicyError> {
        if self.unchanged(uid) {
            return Ok(Arc::clone(&self.policy));
        }
        match self.reread(uid, now) {
            Ok(()) => Ok(Arc::clone(&self.policy)),
            Err(error) => {
                self.seen = None;
                self.become_effective(Effective::Refused, Policy::empty);
                Err(error)
            }
        }
    }

    fn unchanged(&self, uid: u32) -> bool {
        // what is not there is looked for again: a link that leads nowhere is an error and no missing file
        fs::metadata(&self.path)
            .is_ok_and(|metadata| self.seen == Some(Seen { uid, stamp: Stamp::of(&metadata), settled: true }))
    }

    fn reread(&mut self, uid: u32, now: SystemTime) -> Result<(), PolicyError> {
        let Some(loaded) = load(&self.path, uid)? else {
            if self.seal.is_some() {
                return Err(PolicyError::Unsealed { file: self.path.clone(), found: None, broken: None });
            }
            self.seen = None;
            self.become_effective(Effective::Missing, Policy::empty);
            return Ok(());
        };
        let digest: [u8; 32] = Sha256::digest(&loaded.bytes).into();
        if self.seal.is_some_and(|seal| seal != digest) {
            let broken = Policy::parse(&loaded.bytes).err();
            let found = Some(Digest::new(digest));
            return Err(PolicyError::Unsealed { file: self.path.clone(), found, broken });
        }
        let effective = Effective::Bytes(digest);
        if self.effective != effective {
            let parsed = Policy::parse(&loaded.bytes);
            let policy = parsed.map_err(|error| PolicyError::Broken { file: self.path.clone(), error })?;
            self.become_effective(effective, || policy);
        }
        self.seen = Some(Seen { uid, stamp: loaded.stamp, settled: loaded.stamp.settled(now) });
        Ok(())
    }

    fn become_effective(&mut self, effective: Effective, policy: impl FnOnce() -> Policy) {
        if self.effective != effective {
            self.effective = effective;
            self.policy = Arc::new(policy());
            self.generation += 1;
        }
    }
}

/// A file that only its user and root can have written.
pub(super) struct Loaded {
    pub(super) bytes: Vec<u8>,
    pub(super) stamp: Stamp,
    /// Where it really is, links resolved: what an edit must replace.
    pub(super) real: PathBuf,
}

/// Reads the file at `path`, links followed, if it and the folders of link and target are trusted. None if it is missing.
pub(super) fn load(path: &Path, uid: u32) -> Result<Option<Loaded>, PolicyError> {
    let unreadable =
        |file: &Path, error: &io::Error| PolicyError::Unreadable { file: file.into(), kind: error.kind() };
    let untrusted = |file: &Path, why| PolicyError::Untrusted { file: file.into(), why };
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match fs::symlink_metadata(path) {
                Ok(_) => Err(untrusted(path, Distrust::DanglingLink)),
                Err(_) => Ok(None),
            };
        }
        Err(error) => return Err(unreadable(path, &error)),
    };
    for folder in [path.parent(), real.parent()].into_iter().flatten() {
        let metadata = fs::metadata(folder).map_err(|error| unreadable(folder, &error))?;
        judge(&metadata, uid).map_err(|why| untrusted(folder, why))?;
    }
    // the descriptor is judged, not the path; no second link is followed, and a fifo can't make us wait
    let file = open(&real).map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(untrusted(path, Distrust::NotAFile));
    }
    judge(&metadata, uid).map_err(|why| untrusted(path, why))?;
    let mut bytes = Vec::new();
    (&file).take(MAX_CONFIG + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(untrusted(path, Distrust::TooLarge));
    }
    Ok(Some(Loaded { bytes, stamp: Stamp::of(&metadata), real }))
}

/// Whether only `uid` and root can change what `metadata` describes.
pub(super) fn judge(metadata: &Metadata, uid: u32) -> Result<(), Distrust> {
    if metadata.uid() != uid && metadata.uid() != 0 {
        return Err(Distrust::ForeignOwner);
    }
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(Distrust::Writable);
    }
    Ok(())
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
