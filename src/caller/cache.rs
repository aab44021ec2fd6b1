//! Which digests may be remembered, and for how long.

use std::collections::{HashMap, VecDeque};

use super::facts::FileKey;
use crate::digest::Digest;

/// Most digests that are remembered: a user runs fewer registered tools; strangers push out the oldest.
const CAPACITY: usize = 512;
/// A file that changed less than this before it was hashed is hashed again next time: a second write within the same
/// tick of the filesystem's clock would leave its times as they are. The rule git uses for racy timestamps.
const RACY: i64 = 2_000_000_000;

/// Digests by the version of the file they were made from.
#[derive(Debug)]
pub struct DigestCache {
    capacity: usize,
    digests: HashMap<FileKey, Digest>,
    order: VecDeque<FileKey>,
}

impl DigestCache {
    /// An empty cache. It never remembers anything where the kernel lets running files be written.
    pub fn new(running_files_are_protected: bool) -> Self {
        let capacity = if running_files_are_protected { CAPACITY } else { 0 };
        Self { capacity, digests: HashMap::new(), order: VecDeque::new() }
    }

    /// The digest of this version of the file.
    pub fn find(&self, key: &FileKey) -> Option<Digest> {
        self.digests.get(key).copied()
    }

    /// Remembers a digest that was made from the file when `key` was true before and after, `hashed_at` nanoseconds
    /// since 1970 being the time before it was read.
    ///
    /// Nothing is remembered of a file that changed within 2 s before, or in the future by its own clock.
    pub fn remember(&mut self, key: FileKey, digest: Digest, hashed_at: i64) {
        let newest = key.changed.max(key.modified);
        if hashed_at.saturating_sub(newest) < RACY {
            return;
        }
        if self.digests.insert(key, digest).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.capacity {
            if let Some(oldest) = self.order.pop_front() {
                self.digests.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn key(inode: u64, changed: i64) -> FileKey {
        FileKey { device: 1, inode, size: 10, modified: 5 * SECOND, changed }
    }

    #[test]
    fn a_file_that_changed_within_two_seconds_is_never_remembered() {
        let mut cache = DigestCache::new(true);
        let digest = Digest::new([1; 32]);
        cache.remember(key(1, 10 * SECOND), digest, 11 * SECOND);
        assert_eq!(cache.find(&key(1, 10 * SECOND)), None);
        cache.remember(key(1, 10 * SECOND), digest, 9 * SECOND);
        assert_eq!(cache.find(&key(1, 10 * SECOND)), None, "a clock that was set back proves nothing");
        cache.remember(key(1, 10 * SECOND), digest, 12 * SECOND);
        assert_eq!(cache.find(&key(1, 10 * SECOND)), Some(digest));
        assert_eq!(cache.find(&key(1, 11 * SECOND)), None, "another version of the file");
    }

    #[test]
    fn strangers_push_out_the_oldest_digest_and_the_cache_stays_bounded() {
        let mut cache = DigestCache::new(true);
        for inode in 0..2 * CAPACITY as u64 {
            cache.remember(key(inode, 0), Digest::new([0; 32]), 100 * SECOND);
        }
        assert_eq!(cache.digests.len(), CAPACITY);
        assert_eq!(cache.order.len(), CAPACITY);
        assert!(cache.find(&key(0, 0)).is_none());
        assert!(cache.find(&key(2 * CAPACITY as u64 - 1, 0)).is_some());
    }
}
