//! One line of the audit log, and the questions that it can be asked.

use std::{
    io::{self, BufRead},
    path::Path,
};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// Longest line, in bytes: 1,024 targets of 1,024 bytes, every byte escaped, and room for the other members.
const MAX_LINE: usize = 8 * 1024 * 1024;

/// A record. What a later version adds is passed over; what is not there is empty.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    pub(super) timestamp: String,
    pub(super) action: String,
    pub(super) pid: Option<i64>,
    pub(super) binary_path: Option<String>,
    pub(super) service: Option<String>,
    pub(super) targets: Option<Vec<String>>,
    pub(super) result: String,
    pub(super) reason: Option<String>,
    pub(super) detail: Option<String>,
}

/// Which records are wanted. The default wants all.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) since: Option<Timestamp>,
    pub(super) binary: Option<String>,
    pub(super) service: Option<String>,
    pub(super) result: Option<String>,
    pub(super) reason: Option<String>,
}

impl Record {
    /// The record of a line, if it is one.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(line).ok()?;
        (!record.timestamp.is_empty() && !record.result.is_empty()).then_some(record)
    }

    /// One line for people, in columns that grow with what they hold: an audit hides nothing.
    pub(super) fn columns(&self) -> [String; 3] {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let pid = self.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let mut end = Vec::new();
        if let Some(targets) = self.targets.as_ref().filter(|targets| !targets.is_empty()) {
            end.push(targets.join(","));
        }
        end.extend([&self.reason, &self.detail].into_iter().flatten().map(|text| format!("[{text}]")));
        [
            format!("{:<20}  ", self.timestamp),
            format!("{:<7}", self.result),
            format!(
                "  {:<7} {pid:>7}  {:<32}  {:<20}  {}",
                self.action,
                or_dash(&self.binary_path),
                or_dash(&self.service),
                end.join(" ")
            ),
        ]
    }
}

impl Filter {
    /// Whether the record is wanted. One whose time can't be read is never hidden by `since`.
    pub(super) fn wants(&self, record: &Record) -> bool {
        let recent =
            |since: Timestamp| record.timestamp.parse::<Timestamp>().map_or(true, |time| time >= since);
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|text| found == Some(text))
        };
        self.since.is_none_or(recent)
            && self.binary.as_deref().is_none_or(|wanted| is_binary(wanted, record.binary_path.as_deref()))
            && is(&self.service, record.service.as_deref())
            && self.result.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&record.result))
            && is(&self.reason, record.reason.as_deref())
    }
}

/// By its path, or by its bare file name.
fn is_binary(wanted: &str, found: Option<&str>) -> bool {
    let Some(found) = found else { return false };
    let name = Path::new(found).file_name().and_then(|name| name.to_str());
    found == wanted || !wanted.contains('/') && name == Some(wanted)
}

/// Reads `2h`, `30m`, `7d`, `1h30m` or an RFC 3339 time.
pub(super) fn since(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let whole = |digits: &str, hours: i64| {
        digits.parse::<i64>().ok()?.checked_mul(hours).map(SignedDuration::try_from_hours)?
    };
    let ago = match (text.strip_suffix('d'), text.strip_suffix('w')) {
        (Some(days), _) => whole(days, 24),
        (_, Some(weeks)) => whole(weeks, 7 * 24),
        _ => text.parse().ok(),
    };
    let time = ago.filter(|ago| ago.is_positive()).and_then(|ago| now.checked_sub(ago).ok());
    time.ok_or_else(|| "a time is like 2h, 30m or 7d, or like 2026-05-21T10:34:02Z".to_owned())
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line with its end.
    Whole,
    /// The file ends within the line, or at its beginning.
    End,
    /// Longer than any record; it was passed over.
    TooLong,
}

/// Reads one line into `line`, never more than 8 MiB of it.
pub(super) fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let mut too_long = false;
    loop {
        let block = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            filled => filled?,
        };
        if block.is_empty() {
            return Ok(if too_long { Line::TooLong } else { Line::End });
        }
        let (used, ended) = match block.iter().position(|&byte| byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (block.len(), false),
        };
        too_long |= line.len() + used > MAX_LINE;
        if too_long {
            line.clear();
        } else {
            line.extend_from_slice(block.get(..used).unwrap_or_default());
        }
        reader.consume(used);
        if ended {
            return Ok(if too_long { Line::TooLong } else { Line::Whole });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LINE: &[u8] = br#"{"timestamp":"2026-05-21T10:34:02Z","action":"read","pid":8412,"binary_path":"/usr/local/bin/agentsecrets","binary_hash":"sha256:x","service":"agentsecrets","targets":["a/KEY","b/KEY"],"result":"DENIED","reason":"service_not_allowed","seq":7,"mac":"00"}"#;

    fn now() -> Timestamp {
        "2026-05-21T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_record_is_one_aligned_line() {
        let columns = Record::parse(LINE).unwrap().columns().concat();
        assert_eq!(
            columns,
            "2026-05-21T10:34:02Z  DENIED   read       8412  /usr/local/bin/agentsecrets       agentsecrets          a/KEY,b/KEY [service_not_allowed]"
        );
    }

    #[test]
    fn a_filter_takes_only_what_meets_all_of_its_parts() {
        let record = Record::parse(LINE).unwrap();
        let filter = |edit: fn(&mut Filter)| {
            let mut filter = Filter::default();
            edit(&mut filter);
            filter.wants(&record)
        };
        assert!(filter(|_| {}));
        assert!(filter(|filter| filter.since = since("2h", now()).ok()));
        assert!(!filter(|filter| filter.since = since("1h", now()).ok()));
        assert!(filter(|filter| filter.binary = Some("agentsecrets".into())));
        assert!(filter(|filter| filter.binary = Some("/usr/local/bin/agentsecrets".into())));
        assert!(!filter(|filter| filter.binary = Some("bin/agentsecrets".into())));
        assert!(filter(|filter| filter.result = Some("denied".into())));
        assert!(!filter(|filter| filter.result = Some("GRANTED".into())));
        assert!(!filter(|filter| filter.service = Some("AgentSecrets".into())));
        assert!(!filter(|filter| filter.reason = Some("other".into())));
    }

    #[test]
    fn a_time_is_a_distance_or_a_moment() {
        let hours = |text| (now().duration_since(since(text, now()).unwrap())).as_hours();
        assert_eq!((hours("2h"), hours("90m"), hours("7d"), hours("1w")), (2, 1, 168, 168));
        assert_eq!(since("2026-05-21T10:00:00Z", now()).unwrap().to_string(), "2026-05-21T10:00:00Z");
        for wrong in ["", "2", "soon", "-2h", "0h", "99999999999999999d", "d"] {
            assert!(since(wrong, now()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_are_read_one_by_one_and_an_endless_one_is_passed_over() {
        let long = vec![b'x'; MAX_LINE + 1];
        let bytes = [b"one\n".as_slice(), &long, b"\ntwo\nhalf"].concat();
        let mut reader = io::BufReader::with_capacity(1000, bytes.as_slice());
        let mut line = Vec::new();
        let mut next = || (next_line(&mut reader, &mut line).unwrap(), line.clone());
        assert_eq!(next(), (Line::Whole, b"one\n".to_vec()));
        assert_eq!(next().0, Line::TooLong);
        assert_eq!(next(), (Line::Whole, b"two\n".to_vec()));
        assert_eq!(next(), (Line::End, b"half".to_vec()));
    }
}
