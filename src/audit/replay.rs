//! Which lines of the store's outbox the log does not have yet.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use jiff::{Span, Timestamp};

use super::{
    archive::open,
    query::{Lines, RecordLine},
    tail::{ReadFrom, start_of},
};
use crate::{chain::SEQ, store::OutboxEntry};

/// How far the order of the log may differ from the order of its timestamps: requests wait for their turn.
const SLACK_SECONDS: i64 = 300;

/// The entries that the log lacks, in their order. Of two entries with one text, each needs a line of its own.
///
/// Where the file begins later than the oldest entry, it was rotated since, and the `earlier` one is looked at too.
/// If the clock was set back by more than the slack, a line may be taken for missing and appear twice; none is lost.
pub(super) fn missing<'a>(
    file: &File,
    size: u64,
    earlier: Option<&Path>,
    entries: &'a [OutboxEntry],
) -> io::Result<Vec<&'a OutboxEntry>> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let mut logged: HashMap<&[u8], usize> = entries.iter().map(|entry| (entry.line.as_slice(), 0)).collect();
    let start = start_of(file, size, earliest(entries))?;
    let reader = ReadFrom { file, at: start };
    let before: Box<dyn BufRead> = match earlier.filter(|_| start == 0) {
        Some(earlier) => open(earlier)?,
        None => Box::new(io::empty()),
    };
    for line in Lines::new(before).chain(Lines::new(Box::new(BufReader::new(reader)))) {
        if let Some(count) = logged.get_mut(rendered(&line?.bytes)) {
            *count += 1;
        }
    }
    let mut missing = Vec::new();
    for entry in entries {
        match logged.get_mut(entry.line.as_slice()) {
            Some(count) if *count > 0 => *count -= 1,
            _ => missing.push(entry),
        }
    }
    Ok(missing)
}

/// The part of a line that was rendered before it had a number.
fn rendered(line: &[u8]) -> &[u8] {
    let at = line.windows(SEQ.len()).rposition(|window| window == SEQ);
    at.and_then(|at| line.get(..at)).unwrap_or(line)
}

/// The earliest moment of the entries, less the slack; the beginning of time if one has none.
fn earliest(entries: &[OutboxEntry]) -> Timestamp {
    let moment = |entry: &OutboxEntry| {
        let object = [entry.line.as_slice(), b"}"].concat();
        RecordLine::parse(&object).ok().and_then(|record| record.when())
    };
    let first = entries.iter().map(moment).min().flatten();
    first.and_then(|when| when.checked_sub(Span::new().seconds(SLACK_SECONDS)).ok()).unwrap_or(Timestamp::MIN)
}
