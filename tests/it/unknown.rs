//! A disk that fails at the end of a commit and can't be read right after it: nobody knows then whether the change was
//! made. It is said so, and whatever shows later has its record first. And a log that does not take what is to be said of
//! another policy: nobody is served before.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    client::{Client, assert_refused, found, written},
    keys::with_passphrase,
    processes::{thread_named, traced},
    sealed_policy::knowing,
    skip::{need, skip},
    world::{Entry, World, await_that, is_root},
};

/// A daemon whose calls a tracer may let fail: not even root may trace one that has closed itself and keep its filters.
fn unhardened(world: &mut World) -> PathBuf {
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start_args.push("--hardening=off".to_owned());
    world.start_env.push(("KEYCHAIN_AUTH_ALLOW_UNHARDENED".to_owned(), "1".to_owned()));
    world.start();
    assert_eq!(Client::connected(world, &tool).write("s", &[("a", "1")]), written());
    tool
}

/// Does something while the second flush of the writing thread fails, and then the first look at the file. What is flushed
/// now and then without a change may take the fault away: then it is done again, and `is_hit` tells.
fn while_it_fails<T>(
    world: &World,
    strace: &Path,
    mut act: impl FnMut(usize) -> T,
    is_hit: impl Fn(&T) -> bool,
) -> (usize, T) {
    for round in 0..20 {
        let thread = thread_named(world.pid(), "writer");
        let mut watch = Command::new(strace);
        watch.args(["-e", "trace=fdatasync,openat", "-o", "/dev/null"]);
        watch.args(["-e", "inject=fdatasync:error=EIO:when=2", "-e", "inject=openat:error=EMFILE:when=1..2"]);
        let mut failing = traced(&mut watch, thread);
        let done = act(round);
        failing.end(Signal::INT);
        if is_hit(&done) {
            return (round, done);
        }
    }
    panic!("no commit was hit");
}

/// Where the records of what was granted stand, for this action and target.
fn granted(records: &[Value], action: &str, target: &str) -> Vec<usize> {
    let is_it = |record: &Value| {
        record["action"] == action && record["result"] == "GRANTED" && record["targets"] == json!([target])
    };
    records.iter().enumerate().filter(|(_, record)| is_it(record)).map(|(at, _)| at).collect()
}

#[test]
fn a_change_of_unknown_outcome_is_told_as_that_and_has_its_record_before_anybody_sees_it() {
    let (Some(strace), true) = (need("strace"), is_root()) else {
        return skip("only root can trace the daemon");
    };
    let mut world = World::new();
    let tool = unhardened(&mut world);
    let mut client = Client::connected(&world, &tool);
    let write = |round: usize| client.write("s", &[(&format!("b{round}"), "2")]);
    let (round, reply) = while_it_fails(&world, &strace, write, |reply| *reply != written());
    assert_refused(&reply, "error", "internal_error");
    let message = reply["message"].as_str().unwrap();
    assert!(message.contains("may or may not have been made") && !message.contains("nothing was"), "{reply}");
    // the flush was refused and the bytes were written: it was made
    let name = format!("b{round}");
    assert_eq!(client.read("s", &[&name]), found(&[(&name, "2")]));
    let said = world.audit_all();
    let (writes, reads) = (granted(&said, "write", &name), granted(&said, "read", &name));
    assert!(writes.len() == 1 && reads.len() == 1 && writes < reads, "{said:#?}");
    // what comes after it lets the vault forget nothing that the log lacks
    assert_eq!(client.write("s", &[("c", "3")]), written());
    for _ in 0..2 {
        assert!(world.stop().success());
        world.start();
        let mut client = Client::connected(&world, &tool);
        assert_eq!(client.read("s", &[&name, "c"]), found(&[(&name, "2"), ("c", "3")]));
        assert_eq!(client.write("s", &[("c", "3")]), written());
    }
    assert_eq!(granted(&world.audit_all(), "write", &name), writes);
    world.cli(&["audit", "verify"]).done();
}

#[test]
fn a_seal_of_unknown_outcome_counts_from_the_next_request_on_if_the_vault_has_it() {
    let (Some(strace), true) = (need("strace"), is_root()) else {
        return skip("only root can trace the daemon");
    };
    let mut world = with_passphrase();
    let tool = unhardened(&mut world);
    let seal = |_| knowing(&world, &["policy", "seal"]);
    let (_, outcome) = while_it_fails(&world, &strace, seal, |outcome| outcome.code != Some(0));
    assert!(outcome.err.contains("can't tell whether the seal was changed"), "{}", outcome.err);
    // another policy is no longer accepted
    let evil = world.tool("evil");
    world.policy(&[Entry::all(&tool, &["s"]), Entry::all(&evil, &["s"])]);
    assert_refused(&Client::connected(&world, &evil).read("s", &["a"]), "error", "policy_unsealed");
    let said = world.audit_all();
    let sealed = said.iter().filter(|record| record["detail"] == "another seal for the policy").count();
    assert!(sealed >= 1, "{said:#?}");
}

#[test]
fn nobody_is_served_under_another_policy_before_all_of_it_is_recorded_once() {
    let (Some(strace), true) = (need("strace"), is_root()) else {
        return skip("only root can trace the daemon");
    };
    let mut world = World::new();
    let tool = unhardened(&mut world);
    let others = ["one", "two"].map(|name| world.tool(name));
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.read("s", &["a"]), found(&[("a", "1")]));
    let mut watch = Command::new(&strace);
    watch.args(["-e", "trace=write", "-o", "/dev/null"]);
    // of the two records of the change the second, and that again with the request
    watch.args(["-e", "inject=write:error=EIO:when=2..3", "-P"]).arg(world.data().join("audit.log"));
    let mut failing = traced(&mut watch, world.pid());
    let entries = others.iter().chain([&tool]).map(|tool| Entry::all(tool, &["s"]));
    world.policy(&entries.collect::<Vec<_>>());
    let added = || {
        let all = world.audit_all();
        let is_it = |record: &&Value| record["detail"].as_str().is_some_and(|it| it.starts_with("added"));
        all.iter().filter(is_it).map(|record| record["binary_path"].clone()).collect::<Vec<_>>()
    };
    await_that("half of the change is recorded", || (added().len() == 1).then_some(()));
    await_that("the other half was tried", || world.log().contains("can't be written").then_some(()));
    assert_refused(&client.read("s", &["a"]), "error", "audit_unavailable");
    assert_eq!(client.read("s", &["a"]), found(&[("a", "1")]));
    failing.end(Signal::INT);
    let mut both = others.map(|tool| json!(tool)).to_vec();
    both.sort_by_key(ToString::to_string);
    assert_eq!(added(), both, "each once");
    world.cli(&["audit", "verify"]).done();
}
