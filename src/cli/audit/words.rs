//! Audit records in words: one line for people.

use std::io::{self, BufRead, Read};

use crate::audit::{Boundary, RecordLine};

/// One line for people, in three pieces. Columns grow with what they hold: an audit hides nothing.
pub(super) fn columns(record: &RecordLine) -> [String; 3] {
    let or_dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
    let mut end = Vec::new();
    if !record.targets.is_empty() {
        end.push(record.targets.join(","));
    }
    end.extend(record.count.map(|count| format!("{count} times")));
    end.extend(record.reason.as_ref().map(|text| format!("[{text}]")));
    end.extend(match Boundary::of(record) {
        Some(Boundary { epoch, .. }) => Some(format!("[epoch {epoch} of the chain begins]")),
        None => record.detail.as_ref().map(|text| format!("[{text}]")),
    });
    [
        format!("{:<30}  ", record.timestamp),
        format!("{:<7}", record.result),
        format!(
            "  {:<7} {:>7}  {:<32}  {:<20}  {}",
            record.action,
            record.pid,
            or_dash(&record.binary_path),
            or_dash(&record.service),
            end.join(" ")
        ),
    ]
}

/// A reader that knows how much was taken from it: a log is followed from where its last whole line ended.
pub(super) struct Counted<R> {
    reader: R,
    taken: u64,
}

impl<R> Counted<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, taken: 0 }
    }

    /// Bytes taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(bytes)?;
        self.taken += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.taken += count as u64;
        self.reader.consume(count);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LINE: &[u8] = br#"{"timestamp":"2026-05-21T10:34:02Z","action":"read","pid":8412,"binary_path":"/usr/local/bin/agentsecrets","binary_hash":"sha256:x","service":"agentsecrets","targets":["a/KEY","b/KEY"],"result":"DENIED","reason":"service_not_allowed","seq":7,"mac":"00"}"#;

    #[test]
    fn a_record_is_one_aligned_line() {
        let columns = columns(&RecordLine::parse(LINE).unwrap()).concat();
        assert_eq!(
            columns,
            "2026-05-21T10:34:02Z            DENIED   read       8412  /usr/local/bin/agentsecrets       agentsecrets          a/KEY,b/KEY [service_not_allowed]"
        );
    }
}
