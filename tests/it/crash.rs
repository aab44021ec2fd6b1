//! SIGKILL at any moment: a batch is there whole or not at all, and what was acknowledged is there.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::{
    client::{Client, Got, written},
    world::{Entry, World},
};

/// Targets of one batch.
const BATCH: usize = 500;
/// Kills in all, and worlds that share them.
const KILLS: usize = 100;
const WORLDS: usize = 2;

fn batch(value: &str) -> Vec<u8> {
    let targets: Vec<String> = (0..BATCH).map(|n| format!("t{n:03}")).collect();
    let values = vec![value; BATCH];
    let request =
        json!({"type": "REQUEST", "action": "write", "service": "s", "targets": targets, "values": values});
    format!("{request}\n").into_bytes()
}

/// The one value that all targets of the batch have. Fails on a mix or a missing target.
fn value_of_all(client: &mut Client) -> Option<String> {
    let all =
        json!({"type": "REQUEST", "action": "read", "service": "s", "targets": ["t"], "match": "prefix"});
    let reply = client.request(&all);
    let results = reply["results"].as_array().unwrap_or_else(|| panic!("{reply}"));
    let first = results.first()?["value"].as_str().unwrap().to_owned();
    assert_eq!(results.len(), BATCH, "all or nothing");
    assert!(results.iter().all(|result| result["value"] == json!(first)), "a batch is torn");
    Some(first)
}

/// Some microseconds that differ from run to run.
fn any_micros(below: u32) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    Duration::from_micros(u64::from((now / 7) % below))
}

/// What is certain of the batches of one world.
#[derive(Default)]
struct Known {
    /// The last one that was acknowledged, or found after a kill.
    acknowledged: Option<u32>,
    /// Writes that have to be in the log.
    granted: usize,
    /// The last one that was sent.
    sent: u32,
}

/// Looks at what a kill has left, with the daemon that is to be killed next.
fn look(world: &World, tool: &Path, known: &mut Known) {
    let found = value_of_all(&mut Client::connected(world, tool)).map(|value| value.parse::<u32>().unwrap());
    let Known { acknowledged, granted, sent } = *known;
    assert!(found >= acknowledged, "acknowledged {acknowledged:?}, found {found:?}");
    assert!(found.is_none_or(|found| found <= sent), "found {found:?}, sent {sent}");
    let records = world.audit().iter().filter(|r| r["action"] == "write" && r["result"] == "GRANTED").count();
    assert!(records >= granted, "{granted} acknowledged writes, {records} records");
    *known = Known { acknowledged: found, granted: records, sent };
}

/// Writes batches until the daemon is killed: `wanted` acknowledged ones and `within` some microseconds later.
fn write_until_killed(world: &mut World, tool: &Path, known: &mut Known, wanted: usize, within: u32) {
    let mut client = Client::connected(world, tool);
    let acknowledgements = AtomicUsize::new(0);
    let Known { acknowledged, granted, sent } = known;
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut done = Vec::new();
            loop {
                *sent += 1;
                client.send(&batch(&sent.to_string()));
                let Got::Line(line) = client.recv() else { return done };
                assert_eq!(serde_json::from_slice::<Value>(&line).unwrap(), written());
                done.push(*sent);
                acknowledgements.store(done.len(), Ordering::Release);
            }
        });
        while acknowledgements.load(Ordering::Acquire) < wanted && !writer.is_finished() {
            thread::yield_now();
        }
        thread::sleep(any_micros(within));
        world.kill();
        let done = writer.join().unwrap();
        *granted += done.len();
        *acknowledged = done.last().copied().or(*acknowledged);
    });
}

#[test]
fn a_kill_at_any_moment_tears_no_batch_and_loses_no_acknowledged_one() {
    // worlds beside each other: each waits for the disk most of the time
    thread::scope(|scope| {
        for _ in 0..WORLDS {
            scope.spawn(|| {
                let mut world = World::new();
                let tool = world.tool("tool");
                world.policy(&[Entry::all(&tool, &["s"])]);
                let mut known = Known::default();
                for round in 0..KILLS / WORLDS {
                    world.start();
                    look(&world, &tool, &mut known);
                    // early in the first batch, somewhere in it, or in the one after some were acknowledged
                    let (wanted, within) = [(0, 5_000), (0, 80_000), (2, 80_000)][round % 3];
                    write_until_killed(&mut world, &tool, &mut known, wanted, within);
                }
                world.start();
                look(&world, &tool, &mut known);
                assert!(known.granted > KILLS / WORLDS / 3, "something was written: {}", known.granted);
            });
        }
    });
}

#[test]
fn a_reader_beside_a_writer_never_sees_a_mix() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let (mut writer, mut reader) = (Client::connected(&world, &tool), Client::connected(&world, &tool));
    writer.send(&batch("0"));
    assert_eq!(writer.recv().json(), written());
    thread::scope(|scope| {
        let flips = scope.spawn(|| {
            for round in 1..60 {
                writer.send(&batch(&round.to_string()));
                assert_eq!(writer.recv().json(), written());
            }
        });
        while !flips.is_finished() {
            assert!(value_of_all(&mut reader).is_some());
        }
        flips.join().unwrap();
    });
    assert_eq!(value_of_all(&mut reader).as_deref(), Some("59"));
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    thread::scope(|scope| {
        for writer in 0..8 {
            let (world, tool) = (&world, &tool);
            scope.spawn(move || {
                let mut client = Client::connected(world, tool);
                for number in 0..50 {
                    let name = format!("w{writer}/{number}");
                    assert_eq!(client.write("s", &[(&name, &name)]), written());
                }
            });
        }
    });
    world.kill();
    world.start();
    let mut client = Client::connected(&world, &tool);
    let names: Vec<String> =
        (0..8).flat_map(|writer| (0..50).map(move |number| format!("w{writer}/{number}"))).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let targets: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(client.read("s", &targets), crate::client::found(&pairs));
    let records = world.audit().into_iter().filter(|record| record["action"] == "write").count();
    assert_eq!(records, names.len(), "one record for each write");
}

#[test]
fn no_file_of_the_store_holds_a_value_or_a_name_in_clear() {
    const WORDS: [&str; 4] = ["service-7f3a1c", "target-90be4d", "value-5d2c8e77", "label-e61fa2"];
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &[WORDS[0]])]);
    world.start();
    let write = json!({"type": "REQUEST", "action": "write", "service": WORDS[0], "targets": [WORDS[1]],
        "values": [WORDS[2]], "attributes": {(WORDS[3]): WORDS[3]}});
    assert_eq!(Client::connected(&world, &tool).request(&write), written());
    world.stop();
    for file in std::fs::read_dir(world.data()).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        for word in WORDS {
            // the log names what was asked, and never what was stored
            let named = path.ends_with("audit.log") && word != WORDS[2];
            let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(named || !found, "{word} is in {path:?}");
        }
    }
}
