//! `audit show`: the records that meet every option, from all files of the log.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::{Printer, Wanted, files_of, nothing_yet, unreadable};
use crate::{
    audit::{Line, Lines, LogFile, open},
    cli::{failure::Failure, output::Output},
};

/// How far the order of the log may differ from the order of its timestamps.
const SLACK: SignedDuration = SignedDuration::from_mins(5);

#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) wanted: Wanted,
    /// Print the records as they stand in the log
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, log: &Path, out: &mut Output) -> Result<(), Failure> {
    let mut printer = Printer::new(&args.wanted, args.json);
    every_line(log, args.wanted.since, out, |line, out| {
        printer.print(line, out);
        out.is_open()
    })?;
    printer.finish(out);
    Ok(())
}

/// Hands on every line of all files that may hold records from `since` on, until `each` wants no more.
pub(super) fn every_line(
    log: &Path,
    since: Option<Timestamp>,
    out: &mut Output,
    mut each: impl FnMut(&Line, &mut Output) -> bool,
) -> Result<(), Failure> {
    let all = files_of(log)?;
    if all.is_empty() {
        nothing_yet(log, out);
    }
    let from = first_recent(&all, since);
    for LogFile { path, reader } in all.into_iter().skip(from) {
        for line in Lines::new(reader) {
            let line = line.map_err(|error| unreadable(&path, &error))?;
            // what is being written is shown when it is whole
            if !line.whole && path == log {
                break;
            }
            if !each(&line, out) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The last file that begins before `since`: what those before it hold is older still.
fn first_recent(all: &[LogFile], since: Option<Timestamp>) -> usize {
    let Some(since) = since.and_then(|since| since.checked_sub(SLACK).ok()) else { return 0 };
    let begins_before = |file: &LogFile| {
        let first =
            open(&file.path).ok().and_then(|reader| Lines::new(reader).next()?.ok()?.record.ok()?.when());
        first.is_some_and(|first| first < since)
    };
    all.iter().rposition(begins_before).unwrap_or(0)
}
