//! Another key for a vault whose values rest in a keychain: one commit decides, wherever the keychain fails or the crash comes.

use std::sync::{Arc, atomic::Ordering};

use super::{
    keychain::{Fake, carry_all, keychain, open},
    *,
};
use crate::store::{
    keychain::HANDFUL,
    seal::{RecordKey, VaultId},
};

/// More than are fetched at once.
const TARGETS: usize = HANDFUL + 10;

fn filled(dir: &Path, fake: &Arc<Fake>) {
    let vault = open(dir, fake).unwrap();
    let names: Vec<String> = (0..TARGETS).map(|number| format!("target/{number:03}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    done(&vault, write("s", &pairs, &[("env", "test")]));
    carry_all(&vault);
    vault.close().unwrap();
}

fn rekey(dir: &Path, fake: &Arc<Fake>, progress: &mut dyn FnMut(u64, u64)) -> Result<OwnedVault, StoreError> {
    let record = Box::new(|_: &[Target]| b"rekeyed".to_vec());
    open_taken(dir).reaching(keychain(fake)).rekey(&KeyMaterial::File, record, progress)
}

fn is_whole(dir: &Path, fake: &Arc<Fake>) {
    let vault = open(dir, fake).unwrap();
    let all = read(&vault, "s", Names::All).unwrap();
    assert_eq!(all.len(), TARGETS);
    assert!(all.iter().all(|word| word.split_once('=').is_some_and(|(name, value)| name == value)));
    vault.close().unwrap();
}

fn keys(fake: &Fake) -> Vec<RecordKey> {
    fake.items().keys().copied().collect()
}

#[test]
fn a_keychain_that_fails_before_the_commit_of_a_rekey_leaves_the_old_key_and_after_it_the_new_one() {
    let (dir, fake) = (scratch(), Fake::new());
    filled(dir.path(), &fake);
    let (slot, old) = (std::fs::read(dir.path().join("vault.key")).unwrap(), keys(&fake));
    // in the middle of what is read
    let mut told = Vec::new();
    let locked = rekey(dir.path(), &fake, &mut |at, all| {
        told.push((at, all));
        fake.locked.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        (locked.err(), told),
        (Some(StoreError::KeychainLocked), vec![(HANDFUL as u64, TARGETS as u64)])
    );
    // and when nothing was begun yet
    let between = || open_taken(dir.path()).slot().unwrap().is_between_keys();
    assert!(between());
    fake.locked.store(false, Ordering::Relaxed);
    is_whole(dir.path(), &fake);
    assert!(!between());
    fake.locked.store(true, Ordering::Relaxed);
    assert_eq!(rekey(dir.path(), &fake, &mut |_, _| {}).err(), Some(StoreError::KeychainLocked));
    assert!(!between(), "what can't be done is not begun");
    fake.locked.store(false, Ordering::Relaxed);
    // an item that is not the one of its record
    let first = fake.items().insert(old[0], vec![b"rubbish".to_vec()]).unwrap();
    let refused = rekey(dir.path(), &fake, &mut |_, _| {});
    assert!(matches!(refused.err(), Some(StoreError::Damaged(_))));
    fake.items().insert(old[0], first);
    is_whole(dir.path(), &fake);
    assert_eq!(std::fs::read(dir.path().join("vault.key")).unwrap(), slot);
    assert_eq!(keys(&fake), old, "nothing was put or removed");

    let vault = rekey(dir.path(), &fake, &mut |_, _| {}).unwrap();
    assert_eq!(keys(&fake), old, "and by the commit neither");
    assert_eq!(vault.waiting(), 2 * TARGETS);
    vault.close().unwrap();
    for left in [1, 2, 40, 3, 70] {
        fake.left.store(left, Ordering::Relaxed);
        let vault = open(dir.path(), &fake).unwrap();
        while vault.carry() == Ok(true) {}
        drop(vault);
        fake.left.store(0, Ordering::Relaxed);
        is_whole(dir.path(), &fake);
    }
    let vault = open_taken(dir.path()).reaching(keychain(&fake)).open_owned(&KeyMaterial::File).unwrap();
    let (waiting, mut told) = (vault.waiting() as u64, Vec::new());
    vault.carry(&mut |at, all| told.push((at, all))).unwrap();
    assert_eq!(told.last(), Some(&(waiting, waiting)));
    vault.close().unwrap();
    assert_eq!(fake.items().len(), TARGETS);
    assert!(old.iter().all(|at| !fake.items().contains_key(at)), "nothing of the old key is left");
    is_whole(dir.path(), &fake);
}

#[test]
fn changes_on_their_way_to_the_keychain_come_through_a_rekey() {
    let (dir, fake) = (scratch(), Fake::new());
    filled(dir.path(), &fake);
    let vault = open(dir.path(), &fake).unwrap();
    done(&vault, write("s", &[("target/000", "new"), ("more", "1")], &[]));
    done(&vault, delete(selection("s", Names::Exact(targets(&["target/001"])), &[])));
    assert_eq!(vault.waiting(), 3);
    vault.close().unwrap();
    for _ in 0..2 {
        rekey(dir.path(), &fake, &mut |_, _| {}).unwrap().close().unwrap();
    }
    let vault = open(dir.path(), &fake).unwrap();
    let wanted = Names::Exact(targets(&["target/000", "target/001", "more", "target/002"]));
    let read_back = || read(&vault, "s", wanted.clone()).unwrap();
    assert_eq!(read_back(), ["target/000=new", "more=1", "target/002=target/002"]);
    carry_all(&vault);
    assert_eq!(read_back(), ["target/000=new", "more=1", "target/002=target/002"]);
    assert_eq!(fake.items().len(), TARGETS, "one removed, one more");
}

#[test]
fn verify_tries_every_item_says_what_it_could_not_try_and_writes_nothing() {
    let (dir, fake) = (scratch(), Fake::new());
    filled(dir.path(), &fake);
    let verify = || {
        let taken = open_taken(dir.path()).reaching(keychain(&fake));
        taken.verify(&KeyMaterial::File, &mut |_, _| {}).unwrap()
    };
    let found = verify();
    assert!(found.is_whole() && found.whole == TARGETS as u64);
    let there = found.keychain.unwrap();
    assert_eq!((there.whole, there.waiting, there.foreign), (TARGETS as u64, 0, 0));
    let vault = open(dir.path(), &fake).unwrap();
    done(&vault, write("s", &[("target/000", "new")], &[]));
    done(&vault, delete(selection("s", Names::Exact(targets(&["target/001"])), &[])));
    vault.close().unwrap();
    fake.items().insert([9; 32], vec![Vec::new()]);
    let found = verify();
    assert!(found.is_whole(), "{found:?}");
    let there = found.keychain.unwrap();
    assert_eq!((there.whole, there.waiting, there.foreign), (TARGETS as u64 - 2, 2, 1));
    // each item by itself, also behind the first handful
    let good = fake.items().clone();
    let vault = open(dir.path(), &fake).unwrap();
    carry_all(&vault);
    drop(vault);
    let carried = fake.items().clone();
    for at in carried.keys().filter(|at| **at != [9; 32]) {
        let harmed = fake.items().remove(at).unwrap();
        let found = verify();
        assert_eq!((found.damaged.len(), found.is_whole()), (1, false));
        assert_eq!(found.damaged[0].what, "its item in the keychain is missing");
        let mut changed = harmed[0].clone();
        *changed.last_mut().unwrap() ^= 1;
        // beside another one that is no use either
        fake.items().insert(*at, vec![changed, Vec::new()]);
        assert_eq!(verify().damaged[0].what, "its item in the keychain was changed");
        fake.items().insert(*at, vec![b"rubbish".to_vec(), harmed[0].clone()]);
        assert!(verify().is_whole(), "what is right is found beside it");
        fake.items().insert(*at, harmed);
    }
    *fake.items() = good;
    let earlier = verify();
    assert_eq!((earlier.damaged.len(), earlier.is_whole()), (1, false));
    assert_eq!(earlier.damaged[0].what, "its item in the keychain is of an earlier version");
    fake.locked.store(true, Ordering::Relaxed);
    let found = verify();
    assert!(!found.is_whole() && found.damaged.is_empty() && found.problems.is_empty());
    assert_eq!(found.keychain.unwrap().untried, Some((TARGETS as u64 - 1, StoreError::KeychainLocked)));
}

/// A keychain that gives every item, and does not say which there are.
struct Unlisted(Arc<Fake>);

impl Items for Unlisted {
    fn ready(&self) -> Result<(), StoreError> {
        self.0.ready()
    }

    fn list(&self, _: &VaultId) -> Result<Vec<RecordKey>, StoreError> {
        Err(StoreError::Unreachable("no answer in time".to_owned()))
    }

    fn get(&self, vault: &VaultId, keys: &[RecordKey], take: Take<'_>) -> Result<(), StoreError> {
        self.0.get(vault, keys, take)
    }

    fn put(&self, vault: &VaultId, key: &RecordKey, sealed: &[u8]) -> Result<(), StoreError> {
        self.0.put(vault, key, sealed)
    }

    fn delete(&self, vault: &VaultId, key: &RecordKey) -> Result<(), StoreError> {
        self.0.delete(vault, key)
    }
}

#[test]
fn a_keychain_that_does_not_say_which_items_it_has_is_not_called_tried() {
    let (dir, fake) = (scratch(), Fake::new());
    filled(dir.path(), &fake);
    let taken = open_taken(dir.path()).reaching(Keychain::by_one_way(Arc::new(Unlisted(fake))));
    let found = taken.verify(&KeyMaterial::File, &mut |_, _| {}).unwrap();
    assert_eq!((found.whole, found.damaged.len(), found.problems.len()), (TARGETS as u64, 0, 0));
    assert!(!found.is_whole(), "{found:?}");
    let untried = found.keychain.unwrap().untried;
    assert_eq!(untried, Some((0, StoreError::Unreachable("no answer in time".to_owned()))));
}

#[test]
fn an_order_to_remove_what_is_there_is_found_by_verify_as_by_a_start() {
    let (dir, fake) = (scratch(), Fake::new());
    filled(dir.path(), &fake);
    super::damage::edit(dir.path(), |transaction| {
        let at = *fake.items().keys().next().unwrap();
        transaction.open_table(super::super::disk::GONE).unwrap().insert(&at, ()).unwrap();
    });
    let taken = open_taken(dir.path()).reaching(keychain(&fake));
    let found = taken.verify(&KeyMaterial::File, &mut |_, _| {}).unwrap();
    drop(taken);
    let refused = open(dir.path(), &fake).err();
    let Some(StoreError::Damaged(what)) = refused else { panic!("{refused:?}") };
    assert_eq!((found.problems.as_slice(), found.is_whole()), (&[what][..], false));
}
