//! What code that took the daemon over could make of it: each attempt is denied or ends the process, on every thread,
//! and leaves no trace.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{
    attempts::{Attempt, Fate, HERE, MAKE, READ, on_everything, on_files, on_files_by_the_witness, places},
    inside::{Call, Came, Debugger},
    processes, serves, serving, threads,
};
use crate::{client::Client, world::World};

/// All that can be seen of the files in a world but the times of reading.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (u32, u32, i64, i64, Vec<u8>)> {
    let mut seen = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            let state =
                (meta.permissions().mode(), meta.uid(), meta.mtime_nsec(), meta.ctime_nsec(), content);
            if meta.is_dir() {
                folders.push(path.clone());
            }
            seen.insert(path, state);
        }
    }
    seen
}

/// Makes the attempts on every thread of `pid`, and fails where one has another fate.
#[track_caller]
pub(super) fn try_all(debugger: &Debugger, world: &World, pid: u32, attempts: &[Attempt]) {
    let calls: Vec<Call> =
        attempts.iter().map(|(_, number, args, _)| Call::new(*number, args.clone())).collect();
    let threads = threads(pid);
    for (thread, came) in threads.iter().zip(debugger.calls(world, pid, &threads, &calls)) {
        for ((what, number, _, fate), came) in attempts.iter().zip(came) {
            let as_it_should = match fate {
                Fate::Allowed => matches!(came, Came::Done(_)),
                Fate::Denied => matches!(came, Came::Errno(libc::EACCES | libc::EPERM | libc::EXDEV)),
                Fate::Fatal => came == Came::Trapped(*number),
            };
            assert!(
                as_it_should,
                "{what} ({number}), thread {thread} of {threads:?}: {came:?}, not {fate:?}"
            );
        }
    }
}

#[test]
fn code_in_the_keeper_reaches_no_file_but_its_own() {
    let Some(debugger) = Debugger::new() else { return };
    let (world, tool) = serving();
    let attempts = on_files(&places(&world));
    let before = snapshot(&world.home().join(".config"));
    try_all(&debugger, &world, world.pid(), &attempts);
    assert!(snapshot(&world.home().join(".config")) == before, "the policy is as it was");
    assert!(!world.home().join("fresh").exists());
    assert!(!world.data().join("stage").exists());
    serves(&world, &tool);
}

#[test]
fn without_its_cage_code_in_the_keeper_reaches_the_same_files() {
    let Some(debugger) = Debugger::new() else { return };
    let mut world = World::new();
    world.start_args = vec!["--hardening=off".into()];
    world.start_env = vec![("KEYCHAIN_AUTH_ALLOW_UNHARDENED".into(), "1".into())];
    world.policy(&[]);
    world.start();
    let at = places(&world);
    let calls = [
        (libc::SYS_openat, json!([HERE, at.key, READ, 0])),
        (libc::SYS_openat, json!([HERE, at.fresh, MAKE, 0o600])),
        (libc::SYS_openat, json!([HERE, at.fresh_config, MAKE, 0o600])),
        (libc::SYS_openat, json!([HERE, at.config, libc::O_WRONLY, 0])),
        (libc::SYS_rename, json!([at.fresh, at.config])),
        (libc::SYS_unlink, json!([at.config])),
        (libc::SYS_mkdir, json!([at.fresh, 0o700])),
        (libc::SYS_chmod, json!([at.key, 0o644])),
        (libc::SYS_socket, json!([libc::AF_UNIX, libc::SOCK_STREAM, 0])),
        (libc::SYS_memfd_create, json!(["x", 0])),
    ];
    let calls = calls.map(|(number, args)| Call::new(number, args));
    let pid = world.pid();
    let came = debugger.calls(&world, pid, &[pid], &calls);
    assert!(came[0].iter().all(|came| matches!(came, Came::Done(_))), "{came:?}");
    assert!(!at.config.exists() && at.fresh.is_dir());
}

#[test]
fn every_call_that_is_not_listed_is_fatal_on_every_thread_of_keeper_and_witness() {
    let Some(debugger) = Debugger::new() else { return };
    let (world, tool) = serving();
    let mut bystander = Client::spawn(&world, &tool);
    let attempts = on_everything(&places(&world), bystander.pid());
    let before = snapshot(&world.home());
    for pid in processes(&world) {
        try_all(&debugger, &world, pid, &attempts);
    }
    assert!(snapshot(&world.home()) == before, "nothing was made, nothing was changed");
    bystander.pid();
    serves(&world, &tool);
}

#[test]
fn code_in_the_witness_changes_nothing() {
    let Some(debugger) = Debugger::new() else { return };
    let (world, tool) = serving();
    let attempts = on_files_by_the_witness(&places(&world));
    let before = snapshot(&world.home());
    try_all(&debugger, &world, world.witness(), &attempts);
    assert!(snapshot(&world.home()) == before, "nothing was made, nothing was changed");
    serves(&world, &tool);
}

fn execve() -> Call {
    Call::new(libc::SYS_execve, json!(["/bin/true", 0, 0]))
}

#[test]
fn a_forbidden_call_on_any_thread_of_the_keeper_ends_it_and_the_operator_reads_which() {
    let Some(debugger) = Debugger::new() else { return };
    for index in 0..4 {
        let (mut world, _tool) = serving();
        let (pid, thread) = (world.pid(), threads(world.pid())[index]);
        debugger.fatal_calls(&world, pid, thread, &[execve()]);
        assert_eq!(world.ended().code(), Some(128 + libc::SIGSYS));
        let line = format!("keychain-auth: forbidden system call {}: ", libc::SYS_execve);
        assert!(world.log().lines().any(|said| said.starts_with(&line)), "{}", world.log());
    }
}

#[test]
fn a_forbidden_call_on_any_thread_of_the_witness_ends_both_and_the_operator_reads_which() {
    let Some(debugger) = Debugger::new() else { return };
    for index in 0..3 {
        let (mut world, _tool) = serving();
        let (pid, thread) = (world.witness(), threads(world.witness())[index]);
        debugger.fatal_calls(&world, pid, thread, &[execve()]);
        assert_eq!(world.ended().code(), Some(1), "{}", world.log());
        let line = format!("keychain-auth: forbidden system call {}: ", libc::SYS_execve);
        assert!(world.log().lines().any(|said| said.starts_with(&line)), "{}", world.log());
    }
}

#[test]
fn code_that_blocks_the_signal_of_the_filter_is_killed_by_it() {
    let Some(debugger) = Debugger::new() else { return };
    let (mut world, _tool) = serving();
    let every_signal = json!([libc::SIG_SETMASK, vec![0xff; 8], 0, 8]);
    let block = Call::new(libc::SYS_rt_sigprocmask, every_signal);
    let pid = world.pid();
    debugger.fatal_calls(&world, pid, pid, &[block, execve()]);
    let status = world.ended();
    assert_eq!(ExitStatusExt::signal(&status), Some(libc::SIGSYS), "{status:?}");
}

#[test]
fn a_call_of_the_32_bit_interface_kills() {
    let Some(debugger) = Debugger::new() else { return };
    let (mut world, _tool) = serving();
    // mov eax, 20 (getpid); int 0x80; ret
    let old_call = Call::code(&[0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]);
    let pid = world.pid();
    debugger.fatal_calls(&world, pid, pid, &[old_call]);
    let signal = ExitStatusExt::signal(&world.ended());
    // the second where the kernel has no such interface
    assert!([Some(libc::SIGSYS), Some(libc::SIGSEGV)].contains(&signal), "{signal:?}");
}

#[test]
fn a_process_that_aborts_is_not_taken_for_one_that_was_taken_over() {
    let Some(debugger) = Debugger::new() else { return };
    // the C library's own last words, and abort
    let end = Call::function("__chk_fail", json!([]));
    for of_witness in [false, true] {
        let (mut world, _tool) = serving();
        let pid = processes(&world)[usize::from(of_witness)];
        let thread = *threads(pid).last().unwrap();
        debugger.fatal_calls(&world, pid, thread, std::slice::from_ref(&end));
        let status = world.ended();
        assert!(!world.log().contains("forbidden"), "{}", world.log());
        assert!(world.log().contains("buffer overflow detected"), "{}", world.log());
        if !of_witness {
            assert_eq!(ExitStatusExt::signal(&status), Some(libc::SIGABRT), "{status:?}");
        }
    }
}
