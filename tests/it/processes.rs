//! Command lines, and the processes that they start: served by, watched, found by name.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    client::{Client, written},
    world::{Guarded, World, await_that, spawn},
};

/// A path as text, for a command line.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The daemon that this command starts, and a client that it has served.
pub fn served_by(world: &World, tool: &Path, mut command: Command) -> (Guarded, Client) {
    let daemon = Guarded(spawn(&mut command));
    // the daemon alone has its stderr
    drop(command);
    let mut client = Client::spawn(world, tool);
    await_that("it listens", || (client.try_connect() == "ok").then_some(()));
    assert_eq!(client.write("s", &[("k", "v")]), written());
    (daemon, client)
}

/// This strace, once it watches the process or thread.
pub fn traced(watch: &mut Command, id: u32) -> Guarded {
    let tracer = Guarded(spawn(watch.args(["-qq", "-e", "signal=none", "-p", &id.to_string()])));
    let status = || fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    await_that("it is traced", || (!status().contains("TracerPid:\t0")).then_some(()));
    tracer
}

/// The thread of this name of a process.
pub fn thread_named(pid: u32, thread: &str) -> u32 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    // another one may end meanwhile
    let named =
        |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread);
    let found = { threads }.find(named).expect("a thread of that name");
    found.file_name().unwrap().to_str().unwrap().parse().unwrap()
}
