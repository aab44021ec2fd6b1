//! Another key, and another source for it: whole after a kill at any moment, with exactly one key that opens.

use std::{env, process::Command, process::Stdio};

use super::*;

const DIR: &str = "KEYCHAIN_AUTH_REKEY_DIR";
const TURN: &str = "KEYCHAIN_AUTH_REKEY_TURN";
const KILLS: u32 = 100;
const TARGETS: usize = 300;

fn passphrase(number: u32) -> KeyMaterial {
    // not a passphrase, which would take most of the time
    KeyMaterial::Credential(Buffer::from(format!("credential number {number:020}").as_bytes()))
}

fn names() -> Vec<String> {
    (0..TARGETS).map(|number| format!("target/{number}")).collect()
}

fn filled(dir: &Path, material: &KeyMaterial) {
    let vault = Taken::take(dir).unwrap().create(material).unwrap();
    let names = names();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "value")).collect();
    done(&vault, write("s", &pairs, &[("env", "test")]));
    vault.close().unwrap();
}

fn record(line: &'static str) -> RenderRecord {
    Box::new(move |_| line.as_bytes().to_vec())
}

fn is_whole(vault: &OwnedVault) {
    let all: Vec<Target> = vault.names().remove(0).1;
    assert_eq!(all.len(), TARGETS);
    for chunk in all.chunks(100) {
        let found = vault.read(&service("s"), chunk.to_vec(), record("read")).unwrap();
        assert_eq!(found.len(), chunk.len());
        for one in found {
            assert_eq!(one.value.unwrap().expose_secret(), "value");
            assert_eq!(one.attributes, attributes(&[("env", "test")]));
        }
    }
}

#[test]
fn after_a_rekey_the_old_key_opens_nothing_and_everything_is_there() {
    let dir = scratch();
    filled(dir.path(), &KeyMaterial::File);
    let old = copy_dir(dir.path());
    let mut told = Vec::new();
    let vault = open_taken(dir.path())
        .rekey(&KeyMaterial::File, record("rekeyed"), &mut |at, all| told.push((at, all)));
    let vault = vault.unwrap();
    is_whole(&vault);
    assert_eq!(told, [(TARGETS as u64, TARGETS as u64)]);
    let lines: Vec<_> = vault.outbox().unwrap().lines.into_iter().map(|entry| entry.line).collect();
    assert!(
        lines.contains(&b"rekeyed".to_vec()) && lines[0].starts_with(b"write target/0,"),
        "old lines too"
    );
    vault.close().unwrap();
    // the old key neither opens the new vault, nor can a record of the old one be put into it
    let key = std::fs::read(dir.path().join("vault.key")).unwrap();
    std::fs::copy(old.path().join("vault.key"), dir.path().join("vault.key")).unwrap();
    assert_eq!(open_vault(dir.path()).err(), Some(StoreError::WrongKey));
    std::fs::write(dir.path().join("vault.key"), key).unwrap();
    drop(open_vault(dir.path()).unwrap());
    let sealed = |dir: &Path| std::fs::read(dir.join("vault.redb")).unwrap();
    std::fs::write(dir.path().join("vault.redb"), sealed(old.path())).unwrap();
    assert_eq!(open_vault(dir.path()).err(), Some(StoreError::WrongKey), "the vault of before");
}

#[test]
fn a_source_is_changed_whole_and_the_old_one_opens_nothing() {
    let dir = scratch();
    filled(dir.path(), &KeyMaterial::File);
    let wrong = open_taken(dir.path()).change_source(&passphrase(1), &passphrase(2), record("x"));
    assert!(matches!(wrong.err(), Some(StoreError::OtherSource { .. })));
    let short = KeyMaterial::Credential(Buffer::from(&b"short"[..]));
    let refused = open_taken(dir.path()).change_source(&KeyMaterial::File, &short, record("x"));
    assert!(refused.is_err());
    is_whole(&open_taken(dir.path()).open_owned(&KeyMaterial::File).unwrap());
    let vault = open_taken(dir.path()).change_source(&KeyMaterial::File, &passphrase(1), record("changed"));
    is_whole(&vault.unwrap());
    assert!(matches!(open_vault(dir.path()).err(), Some(StoreError::OtherSource { .. })));
    is_whole(&open_taken(dir.path()).open_owned(&passphrase(1)).unwrap());
    let vault = open_taken(dir.path()).change_source(&passphrase(1), &passphrase(2), record("changed"));
    is_whole(&vault.unwrap());
    let slot = open_taken(dir.path()).open_owned(&passphrase(1)).err();
    assert_eq!(slot, Some(StoreError::WrongSecret(KeySource::Credential)));
    is_whole(&open_taken(dir.path()).open_owned(&passphrase(2)).unwrap());
}

/// Not a test: what the killed process runs.
#[test]
#[ignore = "run as a child by the tests below"]
fn changing_child() {
    let (Some(dir), Some(turn)) = (env::var_os(DIR), env::var(TURN).ok()) else { return };
    let dir = Path::new(&dir);
    let turn: u32 = turn.parse().unwrap();
    if turn.is_multiple_of(2) {
        let material = opening(dir, turn);
        drop(open_taken(dir).rekey(&material, record("rekeyed"), &mut |_, _| {}).unwrap());
    } else {
        let material = opening(dir, turn);
        drop(open_taken(dir).change_source(&material, &passphrase(turn), record("changed")).unwrap());
    }
}

/// The one of the credentials so far that opens the slot.
fn opening(dir: &Path, turn: u32) -> KeyMaterial {
    let taken = open_taken(dir);
    let mut fitting: Vec<u32> =
        (0..=turn).filter(|number| taken.try_key(&passphrase(*number)).is_ok()).collect();
    assert_eq!(fitting.len(), 1, "exactly one key");
    passphrase(fitting.remove(0))
}

#[test]
fn a_kill_at_any_moment_of_a_rekey_or_a_change_of_source_leaves_one_key_and_all_secrets() {
    let dir = scratch();
    filled(dir.path(), &passphrase(0));
    let (mut killed, mut between) = (0, 0);
    for turn in 0..KILLS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "store::trials::rekey::changing_child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .env(TURN, turn.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // the moment itself is what is tried: from its start to its end, in steps
        thread::sleep(Duration::from_millis(10) + Duration::from_micros(u64::from(turn / 2) * 3_000));
        killed += u32::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
        between += u32::from(open_taken(dir.path()).slot().unwrap().is_between_keys());
        let material = opening(dir.path(), turn);
        let vault = open_taken(dir.path()).open_owned(&material);
        let vault = vault.unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        is_whole(&vault);
        vault.close().unwrap();
        assert!(!open_taken(dir.path()).slot().unwrap().is_between_keys(), "turn {turn}: settled");
    }
    assert!(killed > KILLS / 4 && between > 0, "{killed} were killed, {between} between two keys");
}

#[test]
fn a_crash_at_every_step_of_a_rekey_is_settled_by_the_next_opening() {
    let dir = scratch();
    filled(dir.path(), &KeyMaterial::File);
    let before = copy_dir(dir.path());
    drop(open_taken(dir.path()).rekey(&KeyMaterial::File, record("rekeyed"), &mut |_, _| {}).unwrap());
    let read = |dir: &Path, name: &str| std::fs::read(dir.join(name)).unwrap();
    // the slot of the middle: the old key, and the new one
    let slot = [read(before.path(), "vault.key"), read(dir.path(), "vault.key")].concat();
    for (step, vault, head, state) in [
        ("the slot was written", &before, &before, &before),
        ("the vault has the new key", &dir, &before, &before),
        ("the chain's state follows", &dir, &before, &dir),
        ("the head follows", &dir, &dir, &dir),
    ] {
        let trial = copy_dir(dir.path());
        for (name, bytes) in [
            ("vault.key", slot.clone()),
            ("vault.redb", read(vault.path(), "vault.redb")),
            ("vault.head", read(head.path(), "vault.head")),
            ("audit.state", read(state.path(), "audit.state")),
        ] {
            std::fs::write(trial.path().join(name), bytes).unwrap();
        }
        // for who only looks, nothing is amiss before that either
        let taken = open_taken(trial.path());
        let found = taken.verify(&KeyMaterial::File, &mut |_, _| {}).unwrap();
        assert!(found.is_whole(), "{step}: {found:?}");
        assert_eq!(taken.names(&KeyMaterial::File).unwrap()[0].1.len(), TARGETS, "{step}");
        drop(taken);
        let opened = open_taken(trial.path()).open_owned(&KeyMaterial::File);
        let vault = opened.unwrap_or_else(|error| panic!("{step}: {error}"));
        is_whole(&vault);
        vault.close().unwrap();
        assert_eq!(read(trial.path(), "vault.key").len(), 65, "{step}: one key is left");
        is_whole(&open_taken(trial.path()).open_owned(&KeyMaterial::File).unwrap());
    }
}
