//! A digest that is remembered is the digest of what the file holds now, whatever its clock and its owner do.

use keychain_auth::{
    caller::{DigestCache, FileKey},
    digest::Digest,
};
use proptest::{collection::vec, prelude::*};

/// Nanoseconds.
const SECOND: i64 = 1_000_000_000;

#[derive(Debug, Clone)]
enum Step {
    /// Other bytes of the same length are written in place.
    Write(u8),
    /// Its owner sets the time of its last change; the kernel notes when he did.
    Touch(i64),
    Wait(i64),
    /// The witness hashes it, which takes a while, and remembers.
    Hash(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let moment = prop_oneof![0..20_i64, 0..SECOND / 100, 0..3 * SECOND];
    prop_oneof![
        any::<u8>().prop_map(Step::Write),
        (0..20 * SECOND).prop_map(Step::Touch),
        moment.clone().prop_map(Step::Wait),
        moment.prop_map(Step::Hash),
    ]
}

/// One file on a filesystem whose times are whole ticks.
struct File {
    tick: i64,
    now: i64,
    content: u8,
    key: FileKey,
}

impl File {
    fn stamp(&self) -> i64 {
        self.now - self.now % self.tick
    }
}

proptest! {
    #![proptest_config(crate::config(512))]

    #[test]
    fn a_remembered_digest_is_that_of_the_content(
        tick in prop_oneof![Just(1), Just(SECOND / 250), Just(SECOND), Just(2 * SECOND)],
        steps in vec(step(), 1..60),
    ) {
        let digest = |content: u8| Digest::new([content; 32]);
        let key = FileKey { device: 1, inode: 2, size: 3, modified: 0, changed: 0 };
        let mut file = File { tick, now: 100 * SECOND, content: 0, key };
        let mut cache = DigestCache::new(true);
        for step in steps {
            match step {
                Step::Write(content) => {
                    file.content = content;
                    file.key.modified = file.stamp();
                    file.key.changed = file.stamp();
                }
                Step::Touch(time) => {
                    file.key.modified = time - time % tick;
                    file.key.changed = file.stamp();
                }
                Step::Wait(time) => file.now += time,
                Step::Hash(takes) => {
                    let begun = file.now;
                    file.now += takes;
                    cache.remember(file.key, digest(file.content), begun);
                }
            }
            if let Some(found) = cache.find(&file.key) {
                prop_assert_eq!(found, digest(file.content), "an older digest for what is there now");
            }
        }
    }

    #[test]
    fn where_running_files_can_be_written_nothing_is_remembered(changed in 0..SECOND, inode in 0..10_u64) {
        let key = FileKey { device: 1, inode, size: 3, modified: 0, changed };
        let mut cache = DigestCache::new(false);
        cache.remember(key, Digest::new([1; 32]), 100 * SECOND);
        prop_assert_eq!(cache.find(&key), None);
    }
}
