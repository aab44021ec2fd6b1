//! The commands: what they print, how they exit, what they leave in config.json.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, thread};

use serde_json::{Value, json};

use crate::{
    client::{Client, assert_refused, found, written},
    processes::text,
    tools::hash_of,
    world::{Entry, World, await_that},
};

/// Fails unless the command failed with one sentence and a line of advice that names `word`.
#[track_caller]
fn fails_naming(world: &World, args: &[&str], word: &str) {
    let outcome = world.cli(args);
    assert_eq!(outcome.code, Some(1), "{args:?}: {}{}", outcome.out, outcome.err);
    assert!(outcome.err.contains(word), "{args:?} should name {word:?}: {}", outcome.err);
    assert!(outcome.out.is_empty(), "prose belongs on stderr: {}", outcome.out);
}

/// The bytes of the tool at `path`, changed as an update would change them, by rename.
fn update(world: &World, path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes.push(1);
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, bytes).unwrap();
    world.own(&fresh, 0o755);
    fs::rename(fresh, path).unwrap();
}

#[test]
fn register_prints_path_and_hash_and_grants_nothing() {
    let world = World::new();
    let tool = world.tool("tool");
    let said = world.cli(&["register", text(&tool)]).done();
    assert_eq!(said, format!("Registered {} with hash {}\n", tool.display(), hash_of(&tool)));
    let policy = world.read_policy();
    assert_eq!(policy["protocol_version"], "1");
    let entry = world.entry(&tool).unwrap();
    let mut members = entry.as_object().unwrap().keys().map(String::as_str);
    for shown in
        ["path", "hash", "registered_at", "allowed_read_services", "allowed_write_services", "can_search"]
    {
        assert!(members.any(|member| member == shown), "{shown} in the quickstart's order: {entry}");
    }
    assert_eq!(entry["hash"], json!(hash_of(&tool)));
    assert_eq!((&entry["allowed_read_services"], &entry["allowed_write_services"]), (&json!([]), &json!([])));
    assert_eq!(entry["can_search"], json!(false));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&world.config()), mode(world.config().parent().unwrap())), (0o600, 0o700));
}

#[test]
fn register_of_a_known_path_keeps_permissions_and_members_it_does_not_know() {
    let world = World::new();
    let tool = world.tool("tool");
    let mut entry = Entry::all(&tool, &["s"]);
    entry.more = vec![("comment".into(), json!("mine")), ("x_unknown".into(), json!({"kept": [1, 2]}))];
    world.policy(&[entry]);
    update(&world, &tool);
    world.cli(&["register", text(&tool)]).done();
    let entry = world.entry(&tool).unwrap();
    assert_eq!(entry["hash"], json!(hash_of(&tool)));
    assert_eq!((&entry["allowed_read_services"], &entry["can_search"]), (&json!(["s"]), &json!(true)));
    assert_eq!((&entry["comment"], &entry["x_unknown"]), (&json!("mine"), &json!({"kept": [1, 2]})));
    assert_eq!(world.read_policy()["registered_binaries"].as_array().unwrap().len(), 1);
}

#[test]
fn register_through_a_symlink_registers_what_it_points_to() {
    let mut world = World::new();
    let tool = world.tool("tool-1.2.3");
    let link = world.root().join("bin/tool");
    std::os::unix::fs::symlink("tool-1.2.3", &link).unwrap();
    let said = world.cli(&["register", text(&link)]).done();
    assert_eq!(said, format!("Registered {} with hash {}\n", tool.display(), hash_of(&tool)));
    world.cli(&["grant", text(&link), "--read", "s", "--write", "s"]).done();
    world.start();
    let mut client = Client::connected(&world, &link);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    world.cli(&["check", text(&link), "s"]).done();
}

#[test]
fn the_same_bytes_at_two_paths_are_two_entries_with_their_own_permissions() {
    let mut world = World::new();
    let (one, two) = (world.tool("one"), world.tool("two"));
    for tool in [&one, &two] {
        world.cli(&["register", text(tool)]).done();
    }
    world.cli(&["grant", text(&one), "--read", "s", "--write", "s"]).done();
    world.start();
    assert_eq!(Client::connected(&world, &one).write("s", &[("k", "v")]), written());
    assert_refused(&Client::connected(&world, &two).read("s", &["k"]), "denied", "service_not_allowed");
}

#[test]
fn fifty_registers_at_once_lose_nothing() {
    let world = World::new();
    let tools: Vec<_> = (0..50).map(|number| world.tool(&format!("tool{number}"))).collect();
    thread::scope(|scope| {
        for tool in &tools {
            scope.spawn(|| world.cli(&["register", text(tool)]).done());
        }
    });
    assert_eq!(world.read_policy()["registered_binaries"].as_array().unwrap().len(), 50);
    assert!(tools.iter().all(|tool| world.entry(tool).is_some()));
    let left: Vec<_> =
        fs::read_dir(world.config().parent().unwrap()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(left.len() <= 2, "only config.json and its lock stay: {left:?}");
}

#[test]
fn register_refuses_what_can_not_be_an_identity() {
    let world = World::new();
    fails_naming(&world, &["register", "/nowhere/at/all"], "/nowhere/at/all");
    fails_naming(&world, &["register", text(&world.home())], text(&world.home()));
    fails_naming(&world, &["register", "/bin/sh"], "--allow-interpreter");
    if Path::new("/usr/bin/python3").exists() {
        fails_naming(&world, &["register", "/usr/bin/python3"], "--allow-interpreter");
    }
    assert!(!world.config().exists(), "a refusal leaves no trace");
}

#[test]
fn upgrade_prints_the_new_hash_and_keeps_permissions() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    update(&world, &tool);
    let reply = Client::connected(&world, &tool).read("s", &["k"]);
    assert_refused(&reply, "denied", "unregistered_binary_pending_approval");
    let advice = format!("keychain-auth upgrade {}", tool.display());
    assert!(reply["message"].as_str().unwrap().contains(&advice), "{reply}");
    let said = world.cli(&["upgrade", text(&tool)]).done();
    assert_eq!(said, format!("Upgraded {} to new hash {}\n", tool.display(), hash_of(&tool)));
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]));
}

#[test]
fn an_entry_with_a_wrong_size_matches_nothing_and_upgrade_and_register_mend_it() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    for mend in ["upgrade", "register"] {
        let mut config: Value = serde_json::from_slice(&std::fs::read(world.config()).unwrap()).unwrap();
        config["registered_binaries"][0]["size"] = json!(5);
        world.write(&world.config(), config.to_string().as_bytes());
        let said = world.cli(&["check", text(&tool), "s"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains("another size") && said.err.contains("keychain-auth upgrade"), "{said:?}");
        assert_ne!(Client::connected(&world, &tool).read("s", &["k"]), found(&[]));
        world.cli(&[mend, text(&tool)]).done();
        assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[]));
    }
}

#[test]
fn upgrade_of_an_unknown_path_names_register() {
    let world = World::new();
    let tool = world.tool("tool");
    fails_naming(&world, &["upgrade", text(&tool)], "register");
    assert!(!world.config().exists() || world.entry(&tool).is_none());
}

#[test]
fn grant_and_revoke_bind_an_open_connection_at_its_next_request() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.cli(&["register", text(&tool)]).done();
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_refused(&client.read("s", &["k"]), "denied", "service_not_allowed");
    world.cli(&["grant", text(&tool), "--write", "s", "--read", "s", "--read", "t"]).done();
    assert_eq!(client.write("s", &[("k", "v")]), written());
    assert_eq!(client.read("t", &["k"]), found(&[]));
    let search = json!({"type": "REQUEST", "action": "search", "service": "s"});
    assert_refused(&client.request(&search), "denied", "action_not_in_policy");
    world.cli(&["grant", text(&tool), "--search"]).done();
    assert_eq!(client.request(&search)["results"], json!([{"target": "k"}]));
    world.cli(&["revoke", text(&tool), "--search", "--read", "t"]).done();
    assert_refused(&client.request(&search), "denied", "action_not_in_policy");
    assert_refused(&client.read("t", &["k"]), "denied", "service_not_allowed");
    world.cli(&["revoke", text(&tool), "--write", "s"]).done();
    assert_refused(&client.write("s", &[("k", "w")]), "denied", "service_not_allowed");
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    world.cli(&["unregister", text(&tool)]).done();
    assert_refused(&client.read("s", &["k"]), "denied", "unregistered_binary_pending_approval");
    assert!(world.entry(&tool).is_none());
}

#[test]
fn grant_revoke_and_unregister_of_an_unknown_path_fail_naming_register() {
    let world = World::new();
    let tool = world.tool("tool");
    fails_naming(&world, &["grant", text(&tool), "--read", "s"], "register");
    fails_naming(&world, &["revoke", text(&tool), "--read", "s"], text(&tool));
    fails_naming(&world, &["unregister", text(&tool)], text(&tool));
}

#[test]
fn a_stranger_waits_in_the_queue_until_it_is_approved_by_its_hash() {
    let world = World::started();
    let tool = world.tool("tool");
    let mut client = Client::spawn(&world, &tool);
    for target in ["first", "second"] {
        client.connect();
        assert_refused(&client.read("s", &[target]), "denied", "unregistered_binary_pending_approval");
    }
    let pending = await_that("the stranger waits", || {
        let all: Value = serde_json::from_str(&world.cli(&["list-pending", "--json"]).done()).unwrap();
        let entries = all.as_array().cloned().or_else(|| all["pending"].as_array().cloned()).expect("a list");
        entries.into_iter().find(|entry| entry["path"] == json!(tool) && entry["count"] == json!(2))
    });
    assert_eq!(pending["hash"], json!(hash_of(&tool)));
    assert_eq!((&pending["action"], &pending["service"]), (&json!("read"), &json!("s")));
    for member in ["pid", "command_line", "first_seen", "last_seen", "targets"] {
        assert!(pending.get(member).is_some(), "{member}: {pending}");
    }
    assert!(world.cli(&["list-pending"]).done().contains(text(&tool)));
    let hash = hash_of(&tool);
    world.cli(&["approve", &hash]).done();
    client.connect();
    assert_refused(&client.read("s", &["k"]), "denied", "service_not_allowed");
    let left = world.cli(&["list-pending", "--json"]).done();
    assert!(!left.contains(text(&tool)), "an approved stranger waits no longer: {left}");
}

#[test]
fn approve_verifies_the_file_and_wipes_no_permissions() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    update(&world, &tool);
    let new = hash_of(&tool);
    assert_refused(
        &Client::connected(&world, &tool).read("s", &["k"]),
        "denied",
        "unregistered_binary_pending_approval",
    );
    await_that("the stranger waits", || {
        world.cli(&["list-pending"]).done().contains(text(&tool)).then_some(())
    });
    update(&world, &tool);
    assert_eq!(world.cli(&["approve", &new, text(&tool)]).code, Some(1), "the file has another hash by now");
    let now = hash_of(&tool);
    world.cli(&["approve", &now, text(&tool)]).done();
    let entry = world.entry(&tool).unwrap();
    assert_eq!((&entry["hash"], &entry["allowed_read_services"]), (&json!(now), &json!(["s"])));
}

#[test]
fn a_denied_stranger_leaves_the_queue() {
    let world = World::started();
    let tool = world.tool("tool");
    Client::connected(&world, &tool).read("s", &["k"]);
    await_that("the stranger waits", || {
        world.cli(&["list-pending"]).done().contains(text(&tool)).then_some(())
    });
    world.cli(&["deny", &hash_of(&tool)]).done();
    assert!(!world.cli(&["list-pending"]).done().contains(text(&tool)));
    assert_eq!(world.cli(&["deny", &hash_of(&tool)]).code, Some(1), "nothing waits under that hash");
    assert_eq!(world.cli(&["approve", "sha256:abc"]).code.map(|code| code > 0), Some(true));
}

#[test]
fn the_queue_masks_what_looks_like_a_token_on_a_command_line() {
    const TOKEN: &str = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
    let world = World::started();
    let tool = world.tool("tool");
    let mut command = world.command(&tool);
    command.args(["sync", &format!("--token={TOKEN}"), "--verbose", TOKEN, &"long ".repeat(40)]);
    let mut client = Client::from_command(&world, &mut command);
    client.connect();
    assert_refused(&client.read("s", &["k"]), "denied", "unregistered_binary_pending_approval");
    let file = world.data().join("pending.json");
    let pending = await_that("the stranger waits", || {
        fs::read_to_string(&file).ok().filter(|waiting| waiting.contains(text(&tool)))
    });
    assert!(!pending.contains(&TOKEN[4..]), "{pending}");
    assert!(pending.contains("sync") && pending.contains("--verbose"), "{pending}");
    assert!(!pending.contains(&"long ".repeat(13)), "arguments are cut to 64 characters: {pending}");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_check_by_a_stranger_queues_nothing() {
    let world = World::started();
    let (asks, reads) = (world.tool("asks"), world.tool("reads"));
    let check = json!({"type": "REQUEST", "action": "check", "service": "s"});
    let reply = Client::connected(&world, &asks).request(&check);
    assert_refused(&reply, "denied", "unregistered_binary_pending_approval");
    Client::connected(&world, &reads).read("s", &["k"]);
    let pending = await_that("the one that reads waits", || {
        Some(world.cli(&["list-pending"]).done()).filter(|waiting| waiting.contains(text(&reads)))
    });
    assert!(!pending.contains(text(&asks)), "{pending}");
}

#[test]
fn check_says_by_its_exit_code_whether_the_service_is_allowed() {
    let world = World::new();
    let tool = world.tool("tool");
    assert_eq!(world.cli(&["check", text(&tool), "s"]).code, Some(1), "not registered");
    world.policy(&[Entry { path: tool.clone(), read: vec!["s".into()], ..Entry::default() }]);
    assert_eq!(world.cli(&["check", text(&tool), "s"]).code, Some(0));
    assert_eq!(world.cli(&["check", text(&tool), "other"]).code, Some(1));
    update(&world, &tool);
    assert_eq!(world.cli(&["check", text(&tool), "s"]).code, Some(1), "the file has another hash");
}

#[test]
fn authorize_registers_and_grants_everything_on_one_service() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.cli(&["authorize", text(&tool), "s"]).done();
    let entry = world.entry(&tool).unwrap();
    assert_eq!(
        (&entry["allowed_read_services"], &entry["allowed_write_services"]),
        (&json!(["s"]), &json!(["s"]))
    );
    assert_eq!(entry["can_search"], json!(true));
    world.cli(&["authorize", text(&tool), "s"]).done();
    world.cli(&["authorize", text(&tool), "t"]).done();
    assert_eq!(world.entry(&tool).unwrap()["allowed_read_services"], json!(["s", "t"]), "nothing twice");
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
}

#[test]
fn list_shows_each_entry_with_its_permissions() {
    let world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry {
        path: tool.clone(),
        read: vec!["alpha".into()],
        write: vec!["beta".into()],
        ..Entry::default()
    }]);
    let said = world.cli(&["list"]).done();
    for word in [text(&tool), "alpha", "beta"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let listed: Value = serde_json::from_str(&world.cli(&["list", "--json"]).done()).unwrap();
    assert!(listed.to_string().contains(text(&tool)));
}

#[test]
fn an_empty_installation_lists_nothing_and_says_so() {
    let world = World::new();
    for command in ["list", "list-pending"] {
        assert_eq!(world.cli(&[command]).code, Some(0), "{command}");
        let json: Value = serde_json::from_str(&world.cli(&[command, "--json"]).done()).unwrap();
        let list =
            json.as_array().or_else(|| json.as_object().and_then(|o| o.values().find_map(Value::as_array)));
        assert_eq!(list.map(Vec::len), Some(0), "{command}: {json}");
    }
}

#[test]
fn status_tells_whether_the_daemon_runs_and_where() {
    let mut world = World::new();
    let status = |world: &World| -> Value {
        let outcome = world.cli(&["status", "--json"]);
        serde_json::from_str(&outcome.out).unwrap_or_else(|_| panic!("{}{}", outcome.out, outcome.err))
    };
    assert_eq!(status(&world)["daemon_running"], json!(false));
    world.start();
    let running = status(&world);
    assert_eq!(running["daemon_running"], json!(true));
    assert_eq!(running["version"], json!(env!("CARGO_PKG_VERSION")));
    assert_eq!(
        (&running["config_path"], &running["socket_path"]),
        (&json!(world.config()), &json!(world.socket()))
    );
    assert!(running["mode"].is_string() && running["requires_sudo"] == json!(false), "{running}");
    assert!(world.cli(&["status"]).done().contains(text(&world.socket())));
    world.stop();
    assert_eq!(status(&world)["daemon_running"], json!(false));
}

#[test]
fn audit_show_and_tail_print_the_log() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    for number in 0..30 {
        client.write("s", &[(&format!("target-{number:02}"), "v")]);
    }
    let shown = world.cli(&["audit", "show"]).done();
    assert!(shown.contains("target-00") && shown.contains("target-29"), "{shown}");
    let tail = world.cli(&["audit", "tail"]).done();
    assert!(tail.contains("target-29"), "{tail}");
    assert!(tail.lines().count() <= shown.lines().count());
}

#[test]
fn completions_are_printed_for_each_shell() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.cli(&["completions", shell]).done().contains("keychain-auth"), "{shell}");
    }
}

#[test]
fn a_bad_command_line_is_exit_2_with_usage_on_stderr() {
    let world = World::new();
    for args in [
        &[][..],
        &["no-such-command"],
        &["register"],
        &["register", "a", "b"],
        &["grant"],
        &["check", "/bin/true"],
        &["start", "--no-such-flag"],
        &["completions", "no-such-shell"],
    ] {
        let outcome = world.cli(args);
        assert_eq!(outcome.code, Some(2), "{args:?}: {}{}", outcome.out, outcome.err);
        assert!(outcome.err.contains("Usage") || outcome.err.contains("--help"), "{args:?}: {}", outcome.err);
        assert!(outcome.out.is_empty(), "{args:?}: {}", outcome.out);
    }
    for flag in ["--help", "--version"] {
        assert!(world.cli(&[flag]).done().contains("keychain-auth"), "{flag}");
    }
}

#[test]
fn no_output_to_a_pipe_has_colour() {
    let world = World::new();
    let outcome = world.cli(&["register", "/nowhere"]);
    assert!(!outcome.err.contains('\u{1b}') && !outcome.out.contains('\u{1b}'));
    assert!(!world.cli(&["--help"]).out.contains('\u{1b}'));
}
