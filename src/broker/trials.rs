//! The broker with a real keyring: its desk on a thread of the test, the keeper's lanes beside it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    os::fd::AsFd,
    sync::{Arc, mpsc::channel},
    thread,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use self::keyring::Keyring;
use super::*;
use crate::{
    desktop_keychain::{Keychain, bus_address},
    store::{Items, StoreError, files::scratch},
};

#[path = "../../tests/it/keyring.rs"]
#[allow(dead_code, unreachable_pub)]
pub(crate) mod keyring;

/// A desk for this keyring that ends with the last of its lanes.
pub(crate) fn lanes<const LANES: usize>(keyring: &Keyring) -> [Lane; LANES] {
    let pairs = [(); LANES].map(|()| {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    });
    let address = keyring.address();
    let address = bus_address(|name| (name == "DBUS_SESSION_BUS_ADDRESS").then(|| address.clone().into()));
    let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    thread::spawn(move || {
        let lanes: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        serve(&lanes, address.unwrap(), || Ok::<(), StoreError>(()))
    });
    ours.into_iter().map(|channel| Lane::new(channel, Arc::default())).collect::<Vec<_>>().try_into().unwrap()
}

/// A keyring of the test, or None after having said that the test is skipped.
pub(crate) fn keyring_or_skip() -> Option<(tempfile::TempDir, Keyring)> {
    if let Some(program) = keyring::missing() {
        skip::skip(&format!("{program} is not installed"));
        return None;
    }
    let dir = scratch();
    let keyring = keyring::own(dir.path());
    Some((dir, keyring))
}

#[path = "../../tests/it/skip.rs"]
#[allow(dead_code, unreachable_pub)]
mod skip;

fn get(lane: &Lane, keys: &[Key]) -> Result<Vec<(Key, Vec<u8>)>, StoreError> {
    let mut found = Vec::new();
    lane.get(&VAULT, keys, &mut |key, sealed| {
        found.push((*key, sealed.to_vec()));
        Ok(())
    })?;
    Ok(found)
}

const VAULT: VaultId = [3; 16];

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort();
    all
}

#[test]
fn items_are_put_found_replaced_and_removed_and_others_left_alone() {
    let Some((_dir, keyring)) = keyring_or_skip() else { return };
    let [lane] = lanes(&keyring);
    lane.ready().unwrap();
    assert_eq!(lane.list(&VAULT), Ok(Vec::new()));
    let keys: Vec<Key> = (0..100_u8).map(|n| [n; 32]).collect();
    assert_eq!(get(&lane, &keys), Ok(Vec::new()));
    for key in &keys {
        lane.put(&VAULT, key, &[key[0]; 300]).unwrap();
    }
    lane.put(&[4; 16], &keys[0], b"of another vault").unwrap();
    lane.put(&VAULT, &keys[1], b"anew").unwrap();
    lane.delete(&VAULT, &keys[2]).unwrap();
    lane.delete(&VAULT, &keys[2]).unwrap();
    let expected = keys.iter().filter(|key| key[0] != 2).map(|key| match key[0] {
        1 => (*key, b"anew".to_vec()),
        n => (*key, vec![n; 300]),
    });
    let expected: Vec<_> = expected.collect();
    assert_eq!(sorted(get(&lane, &keys).unwrap()), expected);
    assert_eq!(sorted(lane.list(&VAULT).unwrap()), expected.iter().map(|(key, _)| *key).collect::<Vec<_>>());
    assert_eq!(keyring.items(&[("application", "keychain-auth")]).len(), 100);
    // the longest record there is
    let long = vec![7; 81 * 1024];
    lane.put(&VAULT, &keys[3], &long).unwrap();
    assert_eq!(get(&lane, &keys[3..4]), Ok(vec![(keys[3], long)]));
}

#[test]
fn what_somebody_else_does_to_the_items_is_seen() {
    let Some((_dir, keyring)) = keyring_or_skip() else { return };
    let [lane] = lanes(&keyring);
    lane.put(&VAULT, &[1; 32], b"one").unwrap();
    assert_eq!(get(&lane, &[[1; 32]]).unwrap().len(), 1);
    let items = keyring.items(&[("application", "keychain-auth")]);
    keyring.set_value(&items[0], b"not even base64!");
    assert_eq!(get(&lane, &[[1; 32]]), Ok(Vec::new()));
    keyring.set_value(&items[0], b"YWdhaW4=");
    assert_eq!(get(&lane, &[[1; 32]]), Ok(vec![([1; 32], b"again".to_vec())]));
    keyring.remove(&items[0]);
    assert_eq!(get(&lane, &[[1; 32]]), Ok(Vec::new()));
    assert_eq!(lane.list(&VAULT), Ok(Vec::new()));
}

#[test]
fn a_locked_collection_is_told_at_once_and_serves_when_it_is_unlocked() {
    let Some((_dir, keyring)) = keyring_or_skip() else { return };
    let [lane] = lanes(&keyring);
    lane.put(&VAULT, &[1; 32], b"one").unwrap();
    keyring.lock();
    assert_eq!(lane.ready(), Err(StoreError::KeychainLocked));
    assert_eq!(get(&lane, &[[1; 32]]), Err(StoreError::KeychainLocked));
    assert_eq!(lane.list(&VAULT), Err(StoreError::KeychainLocked));
    assert_eq!(lane.put(&VAULT, &[2; 32], b"two"), Err(StoreError::KeychainLocked));
    assert_eq!(lane.delete(&VAULT, &[1; 32]), Err(StoreError::KeychainLocked));
    keyring.unlock();
    assert_eq!(get(&lane, &[[1; 32]]), Ok(vec![([1; 32], b"one".to_vec())]));
}

#[test]
fn a_keyring_that_ends_is_told_and_one_that_starts_again_is_used_again() {
    let Some((_dir, mut keyring)) = keyring_or_skip() else { return };
    let [lane] = lanes(&keyring);
    lane.put(&VAULT, &[1; 32], b"one").unwrap();
    keyring.kill();
    keyring.start_again();
    assert_eq!(get(&lane, &[[1; 32]]), Ok(vec![([1; 32], b"one".to_vec())]));
    lane.put(&VAULT, &[2; 32], b"two").unwrap();
    assert_eq!(lane.list(&VAULT).unwrap().len(), 2);
}

#[test]
fn a_keyring_that_hangs_is_given_up_and_those_in_line_do_not_wait_again() {
    let Some((_dir, keyring)) = keyring_or_skip() else { return };
    let [lane, other] = lanes(&keyring);
    lane.put(&VAULT, &[1; 32], b"one").unwrap();
    keyring.hang();
    // one is given up within 5 s: twenty that each waited anew would take a minute
    let (told, line) = channel();
    thread::scope(|scope| {
        let lane = &lane;
        for _ in 0..20 {
            let told = told.clone();
            scope.spawn(move || told.send(get(lane, &[[1; 32]])));
        }
        let until = Instant::now() + Duration::from_secs(30);
        for _ in 0..20 {
            let given_up = line.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap();
            assert!(matches!(given_up, Err(StoreError::Unreachable(_))));
        }
    });
    keyring.resume();
    other.ready().unwrap();
    // whoever hung is asked again after a pause
    let served = (0..600).find_map(|_| {
        thread::sleep(Duration::from_millis(50));
        get(&lane, &[[1; 32]]).ok()
    });
    assert_eq!(served.map(|found| found.len()), Some(1));
}

/// Of a race within the keyring, which nothing here can exclude: `cargo test --lib thousands_of_new_clients -- --ignored`.
#[test]
#[ignore = "measures"]
fn a_keyring_lives_through_thousands_of_new_clients() {
    const CLIENTS: usize = 3000;
    let Some((_dir, keyring)) = keyring_or_skip() else { return };
    let address = keyring.address();
    let address = bus_address(|name| (name == "DBUS_SESSION_BUS_ADDRESS").then(|| address.clone().into()));
    let address = address.unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    for _ in 0..CLIENTS {
                        drop(Keychain::connect(&address).await.unwrap());
                    }
                });
            });
        }
    });
}
