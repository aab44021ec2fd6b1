//! Lying about which executable runs, or which process asks.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{Arena, MARKER, Named, naive::Trust, run, unless_impossible};
use crate::{
    client::{Client, Got},
    skip::skip,
    tools::Link,
    world::{STRANGE_UID, is_root},
};

/// Plays an attack that needs a user namespace of its own, if this machine gives one.
///
/// The record names the tool, for that is what the kernel shows of a process that has forged it. The check says what is wrong.
fn play_in_namespace(arena: &mut Arena, name: &str, details: &[&str], more: &[&str]) {
    let attacker = arena.attacker(name);
    let (socket, tool) = (arena.world.socket(), arena.tool.clone());
    let request = Arena::request();
    let mut args = vec![socket.to_str().unwrap(), &request, tool.to_str().unwrap()];
    args.extend(more);
    let probe = arena.attacker("bind_over");
    if unless_impossible(run(arena, &probe, &["/", "-", tool.to_str().unwrap(), "/nowhere"])).is_none() {
        return;
    }
    let named = [Named::Tool, Named::At(attacker.clone())];
    arena.play(Trust::Path, details, &named, |arena| {
        unless_impossible(run(arena, &attacker, &args)).unwrap_or_default()
    });
}

#[test]
fn a_forged_executable_link_gives_nothing() {
    let mut arena = Arena::new(Link::Static);
    play_in_namespace(&mut arena, "forged_exe", &["foreign_namespace"], &[]);
}

#[test]
fn a_program_mounted_over_the_tool_gives_nothing() {
    let mut arena = Arena::new(Link::Static);
    let evil = arena.attacker("ask");
    play_in_namespace(
        &mut arena,
        "bind_over",
        &["foreign_namespace", "reason:unregistered_binary_pending_approval"],
        &[evil.to_str().unwrap()],
    );
}

#[test]
fn a_forged_message_pid_gives_nothing() {
    let mut arena = Arena::new(Link::Static);
    play_in_namespace(
        &mut arena,
        "forged_pid",
        &["foreign_namespace", "foreign_sender", "descriptor_inherited"],
        &[],
    );
}

#[test]
fn a_pid_that_comes_round_again_gives_nothing() {
    let pids: u64 = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap().trim().parse().unwrap();
    if pids > 65_536 {
        return skip("the kernel has too many pids to see one again");
    }
    let mut arena = Arena::new(Link::Static);
    let attacker = arena.attacker("pid_reuse");
    let (socket, tool) = (arena.world.socket(), arena.tool.clone());
    let named = [Named::Tool, Named::At(attacker.clone())];
    arena.play(Trust::Path, &["peer_gone", "foreign_sender", "descriptor_inherited"], &named, |arena| {
        let request = Arena::request();
        let args = [socket.to_str().unwrap(), &request, tool.to_str().unwrap()];
        // the number may go to a bystander: try again
        (0..5).map(|_| run(arena, &attacker, &args).out).find(|out| !out.is_empty()).unwrap_or_default()
    });
}

#[test]
fn the_tools_bytes_from_memory_are_a_stranger() {
    let mut arena = Arena::new(Link::Static);
    let attacker = arena.attacker("memfd");
    let named = [Named::At("/memfd:tool".into())];
    arena.play(
        Trust::Hash,
        &["reason:unregistered_binary_pending_approval", "unreadable_peer"],
        &named,
        |arena| {
            let mut command = arena.world.command(&attacker);
            command.arg(&arena.tool);
            let mut copy = Client::from_command(&arena.world, &mut command);
            ask(&mut copy)
        },
    );
}

#[test]
fn an_executable_that_is_named_like_the_deleted_tool_is_a_stranger() {
    let mut arena = Arena::new(Link::Static);
    let evil = arena.tool.with_file_name("tool (deleted)");
    another_program(&arena, &evil);
    let named = [Named::At(evil.clone())];
    arena.play(Trust::Path, &["reason:unregistered_binary_pending_approval"], &named, |arena| {
        ask(&mut Client::spawn(&arena.world, &evil))
    });
}

#[test]
fn a_program_that_ran_from_the_tools_path_before_the_tool_was_put_back_is_a_stranger() {
    let mut arena = Arena::new(Link::Static);
    let fresh = arena.world.root().join("bin/fresh");
    // the path that it was started from
    arena.play(Trust::Path, &["reason:unregistered_binary_pending_approval"], &[Named::Tool], |arena| {
        another_program(arena, &fresh);
        fs::rename(&fresh, &arena.tool).unwrap();
        let mut client = Client::spawn(&arena.world, &arena.tool);
        client.pid();
        arena.world.copy(&crate::tools::compiled("clients/client.c", Link::Static), &fresh);
        fs::rename(&fresh, &arena.tool).unwrap();
        ask(&mut client)
    });
}

#[test]
fn another_user_gets_nothing_even_where_the_socket_lets_him_in() {
    if !is_root() {
        return skip("only root can play another user");
    }
    let mut arena = Arena::new(Link::Static);
    arena.daemon();
    let before = arena.world.audit().len();
    for folder in [arena.world.root().join("run"), arena.world.root().join("run/keychain-auth")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(arena.world.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let mut command = arena.world.command_as(&arena.tool, STRANGE_UID);
    let mut other = Client::from_command(&arena.world, &mut command);
    assert_eq!(other.try_connect(), "ok");
    assert!(!ask(&mut other).contains(MARKER));
    // nobody looks at another user's processes, so the record has pid and user alone
    for record in arena.refused_since(before, &["foreign_uid"], &[]) {
        assert_eq!((&record["uid"], &record["binary_path"]), (&STRANGE_UID.into(), &"".into()), "{record}");
    }
}

/// A program that does what the tool does, with other bytes.
fn another_program(arena: &Arena, at: &std::path::Path) {
    let mut bytes = fs::read(&arena.tool).unwrap();
    bytes.push(0);
    fs::write(at, bytes).unwrap();
    arena.world.own(at, 0o755);
}

fn ask(client: &mut Client) -> String {
    if client.try_connect() != "ok" {
        return String::new();
    }
    client.send(format!("{}\n", Arena::request()).as_bytes());
    match client.recv() {
        Got::Line(line) => String::from_utf8_lossy(&line).into_owned(),
        _ => String::new(),
    }
}
