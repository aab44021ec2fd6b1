//! A process that ends at once does so whoever reads its standard error, or does not.

use std::{
    fs::{self, File},
    io::Read,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::ExitStatus,
};

use rustix::{
    net::{SendFlags, send},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, kill_process},
};
use serde_json::json;

use super::{
    inside::{Call, Debugger},
    threads,
};
use crate::{
    operator::full_pipe,
    processes::{served_by, thread_named},
    skip::skip,
    world::{Entry, Guarded, World, await_that, is_root, spawn},
};

/// A daemon whose standard error is `stderr`, which it may not open anew.
fn serving_on(stderr: OwnedFd) -> (World, Guarded) {
    let world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let mut command = world.command(&world.binary());
    command.arg("start").stderr(stderr);
    let (daemon, _client) = served_by(&world, &tool, command);
    (world, daemon)
}

fn child_of(daemon: &Guarded) -> u32 {
    let pid = daemon.0.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().expect("the witness alone")
}

/// A socket that takes no more, its end to read first.
fn full_socket() -> (File, OwnedFd) {
    let (reader, writer) = UnixStream::pair().unwrap();
    for size in [4096, 1] {
        while send(&writer, &vec![b'.'; size], SendFlags::DONTWAIT).is_ok() {}
    }
    (File::from(OwnedFd::from(reader)), OwnedFd::from(writer))
}

/// Waits until the daemon has ended, and gives what was said there.
#[track_caller]
fn ended(daemon: &mut Guarded, reader: Option<File>) -> (ExitStatus, String) {
    let status = await_that("the daemon ends, though nobody reads why", || daemon.0.try_wait().unwrap());
    let mut said = Vec::new();
    if let Some(mut reader) = reader {
        reader.read_to_end(&mut said).unwrap();
    }
    (status, String::from_utf8(said).unwrap())
}

#[test]
fn a_forbidden_call_ends_the_daemon_at_once_though_nobody_reads_its_stderr() {
    let Some(debugger) = Debugger::new() else { return };
    let execve = Call::new(libc::SYS_execve, json!(["/bin/true", 0, 0]));
    for full in [full_pipe, full_socket] {
        for of_witness in [false, true] {
            let (reader, writer) = full();
            let (world, mut daemon) = serving_on(writer);
            let (pid, thread) = if of_witness {
                let witness = child_of(&daemon);
                (witness, *threads(witness).last().unwrap())
            } else {
                (daemon.0.id(), thread_named(daemon.0.id(), "log-sync"))
            };
            debugger.fatal_calls(&world, pid, thread, std::slice::from_ref(&execve));
            let (status, said) = ended(&mut daemon, Some(reader));
            assert_eq!(status.code(), Some(if of_witness { 1 } else { 128 + libc::SIGSYS }), "{status:?}");
            assert_eq!(said.trim_start_matches('.'), "", "nothing had room there");
        }
    }
}

#[test]
fn a_forbidden_call_is_told_on_a_pipe_of_another_user_and_on_a_socket() {
    let Some(debugger) = Debugger::new() else { return };
    let execve = Call::new(libc::SYS_execve, json!(["/bin/true", 0, 0]));
    let pipe = || {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        (File::from(reader), writer)
    };
    let socket = || {
        let (reader, writer) = UnixStream::pair().unwrap();
        (File::from(OwnedFd::from(reader)), OwnedFd::from(writer))
    };
    let kinds: [&dyn Fn() -> (File, OwnedFd); 2] = [&pipe, &socket];
    for kind in kinds {
        for of_witness in [false, true] {
            let (reader, writer) = kind();
            let (world, mut daemon) = serving_on(writer);
            let pid = if of_witness { child_of(&daemon) } else { daemon.0.id() };
            debugger.fatal_calls(&world, pid, pid, std::slice::from_ref(&execve));
            let (status, said) = ended(&mut daemon, Some(reader));
            assert_eq!(status.code(), Some(if of_witness { 1 } else { 128 + libc::SIGSYS }), "{said}");
            let line = format!("keychain-auth: forbidden system call {}: ", libc::SYS_execve);
            assert!(said.lines().any(|said| said.starts_with(&line)), "{said}");
            assert_eq!(of_witness, said.contains("\nerror: the witness process"), "{said}");
            assert_eq!(of_witness, said.contains("\n  try: start the daemon again"), "{said}");
        }
    }
}

#[test]
fn whoever_holds_up_the_last_words_does_not_keep_the_process_alive() {
    if !is_root() {
        return skip("only root can give a process a pipe of another user");
    }
    let world = World::new();
    let (_reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let mut command = world.command(&world.binary());
    // the pipe has room, but not for a sentence with such a path: it is asked, says yes, and makes the writer wait
    let path = format!("/{}/agent.sock", "x".repeat(100_000));
    let mut daemon = Guarded(spawn(command.args(["start", "--socket", &path]).stderr(writer)));
    drop(command);
    let (status, _) = ended(&mut daemon, None);
    assert_eq!(status.signal(), Some(libc::SIGALRM), "{status:?}");
}

#[test]
fn a_daemon_whose_witness_ended_ends_though_nobody_reads_why() {
    if !is_root() {
        return skip("only root can give a process a pipe of another user");
    }
    for full in [full_pipe, full_socket] {
        let (reader, writer) = full();
        let (_world, mut daemon) = serving_on(writer);
        let witness = Pid::from_raw(child_of(&daemon).cast_signed()).unwrap();
        kill_process(witness, Signal::KILL).unwrap();
        let (status, said) = ended(&mut daemon, Some(reader));
        assert_eq!(status.code(), Some(1), "{status:?}");
        assert_eq!(said.trim_start_matches('.'), "", "nothing had room there");
    }
}
