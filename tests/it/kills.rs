//! A hundred kills under load: whatever was answered has its record, and the chain is whole.

use std::{
    collections::HashSet,
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    client::{Client, Got, written},
    world::{Entry, World},
};

const KILLS: usize = 100;
/// Answers after which a round's daemon is killed, in the middle of more.
const ANSWERS: usize = 24;

/// Asks without an end, and gives the names of all that was answered with success.
fn asks(
    world: &World,
    tool: &std::path::Path,
    round: usize,
    action: &str,
    answered: &AtomicUsize,
) -> Vec<String> {
    let mut client = Client::spawn(world, tool);
    let mut done = Vec::new();
    if client.try_connect() != "ok" {
        return done;
    }
    for number in 0.. {
        let name = format!("{action}-{round}-{number}");
        let mut request =
            json!({"type": "REQUEST", "action": action, "service": "s", "targets": ["k", name]});
        if action == "write" {
            request["values"] = json!(["v", name]);
        }
        client.send(format!("{request}\n").as_bytes());
        let Got::Line(line) = client.recv() else { return done };
        let reply: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(reply["status"], "success", "{reply}");
        assert!(action == "write" || reply["results"][0]["value"] == "v", "a read releases a value: {reply}");
        done.push(name);
        answered.fetch_add(1, Ordering::AcqRel);
    }
    done
}

#[test]
fn across_a_hundred_kills_every_answer_has_its_record_and_the_chain_is_whole() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    let mut all: Vec<String> = Vec::new();
    for round in 0..KILLS {
        if !world.is_started() {
            world.start();
        }
        let answered = AtomicUsize::new(0);
        let kill_at = 1 + (round * 7) % ANSWERS;
        thread::scope(|scope| {
            let (world_ref, tool, answered) = (&world, &tool, &answered);
            let load = ["read", "read", "write"]
                .map(|action| scope.spawn(move || asks(world_ref, tool, round, action, answered)));
            while answered.load(Ordering::Acquire) < kill_at {
                thread::sleep(Duration::from_micros(200));
            }
            kill(world_ref);
            all.extend(load.into_iter().flat_map(|one| one.join().unwrap()));
        });
        world.ended();
    }
    world.start();
    // two clients of a round ask for reads of one name
    let recorded: HashSet<String> = world
        .audit()
        .iter()
        .filter(|record| record["result"] == "GRANTED" && record["targets"][0] == "k")
        .filter_map(|record| record["targets"][1].as_str().map(str::to_owned))
        .collect();
    let lost: Vec<_> = all.iter().filter(|name| !recorded.contains(*name)).collect();
    assert!(all.len() >= KILLS && lost.is_empty(), "{} answers, without a record: {lost:?}", all.len());
    let changed = world.audit().into_iter().filter(|record| record["reason"] == "audit_log_changed").count();
    assert_eq!(changed, 0, "a kill looks like nobody's attack");
    assert!(world.cli(&["audit", "verify"]).done().contains("whole and unchanged"));
    world.stop();
    assert!(world.cli(&["audit", "verify"]).done().contains("whole and unchanged"));
}

/// Ends the daemon while others still use the world.
fn kill(world: &World) {
    let pid = rustix::process::Pid::from_raw(world.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn no_file_of_the_daemon_tells_a_value_its_length_or_its_digest() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start_args = vec!["--audit-max-size=1".into()];
    world.start();
    let mut client = Client::connected(&world, &tool);
    let value = format!("marker-90b1{}", "z".repeat(6_150));
    for _ in 0..3 {
        assert_eq!(client.write("s", &[("k", &value)]), written());
        assert_eq!(client.read("s", &["k"])["status"], "success");
        assert_eq!(
            client.request(&json!({"type": "REQUEST", "action": "delete", "service": "s", "targets": ["k"]}))
                ["status"],
            "success"
        );
        // refused, and broken after the value
        let other = json!({"type": "REQUEST", "action": "write", "service": "t", "targets": ["k"], "values": [value]});
        assert_eq!(client.request(&other)["status"], "denied");
        client.send(format!("{}!\n", json!({"type": "REQUEST", "values": [value]})).as_bytes());
        assert_eq!(client.recv().json()["reason"], "malformed_request");
    }
    world.stop();
    let digest = Sha256::digest(&value);
    let marks = [
        "marker-90b1".to_owned(),
        "z".repeat(40),
        HEXLOWER.encode(&digest),
        HEXLOWER.encode(&digest[..8]),
        BASE64.encode(&digest),
        BASE64.encode(b"marker-90b1"),
    ];
    for entry in fs::read_dir(world.data()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        for mark in &marks {
            let found = bytes.windows(mark.len()).any(|window| window == mark.as_bytes());
            assert!(!found, "{mark} is in {}", path.display());
        }
        let length = value.len().to_string();
        let lines = String::from_utf8_lossy(&bytes).into_owned();
        let is_log = path.file_name().unwrap().to_string_lossy().starts_with("audit.log");
        // as a number of its own, not within a hash or a time
        let told = lines.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == length);
        assert!(!is_log || !told, "the length {length} is in {}", path.display());
    }
}
