//! A small disk of its own that fills up, and one that becomes read-only: refused in words, whole, and served again when
//! there is room.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    client::{Client, written},
    keychain,
    rotation::{Disk, fill},
    skip::skip,
    world::{Entry, World, await_that, is_root, run},
};

/// Targets of one batch, with values of 200 bytes: some of them find room in pages that are free, and some don't.
const BATCH: usize = 100;

fn write(client: &mut Client, number: u32) -> bool {
    let targets: Vec<String> = (0..BATCH).map(|n| format!("t{n:03}")).collect();
    let value = format!("{number}{}", "-".repeat(200));
    let request = json!({"type": "REQUEST", "action": "write", "service": "s", "targets": targets,
        "values": vec![value; BATCH]});
    let reply = client.request(&request);
    if reply == written() {
        return true;
    }
    assert_eq!(reply["status"], "error", "{reply}");
    let reason = reply["reason"].as_str().unwrap();
    assert!(["internal_error", "audit_unavailable"].contains(&reason), "{reply}");
    assert!(!reply["message"].as_str().unwrap().is_empty(), "{reply}");
    false
}

/// The number that all targets have; None while reads are refused.
fn number(client: &mut Client) -> Option<u32> {
    let all =
        json!({"type": "REQUEST", "action": "read", "service": "s", "targets": ["t"], "match": "prefix"});
    let reply = client.request(&all);
    if reply["status"] != "success" {
        assert!(
            ["audit_unavailable", "internal_error"].contains(&reply["reason"].as_str().unwrap()),
            "{reply}"
        );
        return None;
    }
    let results = reply["results"].as_array().unwrap();
    assert_eq!(results.len(), BATCH, "all or nothing");
    let first = results[0]["value"].as_str().unwrap();
    assert!(results.iter().all(|result| result["value"] == json!(first)), "a batch is torn");
    Some(first.trim_end_matches('-').parse().unwrap())
}

/// A command that may be refused, in words.
fn tried(world: &World, args: &[&str]) -> bool {
    let outcome = world.cli(args);
    assert!(!outcome.err.contains("panicked"), "{args:?}: {}", outcome.err);
    match outcome.code {
        Some(0) => true,
        Some(1) => {
            assert!(outcome.err.contains("error: ") && outcome.err.contains("  try: "), "{}", outcome.err);
            false
        }
        other => panic!("{args:?} ended with {other:?}: {}", outcome.err),
    }
}

fn free(world: &World) {
    fs::remove_file(world.data().join("filler")).unwrap();
}

/// A start that may be refused, in words, and its end.
fn starts(world: &mut World) -> bool {
    match world.try_start() {
        Ok(()) => {
            world.stop();
            true
        }
        Err(status) => {
            assert_eq!(status.code(), Some(1), "{}", world.log());
            assert!(world.log().lines().rev().nth(1).unwrap().starts_with("error: "), "{}", world.log());
            false
        }
    }
}

/// A disk of 24 MiB is filled under a daemon at work, under its commands, and under a start.
fn fills(world: &mut World, tool: &Path) {
    let _disk = Disk::under(world, "24m");
    world.start();
    let mut client = Client::connected(world, tool);
    let mut acknowledged = 0;
    assert!(write(&mut client, acknowledged));
    for full in 1..=3 {
        fill(&world.data());
        let mut refused = 0;
        for next in full * 1000..full * 1000 + 30 {
            match write(&mut client, next) {
                true => acknowledged = next,
                false => refused += 1,
            }
            if let Some(number) = number(&mut client) {
                assert_eq!(number, acknowledged, "what was refused has not happened");
            }
        }
        assert!(refused > 10, "{refused} refused");
        tried(world, &["policy", "seal"]);
        tried(world, &["vault", "lock"]);
        tried(world, &["vault", "unlock"]);
        assert_ne!(client.read("s", &["t000"])["reason"], "policy_unsealed", "nobody changed config.json");
        free(world);
        tried(world, &["vault", "unlock"]);
        let found = await_that("it serves again", || number(&mut client));
        assert_eq!(found, acknowledged);
        acknowledged = full * 1000 + 500;
        assert!(write(&mut client, acknowledged), "there is room");
    }
    // under a start, and under commands that work on the files
    fill(&world.data());
    write(&mut client, 7);
    drop(client);
    world.kill();
    let ways: [&[&str]; 4] = [
        &["vault", "rekey"],
        &["vault", "change-key-source", "--key", "file"],
        &["audit", "seal-key"],
        &["vault", "verify"],
    ];
    for args in ways {
        tried(world, args);
        starts(world);
    }
    free(world);
    world.start();
    let mut client = Client::connected(world, tool);
    let found = await_that("it serves again", || number(&mut client));
    assert!(found == acknowledged || found == 7, "acknowledged {acknowledged}, found {found}");
    assert!(write(&mut client, 8));
    world.cli(&["audit", "verify"]).done();
    drop(client);
    world.stop();
    world.start();
    assert_eq!(number(&mut Client::connected(world, tool)), Some(8));
    world.stop();
}

#[test]
fn a_disk_that_fills_up_under_daemon_commands_and_start_loses_nothing_and_serves_again() {
    if !is_root() {
        return skip("only root can make a small disk");
    }
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    fills(&mut world, &tool);
}

#[test]
fn a_disk_that_fills_up_under_a_batch_for_the_keychain_loses_nothing_and_serves_again() {
    if !is_root() {
        return skip("only root can make a small disk");
    }
    let Some((mut world, _keyring)) = keychain::world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    fills(&mut world, &tool);
}

#[test]
fn a_disk_that_becomes_read_only_is_an_error_in_words_and_not_a_byte_is_lost() {
    if !is_root() {
        return skip("only root can make a small disk");
    }
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let _disk = Disk::under(&world, "24m");
    let remount = |world: &World, how: &str| {
        let options = format!("remount,{how}");
        run(Command::new("mount").args(["-o", &options]).arg(world.data())).done();
    };
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert!(write(&mut client, 1));
    drop(client);
    // what has a file open for writing keeps a disk from becoming read-only
    world.stop();
    let files = |world: &World| -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(world.data()).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files(&world);
    remount(&world, "ro");
    assert!(!starts(&mut world), "it starts where it can record nothing");
    for args in [
        &["vault", "rekey"][..],
        &["vault", "change-key-source", "--key", "file"],
        &["policy", "seal"],
        &["audit", "seal-key"],
    ] {
        assert!(!tried(&world, args), "{args:?}");
    }
    assert!(files(&world) == before, "a byte was changed");
    remount(&world, "rw");
    assert!(files(&world) == before, "a byte was changed");
    world.start();
    let status: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    assert_eq!(status["vault"]["state"], "unlocked");
    assert_eq!(number(&mut Client::connected(&world, &tool)), Some(1));
}
