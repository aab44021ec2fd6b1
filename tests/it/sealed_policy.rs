//! `policy seal`: another config.json than the sealed one is no policy, whoever wrote it.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::{
    client::{Client, assert_refused, found, written},
    keys::{PASSPHRASE, askpass, cli_with, with_passphrase},
    tools::hash_of,
    world::{Entry, Outcome, World, await_that},
};

/// A daemon with a sealed policy, and a tool that may use `s`.
pub fn sealed() -> (World, PathBuf) {
    let mut world = with_passphrase();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("a", "1")]), written());
    knowing(&world, &["policy", "seal"]).done();
    (world, tool)
}

/// A command by somebody who knows the passphrase.
pub fn knowing(world: &World, args: &[&str]) -> Outcome {
    let program = askpass(world, "typed", PASSPHRASE);
    cli_with(world, &[("KEYCHAIN_AUTH_ASKPASS", program.to_str().unwrap())], args)
}

/// The same by somebody who does not.
pub fn guessing(world: &World, args: &[&str]) -> Outcome {
    let program = askpass(world, "guessed", "incorrect horse");
    cli_with(world, &[("KEYCHAIN_AUTH_ASKPASS", program.to_str().unwrap())], args)
}

#[track_caller]
pub fn refuses_all(world: &World, tool: &std::path::Path) {
    assert_refused(&Client::connected(world, tool).read("s", &["a"]), "error", "policy_unsealed");
}

#[track_caller]
pub fn serves(world: &World, tool: &std::path::Path) {
    assert_eq!(Client::connected(world, tool).read("s", &["a"]), found(&[("a", "1")]));
}

#[test]
fn an_edit_of_a_sealed_policy_by_hand_denies_everything_until_it_is_put_back_or_sealed() {
    let (mut world, tool) = sealed();
    serves(&world, &tool);
    let mut open = Client::connected(&world, &tool);
    assert_eq!(open.read("s", &["a"]), found(&[("a", "1")]));
    let good = fs::read(world.config()).unwrap();
    // a process of the same user registers itself
    let evil = world.tool("evil");
    world.policy(&[Entry::all(&tool, &["s"]), Entry::all(&evil, &["s"])]);
    refuses_all(&world, &evil);
    refuses_all(&world, &tool);
    assert_refused(&open.read("s", &["a"]), "error", "policy_unsealed");
    let review = world.cli(&["policy", "review"]);
    assert!(
        review.code == Some(1) && review.err.contains("the seal in the vault was not asked"),
        "{review:?}"
    );
    assert!(knowing(&world, &["policy", "review"]).err.contains("accept it: keychain-auth policy seal"));
    let review = review.out;
    assert!(review.lines().next().unwrap().starts_with("UNPROVEN"), "nobody gave the key: {review}");
    assert!(review.contains(evil.to_str().unwrap()) && review.contains("+ read s"), "{review}");
    assert!(!review.contains(&format!("{}\n", tool.display())), "{review}");
    let status: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    assert_eq!((&status["policy"]["state"], &status["policy"]["sealed"]), (&"error".into(), &true.into()));
    world.write(&world.config(), &good);
    serves(&world, &tool);
    // also across a restart, and when the file is gone
    fs::remove_file(world.config()).unwrap();
    refuses_all(&world, &tool);
    world.stop();
    world.policy(&[Entry::all(&evil, &["s"])]);
    world.start();
    refuses_all(&world, &evil);
    // whoever has the passphrase may accept it
    knowing(&world, &["policy", "seal"]).done();
    serves(&world, &evil);
}

#[test]
fn a_policy_that_was_sealed_earlier_is_refused_with_everything_that_belongs_to_it() {
    let (world, tool) = sealed();
    let copy = world.data().join("policy.sealed");
    let (old, old_copy) = (fs::read(world.config()).unwrap(), fs::read(&copy).unwrap());
    assert_eq!(old, old_copy);
    knowing(&world, &["revoke", tool.to_str().unwrap(), "--read", "s"]).done();
    assert_refused(&Client::connected(&world, &tool).read("s", &["a"]), "denied", "service_not_allowed");
    world.write(&world.config(), &old);
    world.write(&copy, &old_copy);
    refuses_all(&world, &tool);
    // an edit by somebody who knows the passphrase does not seal what somebody else put there
    let refused = knowing(&world, &["grant", tool.to_str().unwrap(), "--write", "t"]);
    assert!(
        refused.code == Some(1) && refused.err.contains("not the policy that was sealed"),
        "{}",
        refused.err
    );
    refuses_all(&world, &tool);
}

#[test]
fn without_the_passphrase_no_command_changes_a_sealed_policy() {
    let (mut world, tool) = sealed();
    let evil = world.tool("evil");
    let (tool_path, evil_path) = (tool.to_str().unwrap().to_owned(), evil.to_str().unwrap().to_owned());
    let before = fs::read(world.config()).unwrap();
    let tries: [&[&str]; 8] = [
        &["register", &evil_path],
        &["authorize", &evil_path, "s"],
        &["grant", &tool_path, "--write", "t"],
        &["revoke", &tool_path, "--read", "s"],
        &["unregister", &tool_path],
        &["grant", &tool_path, "--relax", "traced"],
        &["policy", "seal"],
        &["policy", "unseal"],
    ];
    let copy = world.data().join("policy.sealed");
    for round in 0..3 {
        for args in tries {
            let refused = guessing(&world, args);
            assert!(refused.code == Some(1), "{args:?}: {refused:?}");
            assert_eq!(fs::read(world.config()).unwrap(), before, "{args:?}");
        }
        match round {
            // while it is locked, and while no daemon runs
            0 => drop(world.cli(&["vault", "lock"]).done()),
            1 => drop(world.stop()),
            _ => {}
        }
    }
    world.start();
    serves(&world, &tool);
    // without the copy the commands don't ask; what they write is not accepted
    fs::remove_file(&copy).unwrap();
    world.stop();
    assert_eq!(guessing(&world, &["authorize", &evil_path, "s"]).code, Some(0));
    world.start();
    refuses_all(&world, &evil);
    refuses_all(&world, &tool);
}

#[test]
fn what_an_edit_by_hand_says_already_is_granted_and_registered_by_no_command() {
    let (mut world, tool) = sealed();
    let good = fs::read(world.config()).unwrap();
    let evil = world.tool("evil");
    let (tool_path, evil_path) = (tool.to_str().unwrap(), evil.to_str().unwrap());
    let nothing_new: [&[&str]; 3] = [
        &["grant", evil_path, "--read", "s"],
        &["register", evil_path],
        &["revoke", tool_path, "--read", "never-granted"],
    ];
    for running in [true, false] {
        world.policy(&[Entry::all(&tool, &["s"]), Entry::all(&evil, &["s"])]);
        for args in nothing_new {
            let told = knowing(&world, args);
            assert!(told.code == Some(1) && told.out.is_empty(), "{args:?}: {told:?}");
            assert!(told.err.contains("is not the policy that was sealed"), "{args:?}: {told:?}");
            let keyless = world.cli(args);
            assert!(keyless.code == Some(1) && keyless.out.is_empty(), "{args:?}: {keyless:?}");
        }
        // what was sealed holds, and what it says already is said by who has the key; nothing is sealed for that
        world.write(&world.config(), &good);
        let log = || fs::read_to_string(world.data().join("audit.log")).unwrap();
        let seals = log().matches("another seal for the policy").count();
        let told = knowing(&world, &["grant", tool_path, "--read", "s"]).done();
        assert!(told.starts_with("Granted"), "{told}");
        assert_eq!(guessing(&world, &["grant", tool_path, "--read", "s"]).code, Some(1));
        assert_eq!(log().matches("another seal for the policy").count(), seals);
        if running {
            world.stop();
        }
    }
}

#[test]
fn commands_that_know_the_passphrase_change_a_sealed_policy_and_seal_it_again() {
    let (mut world, tool) = sealed();
    let other = world.tool("other");
    let path = other.to_str().unwrap();
    knowing(&world, &["register", path]).done();
    knowing(&world, &["grant", path, "--read", "s"]).done();
    serves(&world, &other);
    // on the files, while the daemon is locked or stopped
    world.cli(&["vault", "lock"]).done();
    knowing(&world, &["revoke", path, "--read", "s"]).done();
    knowing(&world, &["vault", "unlock"]).done();
    assert_refused(&Client::connected(&world, &other).read("s", &["a"]), "denied", "service_not_allowed");
    world.stop();
    knowing(&world, &["grant", path, "--read", "s"]).done();
    world.start();
    serves(&world, &other);
    serves(&world, &tool);
    assert!(knowing(&world, &["policy", "review"]).done().contains("is the policy that was sealed"));
    knowing(&world, &["policy", "unseal"]).done();
    world.policy(&[Entry::all(&other, &["s"])]);
    serves(&world, &other);
    assert!(knowing(&world, &["policy", "review"]).done().contains("is not sealed"));
    world.cli(&["audit", "verify"]).done();
    let log = fs::read_to_string(world.data().join("audit.log")).unwrap();
    assert!(log.matches("another seal for the policy").count() >= 6, "{log}");
}

/// What `check` says: its exit code, and its JSON.
fn check(world: &World, tool: &std::path::Path) -> (Option<i32>, Value) {
    let outcome = world.cli(&["check", tool.to_str().unwrap(), "s", "--json"]);
    (outcome.code, serde_json::from_str(&outcome.out).unwrap())
}

/// The rows of `doctor` with this name: their states and what they mean.
fn doctor(world: &World, name: &str) -> Vec<(String, String)> {
    let report: Value = serde_json::from_str(&world.cli(&["doctor", "--json"]).out).unwrap();
    let rows = report["checks"].as_array().unwrap().iter().filter(|row| row["name"] == name);
    let text = |row: &Value, member: &str| row[member].as_str().unwrap().to_owned();
    rows.map(|row| (text(row, "state"), text(row, "means"))).collect()
}

/// Fails unless check, list and doctor say that nothing of config.json counts.
#[track_caller]
fn all_say_that_it_is_not_in_force(world: &World, tool: &std::path::Path, word: &str) {
    let (code, answer) = check(world, tool);
    assert_eq!(
        (code, &answer["allowed"], &answer["reason"]),
        (Some(1), &false.into(), &"policy_unsealed".into())
    );
    let listed = world.cli(&["list"]);
    assert!(listed.code == Some(0) && listed.err.contains("every request is denied"), "{listed:?}");
    assert!(listed.err.contains(word) && listed.err.contains("policy review"), "{listed:?}");
    let listing: Value = serde_json::from_str(&world.cli(&["list", "--json"]).out).unwrap();
    assert_eq!(listing["in_force"], false, "{listing}");
    let rows = doctor(world, "policy");
    assert!(rows.len() == 1 && rows[0].0 == "bad" && rows[0].1.contains(word), "{rows:?}");
    assert_eq!(world.cli(&["doctor"]).code, Some(1));
    let status: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    let policy = (&status["policy"]["state"], &status["policy"]["reason"]);
    assert_eq!(policy, (&"error".into(), &"policy_unsealed".into()));
}

#[test]
fn check_list_and_doctor_say_that_an_edit_by_hand_is_not_in_force_with_and_without_a_daemon() {
    let (mut world, tool) = sealed();
    assert_eq!(check(&world, &tool).0, Some(0));
    let listing: Value = serde_json::from_str(&world.cli(&["list", "--json"]).out).unwrap();
    assert_eq!(listing["in_force"], true);
    let good = fs::read(world.config()).unwrap();
    world.policy(&[Entry::all(&tool, &["s", "t"])]);
    refuses_all(&world, &tool);
    all_say_that_it_is_not_in_force(&world, &tool, "is not the policy that was sealed");
    world.stop();
    all_say_that_it_is_not_in_force(&world, &tool, "no daemon runs to say which one holds");
    // what can't be known is said too
    world.write(&world.config(), &good);
    assert_eq!(check(&world, &tool).0, Some(0));
    for args in [&["check", tool.to_str().unwrap(), "s"][..], &["list"]] {
        let said = world.cli(args);
        assert!(said.err.contains("No daemon runs that reads this config.json"), "{said:?}");
    }
    assert_eq!(doctor(&world, "policy seal")[0].0, "unknown");
    // the copy decides nothing: whoever removes it only makes the commands know less
    fs::remove_file(world.data().join("policy.sealed")).unwrap();
    world.policy(&[Entry::all(&tool, &["s", "t"])]);
    assert_eq!(check(&world, &tool).0, Some(0));
    assert!(doctor(&world, "policy seal")[0].1.contains("no copy of a sealed policy"));
    world.start();
    all_say_that_it_is_not_in_force(&world, &tool, "is not the policy that was sealed");
}

#[test]
fn doctor_says_what_a_seal_is_worth_with_the_source_of_the_key() {
    let (world, _) = sealed();
    let [(state, means)] = &doctor(&world, "policy seal")[..] else { panic!("one row") };
    assert!(state == "ok" && means.contains("knows the passphrase"), "{state} {means}");
    let [(state, means)] = &doctor(&world, "policy writers")[..] else { panic!("one row") };
    assert!(state == "ok" && !means.contains("register itself"), "{state} {means}");
    let mut world = World::new();
    world.start_args = vec!["--key".to_owned(), "file".to_owned()];
    world.policy(&[]);
    world.start();
    world.cli(&["policy", "seal"]).done();
    let [(state, means)] = &doctor(&world, "policy seal")[..] else { panic!("one row") };
    assert!(state == "warn" && means.contains("every process of yours"), "{state} {means}");
    let [(state, means)] = &doctor(&world, "policy writers")[..] else { panic!("one row") };
    assert!(state == "warn" && means.contains("register itself"), "{state} {means}");
}

#[test]
fn an_edit_of_a_sealed_policy_by_hand_takes_nobody_from_the_queue() {
    let (world, _) = sealed();
    let queue = || fs::read_to_string(world.data().join("pending.json")).unwrap_or_default();
    let stranger = |name: &str| {
        let path = world.tool(name);
        let reply = Client::connected(&world, &path).read("s", &["a"]);
        assert_eq!(reply["reason"], "unregistered_binary_pending_approval");
        path
    };
    stranger("first");
    await_that("the first", || queue().contains("/first").then_some(()));
    // seen under the sealed policy, written under the other
    let lock = fs::File::open(world.data().join("pending.lock")).unwrap();
    lock.lock().unwrap();
    let evil = stranger("evil");
    world.policy(&[Entry::all(&evil, &["s"])]);
    lock.unlock().unwrap();
    world.cli(&["list-pending"]).done();
    assert!(queue().contains("/evil"), "{}", queue());
}

/// What the log says of the policy: reason and detail of each record.
fn of_policy(world: &World) -> Vec<(String, String)> {
    let text = |record: &Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let all = world.audit_all();
    let own = all.iter().filter(|record| record["action"] == "policy");
    own.map(|record| (text(record, "reason"), text(record, "detail"))).collect()
}

/// Fails unless everybody is told, while the vault is locked, that only it knows which policy holds.
#[track_caller]
fn is_untold(world: &World, tool: &std::path::Path) {
    assert_refused(&Client::connected(world, tool).read("s", &["a"]), "error", "store_locked");
    let status: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    assert_eq!(status["policy"]["reason"], "store_locked", "{status}");
    let refused = world.cli(&["check", tool.to_str().unwrap(), "s"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("the vault is locked"), "{refused:?}");
    assert!(refused.err.contains("keychain-auth vault unlock"), "{refused:?}");
    assert!(of_policy(world).iter().all(|(reason, _)| reason != "policy_refused"), "{:?}", of_policy(world));
}

#[test]
fn what_is_sealed_beside_a_locked_daemon_is_recorded_before_its_unlock_is_answered_and_never_as_refused() {
    let (world, tool) = sealed();
    let path = tool.to_str().unwrap();
    let unlocked_says = |what: &str| {
        knowing(&world, &["vault", "unlock"]).done();
        let said = of_policy(&world);
        assert!(said.last().unwrap().1.contains(what), "{what}: {said:?}");
        assert!(said.iter().all(|(reason, _)| reason != "policy_refused"), "{said:?}");
        serves(&world, &tool);
    };
    // by a command
    world.cli(&["vault", "lock"]).done();
    knowing(&world, &["grant", path, "--read", "t"]).done();
    is_untold(&world, &tool);
    unlocked_says("gained: read t");
    // by hand, and accepted
    world.cli(&["vault", "lock"]).done();
    world.policy(&[Entry::all(&tool, &["s", "u"])]);
    is_untold(&world, &tool);
    knowing(&world, &["policy", "seal"]).done();
    is_untold(&world, &tool);
    unlocked_says("gained: read u");
    world.cli(&["audit", "verify"]).done();
}

#[test]
fn an_edit_by_hand_beside_a_locked_daemon_is_recorded_as_refused_before_its_unlock_is_answered() {
    let (world, tool) = sealed();
    world.cli(&["vault", "lock"]).done();
    world.policy(&[Entry::all(&tool, &["s", "t"])]);
    is_untold(&world, &tool);
    knowing(&world, &["vault", "unlock"]).done();
    assert_eq!(of_policy(&world).last().unwrap().0, "policy_refused");
    refuses_all(&world, &tool);
}

#[test]
fn an_edit_beside_a_locked_daemon_that_is_put_back_before_the_unlock_has_a_record_with_its_hash() {
    let (world, tool) = sealed();
    let good = fs::read(world.config()).unwrap();
    world.cli(&["vault", "lock"]).done();
    let evil = world.tool("evil");
    world.policy(&[Entry::all(&tool, &["s"]), Entry::all(&evil, &["s"])]);
    let hash = hash_of(&world.config());
    let untold = || {
        let said = of_policy(&world);
        said.into_iter().filter(|(reason, _)| reason == "policy_untold").map(|(_, detail)| detail)
    };
    // nobody has to ask for it
    await_that("the edit is recorded", || untold().next());
    for _ in 0..3 {
        is_untold(&world, &tool);
    }
    let said: Vec<String> = untold().collect();
    assert!(said.len() == 1 && said[0].contains(&hash), "once for each: {said:?}");
    let asked = world.audit_where("who asked is named", |record| record["action"] == "read");
    assert_eq!(asked["binary_path"], tool.to_str().unwrap(), "{asked}");
    assert_eq!(asked["binary_hash"], hash_of(&tool), "{asked}");
    fs::remove_file(world.config()).unwrap();
    await_that("so is another one", || {
        untold().any(|detail| detail.contains("no config.json")).then_some(())
    });
    world.write(&world.config(), &good);
    await_that("and that it was put back", || {
        of_policy(&world).last().is_some_and(|(_, detail)| detail.starts_with("in force")).then_some(())
    });
    knowing(&world, &["vault", "unlock"]).done();
    serves(&world, &tool);
    assert!(of_policy(&world).iter().all(|(reason, _)| reason != "policy_refused"));
    assert_eq!(world.cli(&["audit", "show", "--reason", "policy_untold"]).code, Some(0));
    world.cli(&["audit", "verify"]).done();
}
