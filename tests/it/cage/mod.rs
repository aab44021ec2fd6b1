//! The cage, seen from outside: what others of the same user and root with a debugger find, and what a daemon that was
//! taken over can still do.

mod attempts;
mod broker;
mod debugger;
pub mod dump;
mod inside;
mod last_words;
mod memory;
pub(crate) mod older_kernels;
mod outside;
mod rules;
mod session;

use std::{fs, path::PathBuf};

use crate::{
    client::{Client, found, written},
    world::{Entry, World},
};

/// A world whose daemon serves a tool, and has done so.
fn serving() -> (World, PathBuf) {
    serving_in(World::new())
}

/// Starts the daemon of `world` and lets a tool store a value and read it.
fn serving_in(mut world: World) -> (World, PathBuf) {
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    serves(&world, &tool);
    (world, tool)
}

/// The daemon still does its work.
#[track_caller]
fn serves(world: &World, tool: &std::path::Path) {
    assert_eq!(Client::connected(world, tool).read("s", &["k"]), found(&[("k", "v")]));
}

/// Keeper and witness.
fn processes(world: &World) -> [u32; 2] {
    [world.pid(), world.witness()]
}

/// The threads of a process, the first one first.
fn threads(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut threads: Vec<u32> =
        tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    threads.sort_unstable();
    threads
}
