//! A vault that is locked and unlocked while commands work on its files.

use super::*;

fn made(dir: &Path, material: &KeyMaterial) -> Lockable {
    Lockable::new(Taken::take(dir).unwrap().create(material).unwrap()).unwrap()
}

fn passphrase() -> KeyMaterial {
    KeyMaterial::Credential(Buffer::from(&[b'k'; 32][..]))
}

fn unlock(vault: &Lockable, dir: &Path, nonce: [u8; 32]) -> Result<(), StoreError> {
    let slot = Slot::peek(dir).unwrap().unwrap();
    let carried = KeyHolder::new(&slot, &passphrase()).unwrap().carry_key(&nonce).unwrap();
    vault.unlock(&nonce, &carried)
}

/// As [`open_vault`]: another test may hold a copy of a lock for a moment.
fn unlocked(vault: &Lockable, dir: &Path) {
    let until = Instant::now() + Duration::from_secs(2);
    while unlock(vault, dir, [1; 32]) == Err(StoreError::InUse) && Instant::now() < until {
        thread::yield_now();
    }
    assert!(!vault.is_locked());
}

#[test]
fn what_an_owner_did_while_the_vault_was_locked_is_there_and_its_line_comes_before_any_change() {
    let dir = scratch();
    let vault = made(dir.path(), &passphrase());
    done(&vault, write("s", &[("a", "1")], &[]));
    assert_eq!(Taken::take(dir.path()).err(), Some(StoreError::InUse));
    vault.lock().unwrap();
    vault.lock().unwrap();
    assert!(vault.is_locked());
    assert_eq!(read(&vault, "s", Names::All).err(), Some(StoreError::Locked));
    assert_eq!(commit_one(&vault, write("s", &[("a", "2")], &[])).err(), Some(StoreError::Locked));
    vault.settle(7);

    let owner = open_taken(dir.path()).open_owned(&passphrase()).unwrap();
    assert_eq!(unlock(&vault, dir.path(), [1; 32]), Err(StoreError::InUse), "one at a time");
    let item = WriteItem { target: Target::parse("b").unwrap(), value: secret("2") };
    let line = |_: &[Target]| b"by its owner".to_vec();
    owner.write(&service("s"), vec![item], Attributes::new(), Box::new(line)).unwrap();
    owner.close().unwrap();

    unlocked(&vault, dir.path());
    assert_eq!(lines(&vault), ["write a", "by its owner"]);
    // its line would be forgotten unseen if a later one were settled before it is in the log
    assert_eq!(commit_one(&vault, write("s", &[("c", "3")], &[])).err(), Some(StoreError::Locked));
    vault.resume();
    done(&vault, write("s", &[("c", "3")], &[]));
    assert_eq!(read(&vault, "s", Names::All).unwrap(), ["a=1", "b=2", "c=3"]);
    vault.close().unwrap();
}

#[test]
fn a_key_is_taken_for_its_nonce_only_and_no_other_key_opens() {
    let dir = scratch();
    let vault = made(dir.path(), &passphrase());
    let slot = Slot::peek(dir.path()).unwrap().unwrap();
    let carried = KeyHolder::new(&slot, &passphrase()).unwrap().carry_key(&[1; 32]).unwrap();
    assert_eq!(carried.len(), CARRIED);
    vault.lock().unwrap();
    assert_eq!(vault.unlock(&[2; 32], &carried), Err(StoreError::WrongKey));
    for at in 0..carried.len() {
        let mut changed = carried.clone();
        changed[at] ^= 1;
        assert_eq!(vault.unlock(&[1; 32], &changed), Err(StoreError::WrongKey), "byte {at}");
    }
    assert_eq!(vault.unlock(&[1; 32], &carried[1..]), Err(StoreError::WrongKey));
    // the key of another vault, sealed as it should be, under the transport key of that other vault
    let other = scratch();
    drop(made(other.path(), &passphrase()));
    let slot = Slot::peek(other.path()).unwrap().unwrap();
    let foreign = KeyHolder::new(&slot, &passphrase()).unwrap().carry_key(&[1; 32]).unwrap();
    assert_eq!(vault.unlock(&[1; 32], &foreign), Err(StoreError::WrongKey));
    assert!(vault.is_locked());
    vault.unlock(&[1; 32], &carried).unwrap();
    assert!(!vault.is_locked() && !vault.serves());
    vault.resume();
    assert!(vault.serves());
    assert_eq!(read(&vault, "s", Names::All).unwrap(), Vec::<String>::new());
    // open or locked, nobody is told that his key fits but who has it
    for wrong in [&foreign[..], &[0xab; CARRIED][..]] {
        assert_eq!(vault.unlock(&[1; 32], wrong), Err(StoreError::WrongKey));
        assert_eq!(vault.fits(&[1; 32], wrong), Err(StoreError::WrongKey));
    }
    assert_eq!(vault.fits(&[1; 32], &carried), Ok(()));
    assert_eq!(vault.seal_fits(&[1; 32], &carried), Err(StoreError::WrongKey));
    vault.unlock(&[1; 32], &carried).unwrap();
    assert!(vault.serves());
}

#[test]
fn what_the_log_notes_while_the_vault_is_locked_is_kept_when_it_is_unlocked() {
    let dir = scratch();
    let vault = made(dir.path(), &passphrase());
    vault.lock().unwrap();
    let head = crate::chain::Head { seq: 9, epoch: 3, ..Default::default() };
    vault.note_audit(head, None);
    vault.keep_audit().unwrap();
    unlocked(&vault, dir.path());
    vault.resume();
    vault.keep_audit().unwrap();
    assert_eq!(vault.audit_memory().unwrap().head, head);
}

#[test]
fn a_seal_of_the_policy_is_taken_from_the_holder_of_the_key_for_its_nonce_only_and_stays() {
    let dir = scratch();
    let vault = made(dir.path(), &passphrase());
    let holder = KeyHolder::new(&Slot::peek(dir.path()).unwrap().unwrap(), &passphrase()).unwrap();
    let take = |nonce: [u8; 32], carried: &[u8]| {
        vault.take_policy_seal(&nonce, carried, Box::new(|_| b"sealed".to_vec())).map(|entry| entry.line)
    };
    assert_eq!(vault.policy_seal(), [0; 32]);
    let carried = holder.carry_seal(&[1; 32], &[5; 32]).unwrap();
    assert_eq!(take([2; 32], &carried), Err(StoreError::WrongKey));
    assert_eq!(
        take([1; 32], &holder.carry_key(&[1; 32]).unwrap()),
        Err(StoreError::WrongKey),
        "another content"
    );
    assert_eq!(take([1; 32], &carried), Ok(b"sealed".to_vec()));
    assert_eq!(vault.policy_seal(), [5; 32]);
    // what the daemon tells is for one nonce, and nothing that the holder said himself
    let told = vault.tell_policy_seal(&[3; 32]).unwrap();
    assert_eq!(holder.open_seal(&[3; 32], &told), Ok([5; 32]));
    assert_eq!(holder.open_seal(&[4; 32], &told), Err(StoreError::WrongKey));
    assert_eq!(holder.open_seal(&[1; 32], &carried), Err(StoreError::WrongKey));
    // it outlives locks, restarts, and a new key
    vault.lock().unwrap();
    assert_eq!(vault.policy_seal(), [5; 32]);
    assert_eq!(take([1; 32], &carried), Err(StoreError::Locked));
    vault.close().unwrap();
    let owner =
        open_taken(dir.path()).rekey(&passphrase(), Box::new(|_| b"rekeyed".to_vec()), &mut |_, _| {});
    assert_eq!(owner.unwrap().policy_seal(), [5; 32]);
}
