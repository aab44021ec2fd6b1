//! Where the vault's key comes from: each source with the real program, and what happens when it does not answer.

use std::{fs, os::unix::process::CommandExt, path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::{
    client::Client,
    keyring::{Keyring, missing},
    moving::on_a_terminal,
    skip::skip,
    world::{Entry, Outcome, World, is_root, run},
};

/// The passphrase of [`with_passphrase`].
pub const PASSPHRASE: &str = "correct horse battery staple";

/// A program that asks nobody and answers this.
pub fn askpass(world: &World, name: &str, answer: &str) -> PathBuf {
    let path = world.tmp(name);
    world.write(&path, format!("#!/bin/sh\necho '{answer}'\n").as_bytes());
    world.own(&path, 0o700);
    path
}

/// `keychain-auth ARGS` with more of an environment.
pub fn cli_with(world: &World, env: &[(&str, &str)], args: &[&str]) -> Outcome {
    let mut command = world.command(&world.binary());
    run(command.args(args).envs(env.iter().copied()))
}

fn say(world: &mut World, key: &str, value: &str) {
    world.start_env.retain(|(known, _)| known != key);
    world.start_env.push((key.to_owned(), value.to_owned()));
}

/// A world whose daemon will ask this program for a passphrase.
pub fn with_passphrase() -> World {
    let mut world = World::new();
    let program = askpass(&world, "askpass", PASSPHRASE);
    say(&mut world, "KEYCHAIN_AUTH_ASKPASS", program.to_str().unwrap());
    world.start_args = vec!["--key".to_owned(), "passphrase".to_owned()];
    world
}

pub fn store_one(world: &World, tool: &std::path::Path) {
    let mut client = Client::connected(world, tool);
    let reply = client.request(
        &json!({"type": "REQUEST", "action": "write", "service": "s", "targets": ["a"], "values": ["VALUE"]}),
    );
    assert_eq!(reply["status"], "success", "{reply}");
}

pub fn read_one(world: &World, tool: &std::path::Path) -> Value {
    let mut client = Client::connected(world, tool);
    client.request(&json!({"type": "REQUEST", "action": "read", "service": "s", "targets": ["a"]}))
}

fn prepared(world: &World) -> PathBuf {
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    tool
}

/// What must be as before when a start fails.
fn files(world: &World) -> Vec<Vec<u8>> {
    ["vault.key", "vault.redb", "vault.head"]
        .iter()
        .map(|name| fs::read(world.data().join(name)).unwrap_or_default())
        .collect()
}

#[track_caller]
fn refused(world: &mut World, words: &str) {
    let before = files(world);
    assert_eq!(world.try_start().err().and_then(|status| status.code()), Some(1));
    assert!(world.log().contains(words), "{words}: {}", world.log());
    assert!(before == files(world), "a file was changed");
}

#[test]
fn a_passphrase_opens_the_vault_a_wrong_one_does_not_and_nothing_on_the_disk_is_the_key() {
    let mut world = with_passphrase();
    let tool = prepared(&world);
    world.start();
    store_one(&world, &tool);
    world.stop();
    let slot = fs::read_to_string(world.data().join("vault.key")).unwrap();
    assert!(slot.contains("source passphrase\nargon2id m=65536,t=3,p=4 "), "{slot}");
    assert!(!slot.contains(PASSPHRASE));

    let wrong = askpass(&world, "wrong", "incorrect horse");
    say(&mut world, "KEYCHAIN_AUTH_ASKPASS", wrong.to_str().unwrap());
    refused(&mut world, "does not open vault.key");
    // nobody to ask: no terminal, no program
    world.start_env.clear();
    world.start_through = vec!["/usr/bin/setsid".to_owned(), "-w".to_owned()];
    refused(&mut world, "no terminal to ask for the passphrase");
    // without --key the pinned source is asked all the same
    let right = askpass(&world, "right", PASSPHRASE);
    say(&mut world, "SSH_ASKPASS", right.to_str().unwrap());
    world.start_args.clear();
    world.start();
    assert_eq!(read_one(&world, &tool)["results"][0]["value"], "VALUE");
}

#[test]
fn a_passphrase_comes_from_a_descriptor_too_and_no_child_has_it() {
    let mut world = World::new();
    let tool = prepared(&world);
    let secret = world.tmp("passphrase");
    world.write(&secret, format!("{PASSPHRASE}\n").as_bytes());
    world.start_through = ["/bin/sh", "-c", "exec \"$@\" 7< \"$SECRET\"", "sh"].map(str::to_owned).to_vec();
    say(&mut world, "SECRET", secret.to_str().unwrap());
    world.start_args = ["--key", "passphrase", "--passphrase-fd", "7"].map(str::to_owned).to_vec();
    world.start();
    store_one(&world, &tool);
    for pid in [world.pid(), world.witness()] {
        let links = fs::read_dir(format!("/proc/{pid}/fd"));
        let Ok(links) = links else { continue };
        for link in links {
            let target = fs::read_link(link.unwrap().path()).unwrap_or_default();
            assert_ne!(target, secret, "{pid} still has it");
        }
    }
    world.stop();
    world.write(&secret, b"something else\n");
    refused(&mut world, "does not open vault.key");
    world.write(&secret, format!("{PASSPHRASE}\n").as_bytes());
    world.start();
    assert_eq!(read_one(&world, &tool)["results"][0]["value"], "VALUE");
}

#[test]
fn another_source_than_the_pinned_one_is_an_error_that_names_both_and_never_a_new_vault() {
    let mut world = World::started();
    world.stop();
    let program = askpass(&world, "askpass", PASSPHRASE);
    say(&mut world, "KEYCHAIN_AUTH_ASKPASS", program.to_str().unwrap());
    world.start_args = vec!["--key".to_owned(), "passphrase".to_owned()];
    refused(&mut world, "the vault's key comes from the source file, not from passphrase");
    // the key is gone: no source makes another one beside the vault
    fs::remove_file(world.data().join("vault.key")).unwrap();
    refused(&mut world, "vault.key is missing although vault.redb is there");
}

#[test]
fn a_credential_of_the_service_manager_is_the_first_choice_and_stays_pinned() {
    let mut world = World::new();
    let tool = prepared(&world);
    let folder = world.tmp("credentials");
    world.folder(&folder, 0o700);
    world.write(&folder.join("vault-key"), &[b'k'; 32]);
    say(&mut world, "CREDENTIALS_DIRECTORY", folder.to_str().unwrap());
    world.start();
    assert!(world.log().contains("its key comes from the source credential"), "{}", world.log());
    store_one(&world, &tool);
    world.stop();
    assert!(!fs::read_to_string(world.data().join("vault.key")).unwrap().contains(&"6b".repeat(8)));
    world.write(&folder.join("vault-key"), &[b'K'; 32]);
    refused(&mut world, "the credential vault-key does not open vault.key");
    world.write(&folder.join("vault-key"), &[b'k'; 31]);
    refused(&mut world, "it has fewer than 32 bytes");
    fs::remove_file(folder.join("vault-key")).unwrap();
    refused(&mut world, "there is no credential vault-key");
    world.write(&folder.join("vault-key"), &[b'k'; 32]);
    world.start();
    assert_eq!(read_one(&world, &tool)["results"][0]["value"], "VALUE");
}

/// A world whose user has an account, and an unlocked keyring of that user.
pub fn with_keyring() -> Option<(World, Keyring)> {
    if let Some(program) = missing() {
        skip(&format!("{program} is not installed"));
        return None;
    }
    let mut world = World::with_account();
    let folder = world.tmp("keyring");
    world.folder(&folder, 0o700);
    let uid = world.uid();
    let keyring = Keyring::start(&folder, move |program| {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8");
        if is_root() {
            command.uid(uid).gid(uid);
        }
        command
    });
    say(&mut world, "DBUS_SESSION_BUS_ADDRESS", &keyring.address());
    Some((world, keyring))
}

#[test]
fn the_keychain_holds_the_key_and_a_locked_or_missing_one_is_an_error_in_words() {
    let Some((mut world, mut keyring)) = with_keyring() else { return };
    let tool = prepared(&world);
    world.start();
    assert!(world.log().contains("its key comes from the source keychain"), "{}", world.log());
    store_one(&world, &tool);
    world.stop();
    let slot = fs::read_to_string(world.data().join("vault.key")).unwrap();
    let item = slot.lines().find_map(|line| line.strip_prefix("item ")).unwrap().to_owned();
    let items = keyring.items(&[("application", "keychain-auth"), ("vault-key", &item)]);
    assert_eq!(items.len(), 1, "one item");

    keyring.lock();
    // nobody is there to answer a prompt: a start that waited for one would not end
    refused(&mut world, "the keychain is locked");
    keyring.unlock();
    world.start();
    assert_eq!(read_one(&world, &tool)["results"][0]["value"], "VALUE");
    world.stop();

    keyring.kill();
    refused(&mut world, "no keychain answers");
    keyring.start_again();
    world.start();
    world.stop();
    for item in &items {
        keyring.remove(item);
    }
    refused(&mut world, "the keychain has no item of this vault");
    world.start_env.clear();
    refused(&mut world, "no keychain answers");
}

#[test]
fn a_keychain_that_hangs_is_given_up_after_five_seconds() {
    let Some((mut world, keyring)) = with_keyring() else { return };
    world.start();
    world.stop();
    keyring.hang();
    refused(&mut world, "no keychain answers");
    keyring.resume();
    world.start();
}

#[test]
fn a_locked_keychain_is_not_chosen_for_a_new_vault() {
    let Some((mut world, keyring)) = with_keyring() else { return };
    keyring.lock();
    world.start();
    assert!(world.log().contains("its key comes from the source file"), "{}", world.log());
    assert!(keyring.items(&[("application", "keychain-auth")]).is_empty());
}

#[test]
fn a_passphrase_is_typed_on_the_terminal_unseen_and_the_daemon_starts_with_it() {
    let world = World::new();
    let binary = world.binary();
    let start = ["start", "--key", "passphrase"];
    let (new, again) = ("New passphrase of the vault: ", "The same again: ");
    let (line, ctrl_c) = (format!("{PASSPHRASE}\r"), "\u{3}");
    // typed differently, nothing is made
    let differs = [(new, line.as_str()), (again, "correct horse\r")];
    let Some(outcome) = on_a_terminal(&world, &binary, &start, &differs) else { return };
    assert!(outcome.code == Some(1) && outcome.out.contains("the two passphrases differ"), "{}", outcome.out);
    assert!(!world.data().join("vault.key").exists());
    let answers = [(new, line.as_str()), (again, line.as_str()), ("listening on", ctrl_c)];
    let outcome = on_a_terminal(&world, &binary, &start, &answers).unwrap();
    assert_eq!(outcome.code, Some(0), "it listens until Ctrl-C: {}", outcome.out);
    assert!(!outcome.out.contains("correct"), "it is shown: {}", outcome.out);
    // the pinned source is asked without --key, a mistake is taken back with Ctrl-U, and Ctrl-C ends the prompt
    let known = "Passphrase of the vault: ";
    let corrected = format!("mistake\u{15}{line}");
    let outcome =
        on_a_terminal(&world, &binary, &["start"], &[(known, &corrected), ("listening on", ctrl_c)]).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.out);
    assert!(!outcome.out.contains("correct") && !outcome.out.contains("mistake"), "{}", outcome.out);
    let outcome = on_a_terminal(&world, &binary, &["start"], &[(known, "incorrect horse\r")]).unwrap();
    assert!(outcome.code == Some(1) && outcome.out.contains("does not open vault.key"), "{}", outcome.out);
    let outcome = on_a_terminal(&world, &binary, &["start"], &[(known, ctrl_c)]).unwrap();
    assert!(outcome.code == Some(1) && outcome.out.contains("it was cancelled"), "{}", outcome.out);
}
