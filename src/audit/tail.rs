//! The end of a log file: where the last whole line ends, what its number is, and how far back a moment lies.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{query::RecordLine, record::MAX_LINE};

/// A number that no log reaches: at a million records a second it takes 285 years. A line with such a one is not ours.
const NO_NUMBER: u64 = 1 << 53;
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// The end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    /// Bytes up to and with the last newline.
    pub(super) whole: u64,
    /// The number of the last line that has one; 0 if there is none within reach.
    pub(super) last_seq: u64,
}

impl Tail {
    /// Reads the end of a file of `size` bytes.
    pub(super) fn read(file: &File, size: u64) -> io::Result<Self> {
        let whole = newline_before(file, size)?.map_or(0, |at| at + 1);
        let mut end = whole;
        let reach = whole.saturating_sub(MAX_LINE as u64);
        // lines that others wrote have no number; the last of ours counts
        while end > reach {
            let start = newline_before(file, end - 1)?.map_or(0, |at| at + 1);
            let record = line(file, start, end)?.and_then(|line| RecordLine::parse(&line).ok());
            if let Some(seq) = record.and_then(|record| record.seq).filter(|seq| *seq < NO_NUMBER) {
                return Ok(Self { whole, last_seq: seq });
            }
            end = start;
        }
        Ok(Self { whole, last_seq: 0 })
    }
}

/// Where to begin reading so that every line whose event is not older than `since` is seen: the beginning of the first
/// line, seen from the end, that is older.
pub(super) fn start_of(file: &File, size: u64, since: jiff::Timestamp) -> io::Result<u64> {
    let mut end = size;
    while end > 0 {
        // one line in each chunk is looked at; the log is in the order of time
        let probe = end.saturating_sub(CHUNK as u64);
        let start = newline_before(file, probe)?.map_or(0, |at| at + 1);
        let stop = newline_after(file, start, size)?;
        let when = line(file, start, stop)?.and_then(|line| RecordLine::parse(&line).ok()?.when());
        if when.is_some_and(|when| when < since) {
            return Ok(start);
        }
        end = start.min(probe);
    }
    Ok(0)
}

fn line(file: &File, start: u64, end: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(length) = usize::try_from(end - start).ok().filter(|length| *length <= MAX_LINE) else {
        return Ok(None);
    };
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, start)?;
    Ok(Some(bytes))
}

/// The last newline before `end`. An error when there is none within the longest line: whoever made the file huge must
/// not keep us reading it.
fn newline_before(file: &File, end: u64) -> io::Result<Option<u64>> {
    let mut stop = end;
    while stop > 0 {
        if end - stop > MAX_LINE as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it holds a line that is longer than any record",
            ));
        }
        let start = stop.saturating_sub(CHUNK as u64);
        let bytes = line(file, start, stop)?.unwrap_or_default();
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(Some(start + at as u64));
        }
        stop = start;
    }
    Ok(None)
}

/// Behind the first newline from `start` on, or `size`.
fn newline_after(file: &File, start: u64, size: u64) -> io::Result<u64> {
    let mut from = start;
    while from < size {
        let stop = size.min(from + CHUNK as u64);
        let bytes = line(file, from, stop)?.unwrap_or_default();
        if let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        from = stop;
    }
    Ok(size)
}
