//! `doctor`: what it finds on real files, with and without a real daemon.

use std::{fs, os::unix::net::UnixListener, path::Path, process::Stdio};

use serde_json::{Value, json};

use crate::{
    processes::text,
    tools::{Link, hash_of},
    world::{Entry, Guarded, World, await_that, run, spawn},
};

/// The report, with the exit code that must go with it.
#[track_caller]
fn report(world: &World) -> Value {
    let outcome = world.cli(&["doctor", "--json"]);
    let report: Value = serde_json::from_str(&outcome.out).unwrap_or_else(|_| panic!("{outcome:?}"));
    assert_eq!(outcome.code, Some(i32::from(report["ok"] == json!(false))), "{report}");
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["advice"].is_null(), check["state"] == "ok", "advice where it is not ok: {check}");
    }
    report
}

/// The rows of this name, or all rows about a program's path.
fn rows(report: &Value, name: &str) -> Vec<Value> {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().filter(|check| check["name"] == json!(name)).cloned().collect()
}

#[track_caller]
fn row(report: &Value, name: &str) -> Value {
    let rows = rows(report, name);
    assert_eq!(rows.len(), 1, "{name}: {report}");
    rows[0].clone()
}

#[test]
fn a_fresh_installation_has_nothing_bad_and_its_protections_are_unknown() {
    let world = World::new();
    let report = report(&world);
    assert_eq!((&report["ok"], &report["bad"]), (&json!(true), &json!(0)));
    let daemon = row(&report, "daemon");
    assert_eq!((&daemon["state"], &daemon["found"]), (&json!("unknown"), &json!("not running")));
    assert_eq!(row(&report, "key source")["found"], "none yet");
    assert!(!world.config().exists() && !world.data().exists(), "looking makes nothing");
}

#[test]
fn the_protections_of_a_running_daemon_are_shown_as_it_tells_them() {
    let world = World::started();
    let status: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    let protections = status["protections"].as_array().unwrap();
    assert!(protections.len() >= 7, "{status}");
    let report = report(&world);
    for protection in protections {
        let name = protection["name"].as_str().unwrap();
        let rows = rows(&report, name);
        let row = rows.iter().find(|row| row["area"] == "daemon").unwrap();
        assert_eq!((&row["state"], &row["found"]), (&json!("ok"), &json!("in force")), "{row}");
    }
    assert!(row(&report, "memory locking")["means"].as_str().unwrap().starts_with("the daemon"));
    assert_eq!(report["ok"], json!(true), "{report}");
    let said = world.cli(&["status"]).done();
    assert!(said.contains("protections     landlock, seccomp"), "{said}");
}

#[test]
fn a_daemon_without_protections_is_bad() {
    let world = World::new();
    let mut command = world.command(&world.binary());
    command
        .args(["start", "--hardening=off"])
        .env("KEYCHAIN_AUTH_ALLOW_UNHARDENED", "1")
        .stderr(Stdio::null());
    let _daemon = Guarded(spawn(&mut command));
    await_that("the daemon answers", || {
        world.cli(&["status", "--json"]).out.contains("\"daemon_running\": true").then_some(())
    });
    let report = report(&world);
    let seccomp = rows(&report, "seccomp").into_iter().find(|row| row["area"] == "daemon").unwrap();
    assert_eq!((&seccomp["state"], &seccomp["found"]), (&json!("bad"), &json!("not in force")));
    let outcome = world.cli(&["doctor"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.err.starts_with("error: ") && outcome.err.contains("\n  try: "), "{}", outcome.err);
    let status = world.cli(&["status"]).done();
    assert!(status.contains("not in force    seccomp"), "{status}");
}

#[test]
fn somebody_else_at_the_socket_is_bad() {
    let world = World::new();
    world.folder(world.socket().parent().unwrap(), 0o700);
    let _silent = UnixListener::bind(world.socket()).unwrap();
    world.own(&world.socket(), 0o600);
    assert_eq!(row(&report(&world), "daemon")["state"], "bad");
}

#[test]
fn an_exposed_file_is_bad_until_its_advice_is_followed() {
    let mut world = World::started();
    world.stop();
    world.policy(&[]);
    let folder = world.data();
    for (name, path, mode) in [
        ("vault.key", folder.join("vault.key"), 0o640),
        ("vault.redb", folder.join("vault.redb"), 0o604),
        ("vault.head", folder.join("vault.head"), 0o644),
        ("audit.log", folder.join("audit.log"), 0o644),
        ("data folder", folder.clone(), 0o755),
        ("config.json", world.config(), 0o620),
        ("config folder", world.config().parent().unwrap().to_owned(), 0o722),
    ] {
        assert_eq!(row(&report(&world), name)["state"], "ok", "{name}");
        world.own(&path, mode);
        let all = report(&world);
        // a policy that others can write denies everything besides
        assert!(all["bad"] == 1 || name.starts_with("config"), "{name}: {all}");
        let found = row(&all, name);
        assert_eq!(
            (&found["state"], &found["found"]),
            (&json!("bad"), &json!(format!("{mode:04o}"))),
            "{name}"
        );
        let mut shell = world.command(Path::new("/bin/sh"));
        run(shell.args(["-c", found["advice"].as_str().unwrap()])).done();
    }
    assert_eq!(report(&world)["ok"], json!(true));
}

#[test]
fn a_vault_whose_key_is_gone_is_bad() {
    let mut world = World::started();
    world.stop();
    fs::remove_file(world.data().join("vault.key")).unwrap();
    assert_eq!(row(&report(&world), "key source")["state"], "bad");
}

#[test]
fn a_broken_policy_is_bad_with_its_place() {
    let world = World::new();
    world.policy_text("{");
    let policy = row(&report(&world), "policy");
    assert_eq!(policy["state"], "bad");
    assert!(policy["means"].as_str().unwrap().contains("config.json:1:1"), "{policy}");
}

#[test]
fn each_entry_that_is_not_as_it_was_registered_has_its_row_and_its_advice_mends_it() {
    let world = World::new();
    let (well, gone, changed, invalid) =
        (world.tool("well"), world.tool("gone"), world.tool("changed"), world.tool("invalid one"));
    let (relaxed, expired) = (world.tool("relaxed"), world.tool("expired"));
    let with = |path: &Path, member: &str, value: Value| Entry {
        path: path.to_owned(),
        more: vec![(member.to_owned(), value)],
        ..Entry::default()
    };
    world.policy(&[
        with(&well, "comment", json!("fine")),
        with(&gone, "comment", json!("")),
        with(&changed, "comment", json!("")),
        with(&invalid, "hash", json!("sha256:short")),
        with(&relaxed, "relax", json!(["traced", "foreign_uid"])),
        with(&expired, "expires_at", json!("2020-01-01T00:00:00Z")),
    ]);
    fs::remove_file(&gone).unwrap();
    fs::write(&changed, [fs::read(&changed).unwrap(), b"x".to_vec()].concat()).unwrap();
    let before = report(&world);
    assert_eq!(rows(&before, text(&well)), Vec::<Value>::new());
    for (path, found) in [
        (&gone, "gone"),
        (&changed, "other hash"),
        (&invalid, "no effect"),
        (&relaxed, "relaxed traced"),
        (&expired, "expired"),
    ] {
        let row = row(&before, text(path));
        assert_eq!((&row["state"], &row["found"]), (&json!("warn"), &json!(found)));
        let (_, command) = row["advice"].as_str().unwrap().split_once("keychain-auth ").unwrap();
        let mut shell = world.command(Path::new("/bin/sh"));
        run(shell.args(["-c", &format!("exec \"$0\" {command}")]).arg(world.binary())).done();
    }
    assert!(rows(&before, "config.json entry")[0]["means"].as_str().unwrap().contains("can't be turned off"));
    let after = report(&world);
    for path in [&gone, &changed, &invalid, &relaxed, &expired] {
        assert_eq!(rows(&after, text(path)), Vec::<Value>::new(), "{}", path.display());
    }
    assert_eq!(row(&after, "unchanged")["found"], "5 programs");
}

#[test]
fn interpreters_and_programs_that_others_can_write_are_found() {
    let world = World::new();
    let shell = fs::canonicalize("/bin/sh").unwrap();
    world.cli(&["register", "/bin/sh", "--allow-interpreter"]).done();
    let tool = world.tool("tool");
    world.cli(&["register", text(&tool)]).done();
    let found = row(&report(&world), text(&shell));
    assert_eq!((&found["state"], &found["found"]), (&json!("warn"), &json!("interpreter")));
    let mine = row(&report(&world), "replaceable by you");
    let means = mine["means"].as_str().unwrap();
    assert!(means.contains(text(&tool)) && !means.contains(text(&shell)), "{mine}");
    world.own(&tool, 0o757);
    let found = row(&report(&world), text(&tool));
    assert_eq!((&found["state"], &found["found"]), (&json!("bad"), &json!("exposed")));
}

#[test]
fn a_trusted_library_that_changed_is_found() {
    let world = World::new();
    let tool = world.tool("tool");
    let library = world.install("attacks/steal.c", Link::Library, "home/l.so");
    world.cli(&["register", text(&tool)]).done();
    world.cli(&["trust-library", text(&tool), text(&library)]).done();
    assert_eq!(rows(&report(&world), text(&tool)), Vec::<Value>::new());
    let hash = hash_of(&library);
    fs::write(&library, "changed").unwrap();
    assert_ne!(hash_of(&library), hash);
    assert_eq!(row(&report(&world), text(&tool))["found"], "library changed");
    fs::remove_file(&library).unwrap();
    assert_eq!(row(&report(&world), text(&tool))["found"], "library gone");
}

#[test]
fn the_table_is_aligned_and_without_colour_in_a_pipe() {
    let world = World::started();
    let said = world.cli(&["doctor"]).done();
    assert!(!said.contains('\u{1b}'), "{said}");
    let files: Vec<&str> = said
        .lines()
        .skip_while(|line| *line != "files")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .collect();
    assert!(files.len() > 8, "{said}");
    let column = |line: &str| line.find("0600").or_else(|| line.find("0700"));
    let columns: Vec<_> = files.iter().filter_map(|line| column(line)).collect();
    assert!(columns.iter().all(|column| *column == columns[0]), "{said}");
    assert!(said.lines().last().unwrap().starts_with("0 bad, "), "{said}");
}
