//! What the kernel says of every thread, and what other processes of the same user can reach.

use std::fs;

use super::{processes, serves, serving, threads};
use crate::{
    tools::Link,
    world::{World, run},
};

fn status(pid: u32, thread: u32) -> impl Fn(&str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).unwrap();
    move |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
    }
}

#[test]
fn every_thread_is_filtered_without_capabilities_and_without_a_way_to_new_ones() {
    let (world, _tool) = serving();
    for (pid, least) in processes(&world).into_iter().zip([4, 3]) {
        let threads = threads(pid);
        assert!(threads.len() >= least, "threads of {pid}: {threads:?}");
        for thread in threads {
            let status = status(pid, thread);
            assert_eq!(status("NoNewPrivs"), "1");
            assert_eq!(status("Seccomp"), "2", "a filter");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(status(set), "0000000000000000", "{set}");
            }
        }
    }
}

#[test]
fn neither_process_leaves_a_core_dump() {
    let (world, _tool) = serving();
    for pid in processes(&world) {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
    }
}

/// What the prowler says of each way into `victim`.
fn prowl(world: &World, victim: &str) -> Vec<(String, i32)> {
    let prowler = world.install("clients/prowler.c", Link::Dynamic, "bin/prowler");
    let said = run(world.command(&prowler).arg(victim)).done();
    let ways: Vec<(String, i32)> = said
        .lines()
        .map(|line| {
            let (way, errno) = line.rsplit_once(' ').unwrap();
            (way.to_owned(), errno.parse().unwrap())
        })
        .collect();
    assert!(ways.len() >= 15, "{said}");
    ways
}

#[test]
fn another_process_of_the_same_user_gets_into_neither() {
    let (world, tool) = serving();
    let closed: Vec<_> = prowl(&world, "own").into_iter().filter(|(_, errno)| *errno != 0).collect();
    assert!(closed.is_empty(), "the prowler gets into a process that has closed nothing: {closed:?}");
    for pid in processes(&world) {
        for (way, errno) in prowl(&world, &pid.to_string()) {
            assert!([libc::EPERM, libc::EACCES].contains(&errno), "{way} of {pid}: {errno}");
        }
    }
    serves(&world, &tool);
}
