//! Slow, silent, flooding and half-closed clients, and batches at their limits.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    client::{Client, Got, assert_refused, found, written},
    tools::Link,
    world::{Entry, Guarded, World, spawn},
};

fn world_with_tool() -> (World, std::path::PathBuf) {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    (world, tool)
}

/// A copy of the client whose bytes no entry knows.
fn stranger(world: &World, number: usize) -> std::path::PathBuf {
    let path = world.tool(&format!("stranger{number}"));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend([0; 3]);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn read_line(target: &str) -> String {
    format!("{}\n", json!({"type": "REQUEST", "action": "read", "service": "s", "targets": [target]}))
}

/// 400 connections of strangers, then one of the tool, which must be served before their ten seconds for a line are over.
fn flooded(first_bytes: &[u8], strangers: usize) {
    let (world, tool) = world_with_tool();
    let mut crowd: Vec<Client> =
        (0..strangers).map(|number| Client::spawn(&world, &stranger(&world, number))).collect();
    for number in 0..400 {
        let client = &mut crowd[number % strangers];
        client.slot(number);
        if client.try_connect() == "ok" && !first_bytes.is_empty() {
            client.send(first_bytes);
        }
    }
    let mut client = Client::spawn(&world, &tool);
    client.connect();
    assert_eq!(client.read_within(8, "s", &["k"]), found(&[]));
    assert_eq!(client.write("s", &[("k", "v")]), written());
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
}

#[test]
fn four_hundred_silent_connections_of_one_stranger_delay_no_registered_client() {
    flooded(b"", 1);
}

#[test]
fn four_hundred_silent_connections_of_eight_strangers_delay_no_registered_client() {
    flooded(b"", 8);
}

#[test]
fn four_hundred_half_lines_of_strangers_delay_no_registered_client() {
    flooded(br#"{"type":"REQUEST","action":"#, 8);
}

/// Resident memory of a process and its children, in MiB.
fn resident(pid: u32) -> usize {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let pids = children.split_whitespace().map(str::to_owned).chain([pid.to_string()]);
    pids.map(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.map_or(0, |kib| kib.trim_end_matches("kB").trim().parse::<usize>().unwrap() / 1024)
    })
    .sum()
}

#[test]
fn half_lines_of_almost_a_mebibyte_cost_bounded_memory() {
    let (world, tool) = world_with_tool();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    let quiet = resident(world.pid());
    let half = [br#"{"type":"#, &[b' '; 900 << 10][..]].concat();
    let mut crowd: Vec<Client> =
        (0..8).map(|number| Client::spawn(&world, &stranger(&world, number))).collect();
    for number in 0..320 {
        let client = &mut crowd[number % 8];
        client.slot(number);
        if client.try_connect() == "ok" {
            client.send(&half);
        }
    }
    let grown = resident(world.pid()).saturating_sub(quiet);
    assert!(grown < 200, "{grown} MiB for 280 MiB of half lines");
    client.connect();
    assert_eq!(client.read_within(8, "s", &["k"]), found(&[("k", "v")]));
}

#[test]
fn a_batch_of_1024_targets_is_served_whole_and_in_order() {
    let (world, tool) = world_with_tool();
    let mut client = Client::connected(&world, &tool);
    let names: Vec<String> = (0..1024).map(|n| format!("t{}", (n * 7) % 1024)).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), &name[1..])).collect();
    assert_eq!(client.write("s", &pairs), written());
    let targets: Vec<&str> = pairs.iter().map(|(target, _)| *target).collect();
    assert_eq!(client.read("s", &targets), found(&pairs));
}

#[test]
fn a_reply_beyond_ten_mib_is_refused_and_the_connection_stays() {
    let (world, tool) = world_with_tool();
    let mut client = Client::connected(&world, &tool);
    let value = "v".repeat(64 << 10);
    let names: Vec<String> = (0..170).map(|n| format!("big/{n:03}")).collect();
    for some in names.chunks(10) {
        let pairs: Vec<(&str, &str)> = some.iter().map(|name| (name.as_str(), value.as_str())).collect();
        assert_eq!(client.write("s", &pairs), written());
    }
    let targets: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_refused(&client.read("s", &targets), "error", "response_too_large");
    let prefix =
        json!({"type": "REQUEST", "action": "read", "service": "s", "targets": ["big/"], "match": "prefix"});
    assert_refused(&client.request(&prefix), "error", "response_too_large");
    let within = client.read("s", &targets[..150]);
    assert_eq!(within["results"].as_array().map(Vec::len), Some(150));
    let pid = client.pid();
    let refused: Vec<Value> =
        world.audit_of(pid).into_iter().filter(|record| record["reason"] == "response_too_large").collect();
    assert_eq!(refused.len(), 2, "each refusal is recorded");
    assert!(refused.iter().all(|record| record["result"] == "ERROR"));
}

#[test]
fn a_hundred_requests_in_one_write_are_answered_in_order() {
    let (world, tool) = world_with_tool();
    let mut client = Client::connected(&world, &tool);
    let names: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), &name[1..])).collect();
    assert_eq!(client.write("s", &pairs), written());
    let all: String = names.iter().map(|name| read_line(name)).collect();
    client.send(all.as_bytes());
    for (target, value) in pairs {
        assert_eq!(client.recv().json(), found(&[(target, value)]));
    }
}

#[test]
fn a_write_and_a_read_in_one_go_are_answered_in_order() {
    let (world, tool) = world_with_tool();
    let mut client = Client::connected(&world, &tool);
    let mut all = String::new();
    for round in 0..50 {
        let write = json!({"type": "REQUEST", "action": "write", "service": "s", "targets": ["k"],
            "values": [round.to_string()]});
        all += &format!("{write}\n{}", read_line("k"));
    }
    client.send(all.as_bytes());
    for round in 0..50 {
        assert_eq!(client.recv().json(), written());
        assert_eq!(
            client.recv().json(),
            found(&[("k", &round.to_string())]),
            "a read sees the write before it"
        );
    }
}

#[test]
fn a_client_that_never_reads_delays_nobody_else() {
    let (world, tool) = world_with_tool();
    let mut client = Client::connected(&world, &tool);
    let value = "v".repeat(64 << 10);
    // several times what the kernel keeps for a socket
    let names: Vec<String> = (0..15).map(|n| format!("t{n}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    assert_eq!(client.write("s", &pairs), written());
    let greedy =
        json!({"type": "REQUEST", "action": "read", "service": "s", "targets": names}).to_string() + "\n";
    let mut deaf: Vec<Client> = (0..8).map(|_| Client::connected(&world, &tool)).collect();
    for client in &mut deaf {
        client.send(greedy.repeat(10).as_bytes());
    }
    for _ in 0..20 {
        // nobody waits until the deaf ones are given up, which is after ten seconds
        assert_eq!(client.read_within(8, "s", &["t1"])["status"], "success");
    }
}

#[test]
fn a_request_that_comes_byte_by_byte_is_served() {
    let (world, tool) = world_with_tool();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    client.trickle(read_line("k").as_bytes());
    assert_eq!(client.recv().json(), found(&[("k", "v")]));
}

#[test]
fn a_half_close_after_the_request_still_gets_the_reply() {
    let (world, tool) = world_with_tool();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    client.send(read_line("k").as_bytes());
    client.shut();
    assert_eq!(client.recv().json(), found(&[("k", "v")]));
    assert_eq!(client.recv(), Got::Eof);
}

#[test]
fn a_line_that_the_end_of_the_connection_cuts_is_no_request() {
    let (world, tool) = world_with_tool();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "old")]), written());
    let mut cut = Client::connected(&world, &tool);
    let write =
        json!({"type": "REQUEST", "action": "write", "service": "s", "targets": ["k"], "values": ["new"]});
    // whole but for its line end: whether it was finished can't be known
    cut.send(write.to_string().as_bytes());
    cut.shut();
    assert_ne!(cut.recv(), Got::Timeout);
    assert_eq!(client.read("s", &["k"]), found(&[("k", "old")]));
}

#[test]
fn a_connection_without_a_first_line_ends_after_ten_seconds() {
    let (world, tool) = world_with_tool();
    let mut silent = Client::connected(&world, &tool);
    let mut half = Client::connected(&world, &tool);
    half.send(b"{\"type\":");
    assert_eq!(silent.recv_within(8_000), Got::Timeout, "ten seconds are given");
    assert_eq!(last(&mut silent), Got::Eof);
    assert_eq!(last(&mut half), Got::Eof, "a started line must finish too");
}

#[test]
fn a_silent_stranger_is_told_so_after_one_second() {
    let (world, _) = world_with_tool();
    let mut silent = Client::connected(&world, &stranger(&world, 0));
    // long before the ten seconds that others have for their first line
    assert_refused(&silent.recv_within(8_000).json(), "denied", "unregistered_binary_pending_approval");
    let pid = silent.pid();
    let record = world.audit_where("the refusal is recorded", |record| record["pid"] == pid);
    assert_eq!((&record["action"], &record["result"]), (&json!("connect"), &json!("DENIED")), "{record}");
}

#[test]
fn one_registered_executable_has_1024_connections_and_others_are_not_hindered() {
    let (world, tool) = world_with_tool();
    let other = world.tool("other");
    world.policy(&[Entry::all(&tool, &["s"]), Entry::all(&other, &["s"])]);
    let mut client = Client::spawn(&world, &tool);
    for number in 0..1024 {
        client.slot(number);
        client.connect();
        assert_eq!(client.read("s", &["k"])["status"], "success", "connection {number}");
    }
    client.slot(1024);
    client.connect();
    assert_refused(&client.read("s", &["k"]), "error", "overloaded");
    assert_eq!(client.recv(), Got::Eof);
    assert_eq!(Client::connected(&world, &other).read("s", &["k"])["status"], "success");
    client.slot(7);
    client.close();
    client.slot(1025);
    crate::world::await_that("the place of a closed connection is free", || {
        client.connect();
        (client.read("s", &["k"])["status"] == "success").then_some(())
    });
}

/// What ends a connection, after at most one line of farewell.
fn last(client: &mut Client) -> Got {
    match client.recv() {
        Got::Line(_) => client.recv(),
        other => other,
    }
}

#[test]
fn strangers_that_ask_for_the_status_without_end_delay_no_registered_client() {
    let (world, tool) = world_with_tool();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    let flood = world.install("attacks/flood.c", Link::Dynamic, "bin/flood");
    let line = "{\"type\":\"STATUS\"}";
    let mut command = world.command(&flood);
    command.arg(world.socket()).arg(line).arg("64").stdout(Stdio::piped());
    let mut flooding = Guarded(spawn(&mut command));
    let mut said = String::new();
    BufReader::new(flooding.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    for _ in 0..10 {
        // they never end, so whoever had to wait for them would not be served
        assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    }
}

#[test]
fn whole_lines_that_wait_for_the_witness_cost_bounded_memory() {
    let (world, tool) = world_with_tool();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    let quiet = resident(world.pid());
    let value = "x".repeat(60 << 10);
    let targets: Vec<String> = (0..15).map(|number| format!("t{number}")).collect();
    let values = vec![value.as_str(); 15];
    let line = format!(
        "{}\n",
        json!({"type": "REQUEST", "action": "write", "service": "s", "targets": targets, "values": values})
    );
    let witness = Pid::from_raw(world.witness().cast_signed()).unwrap();
    kill_process(witness, Signal::STOP).unwrap();
    let mut crowd: Vec<Client> =
        (0..8).map(|number| Client::spawn(&world, &stranger(&world, number))).collect();
    for number in 0..320 {
        let client = &mut crowd[number % 8];
        client.slot(number);
        if client.try_connect() == "ok" {
            client.send(line.as_bytes());
        }
    }
    let grown = resident(world.pid()).saturating_sub(quiet);
    kill_process(witness, Signal::CONT).unwrap();
    assert!(grown < 200, "{grown} MiB for 290 MiB of lines");
}
