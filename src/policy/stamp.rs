//! Whether a file is still the one that was read.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How old a time stamp must be before an equal one means an equal file. Stamps have the granularity of the kernel's
/// tick (or of a FAT or NFS server: up to 2 s), so a file written twice within one grain shows the same stamp twice.
/// Git's index has the same rule.
const GRAIN: Duration = Duration::from_secs(2);

/// What changes whenever a file's content or rights change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The inode.
    pub(super) fn inode(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// Whether no write after `read_at` can leave this stamp as it is. A stamp in the future is never settled.
    pub(super) fn settled(&self, read_at: SystemTime) -> bool {
        let limit = read_at.checked_sub(GRAIN).and_then(|limit| limit.duration_since(UNIX_EPOCH).ok());
        let Some(limit) = limit.and_then(|limit| i64::try_from(limit.as_secs()).ok()) else { return false };
        self.modified.0 < limit && self.changed.0 < limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stamp_whose_two_times_are_past_by_more_than_their_grain_is_settled() {
        let read_at = UNIX_EPOCH + Duration::from_secs(1000);
        let limit = 1000 - i64::try_from(GRAIN.as_secs()).unwrap_or_default();
        let settled = |modified: i64, changed: i64| {
            let stamp = Stamp { dev: 1, ino: 1, size: 1, modified: (modified, 0), changed: (changed, 0) };
            stamp.settled(read_at)
        };
        assert!(settled(limit - 1, limit - 1));
        for (modified, changed) in [(limit, limit - 1), (limit - 1, limit), (2000, 0), (0, 2000)] {
            assert!(!settled(modified, changed), "{modified} {changed}");
        }
    }
}
