//! What the commands about the vault say, and what they leave as it is.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::json;

use crate::{
    client::{Client, written},
    keys::{PASSPHRASE, askpass, cli_with, with_passphrase},
    world::{Entry, World},
};

/// A stopped world with one secret, and the tool that wrote it.
fn at_rest() -> World {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("a", "1")]), written());
    world.stop();
    world
}

/// Name and content of everything in the data folder.
fn data(world: &World) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(world.data()).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect()
}

#[test]
fn status_says_what_a_start_would_say_when_a_file_of_the_vault_is_lost() {
    let mut world = at_rest();
    for lost in ["vault.key", "vault.redb"] {
        let kept = world.tmp(lost);
        fs::rename(world.data().join(lost), &kept).unwrap();
        assert!(world.try_start().is_err());
        let said = world.log();
        let mut said: Vec<&str> = said.lines().rev().take(2).collect();
        said.reverse();
        let sentence = said[0];
        assert!(sentence.contains(&format!("{lost} is missing although ")), "{sentence}");
        for args in [&["vault", "status"][..], &["vault", "status", "--json"]] {
            let status = world.cli(args);
            assert_eq!((status.code, status.out.as_str()), (Some(1), ""), "{}", status.err);
            assert_eq!(status.err.lines().collect::<Vec<_>>(), said, "the words of the start");
        }
        // nobody is told that there is nothing yet, and nothing is made in its place
        for args in
            [&["vault", "init"][..], &["vault", "verify"], &["vault", "rekey"], &["audit", "seal-key"]]
        {
            let refused = world.cli(args);
            assert_eq!(refused.code, Some(1), "{args:?}: {}", refused.out);
            assert!(refused.err.contains(&format!("{lost} is missing")), "{args:?}: {}", refused.err);
            assert!(refused.err.contains("from a backup"), "{args:?}: {}", refused.err);
        }
        fs::rename(&kept, world.data().join(lost)).unwrap();
        assert!(world.cli(&["vault", "status"]).done().contains("closed"));
        world.start();
        world.stop();
    }
}

#[test]
fn a_damaged_vault_is_an_error_in_words_when_the_daemon_looks_where_its_values_rest() {
    let mut world = World::new();
    world.cli(&["vault", "init"]).done();
    let path = world.data().join("vault.redb");
    let bytes = fs::read(&path).unwrap();
    let mut refused = 0;
    // some of these make the database's own code stop the process that opens it without a check
    for at in (37_000..41_000).step_by(100).chain([4096]) {
        let mut damaged = bytes.clone();
        let end = if at == 4096 { bytes.len() } else { at + 64 };
        for (number, byte) in damaged[at..end].iter_mut().enumerate() {
            *byte ^= (number * 31 % 251) as u8 | 1;
        }
        world.write(&path, &damaged);
        if world.try_start().is_ok() {
            // bytes that are in no use
            world.stop();
            world.write(&path, &bytes);
            continue;
        }
        refused += 1;
        let log = world.log();
        let said = log.lines().rev().nth(1).unwrap_or_default();
        assert!(said.starts_with("error: the store can't be opened: the vault is damaged"), "{at}: {log}");
    }
    assert!(refused > 3, "{refused} were refused");
}

#[test]
fn a_second_init_says_which_vault_is_there_and_what_to_do() {
    let mut world = with_passphrase();
    let program = askpass(&world, "typed", PASSPHRASE);
    let env = [("KEYCHAIN_AUTH_ASKPASS", program.to_str().unwrap())];
    cli_with(&world, &env, &["vault", "init", "--key", "passphrase"]).done();
    let before = data(&world);
    let there = format!("there is a vault already in {}", world.data().display());
    let again = |world: &World, args: &[&str], advice: &str| {
        let again = world.cli(&[&["vault", "init"][..], args].concat());
        assert_eq!((again.code, again.out.as_str()), (Some(1), ""), "{}", again.err);
        assert!(again.err.contains(&there) && again.err.contains("source passphrase"), "{}", again.err);
        assert!(again.err.contains(advice), "{}", again.err);
    };
    again(&world, &[], "try: use it; see how it is: keychain-auth vault status");
    again(&world, &["--key", "passphrase"], "keychain-auth vault status");
    again(&world, &["--key", "file"], "keychain-auth vault change-key-source --key file");
    assert_eq!(data(&world), before);
    // also while a daemon has it, and where the advice leads
    world.start();
    again(&world, &[], "keychain-auth vault status");
    assert!(world.cli(&["vault", "status"]).done().contains("unlocked"));
    world.stop();
    cli_with(&world, &env, &["vault", "change-key-source", "--key", "file"]).done();
    assert!(world.cli(&["vault", "status"]).done().contains("key_source      file"));
}

#[test]
fn a_dry_import_leaves_every_byte_of_the_data_folder_as_it_was() {
    let mut world = at_rest();
    let env = world.tmp("env");
    world.write(&env, b"a=VALUEMARK\nb=VALUEMARK\n");
    let import = ["vault", "import", "env", env.to_str().unwrap(), "--service", "s"];
    let dry = |world: &World| {
        let before = data(world);
        let refused = world.cli(&import);
        assert!(refused.code == Some(1) && refused.err.contains("1 secret is there already"), "{refused:?}");
        let kept = world.cli(&[&import[..], &["--keep"]].concat()).done();
        assert!(kept.contains("keep      s  a") && kept.contains("write     s  b"), "{kept}");
        world.cli(&[&import[..], &["--overwrite", "--json"]].concat()).done();
        assert_eq!(data(world), before);
    };
    dry(&world);
    // also after a kill, which leaves a vault that an opening would mend
    world.start();
    world.kill();
    dry(&world);
    // and beside a locked daemon
    world.start();
    world.cli(&["vault", "lock"]).done();
    dry(&world);
    world.stop();
    world.cli(&[&import[..], &["--keep", "--apply"]].concat()).done();
    assert!(world.cli(&["audit", "verify"]).done().contains("whole"));
    assert_eq!(world.cli(&["audit", "show", "--action", "import", "--json"]).done().lines().count(), 1);
    // where there is no vault, none is made, nor a folder for one
    let empty = World::new();
    empty.write(&empty.tmp("env"), b"a=1\n");
    let refused =
        empty.cli(&["vault", "import", "env", empty.tmp("env").to_str().unwrap(), "--service", "s"]);
    assert!(refused.code == Some(1) && refused.err.contains("there is no vault yet"), "{refused:?}");
    assert!(!empty.data().exists());
}

#[test]
fn a_vault_that_is_locked_is_locked_once() {
    let mut world = with_passphrase();
    world.start();
    assert!(world.cli(&["vault", "lock"]).done().starts_with("Locked the vault"));
    assert_eq!(world.cli(&["vault", "lock"]).done(), "The vault is locked already\n");
    let locked = world.audit().iter().filter(|record| record["detail"] == "vault locked").count();
    assert_eq!(locked, 1, "and recorded once");
}

#[test]
fn a_list_shows_every_name_no_value_and_is_recorded_before_it_is_shown() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s", "t"])]);
    assert!(world.cli(&["vault", "list"]).err.contains("there is no vault yet"));
    world.start();
    world.stop();
    let empty = world.cli(&["vault", "list"]);
    assert!(empty.code == Some(0) && empty.out.is_empty() && empty.err.contains("is empty"), "{empty:?}");
    world.start();
    // more of one service than one record names
    let names: Vec<String> = (0..5_000).map(|number| format!("many/{number:04}")).collect();
    let mut client = Client::connected(&world, &tool);
    for some in names.chunks(1000) {
        let pairs: Vec<(&str, &str)> = some.iter().map(|name| (name.as_str(), "VALUEMARK")).collect();
        assert_eq!(client.write("t", &pairs), written());
    }
    assert_eq!(client.write("s", &[("a b", "VALUEMARK"), ("a", "")]), written());
    let busy = world.cli(&["vault", "list"]);
    assert!(busy.code == Some(1) && busy.err.contains("vault lock"), "{}", busy.err);
    world.stop();
    assert_eq!(world.cli(&["vault", "list", "--service", "s"]).done(), "s  a\ns  a b\n");
    let record = |world: &World| -> Vec<serde_json::Value> {
        world.audit().into_iter().filter(|record| record["action"] == "list").collect()
    };
    let mut one = record(&world);
    let empty = one.remove(0);
    assert_eq!((&empty["service"], &empty["targets"]), (&json!(""), &json!([])), "of the empty vault");
    assert_eq!((one.len(), &one[0]["service"]), (1, &json!("s")));
    assert_eq!((&one[0]["targets"], &one[0]["result"]), (&json!(["a", "a b"]), &json!("GRANTED")));
    assert!(one[0]["detail"].as_str().unwrap().ends_with("vault list"), "{}", one[0]);
    let all = world.cli(&["vault", "list"]).done();
    assert!(all.lines().count() == 5_002 && !all.contains("VALUEMARK"));
    let listing: serde_json::Value =
        serde_json::from_str(&world.cli(&["vault", "list", "--json"]).done()).unwrap();
    assert_eq!(
        listing,
        json!({"services": [{"service": "s", "targets": ["a", "a b"]},
        {"service": "t", "targets": names}]})
    );
    let named = |service: &str| -> Vec<String> {
        let records = record(&world).into_iter().filter(|record| record["service"] == service);
        let names = records.flat_map(|record| record["targets"].as_array().unwrap().clone());
        names.map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(named("t"), [&names[..], &names[..]].concat(), "every name, each time it was shown");
    assert_eq!(record(&world).len(), 1 + 1 + 2 * (1 + 2), "in records that have their bound");
    for command in ["list", "export"] {
        let out = world.tmp("out");
        let more =
            if command == "list" { vec![] } else { vec!["--output", out.to_str().unwrap(), "--plaintext"] };
        let missing = world.cli(&[&["vault", command, "--service", "q"][..], &more].concat());
        assert_eq!(missing.code, Some(1));
        assert!(missing.err.contains("no secret of the service q"), "{}", missing.err);
        assert!(missing.err.contains("try: see what there is: keychain-auth vault list"), "{}", missing.err);
        let last = world.audit().pop().unwrap();
        assert_eq!((&last["action"], &last["service"]), (&json!(command), &json!("q")), "{last}");
        assert!(last["detail"].as_str().unwrap().contains("by the owner of the vault"), "{last}");
    }
    // what is locked can be listed by its owner; the daemon has the log, and gets the record with the vault
    world.start();
    world.cli(&["vault", "lock"]).done();
    world.cli(&["vault", "list", "--service", "s"]).done();
    assert_eq!(record(&world).len(), 9, "with the one of the service that is not there");
    world.cli(&["vault", "unlock"]).done();
    world.audit_where("the list has its record", |it| {
        it["action"] == "list" && it["seq"].as_u64() > record(&world)[6]["seq"].as_u64()
    });
    assert!(world.cli(&["audit", "verify"]).done().contains("whole"));
}

#[test]
fn what_a_new_user_does_wrong_with_the_key_is_said_with_a_way_out() {
    let mut world = with_passphrase();
    let gone = world.tmp("gone");
    let (right, wrong) = (askpass(&world, "right", PASSPHRASE), askpass(&world, "wrong", "incorrect horse"));
    let says = |world: &World, env: &[(&str, &str)], args: &[&str], sentence: &str, advice: &str| {
        let refused = cli_with(world, env, args);
        assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""), "{args:?}: {}", refused.err);
        let lines: Vec<&str> = refused.err.lines().collect();
        let [error, tried] = lines[..] else { panic!("two lines: {}", refused.err) };
        assert!(error.contains(sentence) && tried.contains(advice), "{args:?}: {}", refused.err);
    };
    let init = |source| ["vault", "init", "--key", source];
    says(&world, &[], &init("credential"), "CREDENTIALS_DIRECTORY is not set", "such as --key passphrase");
    let empty = [("CREDENTIALS_DIRECTORY", world.root().to_str().unwrap())];
    says(&world, &empty, &init("credential"), "has no such file", "such as --key passphrase");
    says(&world, &[], &init("keychain"), "no keychain answers", "such as --key passphrase");
    let ask = |program: &Path| [("KEYCHAIN_AUTH_ASKPASS", program.to_str().unwrap().to_owned())];
    let missing = ask(&gone);
    let missing = missing.each_ref().map(|(name, value)| (*name, value.as_str()));
    says(
        &world,
        &missing,
        &init("passphrase"),
        "gone, can't be started: it, or the program in its first line, is not there",
        "correct KEYCHAIN_AUTH_ASKPASS",
    );
    assert!(world.cli(&["vault", "status"]).done().contains("absent"), "nothing was made");
    for verb in ["lock", "unlock"] {
        says(&world, &[], &["vault", verb], "no daemon runs", "keychain-auth start");
    }
    world.start();
    let unlocked = world.cli(&["vault", "unlock"]).done();
    assert_eq!(unlocked, "The vault is unlocked already\n", "and nobody was asked for a passphrase");
    let holder = format!("in use by the daemon (pid {})", world.pid());
    for command in ["list", "verify"] {
        says(&world, &[], &["vault", command], &holder, "keychain-auth vault lock");
    }
    world.cli(&["vault", "lock"]).done();
    let wrong = [("KEYCHAIN_AUTH_ASKPASS", wrong.to_str().unwrap())];
    for command in ["unlock", "list", "verify"] {
        says(&world, &wrong, &["vault", command], "this passphrase does not open vault.key", "type it again");
    }
    let right = [("KEYCHAIN_AUTH_ASKPASS", right.to_str().unwrap())];
    cli_with(&world, &right, &["vault", "unlock"]).done();
}
