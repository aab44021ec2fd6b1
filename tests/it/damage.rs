//! Every file of a data folder damaged, removed, cut or put back: the real daemon says what is wrong, or serves everything.

use std::{fs, path::Path};

use serde_json::json;

use crate::{
    client::{Client, found, written},
    world::{Entry, World, await_that},
};

/// Everything in a data folder that a start reads or makes.
const FILES: [&str; 9] = [
    "vault.redb",
    "vault.key",
    "vault.head",
    "audit.state",
    "audit.log",
    "audit.reserve",
    "policy.sealed",
    "pending.json",
    "daemon.lock",
];

/// Starts; what listens serves every secret, and what does not says why. Whether it served.
fn serves_all(world: &mut World, tool: &Path, what: &str) -> bool {
    match world.try_start() {
        Ok(()) => {
            let reply = Client::connected(world, tool).read("s", &["a", "b", "c"]);
            assert_eq!(reply, found(&[("a", "1"), ("b", "2"), ("c", "3")]), "{what}");
            world.stop();
            true
        }
        Err(status) => {
            assert_eq!(status.code(), Some(1), "{what}: {}", world.log());
            let log = world.log();
            let last: Vec<&str> = log.lines().rev().take(2).collect();
            assert!(last[1].starts_with("error: ") && last[0].starts_with("  try: "), "{what}: {last:?}");
            false
        }
    }
}

/// What can become of a file, and what it is then; None where it is gone.
fn harmed(bytes: &[u8], older: &[u8]) -> [(&'static str, Option<Vec<u8>>); 7] {
    let flipped = |at: usize| {
        let mut bytes = bytes.to_vec();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1;
        }
        Some(bytes)
    };
    let half = bytes.len() / 2;
    [
        ("gone", None),
        ("emptied", Some(Vec::new())),
        ("cut", Some(bytes[..half].to_vec())),
        ("put back", Some(older.to_vec())),
        ("flipped at its beginning", flipped(3)),
        ("flipped in its middle", flipped(half)),
        ("flipped at its end", flipped(bytes.len().saturating_sub(2))),
    ]
}

fn put_all_back(world: &World, whole: &[Vec<u8>]) {
    for (name, bytes) in FILES.iter().zip(whole) {
        world.write(&world.data().join(name), bytes);
    }
}

#[test]
fn every_file_damaged_cut_gone_or_put_back_is_a_sentence_or_everything_is_served() {
    let mut world = World::new();
    let (tool, stranger) = (world.tool("tool"), world.tool("stranger"));
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("a", "1"), ("b", "old")]), written());
    let refused = Client::connected(&world, &stranger).read("s", &["a"]);
    assert_eq!(refused["status"], "denied");
    world.cli(&["policy", "seal"]).done();
    // the queue is written within a second, and a stop does not wait for it
    await_that("the queue", || world.data().join("pending.json").exists().then_some(()));
    world.stop();
    let path = |name: &str| world.data().join(name);
    let older = FILES.map(|name| fs::read(path(name)).unwrap());
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("b", "2"), ("c", "3")]), written());
    world.stop();
    world.start();
    world.stop();
    let whole = FILES.map(|name| fs::read(world.data().join(name)).unwrap());
    let (mut served, mut refused) = (0, 0);
    for (index, name) in FILES.into_iter().enumerate() {
        for (how, damaged) in harmed(&whole[index], &older[index]) {
            // everything as it was, but for this file
            put_all_back(&world, &whole);
            let path = world.data().join(name);
            match &damaged {
                None => fs::remove_file(&path).unwrap(),
                Some(damaged) => world.write(&path, damaged),
            }
            let what = format!("{name} {how}");
            match serves_all(&mut world, &tool, &what) {
                true => served += 1,
                false => refused += 1,
            }
            let is_vault = index < 3;
            if is_vault && how != "put back" && !how.starts_with("flipped") {
                let now = fs::read(&path).ok();
                assert!(now == damaged, "{what}: a refusal changed or made the file");
            }
        }
    }
    // several of the vault's own files at once, whatever remains of it
    for gone in [[0, 1], [0, 2], [1, 2]] {
        put_all_back(&world, &whole);
        let gone = gone.map(|index| FILES[index]);
        gone.iter().for_each(|name| fs::remove_file(world.data().join(name)).unwrap());
        assert!(!serves_all(&mut world, &tool, &format!("{gone:?} gone")));
        assert!(gone.iter().all(|name| !world.data().join(name).exists()), "{gone:?} made anew");
    }
    put_all_back(&world, &whole);
    assert!(serves_all(&mut world, &tool, "as it was"));
    assert!(served >= 20 && refused >= 12, "{served} served, {refused} refused");
    let status: serde_json::Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    assert_eq!(status["daemon_running"], json!(false));
}
