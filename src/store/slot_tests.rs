use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::store::files::scratch;

fn folder() -> (tempfile::TempDir, Folder) {
    let dir = scratch();
    let folder = Folder::open(dir.path()).unwrap();
    (dir, folder)
}

fn keys() -> SlotKeys {
    SlotKeys { current: VaultKey::generate().unwrap(), next: None }
}

fn materials() -> [KeyMaterial; 4] {
    let secret = || Buffer::from(&[b's'; 40][..]);
    [
        KeyMaterial::Credential(secret()),
        KeyMaterial::Keychain(ItemId([7; 16]), secret()),
        KeyMaterial::Passphrase(Buffer::from(&b"correct horse"[..])),
        KeyMaterial::File,
    ]
}

#[test]
fn a_key_is_read_back_from_a_slot_of_every_source_and_the_slot_is_0600() {
    for material in materials() {
        let (dir, folder) = folder();
        assert!(Slot::load(&folder).unwrap().is_none());
        let mut keys = keys();
        Slot::seal(&material, &keys).unwrap().0.create(&folder).unwrap();
        let path = dir.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let slot = Slot::load(&folder).unwrap().unwrap();
        assert_eq!(slot.source(), material.source());
        let (again, wrapping) = slot.open(&material).unwrap();
        assert_eq!(again.current.bytes(), keys.current.bytes());
        assert!(again.next.is_none() && !slot.is_between_keys());
        assert!(slot.create(&folder).is_err(), "a slot is never overwritten by a new one");
        // between two keys
        keys.next = Some(VaultKey::generate().unwrap());
        slot.reseal(wrapping.as_ref(), &keys).unwrap().replace(&folder).unwrap();
        let both = Slot::load(&folder).unwrap().unwrap();
        let again = both.open(&material).unwrap().0;
        assert_eq!(again.next.unwrap().bytes(), keys.next.unwrap().bytes());
        assert!(both.is_between_keys());
    }
}

#[test]
fn a_slot_opens_with_what_its_own_source_gave_and_with_nothing_else() {
    for material in materials() {
        let (slot, _) = Slot::seal(&material, &keys()).unwrap();
        for other in materials() {
            let error = slot.open(&other).err();
            if other.source() == material.source() {
                assert_eq!(error, None);
            } else {
                let (pinned, asked) = (material.source(), other.source());
                assert_eq!(error, Some(StoreError::OtherSource { pinned, asked }));
            }
        }
    }
    let wrong = |right: KeyMaterial, wrong: KeyMaterial| {
        let slot = Slot::seal(&right, &keys()).unwrap().0;
        assert_eq!(slot.open(&wrong).err(), Some(StoreError::WrongSecret(right.source())));
    };
    let bytes = |text: &str| Buffer::from(text.as_bytes());
    wrong(KeyMaterial::Passphrase(bytes("right")), KeyMaterial::Passphrase(bytes("wrong")));
    wrong(KeyMaterial::Passphrase(bytes("right")), KeyMaterial::Passphrase(bytes("")));
    let (a, b) = ("a".repeat(32), "b".repeat(32));
    wrong(KeyMaterial::Credential(bytes(&a)), KeyMaterial::Credential(bytes(&b)));
    wrong(
        KeyMaterial::Keychain(ItemId([1; 16]), bytes(&a)),
        KeyMaterial::Keychain(ItemId([1; 16]), bytes(&b)),
    );
    wrong(
        KeyMaterial::Keychain(ItemId([1; 16]), bytes(&a)),
        KeyMaterial::Keychain(ItemId([2; 16]), bytes(&a)),
    );
}

#[test]
fn every_changed_byte_of_a_wrapped_slot_is_noticed() {
    for material in materials().into_iter().take(2) {
        let (slot, _) = Slot::seal(&material, &keys()).unwrap();
        let text = slot.render().as_slice().to_vec();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.clone();
                changed[at] ^= 1 << bit;
                let opened = Slot::parse(&changed).map(|slot| slot.open(&material));
                assert!(!matches!(opened, Some(Ok(_))), "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn parameters_beyond_their_bounds_are_refused_before_they_are_used() {
    let (slot, _) = Slot::seal(&KeyMaterial::Passphrase(Buffer::from(&b"p"[..])), &keys()).unwrap();
    let text = String::from_utf8(slot.render().as_slice().to_vec()).unwrap();
    assert!(Slot::parse(text.as_bytes()).is_some());
    for forged in [
        "m=1073741824,t=3,p=4",
        "m=4294967295,t=3,p=4",
        "m=65536,t=4000000000,p=4",
        "m=65536,t=3,p=200",
        "m=8,t=1,p=1",
        "m=+65536,t=3,p=4",
        "m=065536,t=3,p=4",
    ] {
        let forged = text.replace("m=65536,t=3,p=4", forged);
        assert_ne!(forged, text);
        assert!(Slot::parse(forged.as_bytes()).is_none(), "{forged}");
    }
}

#[test]
fn a_key_that_is_exposed_or_malformed_is_an_error_and_left_alone() {
    let (dir, folder) = folder();
    let path = dir.path().join(KEY_FILE);
    let good = format!("{}\n", "0a".repeat(32));
    let private = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let upper = good.to_uppercase();
    let long = good.repeat(3);
    for bad in [
        "",
        "\n",
        &good[..64],
        &good[2..],
        &upper,
        &format!("{good}\n"),
        &format!("0a{good}"),
        &long,
        &"\n".repeat(2000),
    ] {
        private(bad);
        assert!(Slot::load(&folder).is_err(), "{bad:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
    }
    private(&good);
    assert!(Slot::load(&folder).unwrap().is_some());
    for mode in [0o640, 0o604, 0o700, 0o400] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(Slot::load(&folder).is_err(), "{mode:o}");
    }
    private(&good);
    fs::hard_link(&path, dir.path().join("second")).unwrap();
    assert!(Slot::load(&folder).is_err(), "a second name");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("second", &path).unwrap();
    assert!(Slot::load(&folder).is_err(), "a symbolic link");
}

#[test]
fn a_draft_left_by_a_crash_does_not_stop_the_next_key() {
    let (dir, folder) = folder();
    fs::write(dir.path().join(DRAFT), "half").unwrap();
    Slot::seal(&KeyMaterial::File, &keys()).unwrap().0.create(&folder).unwrap();
    assert!(!dir.path().join(DRAFT).exists());
}
