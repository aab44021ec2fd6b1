//! A session in which the daemon does everything that it can do.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::symlink,
    path::Path,
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};
use serde_json::{Value, json};

use super::serves;
use crate::{
    client::{Client, found, written},
    world::{Entry, World, await_that, run},
};

/// Starts the daemon of `world`, calls `started`, plays, and ends the daemon with SIGTERM.
pub fn play<T>(world: &mut World, started: impl FnOnce(&World) -> T) -> T {
    let tool = world.tool("tool");
    // config.json is a link, as users make it who keep such files in a repository
    let real = world.home().join("dotfiles/config.json");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.folder(real.parent().unwrap(), 0o700);
    fs::rename(world.config(), &real).unwrap();
    symlink(&real, world.config()).unwrap();
    world.start();
    let told = started(world);
    requests(world, &tool);
    strangers(world);
    interrupted_log(world, &tool);
    changed_policy(world, &tool, &real);
    large(world, &tool);
    full_disk(world, &tool);
    stopped_and_continued(world, &tool);
    removed_data(world, &tool);
    assert_eq!(world.stop().code(), Some(0), "{}", world.log());
    told
}

fn request(action: &str, more: Value) -> Value {
    let mut request = json!({"type": "REQUEST", "action": action, "service": "s"});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

fn requests(world: &World, tool: &Path) {
    let mut client = Client::connected(world, tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    serves(world, tool);
    for (action, more) in [
        ("read", json!({"targets": ["k"], "match": "prefix"})),
        ("search", json!({})),
        ("check", json!({})),
        ("delete", json!({"targets": ["other"]})),
    ] {
        assert_eq!(client.request(&request(action, more))["status"], "success", "{action}");
    }
    assert_eq!(client.request(&json!({"type": "HELLO"}))["type"], "HELLO");
    assert_eq!(client.read("forbidden", &["k"])["reason"], "service_not_allowed");
    client.send(b"{\"type\":\"REQUEST\",\n");
    assert_eq!(client.recv().json()["reason"], "malformed_request");
    client.close();
    client.connect_inheritable();
    assert_eq!(client.read("s", &["k"])["reason"], "untrusted_caller");
    world.cli(&["status"]).done();
}

/// Strangers, also while a command holds the queue.
fn strangers(world: &World) {
    let waits = |name: &str| {
        fs::read_to_string(world.data().join("pending.json")).is_ok_and(|queue| queue.contains(name))
    };
    let ask = |name: &str| {
        let stranger = world.tool(name);
        let mut bytes = fs::read(&stranger).unwrap();
        bytes.extend(name.as_bytes());
        fs::write(&stranger, bytes).unwrap();
        let mut client = Client::connected(world, &stranger);
        assert_eq!(client.read("s", &["k"])["reason"], "unregistered_binary_pending_approval");
    };
    ask("stranger");
    await_that("the stranger waits for approval", || waits("bin/stranger").then_some(()));
    let lock = OpenOptions::new().write(true).open(world.data().join("pending.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    ask("unlucky");
    said(world, "is being changed by another process");
    drop(lock);
    world.write(&world.data().join("pending.json"), b"not a queue");
    ask("second");
    await_that("the second stranger waits for approval", || waits("bin/second").then_some(()));
}

#[track_caller]
fn said(world: &World, words: &str) {
    await_that("the operator is told", || world.log().contains(words).then_some(()));
}

/// The log is moved away, cut short, written by others.
fn interrupted_log(world: &World, tool: &Path) {
    let log = world.data().join("audit.log");
    fs::rename(&log, world.data().join("audit.log.1")).unwrap();
    serves(world, tool);
    let mut by_others = OpenOptions::new().append(true).open(&log).unwrap();
    by_others.write_all(b"{\"half\":").unwrap();
    serves(world, tool);
    OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
    serves(world, tool);
}

/// The disk is full in the middle of a line of the log, and has room again.
fn full_disk(world: &World, tool: &Path) {
    let largest_file = |limit: &str| {
        let mut prlimit = world.command(Path::new("/usr/bin/prlimit"));
        prlimit.args(["--pid", &world.pid().to_string(), &format!("--fsize={limit}")]);
        run(&mut prlimit).done();
    };
    let length = fs::metadata(world.data().join("audit.log")).unwrap().len();
    largest_file(&format!("{}:unlimited", length + 10));
    let mut client = Client::connected(world, tool);
    assert_eq!(client.read("s", &["k"])["reason"], "audit_unavailable");
    largest_file("unlimited:unlimited");
    serves(world, tool);
}

/// Everything that the daemon has on the disk is removed under it.
fn removed_data(world: &World, tool: &Path) {
    fs::remove_dir_all(world.data()).unwrap();
    assert_eq!(Client::connected(world, tool).read("s", &["k"])["reason"], "audit_unavailable");
    let mut stranger = Client::connected(world, &world.tool("late"));
    assert_eq!(stranger.read("s", &["k"])["reason"], "audit_unavailable");
    said(world, "the data folder is gone");
}

fn changed_policy(world: &World, tool: &Path, real: &Path) {
    let mut client = Client::connected(world, tool);
    let good = fs::read(real).unwrap();
    world.write(real, b"{");
    assert_eq!(client.read("s", &["k"])["reason"], "internal_error");
    fs::remove_file(real).unwrap();
    assert_eq!(client.read("s", &["k"])["status"], "error");
    world.write(real, &good);
    serves(world, tool);
    world.cli(&["grant", tool.to_str().unwrap(), "--read", "t"]).done();
    serves(world, tool);
}

/// Requests and replies beyond what the memory for secrets holds, and a vault that grows.
fn large(world: &World, tool: &Path) {
    let mut client = Client::connected(world, tool);
    let value = "v".repeat(60 << 10);
    let names: Vec<String> = (0..150).map(|number| format!("t{number}")).collect();
    for names in names.chunks(15) {
        let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
        assert_eq!(client.write("s", &pairs), written());
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let pairs: Vec<_> = all.iter().map(|name| (*name, value.as_str())).collect();
    assert_eq!(client.read("s", &all), found(&pairs));
    let delete = request("delete", json!({"targets": all}));
    assert_eq!(client.request(&delete)["status"], "success");
}

fn stopped_and_continued(world: &World, tool: &Path) {
    for pid in super::processes(world) {
        let pid = Pid::from_raw(pid.cast_signed()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        kill_process(pid, Signal::CONT).unwrap();
    }
    serves(world, tool);
}
