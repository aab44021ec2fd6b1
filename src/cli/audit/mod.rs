//! `audit`: questions to the audit log and its check, in constant memory, over all of its files.

mod export;
mod seal_key;
mod show;
mod stats;
mod tail;
mod verify;
mod words;

use std::{io, path::Path};

use clap::{Subcommand, builder::PossibleValuesParser};
use jiff::Timestamp;

pub(super) use self::tail::follow;
use self::words::columns;
use super::{
    context::Context,
    failure::Failure,
    output::{Output, Style},
    text::word,
    when,
    words::counted,
};
use crate::{
    audit::{Action, Filter, Line, LogFile, RecordLine, opened},
    wire::Reason,
};

/// Reasons of records that answer nobody: a config.json that can't be used, and a log that somebody touched.
const OWN_REASONS: [&str; 3] = ["policy_refused", "policy_untold", "audit_log_changed"];
/// How a log comes to be.
const START: &str = "keychain-auth start";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show the latest records
    Tail(tail::Args),
    /// Show the records that meet every option
    Show(show::Args),
    /// Count who asked for what, how often
    Stats(stats::Args),
    /// Print records in the form of another system
    Export(export::Args),
    /// Check that the log is whole and unchanged
    Verify(verify::Args),
    /// Begin a new chain and print its verification key, once; the daemon must not run
    SealKey(seal_key::Args),
}

pub(super) fn run(command: &Command, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let log = cx.paths.audit_log();
    match command {
        Command::Show(args) => show::run(args, &log, out),
        Command::Tail(args) => tail::run(args, &log, out),
        Command::Stats(args) => stats::run(args, &log, out),
        Command::Export(args) => export::run(args, &log, out),
        Command::Verify(args) => verify::run(args, cx, out),
        Command::SealKey(args) => seal_key::run(args, cx, out),
    }
}

/// Which records are wanted.
#[derive(clap::Args, Clone, Default)]
struct Wanted {
    /// From then on: 2h, 30m, 7d or 2026-05-21T10:34:02Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Up to then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// The program, by its path or its file name
    #[arg(long, value_name = "PROGRAM")]
    binary: Option<String>,
    /// The service
    #[arg(long)]
    service: Option<String>,
    /// A name that was asked for or touched
    #[arg(long)]
    target: Option<String>,
    /// What was asked for, or what happened
    #[arg(long, value_parser = Action::ALL.map(Action::as_str))]
    action: Option<String>,
    /// The result
    #[arg(long, ignore_case = true, value_parser = ["GRANTED", "DENIED", "ERROR"])]
    result: Option<String>,
    /// The reason of a refusal, or of a record about the log or the policy itself
    #[arg(long, hide_possible_values = true, value_parser = PossibleValuesParser::new(reasons()))]
    reason: Option<String>,
    /// The caller's process
    #[arg(long)]
    pid: Option<u32>,
}

/// Every reason that a record can have: those of replies, and those of the daemon itself.
fn reasons() -> impl Iterator<Item = &'static str> {
    Reason::ALL.into_iter().map(Reason::as_str).chain(OWN_REASONS)
}

impl Command {
    /// Whether its options can be met by any record at all; else what is wrong with them.
    pub(super) fn sensible(&self) -> Result<(), (&'static str, String)> {
        let (verb, wanted) = match self {
            Self::Tail(args) => ("tail", &args.wanted),
            Self::Show(args) => ("show", &args.wanted),
            Self::Stats(args) => ("stats", &args.wanted),
            Self::Export(args) => ("export", &args.wanted),
            Self::Verify(_) | Self::SealKey(_) => return Ok(()),
        };
        match (wanted.since, wanted.until) {
            (Some(since), Some(until)) if since > until => Err((
                verb,
                format!(
                    "--since {since} is after --until {until}, and no record is in between; --since takes the earlier of the two",
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl Wanted {
    fn filter(&self) -> Filter {
        Filter {
            since: self.since,
            until: self.until,
            binary: self.binary.clone(),
            service: self.service.clone(),
            target: self.target.clone(),
            action: self.action.clone(),
            result: self.result.clone(),
            reason: self.reason.clone(),
            pid: self.pid,
        }
    }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    when::since(text, Timestamp::now())
}

fn unreadable(log: &Path, error: &io::Error) -> Failure {
    Failure::new(
        format!("the audit log {} can't be read: {}", log.display(), error.kind()),
        format!("ls -ld {}", word(log)),
    )
}

/// The files of the log, open. None before the first start, when not even their folder is there.
fn files_of(log: &Path) -> Result<Vec<LogFile>, Failure> {
    match opened(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found.map_err(|error| unreadable(log, &error)),
    }
}

/// A note where there is no log: a new installation has done nothing that could be shown.
fn nothing_yet(log: &Path, out: &mut Output) {
    out.note(&format!("There is no audit log at {} yet; the daemon begins it: {START}", log.display()));
}

/// Prints records, and counts lines that are none.
struct Printer {
    filter: Filter,
    json: bool,
    /// Whether there was any record, and any that is wanted.
    records: bool,
    met: bool,
    strange: u64,
}

impl Printer {
    fn new(wanted: &Wanted, json: bool) -> Self {
        Self { filter: wanted.filter(), json, records: false, met: false, strange: 0 }
    }

    /// Whether the record is wanted.
    fn admits(&mut self, record: &RecordLine) -> bool {
        let met = self.filter.admits(record);
        self.records = true;
        self.met |= met;
        met
    }

    fn print(&mut self, line: &Line, out: &mut Output) {
        let Ok(record) = &line.record else {
            self.strange += 1;
            return;
        };
        if !self.admits(record) {
            return;
        }
        if self.json {
            out.raw_json_line(&line.bytes);
            return;
        }
        let style = style(record);
        let [time, result, rest] = columns(record);
        out.cells(&[(Style::Faint, &time), (style, &result), (Style::Plain, rest.trim_end())]);
    }

    fn finish(&self, out: &mut Output) {
        if self.records && !self.met {
            out.note("None of the records that were looked at meets these options");
        }
        if self.strange > 0 {
            out.note(&format!(
                "warning: {}; see: keychain-auth audit verify",
                counted(self.strange, "line of the log is no record", "lines of the log are no records")
            ));
        }
    }
}

fn style(record: &RecordLine) -> Style {
    if record.result == "GRANTED" { Style::Good } else { Style::Bad }
}
