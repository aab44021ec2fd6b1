//! The end of a log file: where the last whole line ends, its lines from the end on, and how far back a moment lies.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{query::RecordLine, record::MAX_LINE};
use crate::chain::{Linked, NO_NUMBER};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// Reads a file from a place on, by place: the caged daemon may not seek.
pub(super) struct ReadFrom<'a> {
    pub(super) file: &'a File,
    pub(super) at: u64,
}

impl io::Read for ReadFrom<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

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
        let reach = whole.saturating_sub(MAX_LINE as u64);
        // lines that others wrote have no number; the last of ours counts
        let mut lines = Backward::new(file, whole);
        while let Some((start, line)) = lines.next()? {
            if let Some(seq) = number(&line) {
                return Ok(Self { whole, last_seq: seq });
            }
            if start <= reach {
                break;
            }
        }
        Ok(Self { whole, last_seq: 0 })
    }
}

/// The number of a line, also of one that was written before there was a chain.
pub(super) fn number(line: &[u8]) -> Option<u64> {
    match Linked::of(line) {
        Some(linked) => Some(linked.seq),
        None => RecordLine::parse(line).ok()?.seq.filter(|seq| *seq < NO_NUMBER),
    }
}

/// Lines from the end of a file to its beginning.
pub(super) struct Backward<'f> {
    file: &'f File,
    /// Behind the newline of the line that comes next.
    end: u64,
    /// Bytes of the file from `from` on, read already.
    held: Vec<u8>,
    from: u64,
}

impl<'f> Backward<'f> {
    /// From `end` on, which must be behind a newline.
    pub(super) fn new(file: &'f File, end: u64) -> Self {
        Self { file, end, held: Vec::new(), from: end }
    }

    /// Where the next line begins, and its bytes without the newline. None at the beginning of the file.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        if self.end == 0 {
            return Ok(None);
        }
        loop {
            let length = usize::try_from(self.end - self.from).unwrap_or_default();
            let held = self.held.get(..length).unwrap_or_default();
            let inner = held.len().saturating_sub(1);
            let newline = held.get(..inner).and_then(|held| held.iter().rposition(|byte| *byte == b'\n'));
            if let Some(at) = newline.map(|at| at + 1).or((self.from == 0).then_some(0)) {
                let line = held.get(at..inner).unwrap_or_default().to_vec();
                self.end = self.from + at as u64;
                return Ok(Some((self.end, line)));
            }
            if held.len() > MAX_LINE {
                return Err(too_long());
            }
            // twice as much each time, so that a long line is not read in small steps
            let more = (held.len() as u64).max(CHUNK as u64).min(self.from);
            let mut bytes = vec![0; usize::try_from(more).unwrap_or_default()];
            self.file.read_exact_at(&mut bytes, self.from - more)?;
            bytes.extend_from_slice(held);
            (self.held, self.from) = (bytes, self.from - more);
        }
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
            return Err(too_long());
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

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it holds a line that is longer than any record")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_from_the_end_whole_whatever_their_length() {
        let lines: Vec<Vec<u8>> =
            [0, 1, 5, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 0, 7].iter().map(|n| vec![b'x'; *n]).collect();
        let mut file = tempfile::tempfile().unwrap();
        for line in &lines {
            file.write_all(line).unwrap();
            file.write_all(b"\n").unwrap();
        }
        let end = file.metadata().unwrap().len();
        let mut backward = Backward::new(&file, end);
        for line in lines.iter().rev() {
            let (_, found) = backward.next().unwrap().unwrap();
            assert_eq!(found.len(), line.len());
        }
        assert!(backward.next().unwrap().is_none());
        assert!(Backward::new(&tempfile::tempfile().unwrap(), 0).next().unwrap().is_none());
    }

    #[test]
    fn reading_begins_before_every_line_of_the_moment_or_later_and_near_the_first_of_them() {
        let mut file = tempfile::tempfile().unwrap();
        let mut starts = Vec::new();
        let mut size = 0;
        for second in 0..60_u64 {
            starts.push(size);
            // some are longer than what is read at once
            let filler = "x".repeat(if second % 10 == 0 { 3 * CHUNK } else { 5000 });
            let when = jiff::Timestamp::from_second(second.cast_signed()).unwrap();
            let line = format!("{{\"timestamp\":\"{when}\",\"detail\":\"{filler}\"}}\n");
            file.write_all(line.as_bytes()).unwrap();
            size += line.len() as u64;
        }
        for (second, first) in starts.iter().enumerate() {
            let since = jiff::Timestamp::from_second(second as i64).unwrap();
            let start = start_of(&file, size, since).unwrap();
            assert!(start <= *first && starts.contains(&start), "{second}: {start} of {first}");
            assert!(first - start <= 8 * CHUNK as u64, "{second}: {start} of {first}");
        }
        // a line that is being written ends where the file does
        file.write_all(&vec![b'x'; CHUNK + 1]).unwrap();
        let end = size + CHUNK as u64 + 1;
        assert_eq!(newline_after(&file, size, end).unwrap(), end);
        assert_eq!(newline_after(&file, 0, end).unwrap(), starts[1]);
    }

    #[test]
    fn a_line_longer_than_any_record_is_read_no_further() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"{\"timestamp\":\"1970-01-01T00:00:00Z\"}\n").unwrap();
        let begin = file.metadata().unwrap().len();
        let end = begin + 2 * MAX_LINE as u64;
        file.set_len(end).unwrap();
        file.write_all_at(b"\n", end - 1).unwrap();
        let error = Backward::new(&file, end).next().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(line(&file, begin, end).unwrap(), None);
        assert_eq!(line(&file, 0, begin).unwrap().unwrap().len() as u64, begin);
    }
}
