//! The table and docs/performance.md.

use std::{fs, path::Path, process::Command};

use crate::{
    Scale,
    figures::{Row, Target, short},
    plot,
    rows::Sketches,
};

const PAGE: &str = include_str!("page.md");

/// The table, as the page has it.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| what | ours | floor or bound | ratio | target | p50 | p99 |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let target = match row.target {
            Target::AtLeast(least) => format!("≥ {least:.2}"),
            Target::AtMost(most) => format!("≤ {most:.2}"),
            Target::None => String::new(),
        };
        let target = if row.is_met() { target } else { format!("**{target}**") };
        let (p50, p99) = row.spread.map_or_else(Default::default, |(p50, p99)| {
            (format!("{} µs", short(p50)), format!("{} µs", short(p99)))
        });
        let cells = [&row.what, &row.ours, &row.floor, &format!("{:.2}", row.ratio), &target, &p50, &p99];
        text.push_str(&format!("| {} |\n", cells.map(String::as_str).join(" | ")));
    }
    text
}

/// Writes the page and its pictures.
pub fn write(table: &str, sketches: &Sketches, scale: &Scale, load: &str) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = PAGE
        .replace("{table}", table.trim_end())
        .replace("{machine}", &machine())
        .replace("{load}", load)
        .replace("{rounds}", &scale.rounds.to_string());
    fs::write(docs.join("performance.md"), page).unwrap();
    fs::write(docs.join("latency.svg"), plot::spreads(&sketches.spreads)).unwrap();
    fs::write(docs.join("growth.svg"), plot::growth(&scale.sizes, &sketches.growth)).unwrap();
}

/// How many tasks wanted a processor over the last minute: whether others worked here too.
pub fn load() -> String {
    let averages = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    averages.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// What the figures depend on.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = Command::new("uname").arg("-r").output().unwrap().stdout;
    let kernel = String::from_utf8_lossy(&kernel);
    let version = kernel.split(['-', '\n']).next().unwrap_or_default();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name"));
    let processor = processor.unwrap_or_default().trim_start_matches([' ', '\t', ':']);
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let built = if flags.is_empty() { String::new() } else { format!(", built with `RUSTFLAGS='{flags}'`") };
    format!("{cores} cores ({processor}), Linux {version}{built}")
}
