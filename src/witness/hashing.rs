//! Digests of executables, of the very inode that runs, and what may be remembered of them.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, fstatfs, openat};
use sha2::{Digest as _, Sha256};

use super::{custody::unseen, examine::file_key, libraries::only_root_writes, protocol::Unseen};
use crate::{
    caller::{DigestCache, FileKey},
    digest::Digest,
    sys::peer::alive,
};

/// Longest executable that is hashed: the largest tools in use are some hundred MB.
pub(super) const MAX_EXECUTABLE: u64 = 1 << 30;
/// Up to this length a file is hashed even when the process that ran it is gone, so that a tool that exits at its
/// refusal still reaches the pending queue. About 30 ms of work.
pub(super) const SMALL: u64 = 32 << 20;
const CHUNK: usize = 256 * 1024;
/// Filesystems that stamp a file at its first write through shared memory, as at every other. Filesystems in memory don't:
/// there a page that was read can be written without a fault. Of an overlay nobody tells what is below.
const STAMPING: [u64; 5] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0xf2f5_2010, // F2FS
    0xca45_1a4e, // bcachefs
];

/// The cache and its rule, shared by the desk and its hashing lanes.
pub(super) struct Fingerprints(Mutex<DigestCache>);

impl Fingerprints {
    pub(super) fn new(running_files_are_protected: bool) -> Self {
        Self(Mutex::new(DigestCache::new(running_files_are_protected)))
    }

    /// The digest of this version of a file, if it may be known already.
    pub(super) fn known(&self, key: &FileKey) -> Option<Digest> {
        self.cache().find(key)
    }

    /// Reads the file and returns its digest. `file` must be a descriptor of the inode that `key` describes; the key must
    /// be the same afterwards. Given up when a large file's process, pinned by `peer`, has ended.
    pub(super) fn make(
        &self,
        mut file: File,
        key: &FileKey,
        peer: Option<&OwnedFd>,
    ) -> Result<Digest, Unseen> {
        if key.size > MAX_EXECUTABLE {
            return Err(Unseen::TooLarge);
        }
        if let Some(digest) = self.known(key) {
            return Ok(digest);
        }
        let began = now();
        let mut hash = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        let mut left = key.size;
        while left > 0 {
            if key.size > SMALL && peer.is_some_and(|peer| !alive(peer.as_fd())) {
                return Err(Unseen::Gone);
            }
            let length = file.read(&mut buffer).map_err(|_| Unseen::Unreadable)?;
            if length == 0 {
                return Err(Unseen::Changed);
            }
            hash.update(buffer.get(..length).unwrap_or_default());
            left = left.saturating_sub(length as u64);
        }
        let after = fstat(&file).map_err(unseen)?;
        if file_key(&after) != *key {
            return Err(Unseen::Changed);
        }
        let digest = Digest::new(hash.finalize().into());
        if changes_show(&file, &after) {
            self.cache().remember(*key, digest, began);
        }
        Ok(digest)
    }

    /// The digest of the file at a path, if the path leads to this version of it.
    pub(super) fn of_path(&self, path: &Path, key: &FileKey) -> Option<Digest> {
        // whoever can write the folder may put a pipe there between two looks: opening it must not wait for a writer
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(CWD, path, flags, Mode::empty()).ok()?;
        let stat = fstat(&file).ok()?;
        let same = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && file_key(&stat) == *key;
        if same { self.make(File::from(file), key, None).ok() } else { None }
    }

    fn cache(&self) -> MutexGuard<'_, DigestCache> {
        // the cache is whole between its calls, whatever thread panicked
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nobody but root can change this file without its key becoming another.
fn changes_show(file: &File, stat: &Stat) -> bool {
    only_root_writes(stat)
        || fstatfs(file).is_ok_and(|found| STAMPING.contains(&(found.f_type as u64 & 0xffff_ffff)))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::fs::{AtFlags, mknodat, statat};

    use super::*;

    #[test]
    fn a_pipe_or_link_put_in_a_files_place_is_not_waited_for_and_has_no_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let fingerprints = Fingerprints::new(true);
        let key = |path: &Path| file_key(&statat(CWD, path, AtFlags::empty()).unwrap());
        assert_eq!(fingerprints.of_path(&path, &key(&path)), None);
        std::fs::remove_file(&path).unwrap();
        let real = folder.path().join("real.so");
        std::fs::write(&real, "code").unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        assert_eq!(fingerprints.of_path(&path, &key(&path)), None);
        assert!(fingerprints.of_path(&real, &key(&real)).is_some());
    }
}
