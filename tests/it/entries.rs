//! The terms of an entry, set and lifted by command, and what a running daemon makes of them.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    client::{Client, assert_refused, found, written},
    processes::text,
    skip::{need, skip},
    tools::{Link, hash_of},
    world::{Entry, World, await_that, is_root},
};

/// A world with a daemon and a tool that may do everything on `s`.
fn served() -> (World, std::path::PathBuf) {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    (world, tool)
}

/// Fails unless the command was refused with this text on stderr, and left config.json as it was.
#[track_caller]
fn refused(world: &World, args: &[&str], code: i32, said: &str) {
    let before = fs::read(world.config()).unwrap();
    let outcome = world.cli(args);
    assert_eq!(outcome.code, Some(code), "{args:?}: {}{}", outcome.out, outcome.err);
    assert!(outcome.err.contains(said), "{args:?} should say {said:?}: {}", outcome.err);
    assert_eq!(outcome.out, "");
    assert_eq!(fs::read(world.config()).unwrap(), before, "a refusal changes nothing");
}

#[test]
fn the_first_prefix_restricts_an_open_connection_at_once_and_says_so() {
    let (world, tool) = served();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("dev/K", "1"), ("prod/K", "2")]), written());
    let outcome = world.cli(&["grant", text(&tool), "--prefix", "dev/"]);
    assert!(outcome.err.contains("Until now it could use every target"), "{}", outcome.err);
    assert_eq!(outcome.done(), format!("Granted {} targets dev/…\n", tool.display()));
    assert_eq!(client.read("s", &["dev/K"]), found(&[("dev/K", "1")]));
    assert_refused(&client.read("s", &["dev/K", "prod/K"]), "denied", "target_not_allowed");
    let again = world.cli(&["grant", text(&tool), "--prefix", "prod/"]);
    assert!(!again.err.contains("Until now"), "only the first one takes something away: {}", again.err);
    assert_eq!(client.read("s", &["prod/K"]), found(&[("prod/K", "2")]));
}

#[test]
fn revoking_the_last_prefix_allows_no_target_instead_of_every_one() {
    let (world, tool) = served();
    world.cli(&["grant", text(&tool), "--prefix", "dev/"]).done();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("dev/K", "1")]), written());
    let outcome = world.cli(&["revoke", text(&tool), "--prefix", "dev/"]);
    let command = format!("keychain-auth grant {} --all-targets", tool.display());
    assert!(outcome.err.contains("No target is allowed any more") && outcome.err.contains(&command));
    outcome.done();
    for target in ["dev/K", "other"] {
        assert_refused(&client.read("s", &[target]), "denied", "target_not_allowed");
    }
    assert!(world.cli(&["list"]).done().contains("targets   none"));
    world.cli(&["grant", text(&tool), "--all-targets"]).done();
    assert_eq!(client.read("s", &["dev/K"]), found(&[("dev/K", "1")]));
    refused(&world, &["revoke", text(&tool), "--prefix", "dev/"], 1, "may use every target");
}

#[test]
fn what_is_not_there_to_be_revoked_is_said_and_what_is_there_is_taken() {
    let (world, tool) = served();
    let outcome = world.cli(&["revoke", text(&tool), "--read", "S", "--write", "s", "--challenge"]);
    assert!(outcome.err.contains("does not have read S, the challenge"), "{}", outcome.err);
    assert_eq!(outcome.done(), format!("Revoked from {} write s\n", tool.display()));
    let nothing = world.cli(&["revoke", text(&tool), "--write", "s"]);
    assert_eq!(nothing.done(), "", "nothing was revoked");
}

#[test]
fn a_required_challenge_is_asked_for_until_it_is_lifted() {
    let (world, tool) = served();
    world.cli(&["grant", text(&tool), "--challenge"]).done();
    assert_refused(&Client::connected(&world, &tool).read("s", &["k"]), "denied", "untrusted_caller");
    let mut client = Client::connected(&world, &tool);
    let nonce = client.request(&json!({"type": "HELLO"}))["nonce"].clone();
    let proven =
        json!({"type": "REQUEST", "action": "read", "service": "s", "targets": ["k"], "nonce": nonce});
    assert_eq!(client.request(&proven), found(&[]));
    world.cli(&["revoke", text(&tool), "--challenge"]).done();
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[]));
}

#[test]
fn a_relaxed_check_is_off_until_it_is_turned_on_again() {
    let (world, tool) = served();
    let ask = || {
        let mut client = Client::spawn(&world, &tool);
        client.connect_inheritable();
        client.read("s", &["k"])
    };
    assert_refused(&ask(), "denied", "untrusted_caller");
    let outcome = world.cli(&["grant", text(&tool), "--relax", "descriptor_inherited"]);
    assert!(outcome.err.contains("Without the check descriptor_inherited"), "{}", outcome.err);
    outcome.done();
    assert_eq!(ask(), found(&[]));
    world.cli(&["revoke", text(&tool), "--relax", "descriptor_inherited"]).done();
    assert_refused(&ask(), "denied", "untrusted_caller");
}

#[test]
fn a_check_that_identity_rests_on_can_not_be_relaxed() {
    let (world, tool) = served();
    for check in ["peer_gone", "foreign_uid", "executable_changed", "foreign_sender", "challenge_missing"] {
        refused(&world, &["grant", text(&tool), "--relax", check], 1, &format!("{check} can't be relaxed"));
    }
    refused(&world, &["grant", text(&tool), "--relax", "everything"], 2, "injected_code");
    let mut entry = Entry::all(&tool, &["s"]);
    entry.more = vec![("relax".into(), json!(["foreign_uid"]))];
    world.policy(&[entry]);
    let listed = world.cli(&["list"]);
    assert!(listed.err.contains("can't be turned off") && !listed.out.contains("relaxed"), "{listed:?}");
}

#[test]
fn an_entry_ends_when_it_was_told_to_and_can_be_given_more_time() {
    let (world, tool) = served();
    for past in ["2020-01-01T00:00:00Z", "0h", "-1d", "soon"] {
        refused(&world, &["grant", text(&tool), &format!("--expires={past}")], 2, "--expires");
    }
    world.cli(&["grant", text(&tool), "--expires", "2s"]).done();
    let reply = await_that("the entry ends", || {
        let reply = Client::connected(&world, &tool).read("s", &["k"]);
        (reply["status"] != "success").then_some(reply)
    });
    assert_refused(&reply, "denied", "unregistered_binary_pending_approval");
    let check = world.cli(&["check", text(&tool), "s"]);
    let renew = format!("keychain-auth grant {} --expires 30d", tool.display());
    assert!(
        check.code == Some(1) && check.err.contains("expired") && check.err.contains(&renew),
        "{check:?}"
    );
    world.cli(&["grant", text(&tool), "--expires", "30d"]).done();
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[]));
    world.cli(&["revoke", text(&tool), "--expires"]).done();
    assert_eq!(world.entry(&tool).unwrap().get("expires_at"), None);
}

#[test]
fn list_and_check_show_every_term() {
    let world = World::new();
    let tool = world.tool("tool");
    let library = world.install("attacks/steal.c", Link::Library, "home/l.so");
    world.cli(&["register", text(&tool)]).done();
    let granted = ["--read", "s", "--prefix", "a/", "--prefix", "b/", "--challenge", "--relax", "traced"];
    world.cli(&[&["grant", text(&tool), "--expires", "2090-01-01T00:00:00Z"], &granted[..]].concat()).done();
    world.cli(&["trust-library", text(&tool), text(&library)]).done();
    let terms = ["a/…, b/…", "2090-01-01T00:00:00Z", "challenge", "traced", text(&library)];
    for args in [&["list"][..], &["check", text(&tool), "s"]] {
        let said = world.cli(args).done();
        for term in terms {
            assert!(said.contains(term), "{args:?} should show {term}: {said}");
        }
    }
    let json = |args: &[&str]| serde_json::from_str::<Value>(&world.cli(args).done()).unwrap();
    let listed = json(&["list", "--json"])["entries"][0].clone();
    for shown in [listed, json(&["check", "--json", text(&tool), "s"])] {
        assert_eq!(shown["allowed_target_prefixes"], json!(["a/", "b/"]));
        assert_eq!((&shown["challenge"], &shown["relax"]), (&json!(true), &json!(["traced"])));
        assert_eq!(shown["expires_at"], "2090-01-01T00:00:00Z");
        assert_eq!(shown["libraries"], json!([{"path": library, "hash": hash_of(&library)}]));
    }
}

/// What the witness is told of an entry is longer than one message between the two processes may be.
#[test]
fn an_entry_with_thousands_of_libraries_is_served_and_so_are_the_others() {
    let world = World::started();
    let tool = world.install("clients/client.c", Link::Dynamic, "bin/dynamic");
    let other = world.tool("other");
    let library = world.install("attacks/steal.c", Link::Library, "home/last.so");
    let mut libraries: Vec<Value> = (0..3000)
        .map(|number| json!({"path": format!("/opt/{}/{number}.so", "deep/".repeat(20)), "hash": hash_of(&tool)}))
        .collect();
    libraries.push(json!({"path": library, "hash": hash_of(&library)}));
    let more = vec![("libraries".into(), json!(libraries))];
    world.policy(&[Entry { more, ..Entry::all(&tool, &["s"]) }, Entry::all(&other, &["s"])]);
    assert_eq!(asks_with(&world, &tool, &library), found(&[]));
    assert_eq!(Client::connected(&world, &other).read("s", &["k"]), found(&[]));
}

/// A dynamic tool that loads a library which its user can write, and asks.
fn asks_with(world: &World, tool: &Path, library: &Path) -> Value {
    let mut client = Client::connected(world, tool);
    assert_eq!(client.order(&format!("load {}", library.display()), &[]), "ok");
    client.read("s", &["k"])
}

#[test]
fn a_trusted_library_is_admitted_with_its_hash_only_and_the_refusal_says_how_to_trust_it() {
    let mut world = World::new();
    let tool = world.install("clients/client.c", Link::Dynamic, "bin/tool");
    let library = world.install("attacks/steal.c", Link::Library, "home/it's_a_lib.so");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let reply = asks_with(&world, &tool, &library);
    assert_refused(&reply, "denied", "untrusted_caller");
    let (_, command) = reply["message"].as_str().unwrap().split_once("run: keychain-auth ").unwrap();
    let mut shell = world.command(Path::new("/bin/sh"));
    let said = crate::world::run(shell.args(["-c", &format!("exec \"$0\" {command}")]).arg(world.binary()));
    assert!(said.err.contains("can write into a library while it is mapped"), "{}", said.err);
    let hash = hash_of(&library);
    assert_eq!(
        said.done(),
        format!("Trusted {} with hash {hash} for {}\n", library.display(), tool.display())
    );
    assert_eq!(asks_with(&world, &tool, &library), found(&[]));

    let mut bytes = fs::read(&library).unwrap();
    bytes.push(0);
    let fresh = library.with_extension("new");
    fs::write(&fresh, bytes).unwrap();
    world.own(&fresh, 0o755);
    fs::rename(&fresh, &library).unwrap();
    assert_refused(&asks_with(&world, &tool, &library), "denied", "untrusted_caller");
    for _ in 0..2 {
        world.cli(&["trust-library", text(&tool), text(&library)]).done();
    }
    let listed = &world.entry(&tool).unwrap()["libraries"];
    assert_eq!(listed, &json!([{"path": library, "hash": hash_of(&library)}]), "once, with the new hash");
    assert_eq!(asks_with(&world, &tool, &library), found(&[]));

    let said = world.cli(&["distrust-library", text(&tool), text(&library)]).done();
    assert_eq!(said, format!("Distrusted {} for {}\n", library.display(), tool.display()));
    assert_refused(&asks_with(&world, &tool, &library), "denied", "untrusted_caller");
    refused(&world, &["distrust-library", text(&tool), text(&library)], 1, "keychain-auth list");
}

#[test]
fn a_library_is_trusted_by_its_real_path_for_a_registered_program_and_not_where_others_can_write() {
    let world = World::new();
    let tool = world.tool("tool");
    let library = world.install("attacks/steal.c", Link::Library, "home/l-1.so");
    let link = world.home().join("l.so");
    std::os::unix::fs::symlink("l-1.so", &link).unwrap();
    let unregistered = world.cli(&["trust-library", text(&tool), text(&link)]);
    assert_eq!(unregistered.code, Some(1));
    assert!(unregistered.err.contains(&format!("try: keychain-auth register {}", tool.display())));
    world.cli(&["register", text(&tool)]).done();
    world.cli(&["trust-library", text(&tool), text(&link)]).done();
    assert_eq!(world.entry(&tool).unwrap()["libraries"][0]["path"], json!(library));
    world.own(&library, 0o777);
    refused(&world, &["trust-library", text(&tool), text(&library)], 1, "--allow-writable");
    fs::remove_file(&library).unwrap();
    refused(&world, &["trust-library", text(&tool), text(&library)], 1, "does not exist");
    world.cli(&["distrust-library", text(&tool), text(&library)]).done();
}

#[test]
fn an_entry_is_found_by_any_name_of_its_program_also_when_it_is_gone() {
    let world = World::new();
    let tool = world.tool("tool");
    let (folder, link) = (world.root().join("opt"), world.home().join("link"));
    std::os::unix::fs::symlink("bin", &folder).unwrap();
    std::os::unix::fs::symlink(folder.join("tool"), &link).unwrap();
    world.cli(&["register", text(&link)]).done();
    assert!(world.entry(&tool).is_some());
    fs::remove_file(&tool).unwrap();
    world.cli(&["grant", text(&link), "--read", "s"]).done();
    world.cli(&["revoke", text(&folder.join("tool")), "--read", "s"]).done();
    assert_eq!(world.cli(&["unregister", text(&link)]).done(), format!("Unregistered {}\n", tool.display()));
    assert!(world.entry(&tool).is_none());
}

#[test]
fn an_entry_that_was_written_by_hand_under_a_link_is_found_by_that_name() {
    let world = World::new();
    world.tool("tool");
    let link = world.root().join("bin/link");
    std::os::unix::fs::symlink("tool", &link).unwrap();
    world.policy(&[Entry { path: link.clone(), ..Entry::default() }]);
    world.cli(&["grant", text(&link), "--read", "s"]).done();
    assert_eq!(world.cli(&["unregister", text(&link)]).done(), format!("Unregistered {}\n", link.display()));
    assert!(world.entry(&link).is_none());
}

/// A service with `PrivateNetwork=`: the kernel tells from the daemon's network namespace nothing of its connections.
#[test]
fn a_caller_with_a_network_of_its_own_is_told_so_and_served_when_it_answers_a_challenge() {
    if !is_root() {
        return skip("only root can make a network namespace and no user namespace");
    }
    let (Some(unshare), Some(setpriv)) = (need("unshare"), need("setpriv")) else { return };
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    let isolated = || {
        let uid = world.uid();
        let mut command = std::process::Command::new(&unshare);
        command.arg("--net").arg(&setpriv).args([format!("--reuid={uid}"), format!("--regid={uid}")]);
        command.arg("--clear-groups").arg(&tool);
        let mut client = Client::from_command(&world, &mut command);
        client.connect();
        client
    };
    let mut client = isolated();
    let reply = client.read("s", &["k"]);
    assert_refused(&reply, "denied", "untrusted_caller");
    let message = reply["message"].as_str().unwrap();
    assert!(message.contains("PrivateNetwork=") && message.contains("--challenge"), "{message}");
    let pid = client.pid();
    let record = world.audit_where("the refusal is recorded", |record| record["pid"] == pid);
    assert_eq!(record["detail"], "descriptor_inherited", "{record}");
    assert_eq!(record["binary_path"], json!(tool), "{record}");

    let path = tool.to_str().unwrap();
    world.cli(&["grant", path, "--relax", "descriptor_inherited", "--challenge"]).done();
    assert_refused(&isolated().read("s", &["k"]), "denied", "untrusted_caller");
    let mut client = isolated();
    let nonce = client.request(&json!({"type": "HELLO"}))["nonce"].clone();
    let request =
        json!({"type": "REQUEST", "action": "read", "service": "s", "targets": ["k"], "nonce": nonce});
    assert_eq!(client.request(&request), found(&[("k", "v")]));
    let pid = client.pid();
    let served = |record: &Value| record["pid"] == pid && record["result"] == "GRANTED";
    let record = world.audit_where("the answer is recorded", served);
    assert!(record["detail"].as_str().unwrap().contains("relaxed: descriptor_inherited"), "{record}");
}
