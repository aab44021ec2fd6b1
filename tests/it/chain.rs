//! The chain of the real log: what is done to the file is found, by the command and by the daemon.

use std::{fs, path::PathBuf};

use keychain_auth::{
    audit::{Lines, Verdict, Verifier, Witnesses, Wrong},
    chain::VerificationKey,
};
use serde_json::{Value, json};

use crate::{
    client::{Client, found, written},
    world::{Entry, Outcome, World},
};

/// A world whose log has a sealed chain and some records; the key lies outside of the data folder.
fn sealed() -> (World, PathBuf, PathBuf) {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    world.stop();
    let shown = world.cli(&["audit", "seal-key"]);
    assert!(shown.err.contains("not shown again"), "{}", shown.err);
    let key = world.tmp("chain.key");
    world.write(&key, shown.done().as_bytes());
    world.start();
    serve(&world, &tool);
    (world, tool, key)
}

fn serve(world: &World, tool: &std::path::Path) {
    let mut client = Client::connected(world, tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    for _ in 0..8 {
        assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    }
}

fn verified(world: &World, key: &std::path::Path) -> Outcome {
    world.cli(&["audit", "verify", "--key", key.to_str().unwrap()])
}

/// The report, and whether the exit code says the same.
fn report(world: &World, arguments: &[&str]) -> Value {
    let words: Vec<&str> = ["audit", "verify", "--json"].iter().chain(arguments).copied().collect();
    let outcome = world.cli(&words);
    let report: Value = serde_json::from_str(&outcome.out).unwrap_or_else(|_| panic!("{outcome:?}"));
    assert_eq!(report["whole"], json!(outcome.code == Some(0)), "{outcome:?}");
    report
}

#[test]
fn a_log_is_whole_beside_its_daemon_after_it_and_after_a_kill() {
    let (mut world, tool, key) = sealed();
    let key_path = key.to_str().unwrap().to_owned();
    let beside = report(&world, &["--key", &key_path]);
    assert_eq!((&beside["whole"], &beside["compared_with"]), (&json!(true), &json!("daemon")), "{beside}");
    assert!(beside["checked_with_key"].as_u64().unwrap() > 9, "{beside}");
    world.stop();
    let after = report(&world, &[]);
    assert_eq!((&after["whole"], &after["compared_with"]), (&json!(true), &json!("vault")), "{after}");
    for _ in 0..3 {
        world.start();
        serve(&world, &tool);
        world.kill();
        let killed = report(&world, &["--key", &key_path]);
        assert_eq!(killed["whole"], json!(true), "{killed}");
    }
    world.start();
    let again = report(&world, &["--key", &key_path]);
    assert_eq!((&again["whole"], &again["findings"]), (&json!(true), &json!([])), "{again}");
    assert_eq!(world.audit().iter().filter(|r| r["reason"] == "audit_log_changed").count(), 0);
}

#[test]
fn what_is_done_to_the_real_file_is_found_at_its_line() {
    let (mut world, _, key) = sealed();
    world.stop();
    let log = world.data().join("audit.log");
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len();
    assert!(last > 9, "{text}");
    let joined = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let edited = |number: usize, edit: &dyn Fn(&str) -> String| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        lines[number - 1] = edit(&lines[number - 1]);
        joined(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let with = |change: &dyn Fn(&mut Vec<&str>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        joined(&lines)
    };
    let changes = [
        (9, "another name", edited(9, &|line| line.replace("[\"k\"]", "[\"q\"]"))),
        (9, "another result", edited(9, &|line| line.replace("GRANTED", "DENIED"))),
        (
            10,
            "another hash",
            edited(10, &|line| line.replacen("\"mac\":\"", "\"mac\":\"0", 1).replacen("0\"}", "\"}", 1)),
        ),
        (
            6,
            "a dropped line",
            with(&|lines| {
                lines.remove(5);
            }),
        ),
        (9, "a doubled line", with(&|lines| lines.insert(8, lines[7]))),
        (7, "two swapped lines", with(&|lines| lines.swap(6, 7))),
        (last, "a cut tail", joined(&lines[..last - 1])),
        (4, "an older copy", joined(&lines[..3])),
        (8, "a foreign line", with(&|lines| lines.insert(7, "{\"timestamp\":\"2026-05-21T10:34:02Z\"}"))),
        (8, "a line of no record", with(&|lines| lines.insert(7, "notes"))),
    ];
    for (line, what, text) in changes {
        world.write(&log, text.as_bytes());
        let said = verified(&world, &key);
        assert_eq!(said.code, Some(1), "{what}: {said:?}");
        assert!(said.err.contains(&format!("audit.log:{line}: ")), "{what}: line {line}: {said:?}");
    }
    world.write(&log, text.as_bytes());
    assert!(verified(&world, &key).done().contains("whole and unchanged"));
    world.write(&key, "0".repeat(64).as_bytes());
    let foreign = verified(&world, &key);
    assert!(foreign.err.contains("no record of the chain"), "{foreign:?}");
}

/// What the check finds that `audit verify --key` makes, without a process for each of thousands.
fn found_with(key: &[u8], text: &[u8]) -> Verdict {
    let key = VerificationKey::parse(key);
    assert!(key.is_some());
    let mut verifier = Verifier::new(Witnesses { key, ..Witnesses::default() });
    for line in Lines::new(text) {
        verifier.line(0, &line.unwrap());
    }
    verifier.finish()
}

#[test]
fn any_single_byte_of_the_real_file_that_is_changed_is_found_at_its_line() {
    let (mut world, _, key) = sealed();
    world.stop();
    let (key, log) = (fs::read(key).unwrap(), world.data().join("audit.log"));
    let text = fs::read(&log).unwrap();
    // the first chain, which the daemon began by itself, has no key that anybody was shown
    let begins = String::from_utf8_lossy(&text).lines().position(|line| line.contains("because=new_chain"));
    assert_eq!(begins, Some(0));
    let sealed_at = {
        let text = String::from_utf8_lossy(&text);
        let mut chains = text.lines().zip(1..).filter(|(line, _)| line.contains("because=new_chain"));
        chains.nth(1).expect("the sealed chain").1
    };
    assert_eq!(found_with(&key, &text).findings, []);
    let (mut changed, mut line) = (text.clone(), 1);
    let mut tried = 0;
    for at in 0..text.len() {
        let own = line;
        line += u64::from(text[at] == b'\n');
        if own < sealed_at {
            continue;
        }
        changed[at] ^= 1 + (at % 7) as u8;
        let found = found_with(&key, &changed).findings;
        assert!(found.first().is_some_and(|first| first.line == own), "byte {at}, line {own}: {found:?}");
        changed[at] = text[at];
        tried += 1;
    }
    assert!(tried > 3000, "{tried} bytes");
}

/// The attacks on journald's sealing (CVE-2023-31437 to 31439), and two logs put together, with the real files.
#[test]
fn an_emptied_epoch_a_missing_one_and_a_splice_of_two_real_logs_are_found() {
    let (mut world, tool, key) = sealed();
    // every start begins an epoch
    for _ in 0..3 {
        world.stop();
        world.start();
        serve(&world, &tool);
    }
    world.stop();
    let log = world.data().join("audit.log");
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let begins: Vec<usize> =
        (0..lines.len()).filter(|at| lines[*at].contains("\"detail\":\"chain=")).collect();
    let (from, to) = (begins[begins.len() - 3], begins[begins.len() - 2]);
    assert!(to - from > 8, "an epoch with records: {from} to {to}");
    let (mut other, _, _) = sealed();
    other.stop();
    let foreign = fs::read_to_string(other.data().join("audit.log")).unwrap();
    let foreign: Vec<&str> = foreign.lines().collect();
    let joined =
        |parts: &[&[&str]]| parts.concat().iter().map(|line| format!("{line}\n")).collect::<String>();
    let missing = |from: usize| Wrong::Missing { from: from as u64 + 1, to: to as u64 };
    let attacks = [
        ("an emptied epoch", joined(&[&lines[..=from], &lines[to..]]), from + 2, Some(missing(from + 1))),
        ("a missing epoch", joined(&[&lines[..from], &lines[to..]]), from + 1, Some(missing(from))),
        ("another log's end", joined(&[&lines[..10], &foreign[10..]]), 11, None),
        ("another log behind", joined(&[&lines, &foreign]), lines.len() + 1, None),
    ];
    for (what, text, line, wrong) in attacks {
        world.write(&log, text.as_bytes());
        for arguments in [vec!["--key", key.to_str().unwrap()], vec![]] {
            let report = report(&world, &arguments);
            let first = &report["findings"][0];
            if wrong.is_some() || !arguments.is_empty() {
                assert_eq!(first["line"], json!(line), "{what}: {report}");
            }
            assert_eq!(report["whole"], json!(false), "{what}: {report}");
            if let Some(wrong) = wrong {
                assert_eq!(first["what"], json!(wrong.to_string()), "{what}");
            }
        }
    }
    world.write(&log, text.as_bytes());
    assert_eq!(report(&world, &["--key", key.to_str().unwrap()])["whole"], json!(true));
}

#[test]
fn a_log_that_was_cut_while_no_daemon_ran_is_said_and_the_daemon_serves_on() {
    let (mut world, tool, key) = sealed();
    let before = world.audit_all().len();
    world.stop();
    let log = world.data().join("audit.log");
    let text = fs::read_to_string(&log).unwrap();
    let kept: String = text.lines().take(6).map(|line| format!("{line}\n")).collect();
    world.write(&log, kept.as_bytes());
    world.start();
    serve(&world, &tool);
    let said = world.audit_where("the gap is said", |record| record["reason"] == "audit_log_changed");
    let missing = format!("records 7 to {} are missing", text.lines().count());
    assert!(said["detail"].as_str().unwrap().contains(&missing), "{said}, not {missing}");
    assert!(world.cli(&["status"]).done().contains(&missing));
    assert!(world.cli(&["doctor"]).out.contains(&missing));
    let report = report(&world, &["--key", key.to_str().unwrap()]);
    let places: Vec<_> = report["findings"].as_array().unwrap().iter().map(|it| it["line"].clone()).collect();
    assert_eq!(places, [7], "the gap alone, and for ever: {report}");
    assert!(before > 9);
}

#[test]
fn a_log_that_was_removed_beside_the_daemon_is_not_whole_and_what_is_gone_is_counted() {
    let (mut world, tool, key) = sealed();
    serve(&world, &tool);
    let last = world.audit().last().unwrap()["seq"].as_u64().unwrap();
    fs::remove_file(world.data().join("audit.log")).unwrap();
    serve(&world, &tool);
    for arguments in [vec![], vec!["--key", key.to_str().unwrap()]] {
        let report = report(&world, &arguments);
        assert_eq!(report["whole"], json!(false), "{report}");
        let what = report["findings"][0]["what"].as_str().unwrap();
        assert!(what.contains(&format!("records up to {last} are missing")), "{what}");
        assert_eq!(report["records_before_the_first"], json!(last));
    }
    world.stop();
    fs::remove_file(world.data().join("audit.log")).unwrap();
    let gone = report(&world, &[]);
    let file = gone["findings"][0]["file"].as_str().unwrap();
    assert!(file.ends_with("/audit.log"), "what is gone has its name: {gone}");
}

#[test]
fn without_its_state_the_log_goes_on_with_another_chain_and_says_so() {
    let (mut world, tool, key) = sealed();
    world.stop();
    fs::remove_file(world.data().join("audit.state")).unwrap();
    world.start();
    serve(&world, &tool);
    world.audit_where("the loss is said", |record| {
        record["detail"].as_str().is_some_and(|detail| detail.contains("audit.state"))
    });
    let report = report(&world, &["--key", key.to_str().unwrap()]);
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "both chains are whole: {report}");
    assert!(findings[0]["what"].as_str().unwrap().contains("does not announce"), "{report}");
}

/// Who has no key, but every file, goes on with a chain of his own.
#[test]
fn a_chain_of_somebody_else_behind_the_real_one_is_found() {
    let (mut world, tool, key) = sealed();
    world.stop();
    let log = world.data().join("audit.log");
    let real = fs::read_to_string(&log).unwrap();
    let count = real.lines().count();
    // a daemon whose state is gone begins a chain that nobody announced, as a forger would
    let kept: String = real.lines().take(6).map(|line| format!("{line}\n")).collect();
    for file in ["vault.redb", "vault.head", "vault.key", "audit.state"] {
        fs::rename(world.data().join(file), world.tmp(file)).unwrap();
    }
    world.write(&log, kept.as_bytes());
    world.start();
    serve(&world, &tool);
    serve(&world, &tool);
    world.stop();
    assert!(fs::read_to_string(&log).unwrap().lines().count() > count);
    let copied = ["audit", "verify", "--log", log.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let alone = world.cli(&copied);
    assert!(alone.err.contains("audit.log:7: a chain begins"), "with the key alone: {alone:?}");
    for file in ["vault.redb", "vault.head", "vault.key", "audit.state"] {
        fs::rename(world.tmp(file), world.data().join(file)).unwrap();
    }
    assert_eq!(report(&world, &[])["whole"], json!(false), "with the vault alone");
    // and with nothing of the real one left
    let forged = fs::read_to_string(&log).unwrap();
    let from =
        forged.lines().position(|line| line.contains("because=new_chain") && line.contains("\"seq\":7,"));
    let rest: String = forged.lines().skip(from.unwrap()).map(|line| format!("{line}\n")).collect();
    world.write(&log, rest.as_bytes());
    assert_eq!(report(&world, &[])["whole"], json!(false), "with the vault alone");
}

#[test]
fn a_new_chain_needs_the_daemon_to_be_stopped_and_the_advice_says_so() {
    let (mut world, _, _) = sealed();
    let refused = |world: &World| {
        let refused = world.cli(&["audit", "seal-key"]);
        assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
        assert!(refused.err.contains(&format!("(pid {})", world.pid())), "{}", refused.err);
        assert!(refused.err.contains("try: stop the daemon"), "{}", refused.err);
        assert!(!refused.err.contains("vault lock"), "which would not help: {}", refused.err);
    };
    refused(&world);
    world.cli(&["vault", "lock"]).done();
    refused(&world);
    world.stop();
    assert_eq!(world.cli(&["audit", "seal-key"]).done().trim_end().len(), 64);
}
