//! The table of docs/performance.md: the real daemon, hardened and recording, beside the floor of the same machine.
//!
//! `scripts/bench` runs it. Without `--bench`, as `cargo test --benches` starts it, everything runs once and tiny, so that a
//! change that breaks the harness is seen; no figure is judged there.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement fails by panicking, and nothing here is an interface"
)]

mod audit;
mod figures;
mod memory;
mod neighbours;
mod page;
mod plot;
mod rows;
mod stage;
#[path = "../../tests/it/tools.rs"]
#[allow(dead_code, reason = "the suite uses more of it")]
mod tools;
#[path = "../../tests/it/world.rs"]
#[allow(dead_code, reason = "the suite uses more of it")]
mod world;

use stage::Stage;

/// How much is measured.
pub struct Scale {
    pub rounds: usize,
    /// Requests of one round on a held connection; the other rows ask a part of it.
    pub requests: usize,
    /// Secrets in the stores.
    pub sizes: [usize; 3],
    pub idle_connections: usize,
    /// How long nothing may wake.
    pub quiet_seconds: u64,
    /// Bytes of the large client.
    pub large: usize,
    /// Records of the log that is checked and shown.
    pub records: usize,
}

const FULL: Scale = Scale {
    rounds: 15,
    requests: 4000,
    sizes: [1_000, 10_000, 100_000],
    idle_connections: 1000,
    quiet_seconds: 30,
    large: 50 << 20,
    records: 1_000_000,
};
const QUICK: Scale = Scale { rounds: 5, requests: 1000, quiet_seconds: 5, records: 100_000, ..FULL };
const TINY: Scale = Scale {
    rounds: 1,
    requests: 40,
    sizes: [200, 300, 400],
    idle_connections: 20,
    quiet_seconds: 1,
    large: 1 << 20,
    records: 5_000,
};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let given = |word: &str| words.iter().any(|given| given == word);
    let scale = match (given("--bench"), given("--quick")) {
        (false, _) => TINY,
        (true, true) => QUICK,
        (true, false) => FULL,
    };
    if given("--audit") {
        let stage = Stage::set(scale.sizes[0], 0, &[]);
        let mut table = audit::durability(&stage, &scale);
        table.extend(audit::questions(&scale));
        return println!("{}", page::table(&table));
    }
    let load = page::load();
    let mut stages = scale.sizes.map(|secrets| Stage::set(secrets, scale.large, &[]));
    let (mut table, sketches) = rows::measure(&mut stages, &scale);
    table.extend(audit::durability(&stages[0], &scale));
    table.extend(audit::questions(&scale));
    table.extend(neighbours::measure(&stages[0], &scale));
    table.extend(memory::measure(&mut stages, &scale));
    let text = page::table(&table);
    println!("{text}");
    if given("--write") {
        page::write(&text, &sketches, &scale, &load);
    }
    println!("{} rows measured", table.len());
}
