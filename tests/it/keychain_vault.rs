//! The vault as a whole where its secrets rest in a real gnome-keyring: taken in, written out, given another key, tried, and
//! killed in the middle of that.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Instant,
};

use age::secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::{
    client::{Client, assert_refused, found, written},
    keychain::{OURS, carried, world},
    keyring::Keyring,
    keys::cli_with,
    processes::text,
    skip::skip,
    world::{Entry, Guarded, Outcome, World, await_that, is_root, spawn},
};

/// `keychain-auth ARGS` within the session of this keyring.
pub fn cli(world: &World, keyring: &Keyring, args: &[&str]) -> Outcome {
    cli_with(world, &[("DBUS_SESSION_BUS_ADDRESS", &keyring.address())], args)
}

/// A vault in the keychain that no daemon holds, with these secrets of the service `s`.
pub fn at_rest(pairs: &[(&str, &str)]) -> Option<(World, Keyring, PathBuf)> {
    let (mut world, keyring) = world()?;
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", pairs), written());
    carried(&world);
    assert!(world.stop().success(), "{}", world.log());
    Some((world, keyring, tool))
}

fn file(world: &World, name: &str, text: &str) -> PathBuf {
    let path = world.tmp(name);
    world.write(&path, text.as_bytes());
    path
}

fn verified(world: &World, keyring: &Keyring) -> (Value, Outcome) {
    let said = cli(world, keyring, &["vault", "verify", "--json"]);
    (serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}")), said)
}

#[test]
fn a_vault_in_the_keychain_is_imported_exported_and_given_another_key_as_any_other() {
    let Some((mut world, keyring, tool)) = at_rest(&[("a", "1"), ("b", "2")]) else { return };
    let env = file(&world, "env", "b=3\nc='VALUE WITH SPACES'\n");
    let import = ["vault", "import", "env", text(&env), "--service", "s", "--overwrite"];
    // what would be done is told without the keychain too
    let dry = world.cli(&import);
    assert!(dry.code == Some(0) && dry.out.contains("overwrite"), "{dry:?}");
    assert_eq!(keyring.items(&OURS).len(), 2);
    cli(&world, &keyring, &[&import[..], &["--apply"]].concat()).done();
    assert_eq!(keyring.items(&OURS).len(), 3, "what was imported is there, and no daemon was needed");

    let identity = age::x25519::Identity::generate();
    let key = file(&world, "key.txt", identity.to_string().expose_secret());
    let (recipient, out) = (identity.to_public().to_string(), world.tmp("out.age"));
    let said = cli(&world, &keyring, &["vault", "export", "-o", text(&out), "-r", &recipient]).done();
    assert!(said.contains("Exported 3 secrets"), "{said}");

    let ids = |keyring: &Keyring| {
        let mut values: Vec<Vec<u8>> = keyring.items(&OURS).iter().map(|item| keyring.value(item)).collect();
        values.sort();
        values
    };
    let before = ids(&keyring);
    let slot = fs::read(world.data().join("vault.key")).unwrap();
    let said = cli(&world, &keyring, &["vault", "rekey"]);
    assert!(said.out.contains("3 secrets are sealed anew") && said.err.is_empty(), "{said:?}");
    assert_ne!(fs::read(world.data().join("vault.key")).unwrap(), slot);
    let after = ids(&keyring);
    assert!(after.len() == 3 && after.iter().all(|item| !before.contains(item)), "nothing of the old key");
    let (report, said) = verified(&world, &keyring);
    assert!(said.code == Some(0) && report["whole"] == true, "{report}");
    let there = json!({"values_whole": 3, "changes_waiting": 0, "items_foreign": 0, "values_untried": 0});
    assert_eq!(report["keychain"], there);

    world.start();
    let all = [("a", "1"), ("b", "3"), ("c", "VALUE WITH SPACES")];
    assert_eq!(Client::connected(&world, &tool).read("s", &["a", "b", "c"]), found(&all));
    // beside a locked daemon, which serves what was taken in when it has the vault again
    world.cli(&["vault", "lock"]).done();
    let more = file(&world, "more", "d=4\n");
    cli(&world, &keyring, &["vault", "import", "env", text(&more), "--service", "s", "--apply"]).done();
    assert_eq!(keyring.items(&OURS).len(), 4);
    world.cli(&["vault", "unlock"]).done();
    assert_eq!(Client::connected(&world, &tool).read("s", &["a", "d"]), found(&[("a", "1"), ("d", "4")]));
    let refused = cli(&world, &keyring, &["vault", "rekey"]);
    assert!(refused.code == Some(1) && refused.err.contains("runs and has the audit log"), "{refused:?}");
    assert!(world.stop().success());
    world.cli(&["audit", "verify"]).done();
    let told = |action: &str| world.audit().iter().filter(|record| record["action"] == action).count();
    assert_eq!((told("import"), told("export"), told("vault")), (2, 1, 3), "a rekey, a lock and an unlock");

    // an export is imported as into any other vault
    let mut other = World::new();
    other.start();
    other.stop();
    let (key, out) = (fs::read(&key).unwrap(), fs::read(&out).unwrap());
    let (to_key, to_out) = (other.tmp("key.txt"), other.tmp("out.age"));
    other.write(&to_key, &key);
    other.write(&to_out, &out);
    other.cli(&["vault", "import", "export", text(&to_out), "-i", text(&to_key), "--apply"]).done();
    assert!(other.cli(&["vault", "list"]).done().contains("s  c"));
}

#[test]
fn what_was_done_to_items_is_found_by_vault_verify_record_by_record() {
    let Some((world, keyring, _)) = at_rest(&[("a", "1"), ("b", "2")]) else { return };
    let item_of = items_by_target(&world, &keyring);
    let (a, b) = (&item_of["a"], &item_of["b"]);
    let (good, other) = (keyring.value(a), keyring.value(b));
    let finds = |what: &str| {
        let (report, said) = verified(&world, &keyring);
        assert_eq!((report["whole"].clone(), said.code), (json!(false), Some(1)), "{what}: {report}");
        assert!(said.err.contains("write these secrets anew"), "{said:?}");
        assert_eq!(report["records_whole"], 1);
        let damaged = report["damaged"].as_array().unwrap();
        assert_eq!((damaged.len(), &damaged[0]["target"]), (1, &json!("a")), "{report}");
        assert_eq!(damaged[0]["what"], format!("its item in the keychain {what}"));
        // what is read, written out or sealed anew is never less than all of it
        for command in [&["vault", "rekey"][..], &["vault", "export", "-o", "/dev/null/x", "-r", RECIPIENT]] {
            let refused = cli(&world, &keyring, command);
            assert_eq!(refused.code, Some(1), "{what}: {refused:?}");
        }
    };
    let mut flipped = data_encoding::BASE64.decode(&good).unwrap();
    flipped[150] ^= 1;
    for wrong in [data_encoding::BASE64.encode(&flipped).into_bytes(), other, b"rubbish".to_vec()] {
        keyring.set_value(a, &wrong);
        // what is no base64 was never ours: the broker does not hand it on
        finds(if wrong == b"rubbish" { "is missing" } else { "was changed" });
    }
    keyring.set_value(a, &good);
    assert_eq!(verified(&world, &keyring).1.code, Some(0), "put back");
    let env = file(&world, "env", "a=3\n");
    let import = ["vault", "import", "env", text(&env), "--service", "s", "--overwrite", "--apply"];
    cli(&world, &keyring, &import).done();
    let new = keyring.value(a);
    keyring.set_value(a, &good);
    finds("is of an earlier version");
    keyring.set_value(a, &new);
    // doubled, and one that nobody of ours made: without effect, and told
    keyring.double(a);
    let vault = keyring.attributes(a)["vault"].clone();
    let foreign = "07".repeat(32);
    let ours = [("application", "keychain-auth"), ("vault", &vault), ("record", &foreign)];
    keyring.make(&ours, b"AAAA");
    let (report, said) = verified(&world, &keyring);
    assert_eq!((report["whole"].clone(), said.code), (json!(true), Some(0)), "{report}");
    assert_eq!(report["keychain"]["items_foreign"], 1, "{report}");
    let said = cli(&world, &keyring, &["vault", "verify"]).done();
    assert!(said.contains("2 values rest there, and open") && said.contains("it has no effect"), "{said}");
    cli(&world, &keyring, &["vault", "rekey"]).done();
    for item in keyring.items(&OURS) {
        if keyring.attributes(&item)["record"] == foreign {
            keyring.remove(&item);
        }
    }
    assert_eq!(keyring.items(&OURS).len(), 2, "the doubled one went with the old key");
    for item in items_by_target(&world, &keyring).into_values().take(1) {
        keyring.remove(&item);
    }
    let (report, _) = verified(&world, &keyring);
    assert_eq!(report["damaged"][0]["what"], "its item in the keychain is missing");
}

#[test]
fn an_item_that_is_removed_while_all_are_listed_is_no_fault_of_the_keychain() {
    const ITEMS: u8 = 200;
    let Some((world, keyring, _)) = at_rest(&[("a", "1")]) else { return };
    let vault = keyring.attributes(&keyring.items(&OURS)[0])["vault"].clone();
    let foreign: Vec<String> = (0..ITEMS).map(|number| format!("{number:02x}").repeat(32)).collect();
    for record in &foreign {
        keyring.make(&[("application", "keychain-auth"), ("vault", &vault), ("record", record)], b"AAAA");
    }
    let mut seen = Vec::new();
    thread::scope(|scope| {
        let removed = scope.spawn(|| {
            for item in keyring.items(&OURS) {
                if foreign.contains(&keyring.attributes(&item)["record"]) {
                    keyring.remove(&item);
                }
            }
        });
        while !removed.is_finished() {
            let (report, said) = verified(&world, &keyring);
            assert_eq!((report["whole"].clone(), said.code), (json!(true), Some(0)), "{report}");
            seen.push(report["keychain"]["items_foreign"].as_u64().unwrap());
        }
        removed.join().unwrap();
    });
    let between = seen.iter().filter(|&&seen| 0 < seen && seen < u64::from(ITEMS)).count();
    assert!(between > 0, "none saw some of them gone: {seen:?}");
}

/// Nobody has its identity.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// Which item is whose: found by taking each away for a moment.
fn items_by_target(world: &World, keyring: &Keyring) -> BTreeMap<String, zbus::OwnedObjectPath> {
    let mut found = BTreeMap::new();
    for item in keyring.items(&OURS) {
        let value = keyring.value(&item);
        keyring.set_value(&item, b"");
        let (report, _) = verified(world, keyring);
        found.insert(report["damaged"][0]["target"].as_str().unwrap().to_owned(), item.clone());
        keyring.set_value(&item, &value);
    }
    found
}

#[test]
fn commands_do_not_wait_for_a_keychain_that_is_locked_or_away_and_change_nothing() {
    let Some((mut world, mut keyring, tool)) = at_rest(&[("a", "1")]) else { return };
    let env = file(&world, "env", "b=2\n");
    let out = world.tmp("out.age");
    let files = |world: &World| {
        ["vault.key", "vault.redb", "vault.head"].map(|name| fs::read(world.data().join(name)).unwrap())
    };
    let commands = [
        &["vault", "rekey"][..],
        &["vault", "import", "env", text(&env), "--service", "s", "--apply"],
        &["vault", "export", "-o", text(&out), "-r", RECIPIENT],
        &["vault", "verify"],
    ];
    let refused = |world: &World, keyring: &Keyring, words: &str| {
        let [key, ..] = files(world);
        for command in commands {
            // each ends by itself while the keychain is still so: one that waited on would be killed, and have no exit code
            let said = cli(world, keyring, command);
            assert!(said.code == Some(1) && said.err.contains(words), "{command:?}: {said:?}");
        }
        assert_eq!(files(world)[0], key, "one key, and the same");
        assert!(!out.exists());
    };
    keyring.lock();
    refused(&world, &keyring, "the keychain is locked");
    keyring.unlock();
    keyring.hang();
    refused(&world, &keyring, "no answer in time");
    keyring.resume();
    keyring.kill();
    refused(&world, &keyring, "ServiceUnknown");
    let without = world.cli(&["vault", "rekey"]);
    assert!(without.code == Some(1) && without.err.contains("there is no session bus"), "{without:?}");
    assert!(world.cli(&["vault", "list"]).done().contains("s  a"), "names need no keychain");
    keyring.start_again();
    assert_eq!(verified(&world, &keyring).1.code, Some(0));
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.read("s", &["a"]), found(&[("a", "1")]));
    assert_refused(&client.read("other", &["b"]), "denied", "service_not_allowed");
    assert_eq!(client.read("s", &["b"]), found(&[]), "nothing was imported");
}

/// How many secrets a rekey that is killed has: each is put and removed in some 10 ms.
const SECRETS: usize = 10;

/// Kills a rekey so often, at moments from its begin to its end, and looks at what each has left.
fn rekeys_killed(kills: u32) -> Option<[u32; 3]> {
    let names: Vec<String> = (0..SECRETS).map(|number| format!("k{number}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let targets: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut world, keyring, tool) = at_rest(&pairs)?;
    let begun = Instant::now();
    cli(&world, &keyring, &["vault", "rekey"]).done();
    let whole = begun.elapsed();
    let (mut killed, mut between, mut waiting) = (0, 0, 0);
    for turn in 0..kills {
        let mut command = world.command(&world.binary());
        command.args(["vault", "rekey"]).env("DBUS_SESSION_BUS_ADDRESS", keyring.address());
        let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
        // the moment itself is what is tried
        thread::sleep(whole * (turn * 37 % kills) / kills);
        killed += u32::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
        between +=
            u32::from(fs::read_to_string(world.data().join("vault.key")).unwrap().lines().count() == 2);
        let (report, said) = verified(&world, &keyring);
        assert_eq!(
            (said.code, &report["records_whole"]),
            (Some(0), &json!(SECRETS)),
            "turn {turn}: {report}"
        );
        waiting += u32::from(report["keychain"]["changes_waiting"] != 0);
        if turn % 5 == 4 {
            world.start();
            let read = Client::connected(&world, &tool).read("s", &targets);
            assert_eq!(read, found(&pairs), "turn {turn}");
            carried(&world);
            assert!(world.stop().success(), "{}", world.log());
            assert_eq!(keyring.items(&OURS).len(), SECRETS, "turn {turn}: nothing of an old key is left");
        }
    }
    let slot = fs::read_to_string(world.data().join("vault.key")).unwrap();
    assert_eq!(slot.lines().count(), 1, "one key is left");
    world.cli(&["audit", "verify"]).done();
    Some([killed, between, waiting])
}

#[test]
fn a_rekey_that_is_killed_at_any_moment_loses_no_secret_of_the_keychain_and_leaves_one_key() {
    const KILLS: u32 = 100;
    let ends = thread::scope(|scope| {
        [(); 2].map(|()| scope.spawn(|| rekeys_killed(KILLS / 2))).map(|half| half.join().unwrap())
    });
    let [Some(one), Some(other)] = ends else { return };
    let [killed, between, waiting] = [0, 1, 2].map(|index| one[index] + other[index]);
    let told =
        format!("{killed} were killed, {between} between two keys, {waiting} with changes on their way");
    assert!(killed > KILLS / 4 && between > 0 && waiting > 0, "{told}");
}

#[test]
fn the_broker_of_a_command_has_neither_its_memory_for_secrets_nor_its_files() {
    let Some((world, keyring, _)) = at_rest(&[("a", "1")]) else { return };
    if !is_root() {
        skip("only root can look into processes that are closed to others");
        return;
    }
    let mut command = world.command(&world.binary());
    command.args(["vault", "import", "env", "-", "--service", "s", "--apply"]).stdin(Stdio::piped());
    command.env("DBUS_SESSION_BUS_ADDRESS", keyring.address());
    let mut child = Guarded(spawn(command.stdout(Stdio::null()).stderr(Stdio::null())));
    let pid = child.0.id();
    let mut input = child.0.stdin.take().unwrap();
    input.write_all(b"b=2\n").unwrap();
    await_that("the command has the vault, and took its input", || {
        (rustix::io::ioctl_fionread(&input).ok()? == 0).then_some(())
    });
    let of = |pid: u32, what: &str| fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap();
    let children = of(pid, &format!("task/{pid}/children"));
    let [broker] = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()[..]
    else {
        panic!("one child is expected: {children}")
    };
    // the last that it does before it serves
    await_that("it is caged", || of(broker, "status").contains("Seccomp:\t2").then_some(()));
    assert!(of(pid, "maps").contains("secretmem"), "the command keeps its secrets there");
    assert!(!of(broker, "maps").contains("secretmem"));
    let links = fs::read_dir(format!("/proc/{broker}/fd")).unwrap().map(|link| link.unwrap());
    let beyond = links.filter(|link| link.file_name().to_str().unwrap().parse::<u32>().unwrap() > 2);
    for link in beyond {
        let leads = fs::read_link(link.path()).unwrap();
        let leads = leads.to_str().unwrap();
        assert!(leads.starts_with("socket:") || leads.starts_with("anon_inode:"), "{leads}");
    }
    for line in ["NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
        assert!(of(broker, "status").contains(line), "{line}");
    }
    drop(input);
    let ended = await_that("the command ends", || child.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
    await_that("its broker ends with it", || (!Path::new(&format!("/proc/{broker}")).exists()).then_some(()));
    assert_eq!(keyring.items(&OURS).len(), 2);
}
