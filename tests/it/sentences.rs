//! What commands say when something is not there, or not as somebody thought: true sentences, and advice that helps.

use std::fs;

use serde_json::{Value, json};

use crate::{
    client::{Client, assert_refused},
    processes::text,
    tools::{Link, hash_of},
    world::{Entry, World},
};

/// Fails unless the command failed and said all of `words`.
#[track_caller]
fn fails_saying(world: &World, args: &[&str], words: &[&str]) {
    let outcome = world.cli(args);
    assert_eq!(outcome.code, Some(1), "{args:?}: {outcome:?}");
    for word in words {
        assert!(outcome.err.contains(word), "{args:?} should say {word:?}: {}", outcome.err);
    }
    assert!(!outcome.err.contains("entity not found"), "{}", outcome.err);
}

#[test]
fn before_the_first_start_every_question_to_the_log_says_that_there_is_none_yet() {
    let world = World::new();
    let questions: [&[&str]; 5] = [
        &["audit", "tail"],
        &["audit", "tail", "--json"],
        &["audit", "show"],
        &["audit", "stats"],
        &["audit", "export", "--format", "ecs"],
    ];
    for args in questions {
        let said = world.cli(args);
        assert_eq!(said.code, Some(0), "{args:?}: {said:?}");
        assert!(
            said.err.contains("no audit log") && said.err.contains("keychain-auth start"),
            "{args:?}: {said:?}"
        );
    }
    fails_saying(&world, &["audit", "verify"], &["no audit log", "yet", "keychain-auth start"]);
    fails_saying(&world, &["audit", "verify", "--log", "/nope"], &["no audit log at /nope"]);
    fails_saying(&world, &["audit", "verify", "--key", "/nope"], &["--key", "/nope"]);
}

#[test]
fn a_descriptor_that_is_not_open_is_named_with_its_option() {
    let world = World::new();
    for args in [
        &["--passphrase-fd", "77", "status"][..],
        &["--passphrase-fd=-1", "status"],
        &["vault", "change-key-source", "--key", "passphrase", "--new-passphrase-fd", "77"],
        &["vault", "export", "--output", "/tmp/never", "--export-passphrase-fd", "77"],
    ] {
        fails_saying(&world, args, &["-fd", "no such descriptor is open", "< <("]);
    }
}

#[test]
fn a_socket_that_was_named_and_has_no_daemon_is_said_and_nothing_is_said_of_the_vault() {
    let world = World::started();
    let elsewhere = world.cli(&["--socket", "/nope", "status", "--json"]);
    let status: Value = serde_json::from_str(&elsewhere.out).unwrap();
    assert_eq!((&status["daemon_running"], &status["vault"]["state"]), (&json!(false), &json!("unknown")));
    assert!(elsewhere.err.contains("No daemon listens at /nope"), "{}", elsewhere.err);
}

#[test]
fn a_program_that_is_registered_is_never_called_unregistered() {
    let world = World::new();
    let tool = world.tool("tool");
    world.cli(&["register", text(&tool)]).done();
    let other = format!("sha256:{}", "0".repeat(64));
    fails_saying(
        &world,
        &["unregister", text(&tool), "--hash", &other],
        &["is registered, but not with this hash", "keychain-auth list"],
    );
    world.cli(&["unregister", text(&tool), "--hash", &hash_of(&tool)]).done();
    fails_saying(&world, &["unregister", text(&tool)], &["is not registered", "keychain-auth list"]);
}

#[test]
fn a_permission_that_is_not_there_is_named_with_its_program_and_unknown_programs_are_not_to_be_registered() {
    let world = World::new();
    let tool = world.tool("tool");
    fails_saying(
        &world,
        &["revoke", text(&tool), "--read", "s"],
        &["is not registered", "keychain-auth list"],
    );
    assert!(!world.cli(&["revoke", text(&tool), "--read", "s"]).err.contains("keychain-auth register"));
    world.cli(&["authorize", text(&tool), "s"]).done();
    let said = world.cli(&["revoke", text(&tool), "--read", "t", "--challenge"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
    let expected =
        format!("Nothing was revoked: the entry of {} does not have read t, the challenge", tool.display());
    assert!(said.err.contains(&expected), "{}", said.err);
    let both = world.cli(&["revoke", text(&tool), "--read", "s", "--read", "t"]);
    assert_eq!(both.out, format!("Revoked from {} read s\n", tool.display()));
    assert!(both.err.contains("does not have read t"), "{}", both.err);
}

#[test]
fn a_file_that_is_gone_is_said_by_grant_whether_it_is_registered_or_not() {
    let world = World::new();
    let tool = world.tool("tool");
    world.cli(&["register", text(&tool)]).done();
    fs::remove_file(&tool).unwrap();
    let said = world.cli(&["grant", text(&tool), "--read", "s"]);
    assert_eq!(said.code, Some(0));
    assert!(
        said.err.contains("There is no file") && said.err.contains("keychain-auth unregister"),
        "{}",
        said.err
    );
    world.cli(&["unregister", text(&tool)]).done();
    fails_saying(&world, &["grant", text(&tool), "--read", "s"], &["no such file", "keychain-auth list"]);
    fails_saying(&world, &["trust-library", text(&tool), "/bin/sh"], &["no such file"]);
}

#[test]
fn a_file_that_no_loader_maps_and_a_library_of_root_get_no_entry() {
    let world = World::new();
    let tool = world.tool("tool");
    world.cli(&["register", text(&tool)]).done();
    let before = fs::read(world.config()).unwrap();
    let script = world.tmp("script.so");
    world.write(&script, b"#!/bin/sh\n");
    fails_saying(&world, &["trust-library", text(&tool), text(&script)], &["is not an ELF file"]);
    // one that every process here has mapped
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc =
        maps.lines().find_map(|line| line.split_whitespace().nth(5).filter(|path| path.contains("/libc.")));
    let said = world.cli(&["trust-library", text(&tool), libc.expect("a libc")]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
    assert!(said.err.contains("Nothing to do") && said.err.contains("root alone"), "{}", said.err);
    assert_eq!(fs::read(world.config()).unwrap(), before);
    let own = world.install("attacks/steal.c", Link::Library, "home/l.so");
    world.cli(&["trust-library", text(&tool), text(&own)]).done();
    assert_ne!(fs::read(world.config()).unwrap(), before);
}

#[test]
fn an_entry_that_allows_no_target_may_not_use_its_services() {
    let mut world = World::new();
    let tool = world.tool("tool");
    let mut entry = Entry::all(&tool, &["s"]);
    entry.more = vec![("allowed_target_prefixes".into(), json!([]))];
    world.policy(&[entry]);
    fails_saying(&world, &["check", text(&tool), "s"], &["no target", "--prefix", "--all-targets"]);
    let answer: Value = serde_json::from_str(&world.cli(&["check", text(&tool), "s", "--json"]).out).unwrap();
    assert_eq!((&answer["allowed"], &answer["reason"]), (&json!(false), &json!("target_not_allowed")));
    // the daemon says the same
    world.start();
    let asked = json!({"type": "REQUEST", "action": "check", "service": "s"});
    assert_refused(&Client::connected(&world, &tool).request(&asked), "denied", "target_not_allowed");
    world.cli(&["grant", text(&tool), "--prefix", "a/"]).done();
    assert_eq!(world.cli(&["check", text(&tool), "s"]).code, Some(0));
    assert_eq!(Client::connected(&world, &tool).request(&asked)["status"], "success");
}
