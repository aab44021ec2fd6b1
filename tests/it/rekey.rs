//! `vault rekey` and `vault change-key-source` with the real program.

use std::fs;

use serde_json::Value;

use crate::{
    client::{Client, assert_refused, found, written},
    keys::{PASSPHRASE, askpass, cli_with, with_keyring, with_passphrase},
    world::{Entry, World},
};

fn started(world: &mut World) -> std::path::PathBuf {
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(world, &tool).write("s", &[("a", "1")]), written());
    tool
}

#[test]
fn a_rekey_keeps_secrets_and_the_chain_of_the_log() {
    let mut world = World::new();
    let tool = started(&mut world);
    for lock in [false, true] {
        if lock {
            world.cli(&["vault", "lock"]).done();
        }
        let refused = world.cli(&["vault", "rekey"]);
        assert!(
            refused.code == Some(1) && refused.err.contains("runs and has the audit log"),
            "{}",
            refused.err
        );
    }
    world.stop();
    let key = fs::read(world.data().join("vault.key")).unwrap();
    let said = world.cli(&["vault", "rekey"]).done();
    assert!(said.contains("1 secret is sealed anew"), "{said}");
    assert_ne!(fs::read(world.data().join("vault.key")).unwrap(), key);
    world.start();
    assert_eq!(Client::connected(&world, &tool).read("s", &["a"]), found(&[("a", "1")]));
    world.cli(&["audit", "verify"]).done();
    let log = fs::read_to_string(world.data().join("audit.log")).unwrap();
    assert!(log.contains("vault given another key"), "{log}");
    assert!(!log.contains("audit_log_changed") && !log.contains("can't be read"), "{log}");
}

#[test]
fn the_source_changes_while_the_daemon_is_locked_and_it_is_unlocked_with_the_new_one() {
    let mut world = with_passphrase();
    let tool = started(&mut world);
    let data = world.data();
    let (old, new) = (askpass(&world, "askpass", PASSPHRASE), world.tmp("new"));
    world.write(&new, b"another passphrase\n");
    let env = [("KEYCHAIN_AUTH_ASKPASS", old.to_str().unwrap())];
    let args = ["vault", "change-key-source", "--key", "file"];
    let busy = cli_with(&world, &env, &args);
    assert!(busy.code == Some(1) && busy.err.contains("vault lock"), "{}", busy.err);
    world.cli(&["vault", "lock"]).done();
    let wrong = askpass(&world, "wrong", "incorrect horse");
    let refused = cli_with(&world, &[("KEYCHAIN_AUTH_ASKPASS", wrong.to_str().unwrap())], &args);
    assert!(refused.code == Some(1) && refused.err.contains("does not open vault.key"), "{}", refused.err);
    let said = cli_with(&world, &env, &args).done();
    assert!(said.contains("source file"), "{said}");
    assert_eq!(fs::read(data.join("vault.key")).unwrap().len(), 65);
    assert_refused(&Client::connected(&world, &tool).read("s", &["a"]), "error", "store_locked");
    world.cli(&["vault", "unlock"]).done();
    assert_eq!(Client::connected(&world, &tool).read("s", &["a"]), found(&[("a", "1")]));
    let status: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    assert_eq!(status["vault"]["key_source"], "file");
    let log = fs::read_to_string(data.join("audit.log")).unwrap();
    assert!(log.contains("source of the vault's key changed"), "{log}");
    world.cli(&["audit", "verify"]).done();
    // what the daemon was started with is no longer the source
    world.stop();
    assert_eq!(world.try_start().err().and_then(|status| status.code()), Some(1));
    world.start_args.clear();
    world.start();
    assert_eq!(Client::connected(&world, &tool).read("s", &["a"]), found(&[("a", "1")]));
}

#[test]
fn the_keychains_item_goes_when_the_key_moves_elsewhere() {
    let Some((mut world, keyring)) = with_keyring() else { return };
    let tool = started(&mut world);
    world.stop();
    let ours = [("application", "keychain-auth")];
    assert_eq!(keyring.items(&ours).len(), 1);
    let (address, program) = (keyring.address(), askpass(&world, "askpass", "correct horse"));
    let env = [
        ("DBUS_SESSION_BUS_ADDRESS", address.as_str()),
        ("KEYCHAIN_AUTH_ASKPASS", program.to_str().unwrap()),
    ];
    cli_with(&world, &env, &["vault", "change-key-source", "--key", "passphrase"]).done();
    assert_eq!(keyring.items(&ours).len(), 0, "it opens nothing any more");
    cli_with(&world, &env, &["vault", "change-key-source", "--key", "keychain"]).done();
    assert_eq!(keyring.items(&ours).len(), 1);
    keyring.lock();
    let locked = cli_with(&world, &env, &["vault", "rekey"]);
    assert!(locked.code == Some(1) && locked.err.contains("the keychain is locked"), "{}", locked.err);
    keyring.unlock();
    cli_with(&world, &env, &["vault", "rekey"]).done();
    world.start();
    assert_eq!(Client::connected(&world, &tool).read("s", &["a"]), found(&[("a", "1")]));
}
