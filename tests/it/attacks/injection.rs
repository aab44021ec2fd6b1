//! Foreign code inside the registered tool: the executable and its hash are right, what runs in it is not.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use serde_json::json;

use super::{Arena, MARKER, Named, naive::Trust, run, unless_impossible};
use crate::{
    client::Client,
    skip,
    tools::Link,
    world::{Entry, spawn},
};

/// The library that asks in the tool's name.
fn library(arena: &Arena, place: &str) -> PathBuf {
    let path = arena.world.root().join(place);
    arena.world.folder(path.parent().unwrap(), 0o755);
    arena.world.install("attacks/steal.c", Link::Library, place)
}

pub(super) fn preloaded(variable: &'static str, value: impl Fn(&Arena) -> PathBuf) {
    let mut arena = Arena::new(Link::Dynamic);
    let value = value(&arena);
    arena.play(Trust::Path, &["injected_code"], &[Named::Tool], |arena| {
        let mut command = arena.world.command(&arena.tool);
        command
            .env(variable, &value)
            .env("KA_SOCKET", arena.world.socket())
            .env("KA_REQUEST", Arena::request());
        crate::world::run(&mut command).out
    });
}

#[test]
fn a_preloaded_library_gets_nothing() {
    preloaded("LD_PRELOAD", |arena| library(arena, "tmp/steal.so"));
}

#[test]
fn an_auditing_library_gets_nothing() {
    preloaded("LD_AUDIT", |arena| library(arena, "tmp/steal.so"));
}

#[test]
fn a_library_from_the_search_path_gets_nothing() {
    preloaded("LD_LIBRARY_PATH", |arena| library(arena, "tmp/lib/libm.so.6").parent().unwrap().to_owned());
}

#[test]
fn a_private_ld_so_preload_gets_nothing() {
    let mut arena = Arena::new(Link::Dynamic);
    let steal = library(&arena, "tmp/steal.so");
    let etc = arena.world.tmp("etc");
    arena.world.folder(&etc, 0o755);
    fs::write(etc.join("ld.so.preload"), format!("{}\n", steal.display())).unwrap();
    arena.world.own(&etc.join("ld.so.preload"), 0o644);
    let attacker = arena.attacker("private_etc");
    let probe = run(&arena, &attacker, &["/nowhere", "/nowhere"]);
    if unless_impossible(probe).is_none() {
        return;
    }
    arena.play(Trust::Path, &["foreign_namespace", "injected_code"], &[Named::Tool], |arena| {
        let mut command = arena.world.command(&attacker);
        command.args([&etc, &arena.tool]);
        command.env("KA_SOCKET", arena.world.socket()).env("KA_REQUEST", Arena::request());
        crate::world::run(&mut command).out
    });
}

/// Loads foreign code into a tool that has been served, and asks again at once.
fn loaded_later(link: Link, file: impl Fn(&Arena) -> PathBuf) {
    let mut arena = Arena::new(link);
    arena.daemon();
    let file = file(&arena);
    let before = arena.world.audit().len();
    for _ in 0..20 {
        let mut tool = Client::connected(&arena.world, &arena.tool);
        assert!(tool.read("s", &["k"]).to_string().contains(MARKER));
        assert_eq!(tool.order(&format!("load {}", file.display()), &[]), "ok");
        assert!(!tool.read("s", &["k"]).to_string().contains(MARKER), "served with foreign code in it");
    }
    arena.refused_since(before, &["injected_code"], &[Named::Tool]);
}

#[test]
fn a_library_opened_after_the_first_request_ends_the_service() {
    loaded_later(Link::Dynamic, |arena| library(arena, "tmp/steal.so"));
}

#[test]
fn a_file_mapped_executable_after_the_first_request_ends_the_service() {
    loaded_later(Link::Static, |arena| library(arena, "tmp/steal.so"));
}

#[test]
fn a_library_behind_many_mappings_of_an_admitted_one_is_not_overlooked() {
    let mut arena = Arena::new(Link::Static);
    let (evil, admitted) = (library(&arena, "tmp/steal.so"), arena.world.root().join("bin/admitted.so"));
    arena.world.copy(&evil, &admitted);
    let mut entry = Entry::all(&arena.tool, &["s"]);
    let libraries = json!([{"path": admitted, "hash": crate::tools::hash_of(&admitted)}]);
    entry.more = vec![("libraries".into(), libraries)];
    arena.daemon();
    arena.world.policy(&[entry]);
    // of root, and between two mappings of the other, so that the kernel's list never has that twice in a row
    let between = fs::canonicalize("/bin/sh").unwrap();
    let load = |tool: &mut Client, files: &[&Path]| {
        for file in files {
            assert_eq!(tool.order(&format!("load {}", file.display()), &[]), "ok");
        }
    };
    let many = [admitted.as_path(), &between].repeat(200);
    let mut tool = Client::connected(&arena.world, &arena.tool);
    load(&mut tool, &many);
    assert!(tool.read("s", &["k"]).to_string().contains(MARKER), "what is admitted is served however often");
    let before = arena.world.audit().len();
    // what is mapped first lies highest, behind all others
    let mut tool = Client::connected(&arena.world, &arena.tool);
    load(&mut tool, &[&evil]);
    load(&mut tool, &many);
    assert!(!tool.read("s", &["k"]).to_string().contains(MARKER), "served with foreign code in it");
    arena.refused_since(before, &["injected_code"], &[Named::Tool]);
}

#[test]
fn a_library_that_writes_over_code_and_leaves_gets_nothing() {
    if !cfg!(target_arch = "x86_64") {
        return skip::skip("the attacker is written for x86-64");
    }
    let mut arena = Arena::new(Link::Dynamic);
    let patch = arena.world.install("attacks/patch.c", Link::Library, "tmp/patch.so");
    arena.play(Trust::Path, &["injected_code"], &[Named::Tool], |arena| {
        let mut command = arena.world.command(&arena.tool);
        command.env("LD_PRELOAD", &patch);
        command.env("KA_SOCKET", arena.world.socket()).env("KA_REQUEST", Arena::request());
        crate::world::run(&mut command).out
    });
}

/// A debugger on the process; it goes when its stdin is closed.
fn debugger(arena: &Arena, pid: u32) -> Child {
    let mut command = arena.world.command(&arena.attacker("trace"));
    let mut debugger = spawn(command.arg(pid.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut said = String::new();
    BufReader::new(debugger.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "attached\n");
    debugger
}

#[test]
fn a_traced_tool_gets_nothing() {
    let mut arena = Arena::new(Link::Static);
    arena.play(Trust::Path, &["traced"], &[Named::Tool], |arena| {
        let mut tool = Client::connected(&arena.world, &arena.tool);
        let mut debugger = debugger(arena, tool.pid());
        let reply = tool.read("s", &["k"]).to_string();
        drop(debugger.stdin.take());
        debugger.wait().unwrap();
        reply
    });
}

#[test]
fn a_tool_whose_second_thread_is_traced_gets_nothing() {
    let mut arena = Arena::new(Link::Static);
    arena.play(Trust::Path, &["traced"], &[Named::Tool], |arena| {
        let mut tool = Client::connected(&arena.world, &arena.tool);
        let thread = tool.order("thread", &[]).parse().unwrap();
        let mut debugger = debugger(arena, thread);
        let reply = tool.read("s", &["k"]).to_string();
        drop(debugger.stdin.take());
        debugger.wait().unwrap();
        reply
    });
}

#[test]
fn a_tool_under_strace_gets_nothing() {
    let Some(strace) = skip::need("strace") else { return };
    let mut arena = Arena::new(Link::Dynamic);
    arena.play(Trust::Path, &["traced"], &[Named::Tool], |arena| {
        let mut command = arena.world.command(&strace);
        command.args(["-f", "-o", "/dev/null"]).arg(&arena.tool);
        let mut tool = Client::from_command(&arena.world, &mut command);
        tool.connect();
        tool.read("s", &["k"]).to_string()
    });
}
