//! What `verify` says of damaged vaults.

use super::*;

fn filled(dir: &Path) {
    let vault = open_vault(dir).unwrap();
    let names: Vec<String> = (0..200).map(|number| format!("target/{number}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "VALUEMARK")).collect();
    done(&vault, write("SERVICEMARK", &pairs, &[]));
    vault.close().unwrap();
}

fn verified(dir: &Path) -> Result<Findings, StoreError> {
    open_taken(dir).verify(&KeyMaterial::File, &mut |_, _| {})
}

#[test]
fn one_flipped_bit_is_found_told_by_name_where_it_can_be_and_nothing_is_written() {
    let dir = scratch();
    filled(dir.path());
    let whole = verified(dir.path()).unwrap();
    assert!(whole.is_whole() && whole.whole == 200 && whole.expected == Some(200));
    let path = dir.path().join("vault.redb");
    let bytes = std::fs::read(&path).unwrap();
    let (mut named, mut found_something) = (0, 0);
    for step in 0..200 {
        let mut changed = bytes.clone();
        changed[bytes.len() * step / 200 + step % 7] ^= 1 << (step % 8);
        std::fs::write(&path, &changed).unwrap();
        // redb stops the process where its own pages make no sense; the command looks in a child for that reason
        if let Ok(Ok(found)) = std::panic::catch_unwind(|| verified(dir.path())) {
            let left = found.whole + found.damaged.len() as u64;
            assert!(left == 200 || !found.is_whole(), "step {step}: fewer records, and nothing said");
            named += found.damaged.iter().filter(|one| one.name.is_some()).count();
            found_something += u32::from(!found.is_whole());
        }
        assert_eq!(std::fs::read(&path).unwrap(), changed, "step {step}: written");
    }
    assert!(named > 5 && found_something > 20, "{named} named, {found_something} found");
}

#[test]
fn a_record_that_was_removed_or_a_vault_that_was_put_back_is_told() {
    let dir = scratch();
    filled(dir.path());
    let old = copy_dir(dir.path());
    damage::edit(dir.path(), |transaction| {
        transaction.open_table(super::super::disk::RECORDS).unwrap().pop_first().unwrap();
    });
    let found = verified(dir.path()).unwrap();
    assert_eq!((found.whole, found.expected), (199, Some(200)));
    assert_eq!(found.problems, ["a record is missing, added or replaced by an older one"]);
    std::fs::copy(old.path().join("vault.redb"), dir.path().join("vault.redb")).unwrap();
    let vault = open_vault(dir.path()).unwrap();
    done(&vault, write("SERVICEMARK", &[("target/0", "newer")], &[]));
    vault.close().unwrap();
    std::fs::copy(old.path().join("vault.redb"), dir.path().join("vault.redb")).unwrap();
    let found = verified(dir.path()).unwrap();
    assert_eq!(found.problems, ["it was put back to an earlier state"]);
    std::fs::remove_file(dir.path().join("vault.head")).unwrap();
    assert_eq!(verified(dir.path()).unwrap().problems, ["vault.head is missing"]);
}

/// As one who has the key, and seals the name of a record at a second place, with a header that speaks of both.
fn double_a_name(dir: &Path) {
    use super::super::{disk, key::VaultKey, names::toggle, seal::Sealer};
    use redb::{ReadableDatabase, ReadableTable};

    let key = std::fs::read_to_string(dir.join("vault.key")).unwrap();
    let key = data_encoding::HEXLOWER.decode(key.trim().as_bytes()).unwrap();
    let key = VaultKey::from_buffer(Buffer::from(key.as_slice())).unwrap();
    let db = redb::Database::open(dir.join("vault.redb")).unwrap();
    let sealer = Sealer::new(&key, disk::identify(&db, &key).unwrap());
    let mut header = disk::read_header(&db.begin_read().unwrap(), &sealer).unwrap();
    let transaction = db.begin_write().unwrap();
    {
        let mut records = transaction.open_table(disk::RECORDS).unwrap();
        let (label, _) = {
            let (at, sealed) = records.first().unwrap().unwrap();
            sealer.open_label(at.value(), sealed.value()).unwrap()
        };
        let (at, nonce) = ([9; 32], [9; 24]);
        let sealed = sealer.seal_record(&at, &nonce, &label, &secret("another")).unwrap();
        records.insert(&at, sealed.as_slice()).unwrap();
        header.count += 1;
        toggle(&mut header.sum, &sealer.fingerprint(&at, &nonce));
    }
    disk::write_header(&transaction, &sealer, &header).unwrap();
    transaction.commit().unwrap();
    db.close().unwrap();
}

#[test]
fn two_records_of_one_name_are_found_by_verify_as_by_a_start() {
    let dir = scratch();
    filled(dir.path());
    double_a_name(dir.path());
    let found = verified(dir.path()).unwrap();
    let refused = open_vault(dir.path()).err();
    let Some(StoreError::Damaged(what)) = refused else { panic!("{refused:?}") };
    assert_eq!(found.problems, [what]);
    assert!(found.whole == 201 && found.damaged.is_empty() && !found.is_whole());
}
