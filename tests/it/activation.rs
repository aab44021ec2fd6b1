//! Under a service manager: the socket handed over, readiness said.

use std::{os::unix::net::UnixDatagram, path::Path};

use rustix::process::Signal;

use crate::{
    client::{Client, written},
    skip::need,
    world::{Entry, Guarded, PATIENCE, World, await_that, is_root, ordinary_uid, spawn},
};

/// A daemon on a socket that another process made, as PassCredentials= says; and the tool, connected before it started.
fn activated(world: &World, tool: &Path, pass_credentials: &str) -> Option<(Guarded, Client)> {
    let python = need("python3")?;
    world.policy(&[Entry::all(tool, &["s"])]);
    world.folder(world.socket().parent().unwrap(), 0o700);
    let script = world.tmp("activate.py");
    world.copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients/activate.py"), &script);
    let mut command = world.command(&python);
    command.arg(script).arg(pass_credentials).arg(world.socket()).arg(world.binary()).arg("start");
    let daemon = Guarded(spawn(&mut command));
    let mut client = Client::spawn(world, tool);
    await_that("the socket answers", || (client.try_connect() == "ok").then_some(()));
    Some((daemon, client))
}

#[test]
fn a_socket_from_the_service_manager_is_used_and_left_to_it() {
    let world = World::new();
    let tool = world.tool("tool");
    let Some((mut daemon, mut client)) = activated(&world, &tool, "yes") else { return };
    assert_eq!(client.write("s", &[("k", "v")]), written(), "the client whose connection starts the daemon");
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    assert!(daemon.end(Signal::TERM).success());
    assert!(world.socket().exists(), "the service manager's socket is not ours to remove");
}

#[test]
fn what_was_sent_before_writers_were_named_is_refused_and_later_clients_are_served() {
    let world = World::new();
    let tool = world.tool("tool");
    let Some((mut daemon, mut early)) = activated(&world, &tool, "no") else { return };
    // who wrote this is not known, unless the daemon came first
    let reply = early.write("s", &[("k", "v")]);
    assert!(reply == written() || reply["reason"] == "untrusted_caller", "{reply}");
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    assert!(daemon.end(Signal::TERM).success());
}

#[test]
fn readiness_is_said_once_the_socket_answers() {
    let world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let notify = world.tmp("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    if is_root() {
        std::os::unix::fs::chown(&notify, Some(ordinary_uid()), None).unwrap();
    }
    let mut command = world.command(&world.binary());
    command.arg("start").env("NOTIFY_SOCKET", &notify);
    let mut daemon = Guarded(spawn(&mut command));
    let mut said = [0; 256];
    let length = manager.recv(&mut said).expect("a word of readiness");
    assert!(String::from_utf8_lossy(&said[..length]).lines().any(|line| line == "READY=1"));
    assert_eq!(
        Client::connected(&world, &tool).write("s", &[("k", "v")]),
        written(),
        "no sooner than it answers"
    );
    assert!(daemon.end(Signal::TERM).success());
}
