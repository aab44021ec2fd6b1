//! What the log says beside requests: changes of the policy, floods of strangers, and what is made of its records.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    client::{Client, assert_refused, found, written},
    world::{Entry, Guarded, World, await_that, spawn},
};

fn begun() -> (World, std::path::PathBuf) {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    (world, tool)
}

/// What the log says of the policy, each as `path: detail`.
fn of_policy(world: &World) -> Vec<String> {
    let own = |record: &Value| record["action"] == "policy" && record["reason"] != "audit_log_changed";
    let word = |record: Value| {
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", text("binary_path"), text("detail"))
    };
    world.audit_all().into_iter().filter(own).map(word).filter(|it| !it.contains(": chain=")).collect()
}

#[test]
fn a_change_of_the_policy_is_recorded_also_while_nobody_asks() {
    let (world, tool) = begun();
    let path = tool.display().to_string();
    let said =
        |what: &str| await_that(what, || of_policy(&world).iter().any(|it| it.contains(what)).then_some(()));
    said("in force: config.json sha256:");
    said(", 1 entry");
    world.cli(&["grant", &path, "--read", "t", "--prefix", "a/"]).done();
    said(&format!("{path}: gained: read t, targets a/…; lost: all targets"));
    world.cli(&["revoke", &path, "--read", "t"]).done();
    said(&format!("{path}: lost: read t"));
    world.cli(&["unregister", &path]).done();
    said(&format!("{path}: removed; lost: read s, search, targets a/…, write s"));
    world.policy_text("{");
    await_that("the refused policy is recorded", || {
        world.audit().iter().any(|record| record["reason"] == "policy_refused").then_some(())
    });
    world.policy(&[Entry::all(&tool, &["s"])]);
    said(&format!("{path}: added; gained: all targets, read s, search, write s"));
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    let count = of_policy(&world).len();
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]));
    assert_eq!(of_policy(&world).len(), count, "what did not change is not said again");
    assert!(world.cli(&["audit", "verify"]).done().contains("whole and unchanged"));
}

#[test]
fn a_flood_of_a_stranger_is_folded_and_nothing_else_is() {
    let (mut world, tool) = begun();
    let stranger = world.tool("stranger");
    let mut bytes = fs::read(&stranger).unwrap();
    bytes.extend([7; 3]);
    fs::write(&stranger, bytes).unwrap();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    let mut flood = Client::spawn(&world, &stranger);
    for _ in 0..300 {
        flood.connect();
        assert_refused(&flood.read("s", &["k"]), "denied", "unregistered_binary_pending_approval");
        flood.close();
    }
    // a registered tool is never folded, neither served nor refused
    for _ in 0..150 {
        assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
        assert_refused(&client.read("other", &["k"]), "denied", "service_not_allowed");
    }
    // what is gathered is written at the end at the latest
    assert!(world.stop().success());
    let records = world.audit();
    let of = |reason: &str| records.iter().filter(|r| r["reason"] == reason).collect::<Vec<_>>();
    let refused = of("unregistered_binary_pending_approval");
    let count = |record: &&Value| record["count"].as_u64().unwrap_or(1);
    assert_eq!(refused.iter().map(count).sum::<u64>(), 300);
    let single = refused.iter().filter(|record| record.get("count").is_none()).count();
    assert!(single <= 200 && refused.len() < 250, "{single} of {} records", refused.len());
    assert_eq!(of("service_not_allowed").len(), 150);
    assert_eq!(records.iter().filter(|r| r["action"] == "read" && r["result"] == "GRANTED").count(), 150);
    assert!(world.cli(&["audit", "verify"]).done().contains("whole and unchanged"));
    let stats: Value = serde_json::from_str(&world.cli(&["audit", "stats", "--json"]).done()).unwrap();
    let row = |end: &str| {
        let rows = stats["rows"].as_array().unwrap();
        rows.iter()
            .find(|row| row["what"].as_str().unwrap().ends_with(end))
            .unwrap_or_else(|| panic!("{stats}"))
            .clone()
    };
    assert_eq!(row("/stranger  s  read")["denied"], json!(300));
    assert_eq!(row("/tool  s  read")["granted"], json!(150));
}

/// Fails unless so many refusals of a read of `s` for this reason share few records, and none is lost.
#[track_caller]
fn assert_folded(world: &World, reason: &str, times: u64) {
    let records = world.audit();
    let told = records.iter().filter(|record| record["reason"] == reason && record["service"] == "s");
    let counts: Vec<u64> = told.map(|record| record["count"].as_u64().unwrap_or(1)).collect();
    assert_eq!(counts.iter().sum::<u64>(), times, "none is lost");
    assert!(counts.len() < 250, "{} records", counts.len());
    assert!(world.cli(&["audit", "verify"]).done().contains("whole and unchanged"));
}

#[test]
fn a_flood_is_folded_also_while_a_broken_policy_makes_everybody_a_stranger() {
    let (mut world, tool) = begun();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    world.policy_text("{");
    // who was verified before is no stranger
    for _ in 0..150 {
        assert_refused(&client.read("kept", &["k"]), "error", "internal_error");
    }
    let mut flood = Client::spawn(&world, &world.tool("stranger"));
    let kept = |world: &World| world.audit().iter().filter(|record| record["service"] == "kept").count();
    assert_eq!(kept(&world), 150);
    for _ in 0..300 {
        flood.connect();
        assert_refused(&flood.read("s", &["k"]), "error", "internal_error");
        flood.close();
    }
    assert!(world.stop().success());
    assert_folded(&world, "internal_error", 300);
}

#[test]
fn a_flood_from_a_registered_place_with_other_bytes_is_folded() {
    let (mut world, tool) = begun();
    fs::write(&tool, [fs::read(&tool).unwrap(), vec![0]].concat()).unwrap();
    let mut flood = Client::spawn(&world, &tool);
    for _ in 0..300 {
        flood.connect();
        assert_refused(&flood.read("s", &["k"]), "denied", "unregistered_binary_pending_approval");
        flood.close();
    }
    assert!(world.stop().success());
    assert_folded(&world, "unregistered_binary_pending_approval", 300);
}

#[test]
fn records_are_exported_in_the_words_of_other_systems() {
    let (world, tool) = begun();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    assert_refused(&client.read("other", &["k"]), "denied", "service_not_allowed");
    let exported = |format: &str| {
        let words = ["audit", "export", "--format", format, "--binary", "tool"];
        world.cli(&words).done().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let ecs: Vec<Value> = exported("ecs").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outcomes: Vec<&Value> = ecs.iter().map(|event| &event["event"]["outcome"]).collect();
    assert_eq!(outcomes, ["success", "failure"]);
    let ocsf: Vec<Value> = exported("ocsf").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(ocsf.iter().all(|event| event["class_uid"] == 6003), "{ocsf:?}");
    let cef = exported("cef");
    assert!(cef.len() == 2 && cef.iter().all(|line| line.starts_with("CEF:0|")), "{cef:?}");
    assert_eq!(exported("json").len(), 2);
    let by = world.cli(&["audit", "stats", "--by", "service"]).done();
    assert!(by.contains("1 granted, 0 denied"), "{by}");
}

#[test]
fn a_command_of_the_user_is_run_for_a_new_stranger_and_once() {
    let (world, _) = begun();
    let told = world.tmp("told");
    let script = world.tmp("tell");
    world.write(
        &script,
        format!("#!/bin/sh\necho \"$KEYCHAIN_AUTH_NOTICE_PATH\" >> {}\n", told.display()).as_bytes(),
    );
    world.own(&script, 0o755);
    let mut command = world.command(&world.binary());
    command.args(["notify", "--every", "0", "--on-denied"]).arg(&script);
    let said = world.root().join("notify.log");
    command.stderr(fs::File::create(&said).unwrap());
    let _following = Guarded(spawn(&mut command));
    await_that("it follows", || fs::read_to_string(&said).unwrap().contains("following").then_some(()));
    let stranger = world.tool("stranger");
    let ask = |path: &Path| assert_eq!(Client::connected(&world, path).read("s", &["k"])["status"], "denied");
    let lines = || fs::read_to_string(&told).unwrap_or_default().lines().count();
    // it may not have begun to follow when it said so
    await_that("the first notice", || {
        let fresh = world.tool(&format!("stranger{}", lines()));
        ask(&fresh);
        (lines() > 0).then_some(())
    });
    let before = lines();
    ask(&stranger);
    await_that("the notice", || (lines() > before).then_some(()));
    ask(&stranger);
    ask(&world.tool("another"));
    await_that("the next notice", || (lines() > before + 1).then_some(()));
    assert_eq!(lines(), before + 2, "each once");
    // the same place with other bytes is another program
    let old = fs::read(&stranger).unwrap();
    fs::remove_file(&stranger).unwrap();
    world.write(&stranger, &[old, vec![0]].concat());
    world.own(&stranger, 0o755);
    ask(&stranger);
    await_that("the notice of the other bytes", || (lines() > before + 2).then_some(()));
}

#[test]
fn of_two_strangers_within_one_period_both_are_told_with_the_hash_that_approve_takes() {
    let (world, _) = begun();
    let (told, script, said) = (world.tmp("told"), world.tmp("tell"), world.root().join("notify.log"));
    let text = format!(
        "#!/bin/sh\necho \"$KEYCHAIN_AUTH_NOTICE_PATH $KEYCHAIN_AUTH_NOTICE_HASH\" >> {}\n",
        told.display()
    );
    world.write(&script, text.as_bytes());
    world.own(&script, 0o755);
    let mut command = world.command(&world.binary());
    command.args(["notify", "--every", "2", "--on-denied"]).arg(&script);
    command.stderr(fs::File::create(&said).unwrap());
    let _following = Guarded(spawn(&mut command));
    await_that("it follows", || fs::read_to_string(&said).unwrap().contains("following").then_some(()));
    let lines = || fs::read_to_string(&told).unwrap_or_default();
    let ask = |path: &Path| assert_eq!(Client::connected(&world, path).read("s", &["k"])["status"], "denied");
    // it may not have begun to follow when it said so
    let mut number = 0;
    await_that("the first notice", || {
        number += 1;
        ask(&world.tool(&format!("first{number}")));
        (!lines().is_empty()).then_some(())
    });
    // alone in its period, or behind the latest of those
    let second = world.tool("second");
    ask(&second);
    // nobody asks any more: the end of the period is enough
    await_that("what came too soon is told", || (lines().lines().count() > 1).then_some(()));
    let hash = crate::tools::hash_of(&second);
    assert!(lines().lines().all(|line| line.ends_with(&hash)), "all are copies of one program: {}", lines());
}

#[test]
fn a_program_for_notices_that_fails_is_said_and_kept_for_doctor_until_one_is_given() {
    let (world, _) = begun();
    let (script, said) = (world.tmp("tell"), world.root().join("notify.log"));
    let becomes = |text: &str| {
        world.write(&script, text.as_bytes());
        world.own(&script, 0o755);
    };
    becomes("#!/bin/sh\nexit 3\n");
    let mut command = world.command(&world.binary());
    command.args(["notify", "--every", "0", "--on-denied"]).arg(&script);
    command.stderr(fs::File::create(&said).unwrap());
    let _following = Guarded(spawn(&mut command));
    let log = || fs::read_to_string(&said).unwrap();
    await_that("it follows", || log().contains("following").then_some(()));
    let mut number = 0;
    let mut ask = || {
        number += 1;
        let stranger = world.tool(&format!("stranger{number}"));
        assert_eq!(Client::connected(&world, &stranger).read("s", &["k"])["status"], "denied");
    };
    let row = || {
        let table: Value = serde_json::from_str(&world.cli(&["doctor", "--json"]).out).unwrap();
        let rows = table["checks"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["name"] == "notices")
    };
    let row = await_that("doctor knows of it", || {
        ask();
        row()
    });
    assert_eq!((&row["state"], &row["found"]), (&json!("warn"), &json!("not given")));
    assert!(row["means"].as_str().unwrap().contains("exit status: 3"), "{row}");
    assert!(row["means"].as_str().unwrap().contains(script.to_str().unwrap()), "{row}");
    for _ in 0..3 {
        ask();
    }
    // whatever fails
    fs::remove_file(&script).unwrap();
    ask();
    becomes("#!/bin/sh\n");
    let row = || {
        let table: Value = serde_json::from_str(&world.cli(&["doctor", "--json"]).out).unwrap();
        table["checks"].as_array().unwrap().iter().any(|row| row["name"] == "notices")
    };
    await_that("one was given again", || {
        ask();
        (!row()).then_some(())
    });
    assert!(log().contains("warning: a notice could not be given by "), "{}", log());
}

#[test]
fn options_that_no_record_can_meet_are_refused_and_those_that_none_meets_are_said() {
    let (world, _) = begun();
    for verb in [&["show"][..], &["tail"], &["stats"], &["export", "--format", "json"]] {
        let audit = |more: &[&str]| world.cli(&[&["audit"], verb, more].concat());
        for (more, said) in [
            (&["--since", "1h", "--until", "2h"][..], "no record is in between"),
            (&["--reason", "service_not_alowed"], "service_not_allowed"),
            (&["--result", "no"], "GRANTED"),
            (&["--action", "reed"], "read"),
        ] {
            let outcome = audit(more);
            assert!(outcome.code == Some(2) && outcome.err.contains(said), "{verb:?} {more:?}: {outcome:?}");
        }
        for reason in ["service_not_allowed", "audit_log_changed", "policy_refused"] {
            assert_eq!(audit(&["--reason", reason]).code, Some(0), "{reason}");
        }
        let outcome = audit(&["--service", "no-such-service"]);
        let told = outcome.err.contains("None of the records") || outcome.out.starts_with("0 records");
        assert!(outcome.code == Some(0) && told, "{outcome:?}");
    }
}

#[test]
fn a_program_for_notices_that_can_not_be_run_is_said_at_once() {
    let (world, _) = begun();
    let plain = world.tmp("plain");
    world.write(&plain, b"#!/bin/sh\n");
    for (program, word) in
        [("/nope", "there is no file"), (plain.to_str().unwrap(), "chmod +x"), ("no-such-program", "in PATH")]
    {
        let said = world.cli(&["notify", "--on-denied", program]);
        assert!(said.code == Some(1) && said.err.contains("--on-denied"), "{program}: {said:?}");
        assert!(said.err.contains(word) && !said.err.contains("following"), "{program}: {said:?}");
    }
}

/// HELLO and STATUS are no requests: served, they release nothing and change nothing. Refused, they are attempts.
#[test]
fn a_hello_or_status_that_is_refused_leaves_a_record_and_one_that_is_served_leaves_none() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let before = world.audit().len();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.request(&json!({"type": "HELLO"}))["type"], "HELLO");
    assert_eq!(client.request(&json!({"type": "STATUS"}))["type"], "STATUS");
    assert_eq!(world.audit().len(), before, "served");
    let mut refused = Vec::new();
    for (message, reason) in [("HELLO", "malformed_request"), ("STATUS", "malformed_request")] {
        let reply = client.request(&json!({"type": message, "more": 1}));
        assert_eq!(reply["reason"], reason, "{reply}");
        refused.push((client.pid(), reason));
    }
    let stranger = world.tool("stranger");
    std::fs::write(&stranger, [std::fs::read(&stranger).unwrap(), vec![0]].concat()).unwrap();
    let mut other = Client::connected(&world, &stranger);
    let reply = other.request(&json!({"type": "HELLO"}));
    assert_eq!(reply["reason"], "unregistered_binary_pending_approval", "{reply}");
    refused.push((other.pid(), "unregistered_binary_pending_approval"));
    let records: Vec<Value> = world.audit().into_iter().skip(before).collect();
    let told: Vec<_> = records
        .iter()
        .map(|record| (record["pid"].as_u64().unwrap() as u32, record["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(told, refused, "{records:#?}");
    assert!(records.iter().all(|record| record["action"] == "connect"), "{records:#?}");
}
