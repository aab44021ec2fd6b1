//! `audit stats`: who asked for what, how often, with a bar for people.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Wanted, show::every_line};
use crate::{
    audit::RecordLine,
    cli::{
        failure::Failure,
        output::{Output, Style},
        words::counted,
    },
};

/// Most different rows that are counted: a flood of names must not fill the memory. Further ones share a row.
const MOST_ROWS: usize = 100_000;
/// Longest bar, in characters.
const BAR: usize = 24;

#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) wanted: Wanted,
    /// What is counted: binary (with service and action), service, target, reason or hour
    #[arg(long, default_value = "binary", value_parser = ["binary", "service", "target", "reason", "hour"])]
    by: String,
    /// How many rows are shown: the most frequent first; of hours the latest, in their order
    #[arg(long, default_value_t = 20, value_name = "N")]
    top: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Row {
    what: String,
    granted: u64,
    denied: u64,
    error: u64,
}

#[derive(Serialize)]
struct Report {
    log: PathBuf,
    records: u64,
    first: Option<String>,
    last: Option<String>,
    rows: Vec<Row>,
    rows_not_shown: usize,
}

pub(super) fn run(args: &Args, log: &Path, out: &mut Output) -> Result<(), Failure> {
    let filter = args.wanted.filter();
    let mut rows = Rows::default();
    let (mut records, mut first, mut last) = (0, None, None);
    every_line(log, args.wanted.since, out, |line, out| {
        if let Ok(record) = &line.record
            && filter.admits(record)
        {
            records += record.count.unwrap_or(1);
            first.get_or_insert_with(|| record.timestamp.clone());
            last = Some(record.timestamp.clone());
            rows.count(&args.by, record);
        }
        out.is_open()
    })?;
    let (rows, rows_not_shown) = rows.top(&args.by, args.top);
    let report = Report { log: log.to_owned(), records, first, last, rows, rows_not_shown };
    if args.json {
        out.json(&report)
    } else {
        show(&report, out)
    }
    Ok(())
}

#[derive(Default)]
struct Rows(BTreeMap<String, Row>);

impl Rows {
    fn count(&mut self, by: &str, record: &RecordLine) {
        let or_dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
        match by {
            "service" => self.add(or_dash(&record.service), record),
            "reason" => self.add(or_dash(record.reason.as_deref().unwrap_or_default()), record),
            // 2026-05-21T10
            "hour" => self.add(record.timestamp.chars().take(13).collect(), record),
            "target" => {
                for target in &record.targets {
                    self.add(format!("{}  {target}", or_dash(&record.service)), record);
                }
            }
            _ => {
                let (path, service) = (or_dash(&record.binary_path), or_dash(&record.service));
                self.add(format!("{path}  {service}  {}", record.action), record);
            }
        }
    }

    fn add(&mut self, what: String, record: &RecordLine) {
        let what =
            if self.0.len() < MOST_ROWS || self.0.contains_key(&what) { what } else { "others".to_owned() };
        let row = self.0.entry(what.clone()).or_insert(Row { what, ..Row::default() });
        let number = match record.result.as_str() {
            "GRANTED" => &mut row.granted,
            "DENIED" => &mut row.denied,
            _ => &mut row.error,
        };
        *number += record.count.unwrap_or(1);
    }

    /// The most frequent rows, the first of them first; of hours the latest, in the order of time. And how many are left out.
    fn top(self, by: &str, most: usize) -> (Vec<Row>, usize) {
        let mut rows: Vec<Row> = self.0.into_values().collect();
        let left_out = rows.len().saturating_sub(most);
        if by == "hour" {
            // by name, which begins with the year
            rows.drain(..left_out);
        } else {
            rows.sort_by_key(|row| std::cmp::Reverse(row.total()));
            rows.truncate(most);
        }
        (rows, left_out)
    }
}

impl Row {
    fn total(&self) -> u64 {
        self.granted + self.denied + self.error
    }
}

fn show(report: &Report, out: &mut Output) {
    let most = report.rows.iter().map(Row::total).max().unwrap_or(1).max(1);
    let width = report.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0).min(72);
    for row in &report.rows {
        let Row { what, granted, denied, error } = row;
        let length = |count: u64| usize::try_from(count * BAR as u64 / most).unwrap_or(0);
        let good = "█".repeat(length(*granted));
        let bad = "█".repeat(length(denied + error).max(usize::from(length(*granted) == 0)));
        out.cells(&[
            (Style::Plain, &format!("{what:<width$}  {:>8}  ", row.total())),
            (Style::Good, if out.is_terminal() { &good } else { "" }),
            (Style::Bad, if out.is_terminal() { &bad } else { "" }),
            (Style::Faint, &format!("  {granted} granted, {denied} denied, {error} error")),
        ]);
    }
    if report.rows_not_shown > 0 {
        out.note(&format!("{}: --top N", counted(report.rows_not_shown as u64, "more row", "more rows")));
    }
    let span = match (&report.first, &report.last) {
        (Some(first), Some(last)) => format!(", {first} to {last}"),
        _ => String::new(),
    };
    out.line(&format!("{}{span}", counted(report.records, "record", "records")));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_folded_counts_as_often_as_it_happened() {
        let mut rows = Rows::default();
        let text = r#"{"binary_path":"/x","service":"s","targets":["a","b"],"result":"DENIED","action":"read","count":40}"#;
        let denied = RecordLine::parse(text.as_bytes()).unwrap();
        let granted = RecordLine { result: "GRANTED".to_owned(), count: None, ..denied.clone() };
        for record in [&denied, &granted, &granted] {
            rows.count("binary", record);
        }
        let row = Row { what: "/x  s  read".to_owned(), granted: 2, denied: 40, error: 0 };
        assert_eq!(rows.top("binary", 20), (vec![row], 0));
        let mut rows = Rows::default();
        rows.count("target", &granted);
        assert_eq!(rows.top("target", 1).1, 1);
    }

    #[test]
    fn hours_are_shown_in_the_order_of_time_and_other_rows_by_how_often() {
        let hours = [("2025-12-31T23", 1), ("2026-01-01T00", 3), ("2026-01-01T09", 2), ("2026-01-01T10", 1)];
        let counted = || {
            let mut rows = Rows::default();
            for (hour, times) in hours.iter().rev() {
                let text = format!(r#"{{"timestamp":"{hour}:30:00Z","result":"DENIED"}}"#);
                let record = RecordLine::parse(text.as_bytes()).unwrap();
                (0..*times).for_each(|_| rows.count("hour", &record));
            }
            rows
        };
        let said = |by: &str, most: usize| {
            let (rows, left_out) = counted().top(by, most);
            (rows.into_iter().map(|row| row.what).collect::<Vec<_>>(), left_out)
        };
        assert_eq!(said("hour", 20), (hours.map(|(hour, _)| hour.to_owned()).to_vec(), 0));
        assert_eq!(
            said("hour", 2),
            (vec!["2026-01-01T09".to_owned(), "2026-01-01T10".to_owned()], 2),
            "the latest"
        );
        assert_eq!(
            said("reason", 2),
            (vec!["2026-01-01T00".to_owned(), "2026-01-01T09".to_owned()], 2),
            "the most frequent"
        );
    }
}
