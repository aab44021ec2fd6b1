//! What the daemon costs while it does nothing: memory, wake-ups, and its start.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    Scale,
    figures::{Row, Target, median, short},
    stage::{Ask, Running, Stage},
};

fn row(what: &str, ours: String, floor: &str, ratio: f64) -> Row {
    let target = Target::AtMost(1.0);
    Row { what: what.into(), ours, floor: floor.into(), ratio, target, spread: None }
}

/// Ratios here are to the most that is allowed.
pub fn measure(stages: &mut [Stage; 3], scale: &Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    let middle = &mut stages[1];
    // as after a reboot: what filling the store has left behind is not what a user has
    middle.world.stop();
    middle.world.start();
    middle.ours(&middle.client, "held", Ask::Read(1), &[20]);
    let before = middle.resident();
    let mib = before as f64 / 1024.0;
    rows.push(row(
        &format!("resident memory of both processes, {} secrets", short(middle.secrets as f64)),
        format!("{} MiB", short(mib)),
        "20 MB",
        before as f64 * 1024.0 / 20e6,
    ));
    let request = middle.file(Ask::Read(1));
    let mut idle = middle.command(&middle.client, &middle.world.socket(), "idle", &request);
    let held = Running::ready(idle.arg(scale.idle_connections.to_string()));
    let each = (middle.resident() - before) as f64 / scale.idle_connections as f64;
    rows.push(row("an idle connection", format!("{} KiB", short(each)), "10 KB", each * 1024.0 / 10e3));
    // the log is synced a moment after its last record, and the vault forgets two seconds later what the log has
    thread::sleep(Duration::from_secs(4));
    let woken = middle.wakes();
    thread::sleep(Duration::from_secs(scale.quiet_seconds));
    let woken = middle.wakes() - woken;
    let what = format!(
        "wake-ups in {} s, {} idle connections",
        scale.quiet_seconds,
        short(scale.idle_connections as f64)
    );
    rows.push(row(&what, woken.to_string(), "0", woken as f64));
    drop(held);
    let full = &mut stages[2];
    let start = |_| {
        full.world.stop();
        let began = Instant::now();
        full.world.start();
        began.elapsed().as_secs_f64() * 1e3
    };
    let start = median((0..scale.rounds.min(7)).map(start).collect::<Vec<_>>());
    let what = format!("start with {} secrets", short(full.secrets as f64));
    rows.push(row(&what, format!("{} ms", short(start)), "100 ms", start / 100.0));
    rows
}
