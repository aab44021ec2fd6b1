//! Reading records back: a stream of lines, each judged on its own.

use std::io::{self, BufRead, Read};

use jiff::Timestamp;
use serde::Deserialize;

use super::record::MAX_LINE;

/// A record as it stands in the log. Members that this version does not know are ignored; missing ones are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RecordLine {
    /// When, RFC 3339.
    pub timestamp: String,
    /// What was asked.
    pub action: String,
    /// The caller's process.
    pub pid: u32,
    /// The caller's executable.
    pub binary_path: String,
    /// Its digest, `sha256:<hex>`.
    pub binary_hash: String,
    /// The service.
    pub service: String,
    /// The names.
    pub targets: Vec<String>,
    /// `GRANTED`, `DENIED` or `ERROR`.
    pub result: String,
    /// The reason of the reply.
    pub reason: Option<String>,
    /// More about the reason.
    pub detail: Option<String>,
    /// The caller's user.
    pub uid: Option<u32>,
    /// How many refusals it stands for, where several are folded into one.
    pub count: Option<u64>,
    /// The record's number.
    pub seq: Option<u64>,
    /// Its keyed hash.
    pub mac: Option<String>,
}

impl RecordLine {
    /// Reads one line, with or without its newline.
    pub fn parse(line: &[u8]) -> Result<Self, BadLine> {
        // a derived reader would take a list of the members as well
        if line.first() != Some(&b'{') {
            return Err(BadLine);
        }
        serde_json::from_slice(line).map_err(|_| BadLine)
    }

    /// When it was, if the timestamp is one.
    pub fn when(&self) -> Option<Timestamp> {
        self.timestamp.parse().ok()
    }
}

/// A line that is no record: foreign, cut or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an audit record")]
pub struct BadLine;

/// Which records are wanted. Empty wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Not younger than this.
    pub until: Option<Timestamp>,
    /// This executable, by its path, or by its file name where there is no slash in it.
    pub binary: Option<String>,
    /// This service.
    pub service: Option<String>,
    /// This name among those of the record.
    pub target: Option<String>,
    /// This action.
    pub action: Option<String>,
    /// This result, in either case.
    pub result: Option<String>,
    /// This reason.
    pub reason: Option<String>,
    /// This process.
    pub pid: Option<u32>,
}

impl Filter {
    /// Whether the record is wanted. One without a readable time is older than any `since`.
    pub fn admits(&self, record: &RecordLine) -> bool {
        let equal = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        self.since.is_none_or(|since| record.when().is_some_and(|when| when >= since))
            && self.until.is_none_or(|until| record.when().is_some_and(|when| when <= until))
            && self.binary.as_deref().is_none_or(|wanted| is_of(wanted, &record.binary_path))
            && equal(&self.service, &record.service)
            && self.target.as_ref().is_none_or(|wanted| record.targets.contains(wanted))
            && equal(&self.action, &record.action)
            && self.pid.is_none_or(|wanted| wanted == record.pid)
            && self.result.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&record.result))
            && equal(&self.reason, record.reason.as_deref().unwrap_or_default())
    }
}

/// Whether a program is the one that is wanted. Where it is wanted by its whole path, only that counts.
fn is_of(wanted: &str, path: &str) -> bool {
    wanted == path || !wanted.contains('/') && path.rsplit('/').next() == Some(wanted)
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: u64,
    /// Its bytes without the newline; at most [`MAX_LINE`] of them.
    pub bytes: Vec<u8>,
    /// Whether its newline is there; otherwise it is being written, or was cut.
    pub whole: bool,
    /// What it says.
    pub record: Result<RecordLine, BadLine>,
}

/// The lines of a log, from an open reader. Holds one line at a time.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads from where the reader stands.
    pub fn new(reader: R) -> Self {
        Self { reader, number: 0 }
    }

    fn next_line(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        let limit = MAX_LINE as u64 + 1;
        if self.reader.by_ref().take(limit).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let whole = bytes.pop_if(|last| *last == b'\n').is_some();
        if !whole && bytes.len() > MAX_LINE {
            self.reader.skip_until(b'\n')?;
        }
        let record = if whole { RecordLine::parse(&bytes) } else { Err(BadLine) };
        Ok(Some(Line { number: self.number, bytes, whole, record }))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().transpose()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const LOG: &str = concat!(
        r#"{"timestamp":"2026-05-21T10:00:00Z","action":"read","pid":1,"binary_path":"/bin/a","service":"s","#,
        r#""targets":["t"],"result":"GRANTED","uid":7,"seq":1,"mac":"later"}"#,
        "\nnot json\n",
        r#"{"timestamp":"2026-05-21T11:00:00Z","binary_path":"/bin/b","service":"s","result":"DENIED","#,
        r#""reason":"service_not_allowed","seq":2}"#,
        "\n{\"timestamp\":\"2026-",
    );

    fn matching(filter: &Filter) -> Vec<Option<u64>> {
        let lines = Lines::new(LOG.as_bytes()).map(|line| line.unwrap().record);
        lines.filter_map(Result::ok).filter(|record| filter.admits(record)).map(|record| record.seq).collect()
    }

    #[test]
    fn a_line_that_is_no_record_hides_no_other() {
        let lines: Vec<Line> = Lines::new(LOG.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!((lines[1].number, &lines[1].record), (2, &Err(BadLine)));
        assert_eq!(lines[3].record, Err(BadLine));
        assert_eq!(lines[0].record.as_ref().unwrap().uid, Some(7));
    }

    #[test]
    fn a_filter_admits_what_satisfies_all_of_it() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(matching(&Filter::default()), [Some(1), Some(2)]);
        assert_eq!(
            matching(&Filter { service: some("s"), result: some("denied"), ..Filter::default() }),
            [Some(2)]
        );
        assert_eq!(matching(&Filter { binary: some("/bin/a"), ..Filter::default() }), [Some(1)]);
        assert_eq!(matching(&Filter { reason: some("other"), ..Filter::default() }), []);
        let since = Some("2026-05-21T11:00:00Z".parse().unwrap());
        assert_eq!(matching(&Filter { since, ..Filter::default() }), [Some(2)]);
    }
}
