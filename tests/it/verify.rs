//! `vault verify` with the real program.

use std::fs;

use serde_json::Value;

use crate::{
    client::{Client, written},
    salvage::garbage,
    world::{Entry, World},
};

#[test]
fn verify_names_what_is_damaged_without_a_value_and_survives_any_damage() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["SERVICE"])]);
    world.start();
    let names: Vec<String> = (0..60).map(|number| format!("target{number}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "VALUEMARK")).collect();
    assert_eq!(Client::connected(&world, &tool).write("SERVICE", &pairs), written());
    let busy = world.cli(&["vault", "verify"]);
    assert!(busy.code == Some(1) && busy.err.contains("vault lock"), "{}", busy.err);
    world.cli(&["vault", "lock"]).done();
    assert!(world.cli(&["vault", "verify"]).done().contains("60 records are there"));
    world.stop();
    let path = world.data().join("vault.redb");
    let bytes = fs::read(&path).unwrap();
    let (mut named, mut found) = (0, 0);
    for step in 0..60 {
        let mut changed = bytes.clone();
        changed[bytes.len() * step / 60 + step % 5] ^= 1 << (step % 8);
        world.write(&path, &changed);
        let outcome = world.cli(&["vault", "verify", "--json"]);
        assert!(matches!(outcome.code, Some(0 | 1)), "step {step}: {outcome:?}");
        assert!(!outcome.out.contains("VALUEMARK") && !outcome.err.contains("VALUEMARK"));
        assert_eq!(fs::read(&path).unwrap(), changed, "nothing is written");
        let Ok(report) = serde_json::from_str::<Value>(&outcome.out) else { continue };
        assert_eq!(report["whole"] == true, outcome.code == Some(0));
        found += u32::from(report["whole"] == false);
        let damaged = report["damaged"].as_array().unwrap();
        named += damaged.iter().filter(|one| one["service"] == "SERVICE").count();
    }
    assert!(found > 5 && named > 0, "{found} found, {named} named");
    world.write(&path, &garbage(&bytes));
    let outcome = world.cli(&["vault", "verify"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(!outcome.err.contains("panicked") || outcome.err.contains("damaged"), "{outcome:?}");
}
