//! Another process asks on the connection of the registered tool.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;

use super::{Arena, Named, naive::Trust, run};
use crate::{
    client::Client,
    tools::Link,
    world::{Guarded, spawn, wait_bounded},
};

fn text(path: &std::path::Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let _ = fs::remove_file(path);
    text
}

#[test]
fn a_program_that_inherits_the_connection_gets_nothing() {
    let mut arena = Arena::new(Link::Static);
    let (thief, request) = (arena.attacker("borrowed_fd"), arena.request_file());
    let named = [Named::At(thief.clone())];
    arena.play(Trust::Path, &["foreign_sender", "descriptor_inherited"], &named, |arena| {
        let out = arena.world.tmp("out");
        let mut tool = Client::connected(&arena.world, &arena.tool);
        tool.order(&format!("run {} {} {}", thief.display(), request.display(), out.display()), &[]);
        text(&out)
    });
}

#[test]
fn a_program_that_inherits_a_verified_connection_gets_nothing() {
    let mut arena = Arena::new(Link::Static);
    let (thief, request) = (arena.attacker("borrowed_fd"), arena.request_file());
    let named = [Named::At(thief.clone())];
    arena.play(Trust::Path, &["foreign_sender", "descriptor_inherited"], &named, |arena| {
        let out = arena.world.tmp("out");
        let mut tool = Client::connected(&arena.world, &arena.tool);
        // the tool asks first: what was verified then is no licence for who asks next
        tool.send(format!("{}\n", Arena::request()).as_bytes());
        tool.recv();
        tool.order(&format!("run {} {} {}", thief.display(), request.display(), out.display()), &[]);
        text(&out)
    });
}

#[test]
fn a_connection_passed_by_scm_rights_gives_nothing_to_its_receiver() {
    let mut arena = Arena::new(Link::Static);
    let (thief, request) = (arena.attacker("borrowed_fd"), arena.request_file());
    let named = [Named::At(thief.clone())];
    arena.play(Trust::Path, &["foreign_sender", "descriptor_inherited"], &named, |arena| {
        let (out, meeting) = (arena.world.tmp("out"), arena.world.tmp("meet"));
        let _ = fs::remove_file(&meeting);
        let mut command = arena.world.command(&thief);
        command.args([&meeting, &request, &out]).stdout(Stdio::piped());
        let mut receiver = Guarded(spawn(&mut command));
        let mut ready = String::new();
        BufReader::new(receiver.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let mut tool = Client::connected(&arena.world, &arena.tool);
        assert_eq!(tool.order(&format!("hand {}", meeting.display()), &[]), "ok");
        wait_bounded(&mut receiver.0, "the receiver ends");
        text(&out)
    });
}

#[test]
fn a_forked_child_gets_nothing_on_the_connection_of_its_parent() {
    let mut arena = Arena::new(Link::Static);
    arena.play(Trust::Path, &["foreign_sender"], &[Named::Tool], |arena| {
        let mut tool = Client::connected(&arena.world, &arena.tool);
        let line = format!("{}\n", Arena::request());
        tool.order(&format!("fork-send {}", line.len()), line.as_bytes());
        format!(
            "{:?}",
            String::from_utf8_lossy(&match tool.recv() {
                crate::client::Got::Line(line) => line,
                _ => Vec::new(),
            })
        )
    });
}

#[test]
fn half_a_line_from_the_tool_and_half_from_its_child_is_no_request() {
    let mut arena = Arena::new(Link::Static);
    arena.daemon();
    let before = arena.world.audit().len();
    let line = format!("{}\n", Arena::request());
    let (head, tail) = line.split_at(line.len() / 2);
    let mut tool = Client::connected(&arena.world, &arena.tool);
    tool.send(head.as_bytes());
    tool.order(&format!("fork-send {}", tail.len()), tail.as_bytes());
    assert!(!format!("{:?}", tool.recv()).contains(super::MARKER));
    // the child runs the same program
    arena.refused_since(before, &["foreign_sender"], &[Named::Tool]);
    arena.honest();
}

#[test]
fn a_client_that_forgets_cloexec_is_refused_and_told_so() {
    let mut arena = Arena::new(Link::Static);
    arena.daemon();
    let mut tool = Client::spawn(&arena.world, &arena.tool);
    tool.connect_inheritable();
    let reply = tool.read("s", &["k"]);
    crate::client::assert_refused(&reply, "denied", "untrusted_caller");
    let message = reply["message"].as_str().unwrap();
    assert!(message.contains("SOCK_CLOEXEC"), "the advice names the flag: {message}");
    let pid = tool.pid();
    let record =
        arena.world.audit_where("the refusal is recorded", |r| r["pid"] == pid && r["result"] == "DENIED");
    assert_eq!(record["detail"], "descriptor_inherited", "{record}");
    assert_eq!(record["binary_path"], serde_json::json!(arena.tool), "{record}");
}

#[test]
fn a_nonce_of_another_connection_is_no_answer() {
    let mut arena = Arena::new(Link::Static);
    arena.daemon();
    let mut entry = crate::world::Entry::all(&arena.tool, &["s"]);
    entry.more = vec![("challenge".into(), serde_json::json!(true))];
    arena.world.policy(&[entry]);
    let mut tool = Client::connected(&arena.world, &arena.tool);
    let nonce = tool.request(&serde_json::json!({"type": "HELLO"}))["nonce"].clone();
    let mut request: serde_json::Value = serde_json::from_str(&Arena::request()).unwrap();
    request["nonce"] = nonce;
    let mut other = Client::connected(&arena.world, &arena.tool);
    other.request(&serde_json::json!({"type": "HELLO"}));
    crate::client::assert_refused(&other.request(&request), "denied", "untrusted_caller");
    assert!(tool.request(&request).to_string().contains(super::MARKER), "its own connection may use it");
}

/// A sibling plants the connection in the tool, as the supervisor of a seccomp filter that the tool was started under.
#[test]
fn a_connection_planted_by_a_filters_supervisor_gives_nothing() {
    let mut arena = Arena::new(Link::Dynamic);
    let attacker = arena.attacker("planted");
    let details = [
        "descriptor_inherited",
        "executable_changed",
        "peer_gone",
        "reason:unregistered_binary_pending_approval",
    ];
    let named = [Named::Tool, Named::At(attacker.clone())];
    arena.play(Trust::Path, &details, &named, |arena| {
        let daemon = if arena.world.is_started() { arena.world.pid() } else { 0 }.to_string();
        let (socket, request) = (arena.world.socket(), Arena::request());
        run(
            arena,
            &attacker,
            &[socket.to_str().unwrap(), arena.tool.to_str().unwrap(), "100", &request, &daemon],
        )
        .out
    });
    let planted = |record: &&Value| record["detail"] == "descriptor_inherited";
    assert!(
        arena.world.audit().iter().filter(planted).count() > 10,
        "the daemon saw the planted connections"
    );
}
