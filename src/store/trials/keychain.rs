//! A vault whose values rest in a keychain: one in memory that can fail at any moment, and a real gnome-keyring.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use redb::ReadableDatabase;

use super::*;
use crate::{
    broker::{
        Lane,
        trials::{keyring::Keyring, keyring_or_skip, lanes},
    },
    chain::{Checkpoint, Head},
    store::{
        disk::{GONE, RECORDS},
        seal::{RecordKey, VaultId, has_value, label_part},
    },
};

/// A keychain in memory.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) items: Mutex<BTreeMap<RecordKey, Vec<Vec<u8>>>>,
    pub(super) locked: AtomicBool,
    /// How many more changes it takes before it can't be reached; 0 for no end.
    pub(super) left: AtomicU32,
}

const UNREACHABLE: u32 = u32::MAX;

impl Fake {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn items(&self) -> std::sync::MutexGuard<'_, BTreeMap<RecordKey, Vec<Vec<u8>>>> {
        self.items.lock().unwrap()
    }

    fn change(&self) -> Result<(), StoreError> {
        self.ready()?;
        match self.left.load(Ordering::Relaxed) {
            0 => {}
            1 => self.left.store(UNREACHABLE, Ordering::Relaxed),
            left => self.left.store(left - 1, Ordering::Relaxed),
        }
        Ok(())
    }
}

impl Items for Fake {
    fn ready(&self) -> Result<(), StoreError> {
        if self.locked.load(Ordering::Relaxed) {
            Err(StoreError::KeychainLocked)
        } else if self.left.load(Ordering::Relaxed) == UNREACHABLE {
            Err(StoreError::Unreachable("played".to_owned()))
        } else {
            Ok(())
        }
    }

    fn list(&self, _vault: &VaultId) -> Result<Vec<RecordKey>, StoreError> {
        self.ready().map(|()| self.items().keys().copied().collect())
    }

    fn get(&self, _vault: &VaultId, keys: &[RecordKey], take: Take<'_>) -> Result<(), StoreError> {
        self.ready()?;
        for key in keys {
            let items = self.items().get(key).cloned().unwrap_or_default();
            items.iter().try_for_each(|item| take(key, item))?;
        }
        Ok(())
    }

    fn put(&self, _vault: &VaultId, key: &RecordKey, sealed: &[u8]) -> Result<(), StoreError> {
        self.change()?;
        self.items().insert(*key, vec![sealed.to_vec()]);
        Ok(())
    }

    fn delete(&self, _vault: &VaultId, key: &RecordKey) -> Result<(), StoreError> {
        self.change()?;
        self.items().remove(key);
        Ok(())
    }
}

pub(super) fn keychain(fake: &Arc<Fake>) -> Keychain {
    Keychain::by_one_way(Arc::clone(fake) as Arc<dyn Items>)
}

pub(super) fn open_with(dir: &Path, keychain: Keychain) -> Result<Vault, StoreError> {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        let taken = Taken::take(dir).map(|taken| taken.in_keychain(keychain.clone()));
        let opened = taken.and_then(|taken| match taken.slot() {
            Some(_) => taken.open(&KeyMaterial::File),
            None => taken.create(&KeyMaterial::File),
        });
        match opened {
            Err(StoreError::InUse) if Instant::now() < until => thread::yield_now(),
            opened => return opened,
        }
    }
}

pub(super) fn open(dir: &Path, fake: &Arc<Fake>) -> Result<Vault, StoreError> {
    open_with(dir, keychain(fake))
}

pub(super) fn carry_all(vault: &Vault) {
    while vault.carry().unwrap() {}
    assert_eq!(vault.waiting(), 0);
}

/// A vault whose changes are carried to the keychain before anybody hears of them, beside those who read.
struct Carried(Vault);

impl Store for Carried {
    fn read(&self, query: Authorized<Query>) -> Result<Committed, StoreError> {
        self.0.read(query)
    }

    fn commit(&self, changes: Vec<PendingChange>) -> Vec<Result<Committed, StoreError>> {
        let outcomes = self.0.commit(changes);
        carry_all(&self.0);
        outcomes
    }

    fn outbox(&self) -> Result<Outbox, StoreError> {
        self.0.outbox()
    }

    fn settle(&self, id: u64) {
        self.0.settle(id);
    }

    fn kind(&self) -> StoreKind {
        self.0.kind()
    }

    fn carry(&self) -> Result<bool, StoreError> {
        self.0.carry()
    }

    fn waiting(&self) -> usize {
        self.0.waiting()
    }

    fn lost(&self) -> usize {
        self.0.lost()
    }

    fn note_audit(&self, head: Head, ended: Option<Checkpoint>) {
        self.0.note_audit(head, ended);
    }

    fn keep_audit(&self) -> Result<(), StoreError> {
        self.0.keep_audit()
    }

    fn audit_memory(&self) -> Result<AuditMemory, StoreError> {
        self.0.audit_memory()
    }
}

#[test]
fn the_vault_in_a_keychain_behaves_as_a_store_before_anything_is_carried_there() {
    behaviour::suite(&|| {
        let dir = scratch();
        let vault = open(dir.path(), &Fake::new()).unwrap();
        (Some(dir), Box::new(vault))
    });
}

#[test]
fn the_vault_in_a_keychain_behaves_as_a_store_once_all_is_carried_there() {
    behaviour::suite(&|| {
        let dir = scratch();
        let vault = open(dir.path(), &Fake::new()).unwrap();
        (Some(dir), Box::new(Carried(vault)))
    });
}

fn real(keyring: &Keyring) -> Keychain {
    let [reading, asking, carrying] = lanes(keyring).map(|lane: Lane| Arc::new(lane) as Arc<dyn Items>);
    Keychain { reading, asking, carrying }
}

#[test]
fn the_vault_in_a_real_keyring_behaves_as_a_store() {
    let Some((keyring_dir, keyring)) = keyring_or_skip() else { return };
    for behaviour in behaviour::LIGHT {
        let dir = scratch();
        let vault = open_with(dir.path(), real(&keyring)).unwrap();
        behaviour(&Carried(vault));
    }
    drop((keyring, keyring_dir));
}

#[test]
fn what_is_carried_is_in_the_keychain_only_and_survives_both() {
    let (dir, fake) = (scratch(), Fake::new());
    let vault = open(dir.path(), &fake).unwrap();
    done(&vault, write("s", &[("a", "1"), ("b", "2")], &[("env", "dev")]));
    assert!(fake.items().is_empty());
    carry_all(&vault);
    assert_eq!(fake.items().len(), 2);
    let records = vault.records().unwrap();
    for row in redb::ReadableTable::iter(&*records).unwrap() {
        assert!(!has_value(row.unwrap().1.value()), "the file still holds a value");
    }
    drop((records, vault));
    let vault = open(dir.path(), &fake).unwrap();
    assert_eq!(vault.waiting(), 0);
    assert_eq!(read(&vault, "s", Names::All).unwrap(), ["a=1", "b=2"]);
    done(&vault, delete(selection("s", Names::Exact(targets(&["a"])), &[])));
    assert_eq!(read(&vault, "s", Names::All).unwrap(), ["b=2"]);
    assert_eq!(fake.items().len(), 2, "the item of what was removed is still there");
    drop(vault);
    let vault = open(dir.path(), &fake).unwrap();
    assert_eq!(vault.waiting(), 1, "and is removed after a start");
    carry_all(&vault);
    assert_eq!(fake.items().len(), 1);
}

#[test]
fn a_batch_is_whole_wherever_the_keychain_fails_on_the_way() {
    for taken in 1..8 {
        let (dir, fake) = (scratch(), Fake::new());
        let vault = open(dir.path(), &fake).unwrap();
        done(&vault, write("s", &[("a", "0"), ("b", "0"), ("c", "0"), ("d", "0")], &[]));
        carry_all(&vault);
        let batch = |value: &'static str| write("s", &["a", "b", "c", "e"].map(|name| (name, value)), &[]);
        fake.left.store(taken, Ordering::Relaxed);
        let results =
            vault.commit(vec![batch("1"), delete(selection("s", Names::Exact(targets(&["d"])), &[]))]);
        assert!(results.iter().all(Result::is_ok));
        let carried = vault.carry();
        assert_eq!(carried.is_ok(), taken >= 5, "{taken}: {carried:?}");
        assert!(carried.is_ok() || vault.commit(vec![batch("2")]).iter().all(Result::is_err));
        let vault = if taken % 2 == 0 {
            drop(vault);
            open(dir.path(), &fake).unwrap()
        } else {
            vault
        };
        fake.left.store(0, Ordering::Relaxed);
        let whole = ["a=1", "b=1", "c=1", "e=1"];
        assert_eq!(read(&vault, "s", Names::All).unwrap(), whole, "after {taken}");
        carry_all(&vault);
        assert_eq!(read(&vault, "s", Names::All).unwrap(), whole, "after {taken}");
        assert_eq!(fake.items().len(), 4);
    }
}

#[test]
fn a_locked_keychain_serves_and_changes_nothing() {
    let (dir, fake) = (scratch(), Fake::new());
    let vault = open(dir.path(), &fake).unwrap();
    done(&vault, write("s", &[("a", "1")], &[]));
    fake.locked.store(true, Ordering::Relaxed);
    for values in [true, false] {
        let answer = vault.read(query(selection("s", Names::All, &[]), values));
        assert_eq!(answer.err(), Some(StoreError::KeychainLocked), "also what was not carried yet");
    }
    assert_eq!(commit_one(&vault, write("s", &[("a", "2")], &[])).err(), Some(StoreError::KeychainLocked));
    assert_eq!(vault.carry(), Err(StoreError::KeychainLocked));
    drop(vault);
    let vault = open(dir.path(), &fake).unwrap();
    fake.locked.store(false, Ordering::Relaxed);
    assert_eq!(read(&vault, "s", Names::All).unwrap(), ["a=1"]);
    assert_eq!(lines(&vault), ["write a"]);
}

#[test]
fn what_is_done_to_the_items_is_damage_or_without_effect_never_less_or_older() {
    type Harm<'h> = (&'h str, &'h dyn Fn(&mut BTreeMap<RecordKey, Vec<Vec<u8>>>, &[RecordKey], &[Vec<u8>]));
    let harms: [Harm<'_>; 6] = [
        ("removed", &|items, keys, _| drop(items.remove(&keys[0]))),
        ("changed", &|items, keys, _| items.get_mut(&keys[0]).unwrap()[0][150] ^= 1),
        ("cut", &|items, keys, _| items.get_mut(&keys[0]).unwrap()[0].truncate(150)),
        ("emptied", &|items, keys, _| items.get_mut(&keys[0]).unwrap()[0].clear()),
        ("an older one", &|items, keys, old| items.get_mut(&keys[0]).unwrap()[0] = old[0].clone()),
        ("swapped", &|items, keys, _| {
            let (one, two) = (items[&keys[0]].clone(), items[&keys[1]].clone());
            items.extend([(keys[0], two), (keys[1], one)]);
        }),
    ];
    for (what, harm) in harms {
        let (dir, fake) = (scratch(), Fake::new());
        let vault = open(dir.path(), &fake).unwrap();
        done(&vault, write("s", &[("a", "1"), ("b", "1")], &[]));
        carry_all(&vault);
        let old: Vec<Vec<u8>> = fake.items().values().map(|items| items[0].clone()).collect();
        done(&vault, write("s", &[("a", "2"), ("b", "2")], &[]));
        carry_all(&vault);
        let keys: Vec<RecordKey> = fake.items().keys().copied().collect();
        let good = fake.items().clone();
        harm(&mut fake.items(), &keys, &old);
        let answer = read(&vault, "s", Names::All);
        assert!(matches!(answer, Err(StoreError::Damaged(_))), "{what}: {answer:?}");
        *fake.items() = good;
        assert_eq!(read(&vault, "s", Names::All).unwrap(), ["a=2", "b=2"], "{what} and put back");
        // something beside it, before and after
        fake.items().get_mut(&keys[0]).unwrap().insert(0, old[0].clone());
        fake.items().get_mut(&keys[0]).unwrap().push(b"rubbish".to_vec());
        fake.items().insert([9; 32], vec![old[1].clone()]);
        assert_eq!(read(&vault, "s", Names::All).unwrap(), ["a=2", "b=2"], "something was added");
    }
}

#[test]
fn items_that_are_lost_or_foreign_are_counted_and_nothing_else() {
    let (dir, fake) = (scratch(), Fake::new());
    let vault = open(dir.path(), &fake).unwrap();
    let difference = |vault: &Vault| {
        let found = vault.compare(vault.carrier.as_ref().unwrap()).unwrap();
        (found.missing.len(), found.foreign)
    };
    done(&vault, write("s", &[("a", "1"), ("b", "1"), ("c", "1")], &[]));
    assert_eq!(difference(&vault), (0, 0), "nothing is carried yet");
    carry_all(&vault);
    done(&vault, write("s", &[("a", "2")], &[]));
    done(&vault, delete(selection("s", Names::Exact(targets(&["b"])), &[])));
    assert_eq!(difference(&vault), (0, 0), "with a change and a removal on their way");
    carry_all(&vault);
    assert_eq!(difference(&vault), (0, 0));
    let lost = *fake.items().keys().next().unwrap();
    fake.items().remove(&lost);
    fake.items().insert([9; 32], vec![Vec::new()]);
    fake.items().insert([8; 32], vec![Vec::new()]);
    assert_eq!(difference(&vault), (1, 2));
    carry_all(&vault);
    assert_eq!(fake.items().len(), 3, "what is foreign is left alone");
}

#[test]
fn what_the_keychain_lost_is_counted_from_the_start_or_the_read_that_sees_it_until_it_is_mended() {
    let (dir, fake) = (scratch(), Fake::new());
    let vault = open(dir.path(), &fake).unwrap();
    done(&vault, write("s", &[("a", "1"), ("b", "1"), ("c", "1")], &[]));
    carry_all(&vault);
    assert_eq!(vault.lost(), 0);
    let kept = fake.items().clone();
    fake.items().clear();
    assert!(read(&vault, "s", Names::Exact(targets(&["a", "b"]))).is_err());
    assert_eq!(vault.lost(), 2, "a read has seen it");
    drop(vault);
    let vault = open(dir.path(), &fake).unwrap();
    carry_all(&vault);
    assert_eq!(vault.lost(), 3, "a start looks at all");
    // written anew, removed, and put back
    done(&vault, write("s", &[("a", "2")], &[]));
    carry_all(&vault);
    assert_eq!(vault.lost(), 2);
    done(&vault, delete(selection("s", Names::Exact(targets(&["b"])), &[])));
    carry_all(&vault);
    assert_eq!(vault.lost(), 1);
    for (at, items) in kept {
        fake.items().entry(at).or_insert(items);
    }
    assert_eq!(read(&vault, "s", Names::All).unwrap(), ["a=2", "c=1"]);
    assert_eq!(vault.lost(), 0);
}

#[test]
fn what_is_done_to_the_file_between_commit_and_carrying_is_damage() {
    let (dir, fake) = (scratch(), Fake::new());
    let vault = open(dir.path(), &fake).unwrap();
    done(&vault, write("s", &[("a", "1")], &[]));
    carry_all(&vault);
    done(&vault, write("s", &[("a", "2"), ("b", "2")], &[]));
    drop(vault);
    type Rows = [(RecordKey, Vec<u8>)];
    let tamper = |change: &dyn Fn(&redb::WriteTransaction, &Rows)| {
        let copy = copy_dir(dir.path());
        let db = redb::Database::open(copy.path().join("vault.redb")).unwrap();
        let table = db.begin_read().unwrap().open_table(RECORDS).unwrap();
        let rows: Vec<_> = redb::ReadableTable::iter(&table)
            .unwrap()
            .map(|row| row.map(|(at, sealed)| (*at.value(), sealed.value().to_vec())).unwrap())
            .collect();
        drop(table);
        let transaction = db.begin_write().unwrap();
        change(&transaction, &rows);
        transaction.commit().unwrap();
        drop(db);
        fs::set_permissions(copy.path().join("vault.redb"), fs::Permissions::from_mode(0o600)).unwrap();
        open(copy.path(), &fake).and_then(|vault| read(&vault, "s", Names::All))
    };
    assert_eq!(tamper(&|_, _| {}), Ok(vec!["a=2".to_owned(), "b=2".to_owned()]));
    let cut = tamper(&|transaction, rows| {
        let mut table = transaction.open_table(RECORDS).unwrap();
        for (at, sealed) in rows {
            table.insert(at, label_part(sealed).unwrap()).unwrap();
        }
    });
    assert!(matches!(cut, Err(StoreError::Damaged(_))), "values that are in neither place: {cut:?}");
    let gone = tamper(&|transaction, rows| {
        let mut table = transaction.open_table(GONE).unwrap();
        table.insert(&rows[0].0, ()).unwrap();
    });
    assert!(matches!(gone, Err(StoreError::Damaged(_))), "an order to remove what is there: {gone:?}");
    assert_eq!(fake.items().len(), 1, "nothing was removed");
}

#[test]
fn a_vault_stays_in_the_store_that_it_was_made_for() {
    let fake = Fake::new();
    let (in_file, in_keychain) = (scratch(), scratch());
    drop(open_vault(in_file.path()).unwrap());
    drop(open(in_keychain.path(), &fake).unwrap());
    let (vault, keychain) = (StoreKind::Vault, StoreKind::Keychain);
    let other = |pinned, asked| Some(StoreError::OtherStore { pinned, asked });
    assert_eq!(open(in_file.path(), &fake).err(), other(vault, keychain));
    assert_eq!(open_vault(in_keychain.path()).err(), other(keychain, vault));
    assert!(open(in_keychain.path(), &fake).is_ok());
    assert!(open_vault(in_file.path()).is_ok());
}

#[test]
fn changes_are_refused_while_too_many_wait() {
    let (dir, fake) = (scratch(), Fake::new());
    let vault = open(dir.path(), &fake).unwrap();
    let names: Vec<String> = (0..1024).map(|number| format!("t{number}")).collect();
    let mut batches = 0;
    let refused = loop {
        let service = format!("s{batches}");
        let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        match commit_one(&vault, write(&service, &pairs, &[])) {
            Ok(_) => batches += 1,
            Err(error) => break error,
        }
        assert!(batches < 100);
    };
    assert_eq!((refused, batches), (StoreError::Backlog, 17));
    vault.carry().unwrap();
    while vault.waiting() > 16 * 1024 {
        vault.carry().unwrap();
    }
    done(&vault, write("s", &[("a", "1")], &[]));
    assert_eq!(read(&vault, "s0", Names::All).unwrap().len(), 1024);
}

/// Figures, not a gate: `cargo test --release --lib a_real_keyring_of -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn a_real_keyring_of_1_000_secrets() {
    use super::speed::{best, say};
    let Some((_dir, keyring)) = keyring_or_skip() else { return };
    let dir = scratch();
    let vault = open_with(dir.path(), real(&keyring)).unwrap();
    let names: Vec<String> = (0..1000).map(|n| format!("production/p{}/KEY_{n}", n % 10)).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "0123456789abcdef0123")).collect();
    for (count, from) in [(10, 0), (90, 10), (900, 100)] {
        let batch = &pairs[from..from + count];
        say(&format!("commit of {count}"), best(1, || done(&vault, write("s", batch, &[]))));
        say(&format!("carrying {count}"), best(1, || carry_all(&vault)));
        let exact = |count: usize| {
            let names: Vec<&str> = names[..count].iter().map(String::as_str).collect();
            assert_eq!(read(&vault, "s", Names::Exact(targets(&names))).unwrap().len(), count);
        };
        say(&format!("read of 1 of {}", from + count), best(20, || exact(1)));
        say(&format!("read of {0} of {0}", from + count), best(5, || exact(from + count)));
    }
    drop(vault);
    say("open", best(1, || drop(open_with(dir.path(), real(&keyring)).unwrap())));
}
