//! Orders of threads around the store's locks, played by a scheduler: `cargo test --features schedules --lib schedules`.
//!
//! Half of the orders are random, half prefer one thread and change over at a few moments, which finds what needs a
//! certain order of few steps. A failure prints the order that led to it.

use std::sync::Arc;

use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
    thread,
};

use super::*;

/// Orders of each kind.
const ORDERS: usize = 150;
/// Most changes of the thread that is preferred.
const CHANGES: usize = 3;

fn played(play: fn()) {
    let config = || {
        let mut config = Config::new();
        // redb and the ciphers are deep without optimisation
        config.stack_size = 2 << 20;
        config
    };
    Runner::new(RandomScheduler::new(ORDERS), config()).run(play);
    Runner::new(PctScheduler::new(CHANGES, ORDERS), config()).run(play);
}

fn material() -> KeyMaterial {
    KeyMaterial::Credential(Buffer::from(&[b'k'; 32][..]))
}

fn both(value: &str) -> PendingChange {
    write("s", &[("a", value), ("b", value)], &[])
}

/// The one value of both targets. None while it can't be told.
fn value(store: &dyn Store) -> Option<String> {
    let names = Names::Exact(targets(&["a", "b"]));
    match read(store, "s", names) {
        Ok(words) => {
            let value = words[0].strip_prefix("a=").unwrap().to_owned();
            assert_eq!(words, [format!("a={value}"), format!("b={value}")], "a torn batch");
            Some(value)
        }
        Err(StoreError::Locked) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Reads a few times. A value that another one followed never comes back.
fn watch(store: &dyn Store) {
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..3 {
        let Some(value) = value(store) else { continue };
        if seen.last() != Some(&value) {
            assert!(!seen.contains(&value), "{value} came back");
            seen.push(value);
        }
    }
}

/// What a change became: done, or nothing at all.
fn changed(store: &dyn Store, value: &'static str) -> Option<&'static str> {
    match commit_one(store, both(value)) {
        Ok(_) => Some(value),
        Err(StoreError::Locked) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn batches_are_whole_and_none_is_lost_while_the_vault_is_locked_and_unlocked() {
    played(|| {
        let dir = scratch();
        let vault = Lockable::new(open_taken(dir.path()).create(&material()).unwrap()).unwrap();
        done(&vault, both("0"));
        let slot = Slot::peek(dir.path()).unwrap().unwrap();
        let carried = KeyHolder::new(&slot, &material()).unwrap().carry_key(&[1; 32]).unwrap();
        let vault = Arc::new(vault);
        let with = |work: fn(&Lockable) -> Option<&'static str>| {
            let vault = Arc::clone(&vault);
            thread::spawn(move || work(&vault))
        };
        let writers = [with(|vault| changed(vault, "1")), with(|vault| changed(vault, "2"))];
        let reader = with(|vault| {
            watch(vault);
            None
        });
        let log = with(|vault| {
            vault.note_audit(crate::chain::Head { seq: 7, ..Default::default() }, None);
            vault.keep_audit().unwrap();
            vault.settle(1);
            let _ = (vault.outbox(), vault.count(), vault.policy_seal());
            None
        });
        vault.lock().unwrap();
        vault.unlock(&[1; 32], &carried).unwrap();
        vault.resume();
        let kept: Vec<&str> = writers.into_iter().filter_map(|writer| writer.join().unwrap()).collect();
        reader.join().unwrap();
        log.join().unwrap();
        let last = value(&*vault).unwrap();
        assert!(
            if kept.is_empty() { last == "0" } else { kept.contains(&last.as_str()) },
            "{last}: {kept:?}"
        );
        let told = lines(&*vault).len();
        assert!(told >= kept.len() && told <= kept.len() + 1, "{told} lines of {kept:?}");
        // what was noted while it was locked goes with the next commit
        vault.keep_audit().unwrap();
        assert_eq!(vault.audit_memory().unwrap().head.seq, 7);
        Arc::into_inner(vault).unwrap().close().unwrap();
        assert_eq!(value(&open_taken(dir.path()).open(&material()).unwrap()), Some(last));
    });
}

#[test]
fn batches_are_whole_while_they_are_carried_to_the_keychain() {
    played(|| {
        let dir = scratch();
        let fake = keychain::Fake::new();
        let vault = keychain::open(dir.path(), &fake).unwrap();
        done(&vault, both("0"));
        let vault = Arc::new(vault);
        let with = |work: fn(&Vault)| {
            let vault = Arc::clone(&vault);
            thread::spawn(move || work(&vault))
        };
        let threads = [
            with(|vault| done(vault, both("1"))),
            with(|vault| done(vault, both("2"))),
            with(|vault| watch(vault)),
            with(|vault| while vault.carry().unwrap() {}),
        ];
        while vault.carry().unwrap() {}
        for one in threads {
            one.join().unwrap();
        }
        while vault.carry().unwrap() {}
        assert_eq!(vault.waiting(), 0);
        let last = value(&*vault).unwrap();
        assert!(["1", "2"].contains(&last.as_str()));
        Arc::into_inner(vault).unwrap().close().unwrap();
        assert_eq!(value(&keychain::open(dir.path(), &fake).unwrap()), Some(last));
    });
}
