//! Who is calling: every combination of facts that fails a check is refused by a check that failed, and nothing turns
//! off more than it names.

use std::collections::{BTreeSet, HashMap};

use keychain_auth::{
    caller::{
        Check, Custody, DigestCache, Executable, Facts, FileKey, ForeignCode, Namespace, Observer, Terms,
        verify,
    },
    digest::Digest,
};
use proptest::{collection::vec, option, prelude::*, sample::subsequence};

use crate::admitted::{DIGEST, PATH, honest_facts, observer};

/// What no entry can turn off, as the contract of this room says it.
const NEVER: [Check; 4] =
    [Check::PeerGone, Check::ForeignUid, Check::ExecutableChanged, Check::ForeignSender];
const LIBRARY: &str = "/opt/plugin.so";

/// One thing that is wrong with the facts, and the check that says so.
#[derive(Debug, Clone)]
enum Wrong {
    Gone,
    Uid(usize, u32),
    ChangedWhileLooked,
    NotMapped,
    UserNamespace(Namespace),
    PidNamespace(Namespace),
    NotHeld,
    HeldAcrossExec,
    UnderFilter,
    Untold,
    Tracer(u32),
    Code(ForeignCode),
    Inexact,
    Unfaithful,
}

impl Wrong {
    fn check(&self) -> Check {
        match self {
            Self::Gone => Check::PeerGone,
            Self::Uid(..) => Check::ForeignUid,
            Self::ChangedWhileLooked | Self::NotMapped => Check::ExecutableChanged,
            Self::UserNamespace(_) | Self::PidNamespace(_) => Check::ForeignNamespace,
            Self::NotHeld | Self::HeldAcrossExec | Self::UnderFilter | Self::Untold => {
                Check::DescriptorInherited
            }
            Self::Tracer(_) => Check::Traced,
            Self::Code(_) => Check::InjectedCode,
            Self::Inexact | Self::Unfaithful => Check::UnreadablePeer,
        }
    }

    fn spoil(&self, facts: &mut Facts) {
        match self {
            Self::Gone => facts.alive = false,
            Self::Uid(which, uid) => facts.uids[*which] = *uid,
            Self::ChangedWhileLooked => facts.executable_stable = false,
            Self::NotMapped => facts.executable_mapped = false,
            Self::UserNamespace(namespace) => facts.user_namespace = *namespace,
            Self::PidNamespace(namespace) => facts.pid_namespace = *namespace,
            Self::NotHeld => facts.custody = Custody::NotHeld,
            Self::HeldAcrossExec => facts.custody = Custody::HeldAcrossExec,
            Self::UnderFilter => facts.custody = Custody::HeldUnderFilter,
            Self::Untold => facts.custody = Custody::Untold,
            Self::Tracer(pid) => facts.tracer = *pid,
            Self::Code(code) => facts.foreign_code.push(code.clone()),
            Self::Inexact => facts.executable.exact = false,
            Self::Unfaithful => facts.faithful_filesystem = false,
        }
    }
}

/// Another namespace than the daemon's, also one that shares a number with it.
fn other_namespace() -> impl Strategy<Value = Namespace> {
    let numbers = (5..8_u64, 6..9_u64).prop_map(|(device, inode)| Namespace { device, inode });
    numbers.prop_filter("the daemon's own", |namespace| *namespace != observer().user_namespace)
}

fn foreign_code() -> impl Strategy<Value = ForeignCode> {
    let digest = option::of(prop_oneof![Just([1; 32]), Just([2; 32])]);
    (prop_oneof![Just(LIBRARY), Just("/opt/other.so"), Just("")], digest).prop_map(|(path, digest)| {
        ForeignCode { path: path.to_owned(), key: None, digest: digest.map(Digest::new) }
    })
}

fn wrong() -> impl Strategy<Value = Wrong> {
    prop_oneof![
        Just(Wrong::Gone),
        (0..4_usize, prop_oneof![Just(0), 10..u32::MAX]).prop_map(|(which, uid)| Wrong::Uid(which, uid)),
        Just(Wrong::ChangedWhileLooked),
        Just(Wrong::NotMapped),
        other_namespace().prop_map(Wrong::UserNamespace),
        other_namespace().prop_map(Wrong::PidNamespace),
        Just(Wrong::NotHeld),
        Just(Wrong::HeldAcrossExec),
        Just(Wrong::UnderFilter),
        Just(Wrong::Untold),
        (1..u32::MAX).prop_map(Wrong::Tracer),
        foreign_code().prop_map(Wrong::Code),
        Just(Wrong::Inexact),
        Just(Wrong::Unfaithful),
    ]
}

fn relaxations() -> impl Strategy<Value = BTreeSet<Check>> {
    subsequence(Check::ALL.to_vec(), 0..=Check::ALL.len()).prop_map(|checks| checks.into_iter().collect())
}

fn spoiled(wrongs: &[Wrong]) -> Facts {
    let mut facts = honest_facts();
    wrongs.iter().for_each(|wrong| wrong.spoil(&mut facts));
    facts
}

/// The checks that fail when nothing is relaxed, but for code that a pinned library covers.
fn failing(wrongs: &[Wrong], libraries: &[(String, Digest)]) -> BTreeSet<Check> {
    let pinned = |wrong: &Wrong| match wrong {
        Wrong::Code(code) => {
            code.digest.is_some_and(|digest| libraries.contains(&(code.path.clone(), digest)))
        }
        _ => false,
    };
    wrongs.iter().filter(|wrong| !pinned(wrong)).map(Wrong::check).collect()
}

proptest! {
    #![proptest_config(crate::config(1024))]

    #[test]
    fn facts_that_fail_a_check_are_refused_by_a_check_that_failed(wrongs in vec(wrong(), 1..5)) {
        let nothing = Terms { relax: &BTreeSet::new(), libraries: &[] };
        let untrusted = verify(&spoiled(&wrongs), &observer(), nothing).unwrap_err();
        prop_assert!(failing(&wrongs, &[]).contains(&untrusted.check));
    }

    #[test]
    fn an_entry_turns_off_what_it_names_and_never_the_four(wrongs in vec(wrong(), 0..5), relax in relaxations()) {
        let failing = failing(&wrongs, &[]);
        let stands = |check: &&Check| NEVER.contains(check) || !relax.contains(check);
        let standing: BTreeSet<Check> = failing.iter().filter(stands).copied().collect();
        match verify(&spoiled(&wrongs), &observer(), Terms { relax: &relax, libraries: &[] }) {
            Ok(caller) => {
                prop_assert!(standing.is_empty());
                prop_assert_eq!(caller.relaxed().iter().copied().collect::<BTreeSet<_>>(), failing, "all are recorded");
                prop_assert_eq!((caller.path(), *caller.digest(), caller.pid()), (PATH, DIGEST, 8));
            }
            Err(untrusted) => prop_assert!(standing.contains(&untrusted.check)),
        }
    }

    #[test]
    fn one_relaxation_more_refuses_nobody_who_was_trusted(
        wrongs in vec(wrong(), 0..4), relax in relaxations(), more in relaxations(),
    ) {
        let facts = spoiled(&wrongs);
        let wider: BTreeSet<Check> = relax.union(&more).copied().collect();
        let before = verify(&facts, &observer(), Terms { relax: &relax, libraries: &[] });
        let after = verify(&facts, &observer(), Terms { relax: &wider, libraries: &[] });
        prop_assert!(before.is_err() || after.is_ok());
    }

    #[test]
    fn a_pinned_library_admits_that_path_with_that_hash_only(codes in vec(foreign_code(), 0..4), hash in 1..3_u8) {
        let libraries = [(LIBRARY.to_owned(), Digest::new([hash; 32]))];
        let wrongs: Vec<_> = codes.into_iter().map(Wrong::Code).collect();
        let verdict =
            verify(&spoiled(&wrongs), &observer(), Terms { relax: &BTreeSet::new(), libraries: &libraries });
        prop_assert_eq!(verdict.is_ok(), failing(&wrongs, &libraries).is_empty());
    }

    #[test]
    fn what_the_contract_does_not_judge_decides_nothing(
        pid: u32, deleted: bool, mount in other_namespace(), key in (any::<u64>(), any::<i64>()), digest: [u8; 32],
        path in "/[a-z/]{0,20}", wrongs in vec(wrong(), 0..2),
    ) {
        let plain = spoiled(&wrongs);
        let key = FileKey { device: key.0, inode: key.0, size: key.0, modified: key.1, changed: key.1 };
        let executable = Executable { path, deleted, key, ..plain.executable.clone() };
        let other = Facts { pid, mount_namespace: mount, digest: Digest::new(digest), executable, ..plain.clone() };
        let nothing = Terms { relax: &BTreeSet::new(), libraries: &[] };
        let check = |facts: &Facts| verify(facts, &observer(), nothing).map(drop).map_err(|untrusted| untrusted.check);
        prop_assert_eq!(check(&other), check(&plain));
    }

    #[test]
    fn mounts_of_its_own_are_told_of_whoever_has_them(mount in option::of(other_namespace())) {
        let honest = honest_facts();
        let facts = Facts { mount_namespace: mount.unwrap_or(honest.mount_namespace), ..honest };
        let nothing = Terms { relax: &BTreeSet::new(), libraries: &[] };
        let caller = verify(&facts, &observer(), nothing).unwrap();
        prop_assert_eq!(caller.has_own_mounts(), mount.is_some());
    }

    #[test]
    fn another_daemon_is_another_verdict(uid in 10..u32::MAX, namespace in other_namespace()) {
        let facts = honest_facts();
        let nothing = Terms { relax: &BTreeSet::new(), libraries: &[] };
        for (observer, check) in [
            (Observer { uid, ..observer() }, Check::ForeignUid),
            (Observer { user_namespace: namespace, ..observer() }, Check::ForeignNamespace),
            (Observer { pid_namespace: namespace, ..observer() }, Check::ForeignNamespace),
        ] {
            prop_assert_eq!(verify(&facts, &observer, nothing).unwrap_err().check, check);
        }
    }
}

/// A file on a filesystem whose clock ticks in steps, and a daemon that hashes it now and then. The clock never goes back:
/// only root sets it.
#[derive(Debug, Clone)]
enum Event {
    /// The clock goes on by this many nanoseconds.
    Wait(i64),
    /// Somebody writes the file; its length stays.
    Write(u8),
    /// The daemon wants the digest.
    Ask,
}

fn event() -> impl Strategy<Value = Event> {
    const SECOND: i64 = 1_000_000_000;
    prop_oneof![
        4 => prop_oneof![0..4_000_000_i64, 0..3 * SECOND, Just(2 * SECOND)].prop_map(Event::Wait),
        3 => (0..4_u8).prop_map(Event::Write),
        6 => Just(Event::Ask),
    ]
}

fn version(changed: i64) -> FileKey {
    FileKey { device: 1, inode: 2, size: 3, modified: changed, changed }
}

proptest! {
    #![proptest_config(crate::config(1024))]

    /// The time stamps have a grain of up to two seconds, as on FAT: two writes in one grain leave the same key.
    #[test]
    fn a_remembered_digest_is_always_that_of_the_files_bytes(
        grain in prop_oneof![Just(1_i64), Just(4_000_000), Just(1_000_000_000), Just(2_000_000_000)],
        events in vec(event(), 1..60),
    ) {
        let mut cache = DigestCache::new(true);
        let (mut now, mut content) = (1_780_000_000_000_000_000_i64, 0_u8);
        let mut changed = now - now % grain;
        for event in &events {
            match event {
                Event::Wait(time) => now += time,
                Event::Write(byte) => {
                    content = *byte;
                    changed = now - now % grain;
                }
                Event::Ask => {
                    let truth = Digest::new([content; 32]);
                    match cache.find(&version(changed)) {
                        Some(remembered) => prop_assert_eq!(remembered, truth, "an earlier version's digest"),
                        None => cache.remember(version(changed), truth, now),
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_remembered_within_two_seconds_of_a_change_or_before_it(
        modified in -5..5_i64, changed in -5..5_i64, hashed in -5..10_i64,
    ) {
        const HALF: i64 = 500_000_000;
        let key = FileKey { device: 1, inode: 2, size: 3, modified: modified * HALF, changed: changed * HALF };
        let mut cache = DigestCache::new(true);
        cache.remember(key, Digest::new([1; 32]), hashed * HALF);
        let settled = hashed - modified.max(changed) >= 4;
        prop_assert_eq!(cache.find(&key).is_some(), settled);
    }

    #[test]
    fn the_cache_answers_for_the_very_key_or_not_at_all(
        keys in vec((0..3_u64, 0..3_u64, 0..3_u64, 0..3_i64, 0..3_i64, 0..3_u8), 0..40),
    ) {
        let mut cache = DigestCache::new(true);
        let mut model = HashMap::new();
        for (device, inode, size, modified, changed, digest) in keys {
            let key = FileKey { device, inode, size, modified, changed };
            prop_assert_eq!(cache.find(&key), model.get(&key).copied());
            let digest = Digest::new([digest; 32]);
            cache.remember(key, digest, i64::MAX);
            model.insert(key, digest);
        }
        for (key, digest) in model {
            prop_assert_eq!(cache.find(&key), Some(digest));
        }
    }
}
