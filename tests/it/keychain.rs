//! `--store keychain` with a real gnome-keyring: what it keeps, what it shows, and what happens when it is locked, ends,
//! hangs or is tampered with.

use std::{fs, thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    client::{Client, Got, assert_refused, found, written},
    keyring::Keyring,
    keys::{PASSPHRASE, askpass, cli_with, with_keyring},
    world::{Entry, World, await_that},
};

pub const OURS: [(&str, &str); 1] = [("application", "keychain-auth")];

/// A keyring of the ordinary user, and a world whose daemon will keep its secrets there.
pub fn world() -> Option<(World, Keyring)> {
    let (mut world, keyring) = with_keyring()?;
    // else the keychain would hold the key too, as one more item
    world.start_args = vec!["--store=keychain".into(), "--key=file".into()];
    Some((world, keyring))
}

fn status(world: &World) -> Value {
    serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap()
}

/// Waits until the keychain has everything.
pub fn carried(world: &World) {
    await_that("everything is carried", || (status(world)["keychain"]["waiting"] == json!(0)).then_some(()));
}

#[test]
fn every_secret_is_an_item_that_shows_nothing_and_survives_restarts() {
    const WORDS: [&str; 4] = ["service-7f3a1c", "target-90be4d", "value-5d2c8e77", "label-e61fa2"];
    let Some((mut world, keyring)) = world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &[WORDS[0]])]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    let write = json!({"type": "REQUEST", "action": "write", "service": WORDS[0], "targets": [WORDS[1], "other"],
        "values": [WORDS[2], "v"], "attributes": {(WORDS[3]): WORDS[3]}});
    assert_eq!(client.request(&write), written());
    carried(&world);
    assert_eq!(status(&world)["store"], "keychain");
    assert_eq!(status(&world)["keychain"]["state"], "unlocked");
    let items = keyring.items(&OURS);
    assert_eq!(items.len(), 2, "one item for each secret");
    // what secret-tool shows to anybody of the same user
    let mut search = keyring.command("/usr/bin/secret-tool");
    let shown =
        crate::world::run(search.args(["search", "--all", "--unlock", "application", "keychain-auth"]));
    let shown = shown.out + &shown.err;
    assert!(shown.contains("keychain-auth item"), "{shown}");
    for word in WORDS {
        assert!(!shown.contains(word), "{word} is in {shown}");
        let item = keyring.value(&items[0]);
        let plain = data_encoding::BASE64.decode(&item).unwrap();
        assert!(!plain.windows(word.len()).any(|window| window == word.as_bytes()));
    }
    let reply = client
        .request(&json!({"type": "REQUEST", "action": "read", "service": WORDS[0], "targets": [WORDS[1]]}));
    assert_eq!(reply["results"][0]["value"], WORDS[2], "{reply}");
    assert_eq!(reply["results"][0]["attributes"], json!({(WORDS[3]): WORDS[3]}));
    assert!(world.stop().success(), "{}", world.log());
    for file in fs::read_dir(world.data()).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(WORDS[2].len()).any(|window| window == WORDS[2].as_bytes()), "{path:?}");
    }
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.read(WORDS[0], &["other"])["results"][0]["value"], "v");
    let delete = json!({"type": "REQUEST", "action": "delete", "service": WORDS[0], "targets": ["other"]});
    assert_eq!(client.request(&delete)["results"][0]["target"], "other");
    carried(&world);
    assert_eq!(keyring.items(&OURS).len(), 1);
    assert!(world.stop().success(), "{}", world.log());
}

#[test]
fn a_vault_for_the_keychain_is_made_by_init_too() {
    let Some((mut world, keyring)) = world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.cli(&["vault", "init", "--key", "file", "--store", "keychain"]).done();
    assert!(keyring.items(&OURS).is_empty());
    world.start_args.clear();
    world.start();
    assert_eq!(status(&world)["store"], "keychain");
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    carried(&world);
    assert_eq!(keyring.items(&OURS).len(), 1);
}

#[test]
fn key_and_secrets_may_both_rest_in_the_keychain() {
    let Some((mut world, mut keyring)) = world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start_args = vec!["--store=keychain".into(), "--key=keychain".into()];
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    carried(&world);
    assert_eq!(keyring.items(&OURS).len(), 2, "the key and the secret");
    assert!(world.stop().success());
    keyring.kill();
    keyring.start_again();
    world.start();
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]));
    keyring.lock();
    assert_refused(&Client::connected(&world, &tool).read("s", &["k"]), "error", "store_locked");
}

#[test]
fn a_locked_keychain_is_told_within_5_s_changes_nothing_and_hinders_nobody_else() {
    let Some((mut world, keyring)) = world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    carried(&world);
    keyring.lock();
    let search = json!({"type": "REQUEST", "action": "search", "service": "s"});
    // the contract's limit is 5 s; a prompt would be waited for without end
    assert_refused(&client.read_within(15, "s", &["k"]), "error", "store_locked");
    assert_refused(&client.write("s", &[("k", "w")]), "error", "store_locked");
    assert_refused(&client.request(&search), "error", "store_locked");
    assert_eq!(status(&world)["keychain"]["state"], "locked");
    all_say_that_the_keychain_is_what_is_locked(&world, &mut client);
    let check = json!({"type": "REQUEST", "action": "check", "service": "s"});
    assert_eq!(client.request(&check)["status"], "success", "what needs no secret is served");
    keyring.unlock();
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    assert_eq!(client.write("s", &[("k", "w")]), written());
    assert_eq!(client.read("s", &["k"]), found(&[("k", "w")]));
    let refused = world.audit().into_iter().filter(|record| record["reason"] == "store_locked").count();
    assert_eq!(refused, 4, "each has its record");
}

/// No advice leads to the vault, which is open.
fn all_say_that_the_keychain_is_what_is_locked(world: &World, client: &mut Client) {
    let reply = client.read("s", &["k"]);
    let message = reply["message"].as_str().unwrap();
    assert!(message.contains("keychain, where the secrets rest, is locked; unlock it"), "{reply}");
    assert!(!message.contains("vault unlock"), "{reply}");
    let why = "keychain, where the secrets rest, was locked";
    let told = world.cli(&["vault", "status"]).done();
    assert!(told.contains(why) && told.contains("store_locked"), "{told}");
    let told = world.cli(&["vault", "unlock"]);
    assert!(
        told.code == Some(0) && told.out.contains("unlocked already") && told.err.contains(why),
        "{told:?}"
    );
    let rows = doctor(world, "vault");
    assert!(rows[0]["means"].as_str().unwrap().contains(why), "{rows:?}");
    let log = world.log();
    assert!(log.contains("the keychain is locked") && !log.contains("the store is locked"), "{log}");
}

/// The rows of `doctor` by this name, with its exit code held to what it says.
fn doctor(world: &World, name: &str) -> Vec<Value> {
    let told = world.cli(&["doctor", "--json"]);
    let report: Value = serde_json::from_str(&told.out).unwrap_or_else(|_| panic!("{told:?}"));
    assert_eq!(told.code, Some(i32::from(report["bad"] != json!(0))), "{told:?}");
    report["checks"].as_array().unwrap().iter().filter(|row| row["name"] == name).cloned().collect()
}

#[test]
fn items_that_the_keychain_has_lost_are_told_by_status_and_doctor_until_they_are_written_anew() {
    let Some((mut world, keyring)) = world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("a", "1"), ("b", "2")]), written());
    carried(&world);
    assert_eq!(status(&world)["keychain"]["lost"], json!(0));
    assert!(doctor(&world, "keychain items").is_empty());
    assert!(world.stop().success());
    keyring.items(&OURS).iter().for_each(|item| keyring.remove(item));
    world.start();
    let lost = |count: u64| (status(&world)["keychain"]["lost"] == json!(count)).then_some(());
    await_that("the start has looked", || lost(2));
    let told = world.cli(&["status"]).done();
    assert!(told.contains("2 secrets have lost their items"), "{told}");
    let rows = doctor(&world, "keychain items");
    assert!(rows.len() == 1 && rows[0]["state"] == "bad" && rows[0]["found"] == "2 lost", "{rows:?}");
    assert!(world.log().contains("2 secrets have lost their items in the keychain"), "{}", world.log());
    assert_eq!(Client::connected(&world, &tool).write("s", &[("a", "3")]), written());
    await_that("one is mended", || lost(1));
    let told = world.cli(&["status"]).done();
    assert!(told.contains("1 secret has lost its item"), "{told}");
    assert_eq!(Client::connected(&world, &tool).write("s", &[("b", "4")]), written());
    await_that("both are mended", || lost(0));
    assert!(doctor(&world, "keychain items").is_empty());
}

#[test]
fn a_keychain_that_hangs_is_given_up_within_5_s_and_hinders_nobody_else() {
    let Some((mut world, keyring)) = world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connected(&world, &tool)).collect();
    assert_eq!(clients[0].write("s", &[("k", "v")]), written());
    carried(&world);
    keyring.hang();
    thread::scope(|scope| {
        let asked = clients.iter_mut().enumerate().map(|(number, client)| {
            scope.spawn(move || {
                // it hangs without end: what is answered was given up
                let reply =
                    if number % 2 == 0 { client.read("s", &["k"]) } else { client.write("s", &[("k", "w")]) };
                assert_refused(&reply, "error", "store_locked");
            })
        });
        let asked: Vec<_> = asked.collect();
        let check = json!({"type": "REQUEST", "action": "check", "service": "s"});
        let mut other = Client::connected(&world, &tool);
        let waiting = || asked.iter().any(|asked| !asked.is_finished());
        let mut beside = 0;
        while waiting() {
            assert_eq!(other.request(&check)["status"], "success");
            beside += u32::from(waiting());
        }
        assert!(beside > 0, "others are served while these still wait");
        asked.into_iter().for_each(|asked| asked.join().unwrap());
    });
    keyring.resume();
    await_that("it serves again", || (clients[0].read("s", &["k"]) == found(&[("k", "v")])).then_some(()));
}

#[test]
fn a_keychain_that_is_killed_and_started_again_loses_nothing() {
    let Some((mut world, mut keyring)) = world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    let names: Vec<String> = (0..200).map(|number| format!("k{number:03}")).collect();
    let pairs = |value: &'static str| names.iter().map(|name| (name.as_str(), value)).collect::<Vec<_>>();
    let targets: Vec<&str> = names.iter().map(String::as_str).collect();
    for round in ["1", "2", "3", "4"] {
        assert_eq!(client.write("s", &pairs(round)), written());
        // somewhere on the way
        await_that("something is carried", || {
            let waiting = status(&world)["keychain"]["waiting"].as_u64().unwrap();
            (waiting < 200).then_some(())
        });
        keyring.kill();
        assert_refused(&client.read("s", &targets), "error", "store_locked");
        assert_refused(&client.write("s", &pairs("never")), "error", "store_locked");
        keyring.start_again();
        assert_eq!(client.read("s", &targets), found(&pairs(round)), "whole, after it was killed");
        carried(&world);
        assert_eq!(client.read("s", &targets), found(&pairs(round)));
    }
    assert_eq!(keyring.items(&OURS).len(), 200);
}

/// The number that every target has; 0 while there is none. Fails on a mix or a missing target.
fn number_of_all(client: &mut Client, targets: &[&str], round: u64) -> u64 {
    let reply = client.read("s", targets);
    let results = reply["results"].as_array().unwrap_or_else(|| panic!("{reply}"));
    let values: Vec<u64> = results.iter().map(|r| r["value"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(values.len(), if values.is_empty() { 0 } else { targets.len() }, "round {round}");
    assert!(values.iter().all(|value| *value == values[0]), "round {round}: torn: {values:?}");
    values.first().copied().unwrap_or_default()
}

/// Kills a daemon at work so often, and looks at what it has left with the one that is killed next.
fn killed_again_and_again(world: &mut World, keyring: &Keyring, kills: u64) {
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let names: Vec<String> = (0..40).map(|number| format!("k{number:03}")).collect();
    let targets: Vec<&str> = names.iter().map(String::as_str).collect();
    let batch = |number: u64| {
        let values = vec![number.to_string(); targets.len()];
        json!({"type": "REQUEST", "action": "write", "service": "s", "targets": targets, "values": values})
    };
    let (mut acknowledged, mut sent) = (0, 0);
    for round in 0..kills {
        world.start();
        let mut client = Client::connected(world, &tool);
        let found = number_of_all(&mut client, &targets, round);
        assert!((acknowledged..=sent).contains(&found), "round {round}: {found} of {acknowledged} to {sent}");
        sent = found;
        for _ in 0..round % 3 {
            sent += 1;
            assert_eq!(client.request(&batch(sent)), written());
        }
        acknowledged = sent;
        // in every second round in the middle of one more, else while they are carried to the keychain
        if round % 2 == 1 {
            sent += 1;
            client.send(format!("{}\n", batch(sent)).as_bytes());
        }
        // the moment itself is what is tried
        thread::sleep(Duration::from_micros(round * 7919 % 60_000));
        world.kill();
        if sent > acknowledged && matches!(client.recv(), Got::Line(_)) {
            acknowledged = sent;
        }
    }
    world.start();
    let found = number_of_all(&mut Client::connected(world, &tool), &targets, kills);
    assert!((acknowledged..=sent).contains(&found), "{found} of {acknowledged} to {sent}");
    carried(world);
    assert_eq!(keyring.items(&OURS).len(), names.len());
    let written =
        world.audit().iter().filter(|r| r["action"] == "write" && r["result"] == "GRANTED").count() as u64;
    assert_eq!(written, found, "every committed write is in the log");
}

#[test]
fn a_daemon_that_is_killed_at_any_moment_tears_no_batch_and_loses_no_acknowledged_one() {
    let (Some(one), Some(other)) = (world(), world()) else { return };
    thread::scope(|scope| {
        for (mut world, keyring) in [one, other] {
            scope.spawn(move || killed_again_and_again(&mut world, &keyring, 50));
        }
    });
}

#[test]
fn an_item_that_is_removed_or_put_back_to_an_older_one_is_never_fewer_or_older_secrets() {
    let Some((mut world, keyring)) = world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("a", "old"), ("b", "1")]), written());
    carried(&world);
    let items = keyring.items(&OURS);
    let old: Vec<Vec<u8>> = items.iter().map(|item| keyring.value(item)).collect();
    assert_eq!(client.write("s", &[("a", "new"), ("b", "2")]), written());
    carried(&world);
    let new: Vec<Vec<u8>> = items.iter().map(|item| keyring.value(item)).collect();
    keyring.set_value(&items[0], &old[0]);
    assert_refused(&client.read("s", &["a", "b"]), "error", "internal_error");
    keyring.set_value(&items[0], &new[1]);
    assert_refused(&client.read("s", &["a", "b"]), "error", "internal_error");
    keyring.set_value(&items[0], &new[0]);
    assert_eq!(client.read("s", &["a", "b"]), found(&[("a", "new"), ("b", "2")]));
    keyring.remove(&items[0]);
    assert_refused(&client.read("s", &["a", "b"]), "error", "internal_error");
    assert!(world.log().contains("an item of the keychain is missing or was changed"), "{}", world.log());
    assert_eq!(client.write("s", &[("a", "again"), ("b", "3")]), written(), "writing mends it");
    assert_eq!(client.read("s", &["a", "b"]), found(&[("a", "again"), ("b", "3")]));
}

#[test]
fn a_plain_start_goes_on_where_the_secrets_are_and_another_store_is_an_error_that_names_both() {
    let Some((mut world, _keyring)) = world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    carried(&world);
    assert!(world.stop().success());
    world.start_args = vec!["--store=vault".into()];
    assert!(world.try_start().is_err());
    let log = world.log();
    assert!(log.contains("rest in the store keychain, not in the store vault"), "{log}");
    assert!(log.contains("start it without --store"), "{log}");
    // as the unit and every advice of a command start it; also after a kill, which leaves the file as it is
    world.start_args.clear();
    for _ in 0..2 {
        world.start();
        assert_eq!(status(&world)["store"], "keychain");
        assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]));
        world.kill();
    }
    world.start_env.clear();
    assert!(world.try_start().is_err());
    assert!(world.log().contains("no session bus"), "{}", world.log());
    // which store it is, is seen also while a command has the vault, and takes the vault from none
    let folder = std::fs::File::open(world.data()).unwrap();
    folder.lock().unwrap();
    assert!(world.try_start().is_err());
    // once more than before: the log is that of all starts
    assert_eq!(world.log().matches("no session bus").count(), 2, "{}", world.log());
}

#[test]
fn commands_that_need_no_value_do_without_the_keychain_and_its_vault_gets_another_key_source() {
    let Some((mut world, mut keyring)) = world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("a", "1"), ("b", "2")]), written());
    carried(&world);
    assert!(world.stop().success());
    // no keychain, and no session bus either: commands run without one
    keyring.kill();
    assert!(world.cli(&["vault", "list"]).done().contains("s  a"));
    world.cli(&["audit", "verify"]).done();
    world.cli(&["policy", "seal"]).done();
    let passphrase = askpass(&world, "askpass", PASSPHRASE);
    let env = [("KEYCHAIN_AUTH_ASKPASS", passphrase.to_str().unwrap())];
    cli_with(&world, &env, &["vault", "change-key-source", "--key", "passphrase"]).done();
    assert!(fs::read_to_string(world.data().join("vault.key")).unwrap().contains("source passphrase"));
    assert!(world.cli(&["vault", "list"]).err.contains("no terminal to ask"), "the old key opens nothing");
    keyring.start_again();
    world.start_args.clear();
    world.start_env.push(("KEYCHAIN_AUTH_ASKPASS".into(), passphrase.display().to_string()));
    world.start();
    assert_eq!(Client::connected(&world, &tool).read("s", &["a", "b"]), found(&[("a", "1"), ("b", "2")]));
    assert_eq!(status(&world)["policy"]["sealed"], json!(true));
    assert_eq!(status(&world)["vault"]["key_source"], "passphrase");
    world.cli(&["audit", "verify"]).done();
    let log = fs::read_to_string(world.data().join("audit.log")).unwrap();
    assert!(log.contains("source of the vault's key changed"), "{log}");
}

#[test]
fn a_vault_that_keeps_its_values_itself_is_not_opened_with_a_keychain() {
    let Some((mut world, _keyring)) = world() else { return };
    world.start_args = vec!["--key=file".into()];
    world.start();
    assert_eq!(status(&world)["store"], "vault");
    assert!(world.stop().success());
    world.start_args = vec!["--store=keychain".into()];
    assert!(world.try_start().is_err());
    let log = world.log();
    assert!(log.contains("rest in the store vault, not in the store keychain"), "{log}");
}

#[test]
fn without_its_broker_the_daemon_ends() {
    let Some((mut world, _keyring)) = world() else { return };
    world.start();
    let [_witness, broker] = world.children();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(broker.cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert_eq!(world.ended().code(), Some(1));
    assert!(world.log().contains("the broker process"), "{}", world.log());
}

/// Lets a read wait for the keychain, does something to its caller or its permission meanwhile, and gives the reply.
fn while_it_waits(meanwhile: impl FnOnce(&World, &mut Client)) -> Option<Value> {
    let (mut world, keyring) = world()?;
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    carried(&world);
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    keyring.hang();
    let read = json!({"type": "REQUEST", "action": "read", "service": "s", "targets": ["k"]});
    client.send(format!("{read}\n").as_bytes());
    // the daemon does one thing after the other: by then it has looked at the first caller and waits for the keychain
    let mut other = Client::connected(&world, &tool);
    for _ in 0..20 {
        let check = json!({"type": "REQUEST", "action": "check", "service": "s"});
        assert_eq!(other.request(&check)["status"], "success");
    }
    meanwhile(&world, &mut client);
    keyring.resume();
    let reply = client.recv().json();
    let granted = |record: &Value| record["action"] == "read" && record["result"] == "GRANTED";
    assert_eq!(world.audit().iter().filter(|record| granted(record)).count(), 1, "{reply}");
    Some(reply)
}

#[test]
fn a_permission_that_is_revoked_while_the_keychain_is_asked_is_gone() {
    let reply = while_it_waits(|world, _client| {
        let tool = world.root().join("bin/tool");
        world.policy(&[Entry::all(&tool, &["other"])]);
    });
    let Some(reply) = reply else { return };
    assert_refused(&reply, "denied", "service_not_allowed");
}

#[test]
fn a_caller_that_loads_code_while_the_keychain_is_asked_gets_nothing() {
    let reply = while_it_waits(|world, client| {
        let code = world.tmp("code");
        world.write(&code, &[0xc3; 4096]);
        assert_eq!(client.order(&format!("load {}", code.display()), &[]), "ok");
    });
    let Some(reply) = reply else { return };
    assert_refused(&reply, "denied", "untrusted_caller");
    assert!(reply["message"].as_str().unwrap().starts_with("injected_code"), "{reply}");
}
