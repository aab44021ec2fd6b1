//! What the commands advise, followed: every line of advice is played until it leads somewhere, and none leads in a circle.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    client::{Client, found, written},
    keychain,
    keys::{PASSPHRASE, askpass, cli_with},
    salvage::{damage, filled, garbage},
    sealed_policy::{knowing, sealed},
    world::{Entry, Outcome, World, run},
};

/// The line of advice of a command that failed.
#[track_caller]
pub fn advice(outcome: &Outcome) -> &str {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    outcome.err.lines().find_map(|line| line.strip_prefix("  try: ")).unwrap_or_else(|| panic!("{outcome:?}"))
}

/// Runs what stands behind `words` in a text, as somebody who knows the passphrase would in a shell.
#[track_caller]
pub fn follow(world: &World, text: &str, words: &str) -> Outcome {
    let command = text.split_once(words).unwrap_or_else(|| panic!("{words:?} in {text:?}")).1;
    let command = command.split(';').next().unwrap();
    let path = format!("{}:/usr/bin:/bin", world.root().join("bin").display());
    let asks = askpass(world, "follows", PASSPHRASE);
    let mut shell = world.command(Path::new("/bin/sh"));
    run(shell.args(["-c", command]).env("PATH", path).env("KEYCHAIN_AUTH_ASKPASS", asks))
}

#[test]
fn beside_a_salvaging_daemon_every_command_says_to_stop_it_and_works_when_it_is_stopped() {
    let (mut world, _) = filled();
    damage(&world);
    world.start_args = vec!["--salvage".into()];
    world.start();
    for args in [&["vault", "verify"][..], &["vault", "list"], &["policy", "seal"], &["vault", "lock"]] {
        let outcome = world.cli(args);
        assert!(outcome.err.contains("stop the daemon"), "{args:?}: {}", outcome.err);
        assert!(!advice(&outcome).contains("vault lock"), "{args:?}: {}", outcome.err);
    }
    world.stop();
    assert!(world.cli(&["vault", "verify"]).out.contains("damaged  s t"));
}

#[test]
fn beside_a_daemon_at_another_socket_a_command_says_to_name_it() {
    let mut world = World::new();
    let elsewhere = world.root().join("run/elsewhere.sock");
    world.start();
    let socket = ["--socket", elsewhere.to_str().unwrap()];
    for verb in [&["vault", "list"][..], &["vault", "lock"]] {
        let outcome = world.cli(&[&socket, verb].concat());
        assert!(advice(&outcome).contains("name its socket with --socket"), "{verb:?}: {}", outcome.err);
    }
    world.cli(&["vault", "lock"]).done();
    world.cli(&["vault", "list"]).done();
    world.stop();
    assert!(advice(&world.cli(&["vault", "lock"])).contains("keychain-auth start"));
}

#[test]
fn a_broken_key_file_is_named_by_every_command_and_putting_it_back_mends_it() {
    let (mut world, tool) = filled();
    let key = world.data().join("vault.key");
    let good = fs::read(&key).unwrap();
    for broken in [&good[..good.len() / 2], b"", b"something else\n"] {
        world.write(&key, broken);
        for args in [
            &["vault", "verify"][..],
            &["vault", "list"],
            &["vault", "status"],
            &["vault", "rekey"],
            &["policy", "seal"],
            &["start"],
            &["start", "--salvage"],
        ] {
            let outcome = world.cli(args);
            assert!(outcome.err.contains("vault.key is broken"), "{args:?}: {}", outcome.err);
            let advice = advice(&outcome);
            assert!(advice.contains("put vault.key back from a backup"), "{args:?}: {advice}");
            assert!(!advice.contains("vault verify") && !advice.contains("--salvage"), "{args:?}: {advice}");
        }
        let doctor = world.cli(&["doctor"]);
        assert!(doctor.code == Some(1) && doctor.out.contains("without it the vault can't be opened"));
    }
    world.write(&key, &good);
    world.cli(&["vault", "verify"]).done();
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
}

/// A daemon with a policy that a passphrase seals, and without config.json.
fn sealed_and_gone() -> (World, std::path::PathBuf) {
    let (world, tool) = sealed();
    fs::remove_file(world.config()).unwrap();
    (world, tool)
}

#[test]
fn a_sealed_policy_whose_file_is_gone_is_put_back_or_unsealed_by_following_the_advice() {
    let (mut world, tool) = sealed_and_gone();
    let path = tool.to_str().unwrap().to_owned();
    let commands: [&[&str]; 4] =
        [&["register", &path], &["policy", "seal"], &["check", &path, "s"], &["grant", &path, "--read", "s"]];
    for running in [true, false] {
        for args in commands {
            let outcome = knowing(&world, args);
            let back = follow(&world, advice(&outcome), "have that compared with the seal: ");
            assert!(
                back.code == Some(0) && back.out.contains("the policy that was sealed"),
                "{args:?}: {back:?}"
            );
            assert_eq!(world.cli(&["check", &path, "s"]).code, Some(0), "{args:?}");
            fs::remove_file(world.config()).unwrap();
        }
        let review = knowing(&world, &["policy", "review"]);
        assert!(review.err.contains("there is no config.json"), "{review:?}");
        follow(&world, advice(&review), "put back what was sealed: ").done();
        fs::remove_file(world.config()).unwrap();
        if running {
            world.stop();
        }
    }
    // its folder too
    fs::remove_dir_all(world.config().parent().unwrap()).unwrap();
    let outcome = knowing(&world, &["register", &path]);
    follow(&world, advice(&outcome), "have that compared with the seal: ").done();
    world.start();
    assert_eq!(Client::connected(&world, &tool).read("s", &["a"]), found(&[("a", "1")]));
    // without the copy there is the other way
    fs::remove_file(world.config()).unwrap();
    fs::remove_file(world.data().join("policy.sealed")).unwrap();
    let outcome = knowing(&world, &["policy", "seal"]);
    assert!(!advice(&outcome).contains("register"), "{outcome:?}");
    follow(&world, advice(&outcome), "which forgets the sealed one: ").done();
    world.cli(&["authorize", &path, "s"]).done();
    assert_eq!(Client::connected(&world, &tool).read("s", &["a"]), found(&[("a", "1")]));
}

#[test]
fn a_vault_that_is_whole_is_said_to_be_so_when_it_is_served_for_reading_only() {
    let (mut world, tool) = filled();
    world.start_args = vec!["--salvage".into()];
    world.start();
    let told = "no damage was found";
    assert!(world.log().contains(told) && !world.log().contains("backup"), "{}", world.log());
    for args in [&["status"][..], &["vault", "status"], &["doctor"]] {
        let said = world.cli(args).done();
        assert!(said.contains(told) && !said.contains("DAMAGED") && !said.contains("backup"), "{said}");
    }
    let status: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    assert_eq!(status["vault"]["damaged"], false);
    let reply = Client::connected(&world, &tool).write("s", &[("k", "v")]);
    assert!(!reply["message"].as_str().unwrap().contains("damaged"), "{reply}");
    world.stop();
    world.start_args.clear();
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
}

#[test]
fn a_vault_that_is_beyond_salvage_is_not_advised_to_be_salvaged() {
    let (world, _) = filled();
    let path = world.data().join("vault.redb");
    let bytes = garbage(&fs::read(&path).unwrap());
    for damaged in [bytes.as_slice(), &bytes[..bytes.len() / 2]] {
        world.write(&path, damaged);
        let first = world.cli(&["start"]);
        assert!(advice(&first).contains("from a backup") && !advice(&first).contains("salvage"), "{first:?}");
        let salvage = world.cli(&["start", "--salvage"]);
        assert!(advice(&salvage).contains("from a backup"), "{salvage:?}");
        assert!(!advice(&salvage).contains("--salvage"), "{salvage:?}");
        let verify = world.cli(&["vault", "verify"]);
        assert!(verify.out.contains("damaged  ") && !advice(&verify).contains("verify"), "{verify:?}");
    }
}

#[test]
fn a_vault_in_the_keychain_is_listed_as_advised_and_never_said_to_be_started_without_a_store() {
    let Some((mut world, _keyring)) = keychain::world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    let outcome = world.cli(&["vault", "list"]);
    follow(&world, advice(&outcome), "take it from there first: ").done();
    assert!(world.cli(&["vault", "list"]).done().contains("s  k"));
    follow(&world, advice(&outcome), "afterwards: ").done();
    world.stop();
    let outcome = world.cli(&["start", "--salvage"]);
    assert!(outcome.err.contains("rest in the keychain"), "{outcome:?}");
    assert!(advice(&outcome).contains("leave --salvage out"), "{outcome:?}");
    assert!(!outcome.err.contains("without --store"), "{outcome:?}");
    // one that is damaged is not sent to what is refused above
    let good = fs::read(world.data().join("vault.redb")).unwrap();
    order_removal(&world);
    let verify = world.cli(&["vault", "verify"]);
    assert!(verify.out.contains("a record is there and removed at once"), "{verify:?}");
    world.start_args.clear();
    assert_eq!(world.try_start().err().and_then(|status| status.code()), Some(1));
    let said = world.log();
    assert!(said.contains("a record is there and removed at once"), "{said}");
    assert!(said.contains("together from a backup") && !said.contains("--salvage"), "{said}");
    world.write(&world.data().join("vault.redb"), &good);
    world.start();
}

/// As anybody who can write the vault's file: orders to remove the item of a record that is there.
fn order_removal(world: &World) {
    use redb::{Database, ReadableTable, TableDefinition};

    const RECORDS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("records");
    const GONE: TableDefinition<'_, &[u8; 32], ()> = TableDefinition::new("gone");
    let db = Database::open(world.data().join("vault.redb")).unwrap();
    let transaction = db.begin_write().unwrap();
    let at = *transaction.open_table(RECORDS).unwrap().first().unwrap().unwrap().0.value();
    transaction.open_table(GONE).unwrap().insert(&at, ()).unwrap();
    transaction.commit().unwrap();
    db.close().unwrap();
}

#[test]
fn an_interpreter_is_not_advised_to_be_registered_as_any_program_is() {
    let mut world = World::new();
    let python = world.tool("python3.99");
    world.policy(&[]);
    world.start();
    let reply = Client::connected(&world, &python).read("s", &["k"]);
    let message = reply["message"].as_str().unwrap();
    assert!(message.contains("let a compiled program ask"), "{message}");
    let check = world.cli(&["check", python.to_str().unwrap(), "s"]);
    let grant = world.cli(&["grant", python.to_str().unwrap(), "--read", "s"]);
    for said in [message, advice(&check), advice(&grant)] {
        assert!(!said.contains("keychain-auth register /"), "{said}");
        follow(&world, said, "everything that it runs: ").done();
        world.cli(&["unregister", python.to_str().unwrap()]).done();
    }
    let tool = world.tool("tool");
    let reply = Client::connected(&world, &tool).read("s", &["k"]);
    follow(&world, reply["message"].as_str().unwrap(), "if you trust it, run: ").done();
}

#[test]
fn an_entry_without_a_hash_is_called_that_and_mended_by_the_advice() {
    let world = World::new();
    let tool = world.tool("tool");
    let short = ("hash".to_owned(), "sha256:abc".into());
    world.policy(&[Entry { more: vec![short], ..Entry::all(&tool, &["s"]) }]);
    let check = world.cli(&["check", tool.to_str().unwrap(), "s"]);
    assert!(check.err.contains("whose hash is none"), "{check:?}");
    follow(&world, advice(&check), "as it is: ").done();
    world.cli(&["check", tool.to_str().unwrap(), "s"]).done();
    let again = world.cli(&["upgrade", tool.to_str().unwrap()]).done();
    assert!(again.starts_with("Nothing to upgrade: "), "{again}");
}

#[test]
fn a_bad_identity_and_a_value_that_is_refused_alone_get_advice_of_their_own() {
    let mut world = World::started();
    world.stop();
    let plain = world.tmp("plain");
    for (bytes, said) in [
        (b"nothing\n".as_slice(), "has no age identity in line 1"),
        (b"", "holds no age identity"),
        (b"age-encryption.org/v1\n", "is encrypted itself"),
    ] {
        world.write(&plain, bytes);
        let outcome = world.cli(&["vault", "import", "export", "-", "-i", plain.to_str().unwrap()]);
        assert!(outcome.err.contains(said), "{outcome:?}");
        assert!(advice(&outcome).contains("AGE-SECRET-KEY-1"), "{outcome:?}");
    }
    world.write(&plain, b"\xff");
    let mut command = world.command(&world.binary());
    command.args(["vault", "import", "value", "K", "--service", "s", "--apply"]);
    let outcome = run(command.stdin(fs::File::open(&plain).unwrap()));
    assert!(!advice(&outcome).contains("--skip-refused"), "{outcome:?}");
    world.write(&plain, b"");
    let import = ["vault", "import", "env", plain.to_str().unwrap(), "--service", "s", "--apply"];
    let outcome = world.cli(&import);
    assert!(outcome.code == Some(0) && outcome.err.contains("nothing to import"), "{outcome:?}");
}

#[test]
fn one_of_something_is_said_as_one() {
    let mut world = World::started();
    world.stop();
    let env = world.tmp("env");
    world.write(&env, b"A=1");
    let import = ["vault", "import", "env", env.to_str().unwrap(), "--service", "s"];
    world.cli(&[&import[..], &["--apply"]].concat()).done();
    let said = world.cli(&[&import[..], &["--keep"]].concat()).err;
    assert!(said.contains(", 1 stays as it is"), "{said}");
    let stats = world.cli(&["audit", "stats", "--action", "import"]).done();
    assert!(stats.contains("\n1 record, "), "{stats}");
    world.own(&world.data().join("vault.key"), 0o640);
    let doctor = world.cli(&["doctor"]);
    assert!(doctor.err.contains(" checks is bad"), "{doctor:?}");
}

#[test]
fn a_wrong_passphrase_is_to_be_typed_again_and_then_it_opens() {
    let (world, _) = sealed_and_gone();
    let wrong = askpass(&world, "wrong", "incorrect horse");
    world.cli(&["vault", "lock"]).done();
    for args in [&["vault", "unlock"][..], &["vault", "list"], &["policy", "unseal"]] {
        let outcome = cli_with(&world, &[("KEYCHAIN_AUTH_ASKPASS", wrong.to_str().unwrap())], args);
        assert!(outcome.err.contains("this passphrase does not open"), "{args:?}: {outcome:?}");
        assert!(advice(&outcome).starts_with("type it again"), "{args:?}: {outcome:?}");
    }
    knowing(&world, &["vault", "unlock"]).done();
}
