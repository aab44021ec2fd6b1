//! docs/faults.md: which fault led to what.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::PathBuf,
};

use super::{
    session::Outcome,
    site::{Fault, SPARED, Site},
};

const BEGIN: &str = "<!-- written by scripts/faults --write -->\n";

/// Thread, call, object and errno as the page has them, and the outcomes that were seen.
#[derive(Default)]
pub struct Table(BTreeMap<(Site, String), BTreeSet<Outcome>>);

impl Table {
    pub fn add(&mut self, fault: &Fault, outcome: Outcome) {
        self.0.entry((fault.site.clone(), fault.kind.to_string())).or_default().insert(outcome);
    }

    /// What the other one has seen and this one does not say. A fault without a consequence is never news.
    pub fn lacks(&self, other: &Self) -> Vec<String> {
        let mut news = Vec::new();
        for ((site, kind), outcomes) in &other.0 {
            let known = self.0.get(&(site.clone(), kind.clone()));
            let unknown = |outcome: &&Outcome| {
                **outcome != Outcome::Unharmed && known.is_none_or(|known| !known.contains(*outcome))
            };
            news.extend(
                outcomes.iter().filter(unknown).map(|outcome| format!("{site} {kind}: {}", outcome.words())),
            );
        }
        news
    }

    /// The page's table.
    pub fn read() -> Self {
        let page = fs::read_to_string(path()).unwrap_or_default();
        let (_, rows) = page.split_once(BEGIN).unwrap_or_default();
        let mut table = Self::default();
        for line in rows.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [role, call, object, results] = cells[..] else { panic!("docs/faults.md: {line}") };
            let word = |cell: &str| cell.trim_matches('`').to_owned();
            let site = Site { role: word(role), call: word(call), object: word(object) };
            for result in results.split("; ") {
                let (kind, outcomes) = result.split_once(": ").unwrap();
                let outcomes = outcomes
                    .split(" or ")
                    .map(|words| Outcome::ALL.into_iter().find(|outcome| outcome.words() == words).unwrap());
                table.0.insert((site.clone(), word(kind)), outcomes.collect());
            }
        }
        table
    }

    /// Puts the table into the page.
    pub fn write(&self, faults: usize) {
        let page = fs::read_to_string(path()).unwrap();
        let (head, _) = page.split_once(BEGIN).expect("the place of the table");
        let mut rows: BTreeMap<&Site, Vec<String>> = BTreeMap::new();
        for ((site, kind), outcomes) in &self.0 {
            let words: Vec<&str> = outcomes.iter().map(|outcome| outcome.words()).collect();
            rows.entry(site).or_default().push(format!("`{kind}`: {}", words.join(" or ")));
        }
        let mut text = format!("{head}{BEGIN}\n");
        writeln!(text, "{faults} faults on {} calls.\n", rows.len()).unwrap();
        text.push_str("| thread | call | on | what it led to |\n|---|---|---|---|\n");
        for (Site { role, call, object }, results) in rows {
            writeln!(text, "| `{role}` | `{call}` | `{object}` | {} |", results.join("; ")).unwrap();
        }
        text.push_str("\nNot made to fail:\n\n| call | why |\n|---|---|\n");
        for (calls, why) in SPARED {
            writeln!(text, "| {calls} | {why} |").unwrap();
        }
        fs::write(path(), text).unwrap();
    }
}

impl Outcome {
    const ALL: [Self; 7] = [
        Self::Unharmed,
        Self::Refused,
        Self::RefusedOn,
        Self::Ended,
        Self::NoStart,
        Self::Aborted,
        Self::Killed,
    ];

    /// As the page has it.
    fn words(self) -> &'static str {
        match self {
            Self::Unharmed => "unharmed",
            Self::Refused => "refused",
            Self::RefusedOn => "refused on",
            Self::Ended => "ended",
            Self::NoStart => "no start",
            Self::Aborted => "aborted",
            Self::Killed => "killed",
        }
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md")
}
