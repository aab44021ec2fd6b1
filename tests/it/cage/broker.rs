//! The cage of the broker, the one process that may connect to something.

use std::fs;

use serde_json::json;

use keychain_auth::sandbox;

use super::{
    attempts::{Fate, HERE, MAKE, READ, on_everything, places},
    debugger::try_all,
    inside::Debugger,
    rules::{caged, calls, unneeded},
    threads,
};
use crate::{
    client::{Client, found, written},
    keychain::{carried, world},
    skip::need,
    world::Entry,
};

/// Rules that a session may not show, and why they stand all the same.
const UNSEEN: &[(&str, &str)] = &[
    ("sched_yield", "needs threads that meet in a channel at the same moment"),
    ("clock_gettime", "the vDSO serves here"),
    ("futex", "one thread waits for nobody; a lock of the standard library could"),
    ("getpid", "for abort, which the debugger plays"),
    ("gettid", "for abort, which the debugger plays"),
    ("tgkill Own(0)", "for abort, which the debugger plays"),
    ("writev Is(0, 2)", "the last words before abort, which the debugger plays"),
    ("setitimer Is(0, 0)", "for the last words, where standard error is no socket, which the debugger plays"),
    ("ppoll", "for the message of a panic, where standard error is a pipe that can't be opened anew"),
    ("fcntl Is(1, 1)", "made by debug builds only"),
];
/// What the memory it begins with may suffice for, and the end, in which the kernel may come first.
const BY_CHANCE: &[&str] = &[
    "mmap Lacks(2, 4)",
    "mprotect Lacks(2, 4)",
    "brk",
    "madvise",
    "munmap",
    "rt_sigprocmask",
    "sigaltstack",
    "exit",
    "exit_group",
];

#[test]
fn a_session_needs_every_rule_of_the_brokers_list() {
    let Some(strace) = need("strace") else { return };
    let Some((mut world, mut keyring)) = world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let trace = world.tmp("trace");
    let strace = [strace.to_str().unwrap(), "-D", "-f", "-qq", "-X", "raw", "-o", trace.to_str().unwrap()];
    world.start_through = strace.map(str::to_owned).to_vec();
    world.start();
    let [_witness, broker] = world.children();
    let own = threads(broker);
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    carried(&world);
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    keyring.kill();
    keyring.start_again();
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    assert!(world.stop().success(), "{}", world.log());
    let seen = calls(&fs::read_to_string(&trace).unwrap());
    let mut unneeded = unneeded(&sandbox::broker(), &caged(&seen, &own), broker);
    unneeded.retain(|rule| !UNSEEN.iter().any(|(unseen, _)| unseen == rule));
    unneeded.retain(|rule| !BY_CHANCE.contains(&rule.as_str()));
    assert!(unneeded.is_empty(), "no use of these rules was seen: {unneeded:#?}");
}

#[test]
fn code_in_the_broker_reaches_no_file_and_no_other_machine() {
    let Some(debugger) = Debugger::new() else { return };
    let Some((mut world, _keyring)) = world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    let [_witness, broker] = world.children();
    let at = places(&world);
    let unix = [libc::AF_UNIX, libc::SOCK_STREAM, 0];
    let mut attempts = vec![
        ("open a socket of this machine", libc::SYS_socket, json!(unix), Fate::Allowed),
        ("open a socket of the internet", libc::SYS_socket, json!([libc::AF_INET, 1, 0]), Fate::Fatal),
        ("read another program's file", libc::SYS_openat, json!([HERE, at.key, READ, 0]), Fate::Fatal),
        ("make a file", libc::SYS_openat, json!([HERE, at.fresh, MAKE, 0o600]), Fate::Fatal),
    ];
    let mine = ["socket", "connect", "shutdown"];
    let theirs = on_everything(&at, client.pid());
    attempts.extend(theirs.into_iter().filter(|(_, number, ..)| {
        let listed = sandbox::broker().iter().any(|call| call.number == *number && mine.contains(&call.name));
        !listed
    }));
    try_all(&debugger, &world, broker, &attempts);
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
}
