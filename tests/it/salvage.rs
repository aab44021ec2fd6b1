//! `start --salvage`: what is intact of a damaged vault, read and nothing else.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    client::{Client, assert_refused, found, written},
    moving::age_keys,
    processes::text,
    world::{Entry, World},
};

const COUNT: usize = 30;

fn value(number: usize) -> String {
    format!("VALUE{number}{}", "v".repeat(300))
}

/// A stopped daemon's vault with 30 secrets.
pub fn filled() -> (World, PathBuf) {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let pairs: Vec<(String, String)> =
        (0..COUNT).map(|number| (format!("t{number:02}"), value(number))).collect();
    let pairs: Vec<(&str, &str)> =
        pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(Client::connected(&world, &tool).write("s", &pairs), written());
    world.stop();
    (world, tool)
}

/// Flips bits of the file until the value of exactly one record, whose name is known, is damaged. Gives its name.
pub fn damage(world: &World) -> String {
    let path = world.data().join("vault.redb");
    let bytes = fs::read(&path).unwrap();
    for step in 1..400 {
        let mut changed = bytes.clone();
        changed[bytes.len() * step / 400] ^= 1 << (step % 8);
        world.write(&path, &changed);
        let Ok(report) = serde_json::from_str::<Value>(&world.cli(&["vault", "verify", "--json"]).out) else {
            continue;
        };
        let damaged = report["damaged"].as_array().unwrap();
        if let [one] = damaged.as_slice()
            && let Some(name) = one["target"].as_str()
            && report["records_whole"] == COUNT - 1
        {
            return name.to_owned();
        }
    }
    panic!("no step hits a value");
}

/// The same length with garbage in place of everything but the first page: no record can be reached.
pub fn garbage(file: &[u8]) -> Vec<u8> {
    let garbage = |(at, byte): (usize, &u8)| if at < 4096 { *byte } else { (at * 31 % 251) as u8 };
    file.iter().enumerate().map(garbage).collect()
}

fn prefix(action: &str) -> Value {
    json!({"type": "REQUEST", "action": action, "service": "s", "targets": ["t"], "match": "prefix"})
}

fn refused(reply: &Value, word: &str) {
    assert_refused(reply, "error", "internal_error");
    assert!(reply["message"].as_str().unwrap().contains(word), "{reply}");
}

#[test]
fn what_is_intact_of_a_damaged_vault_is_served_on_request_and_nothing_is_changed() {
    let (mut world, tool) = filled();
    let damaged = damage(&world);
    let before = fs::read(world.data().join("vault.redb")).unwrap();
    assert_eq!(world.try_start().err().and_then(|status| status.code()), Some(1));
    assert!(world.log().contains("vault verify") && world.log().contains("--salvage"), "{}", world.log());
    world.start_args = vec!["--salvage".into()];
    world.start();
    assert!(world.log().contains("SALVAGE"), "{}", world.log());
    assert!(world.log().contains("29 records can be read, 1 can't"), "{}", world.log());

    let mut client = Client::connected(&world, &tool);
    for number in 0..COUNT {
        let name = format!("t{number:02}");
        let reply = client.read("s", &[&name]);
        if name == damaged {
            refused(&reply, "vault verify");
        } else {
            assert_eq!(reply, found(&[(&name, &value(number))]));
        }
    }
    // a batch with it, and a list that would be without it
    let whole = ["t00", "t01", "t02", "t03"].into_iter().filter(|name| *name != damaged);
    let batch: Vec<&str> = whole.take(3).chain([damaged.as_str()]).collect();
    refused(&client.read("s", &batch), "vault verify");
    refused(&client.request(&prefix("read")), "vault verify");
    assert_eq!(
        client.request(&prefix("search"))["results"].as_array().unwrap().len(),
        COUNT,
        "names are whole"
    );
    assert_eq!(client.read("s", &["never"]), found(&[]));
    refused(&client.write("s", &[("t00", "new")]), "nothing was changed");
    refused(
        &client.request(&json!({"type": "REQUEST", "action": "delete", "service": "s", "targets": ["t00"]})),
        "nothing was changed",
    );

    let status: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    assert_eq!(status["vault"]["state"], "salvaged");
    assert_eq!(status["vault"]["salvage"], "29 records can be read, 1 can't");
    assert!(world.cli(&["status"]).done().contains("SALVAGED, for reading only"));
    let vault = world.cli(&["vault", "status"]).done();
    assert!(vault.contains("THE VAULT IS DAMAGED") && vault.contains("29 records can be read"), "{vault}");
    let doctor = world.cli(&["doctor"]);
    assert!(doctor.code == Some(1) && doctor.out.contains("THE VAULT IS DAMAGED"), "{}", doctor.out);
    let lock = world.cli(&["vault", "lock"]);
    assert!(lock.code == Some(1) && lock.err.contains("stop the daemon"), "{}", lock.err);
    // no key is asked for, so none is said to fit, and nothing is brought from its outbox to the log
    let before_unlock = world.audit().len();
    for _ in 0..3 {
        let nonce = client.request(&json!({"type": "UNLOCK"}))["nonce"].clone();
        let key = json!({"type": "UNLOCK", "nonce": nonce, "key": "ab".repeat(72)});
        refused(&client.request(&key), "takes no key");
    }
    assert!(world.cli(&["vault", "unlock"]).done().contains("already"));
    assert_eq!(world.audit().len(), before_unlock + 3, "one record for each refusal");
    let records = world.audit();
    let opened = records.iter().find(|record| {
        record["detail"].as_str().is_some_and(|it| it.starts_with("vault opened for salvage: 29"))
    });
    assert!(opened.is_some_and(|record| record["action"] == "vault"), "{records:?}");
    assert!(
        records.iter().any(|record| record["result"] == "ERROR" && record["targets"] == json!([damaged]))
    );
    world.stop();
    world.cli(&["audit", "verify"]).done();
    assert!(fs::read(world.data().join("vault.redb")).unwrap() == before, "nothing is written");
    // the damage is still there, and a start without the word still refuses it
    world.start_args.clear();
    assert_eq!(world.try_start().err().and_then(|status| status.code()), Some(1));
}

#[test]
fn a_vault_that_was_put_back_with_its_head_is_noticed_and_read_only_on_request() {
    let (mut world, tool) = filled();
    let files = ["vault.redb", "vault.head"].map(|name| world.data().join(name));
    let older = files.each_ref().map(|path| fs::read(path).unwrap());
    let state = world.data().join("audit.state");
    let older_state = fs::read(&state).unwrap();
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("later", "1")]), written());
    world.stop();
    // the next epoch of the log notes how far the vault had come
    world.start();
    world.stop();
    for (path, bytes) in files.iter().zip(&older) {
        world.write(path, bytes);
    }
    assert_eq!(world.try_start().err().and_then(|status| status.code()), Some(1));
    assert!(world.log().contains("put back to an earlier state"), "{}", world.log());
    // a refusal closes the file as any opening does
    let before = files.each_ref().map(|path| fs::read(path).unwrap());
    let verify = world.cli(&["vault", "verify"]);
    assert!(verify.code == Some(1) && verify.out.contains("put back to an earlier state"), "{verify:?}");
    world.start_args = vec!["--salvage".into()];
    world.start();
    assert!(world.log().contains("30 records can be read, 0 can't; it was put back"), "{}", world.log());
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.read("s", &["t03"]), found(&[("t03", &value(3))]));
    refused(&client.read("s", &["later"]), "vault verify");
    refused(&client.request(&prefix("search")), "vault verify");
    refused(&client.write("s", &[("t03", "new")]), "nothing was changed");
    world.stop();
    assert!(files.each_ref().map(|path| fs::read(path).unwrap()) == before, "nothing is written");
    // as its advice says: with the state of the log from the same backup it is a vault again
    world.write(&state, &older_state);
    world.start_args.clear();
    world.start();
    assert_eq!(Client::connected(&world, &tool).read("s", &["t03", "later"]), found(&[("t03", &value(3))]));
}

#[test]
fn a_vault_that_lacks_its_head_is_read_as_the_refusal_says_and_nobody_is_told_that_it_is_older() {
    let (mut world, tool) = filled();
    fs::remove_file(world.data().join("vault.head")).unwrap();
    assert_eq!(world.try_start().err().and_then(|status| status.code()), Some(1));
    let said = world.log();
    assert!(said.contains("vault.head is missing") && said.contains("start --salvage"), "{said}");
    world.start_args = vec!["--salvage".into()];
    world.start();
    assert!(world.log().contains("without an intact vault.head nobody can tell"), "{}", world.log());
    assert_eq!(Client::connected(&world, &tool).read("s", &["t03"]), found(&[("t03", &value(3))]));
}

#[test]
fn what_is_intact_of_a_damaged_vault_is_exported_for_a_new_one_and_what_is_not_is_named() {
    let (world, _) = filled();
    let damaged = damage(&world);
    let files =
        || ["vault.redb", "vault.key", "vault.head"].map(|name| fs::read(world.data().join(name)).unwrap());
    let before = files();
    let (recipient, identity) = age_keys(&world, "key.txt");
    let out = world.tmp("out.age");
    let export = ["vault", "export", "-o", text(&out), "-r", &recipient];
    let refused = world.cli(&export);
    assert!(refused.code == Some(1) && refused.err.contains("vault export --salvage"), "{refused:?}");
    let salvaged = world.cli(&[&export[..], &["--salvage"]].concat());
    assert_eq!(salvaged.code, Some(0), "{salvaged:?}");
    assert!(salvaged.out.starts_with("Exported 29 secrets to "), "{salvaged:?}");
    assert!(
        salvaged.err.contains(&format!("left out, since its record is damaged: s  {damaged}")),
        "{salvaged:?}"
    );
    assert!(salvaged.err.contains("29 records can be read, 1 can't"), "{salvaged:?}");
    assert!(before == files(), "nothing of the vault is written");
    let records = world.audit();
    let exported: Vec<&Value> = records.iter().filter(|record| record["action"] == "export").collect();
    let names: Vec<&Value> =
        exported.iter().flat_map(|record| record["targets"].as_array().unwrap()).collect();
    assert!(names.len() == COUNT - 1 && !names.contains(&&json!(damaged)), "{exported:?}");
    assert!(exported[0]["detail"].as_str().unwrap().contains("vault export --salvage"), "{exported:?}");
    world.cli(&["audit", "verify"]).done();
    // a service that is not there is no file without a word
    let none = world.tmp("none.age");
    let missing =
        world.cli(&["vault", "export", "-o", text(&none), "-r", &recipient, "--salvage", "--service", "t"]);
    assert!(
        missing.code == Some(1) && missing.err.contains("no secret of the service t can be read"),
        "{missing:?}"
    );
    assert!(!none.exists());

    let mut other = World::new();
    let tool = other.tool("tool");
    other.policy(&[Entry::all(&tool, &["s"])]);
    other.cli(&["vault", "init"]).done();
    let (file, key) = (other.tmp("in.age"), other.tmp("key.txt"));
    other.write(&file, &fs::read(&out).unwrap());
    other.write(&key, &fs::read(&identity).unwrap());
    other.cli(&["vault", "import", "export", text(&file), "-i", text(&key), "--apply"]).done();
    other.start();
    let mut client = Client::connected(&other, &tool);
    for number in (0..COUNT).filter(|number| format!("t{number:02}") != damaged) {
        let name = format!("t{number:02}");
        assert_eq!(client.read("s", &[&name]), found(&[(&name, &value(number))]));
    }
    assert_eq!(client.read("s", &[&damaged]), found(&[]));
}

#[test]
fn beside_a_daemon_or_where_nothing_is_left_no_salvaged_export_is_made() {
    let (mut world, _) = filled();
    let (recipient, _) = age_keys(&world, "key.txt");
    let out = world.tmp("out.age");
    let export = ["vault", "export", "--salvage", "-o", text(&out), "-r", &recipient];
    world.start_args = vec!["--salvage".into()];
    world.start();
    let beside = world.cli(&export);
    assert!(beside.code == Some(1) && beside.err.contains("the daemon"), "{beside:?}");
    world.stop();
    // what was found whole is exported too, and nobody is sent to another vault
    let whole = world.cli(&export);
    assert!(whole.code == Some(0) && whole.err.contains("no damage was found"), "{whole:?}");
    assert!(!whole.err.contains("move the data folder"), "{whole:?}");
    fs::remove_file(&out).unwrap();
    let path = world.data().join("vault.redb");
    world.write(&path, &garbage(&fs::read(&path).unwrap()));
    let beyond = world.cli(&export);
    assert!(beyond.code == Some(1) && beyond.err.contains("can't be salvaged"), "{beyond:?}");
    assert!(!out.exists());
}

#[test]
fn a_vault_that_is_beyond_salvage_or_not_there_stops_the_daemon_and_stays_as_it_is() {
    let (mut world, _) = filled();
    world.start_args = vec!["--salvage".into()];
    let path = world.data().join("vault.redb");
    let bytes = fs::read(&path).unwrap();
    for damaged in [garbage(&bytes), bytes[..bytes.len() / 2].to_vec(), Vec::new()] {
        world.write(&path, &damaged);
        assert_eq!(world.try_start().err().and_then(|status| status.code()), Some(1), "{}", world.log());
        assert!(!world.log().contains("panicked"), "{}", world.log());
        assert!(fs::read(&path).unwrap() == damaged, "nothing is written");
    }
    let mut empty = World::new();
    empty.start_args = vec!["--salvage".into()];
    assert_eq!(empty.try_start().err().and_then(|status| status.code()), Some(1));
    assert!(empty.log().contains("there is no vault yet"), "{}", empty.log());
    assert!(!empty.data().join("vault.redb").exists() && !empty.data().join("vault.key").exists());
}
