//! Many labels, read by several threads.

use std::collections::BTreeSet;

use super::{
    super::{
        disk::{self, RECORDS},
        seal::Sealer,
        slot::Slot,
        source::KeyMaterial,
    },
    *,
};

const MANY: usize = 2500;

/// What a vault's file says, read by so many threads.
fn loaded(dir: &Path, readers: usize) -> Result<BTreeSet<String>, StoreError> {
    let folder = files::Folder::existing(dir).unwrap().unwrap();
    let slot = Slot::load(&folder).unwrap().unwrap();
    let (keys, _) = slot.open(&KeyMaterial::File)?;
    let db = disk::open_shadow(&folder, true)?;
    let (vault, key, _) = keys.identify(&db)?;
    let disk = disk::load(db, &Sealer::new(&key, vault), StoreKind::Vault, readers)?;
    let names = disk.names.all().into_iter().flat_map(|(_, targets)| targets);
    Ok(names.map(|target| target.as_str().to_owned()).collect())
}

#[test]
fn labels_are_the_same_whoever_shares_the_reading_and_none_is_passed_over() {
    let dir = scratch();
    let vault = open_vault(dir.path()).unwrap();
    let names: Vec<String> = (0..MANY).map(|number| format!("target/{number}")).collect();
    for chunk in names.chunks(500) {
        let pairs: Vec<(&str, &str)> = chunk.iter().map(|name| (name.as_str(), "value")).collect();
        vault.settle(u64::MAX);
        done(&vault, write("s", &pairs, &[]));
    }
    vault.close().unwrap();
    let expected: BTreeSet<String> = names.into_iter().collect();
    for readers in [1, 2, 3, 8] {
        assert_eq!(loaded(dir.path(), readers).unwrap(), expected, "{readers} readers");
    }
    // the very first and the very last of all places, each in the share of another thread
    for last in [false, true] {
        let copy = copy_dir(dir.path());
        damage::edit(copy.path(), |transaction| {
            let mut records = transaction.open_table(RECORDS).unwrap();
            let removed = if last { records.pop_last() } else { records.pop_first() };
            drop(removed.unwrap());
        });
        for readers in [1, 2, 8] {
            let missing = loaded(copy.path(), readers).unwrap_err();
            assert!(matches!(missing, StoreError::Damaged(_)), "{readers} readers: {missing}");
        }
    }
}
