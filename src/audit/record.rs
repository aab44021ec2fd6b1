//! One event, and its line.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::json::push_string;
use crate::{
    digest::Digest,
    name::{Service, Target},
    wire,
};

/// Longest line of the log, in bytes. Every touched target is named, so nothing is cut: an answer has at most 10 MiB of
/// names, escaping at most doubles a name, and path and detail are a few KiB.
pub const MAX_LINE: usize = 24 * 1024 * 1024;

/// What was asked for, or what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// A request.
    Request(wire::Action),
    /// A connection that came to no readable request.
    Connect,
    /// A change of the policy, or of the log itself.
    Policy,
    /// Secrets that the owner of the vault took in from elsewhere.
    Import,
    /// Secrets that the owner of the vault took out of it.
    Export,
    /// Names that the owner of the vault had listed.
    List,
    /// The vault as a whole: locked, unlocked, given another key.
    Vault,
}

impl Action {
    /// All that a record can carry.
    pub const ALL: [Self; 11] = {
        let [read, write, delete, search, check] = wire::Action::ALL;
        [
            Self::Request(read),
            Self::Request(write),
            Self::Request(delete),
            Self::Request(search),
            Self::Request(check),
            Self::Connect,
            Self::Policy,
            Self::Import,
            Self::Export,
            Self::List,
            Self::Vault,
        ]
    };

    /// The word in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request(action) => action.as_str(),
            Self::Connect => "connect",
            Self::Policy => "policy",
            Self::Import => "import",
            Self::Export => "export",
            Self::List => "list",
            Self::Vault => "vault",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Done.
    Granted,
    /// Refused by identity or policy.
    Denied,
    /// Not answered for another reason.
    Error,
}

impl Outcome {
    /// The word in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "GRANTED",
            Self::Denied => "DENIED",
            Self::Error => "ERROR",
        }
    }
}

/// One event, before it has its place in the log.
///
/// Its line has the members `timestamp`, `action`, `pid`, `binary_path`, `binary_hash`, `service`, `targets`, `result`,
/// then `reason` and `detail` where there is one, then `uid`, `count` where it is more than one, and, given by the log,
/// `seq` and `mac`. What is unknown is `0`, an
/// empty string or an empty list, so that the first eight are always there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it was asked. Written in UTC with nanoseconds, so that no two events of one process have the same line.
    pub timestamp: Timestamp,
    /// What was asked.
    pub action: Action,
    /// The caller's process; 0 if it is unknown.
    pub pid: u32,
    /// The caller's executable; empty if it is unknown. Written with replacement characters where it is not UTF-8.
    pub binary_path: PathBuf,
    /// The digest of the executable's bytes, if it was taken.
    pub binary_hash: Option<Digest>,
    /// The service, if one was asked for.
    pub service: Option<Service>,
    /// The names that were touched or returned; for a refused request, those it asked for.
    pub targets: Vec<Target>,
    /// How it ended.
    pub outcome: Outcome,
    /// The reason of the reply. None when it was granted.
    pub reason: Option<&'static str>,
    /// More about the reason: the check that failed, where a file is broken. Never bytes of a request.
    pub detail: Option<Cow<'static, str>>,
    /// The caller's user.
    pub uid: u32,
    /// How many such refusals the record stands for, where a stranger's are folded into one.
    pub count: Option<u64>,
}

impl Event {
    /// The line up to where the log adds its number. Ends inside the object: `{"timestamp":…,"uid":1000`.
    pub fn render(&self) -> Vec<u8> {
        self.render_with(&self.targets)
    }

    /// The same line with the names that a change touched, which only the store's transaction knows.
    pub fn render_with(&self, touched: &[Target]) -> Vec<u8> {
        let names = touched.iter().map(|target| target.as_str().len() + 3).sum::<usize>();
        let mut out = Vec::with_capacity(512 + names);
        out.push(b'{');
        raw(&mut out, "timestamp", &format!("\"{:.9}\"", self.timestamp));
        text(&mut out, "action", self.action.as_str());
        raw(&mut out, "pid", &self.pid.to_string());
        text(&mut out, "binary_path", &lossy(&self.binary_path));
        text(&mut out, "binary_hash", &self.binary_hash.map(|hash| hash.to_string()).unwrap_or_default());
        text(&mut out, "service", self.service.as_ref().map_or("", Service::as_str));
        raw(&mut out, "targets", "[");
        for (index, target) in touched.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push_string(&mut out, target.as_str());
        }
        out.push(b']');
        text(&mut out, "result", self.outcome.as_str());
        if let Some(reason) = self.reason {
            text(&mut out, "reason", reason);
        }
        if let Some(detail) = &self.detail {
            text(&mut out, "detail", detail);
        }
        raw(&mut out, "uid", &self.uid.to_string());
        if let Some(count) = self.count {
            raw(&mut out, "count", &count.to_string());
        }
        out
    }
}

fn lossy(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy()
}

fn raw(out: &mut Vec<u8>, member: &str, value: &str) {
    if out.len() > 1 {
        out.push(b',');
    }
    push_string(out, member);
    out.push(b':');
    out.extend_from_slice(value.as_bytes());
}

fn text(out: &mut Vec<u8>, member: &str, value: &str) {
    raw(out, member, "");
    push_string(out, value);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_granted_read_has_the_members_of_the_quickstart_in_its_order() {
        let event = Event {
            timestamp: "2026-05-21T10:34:02.123456789Z".parse().unwrap(),
            action: Action::Request(wire::Action::Read),
            pid: 8412,
            binary_path: "/usr/local/bin/agentsecrets".into(),
            binary_hash: Some(Digest::new([0xfd; 32])),
            service: Some(Service::parse("agentsecrets").unwrap()),
            targets: vec![
                Target::parse("production/OPENAI_API_KEY").unwrap(),
                Target::parse("a\"b\\c").unwrap(),
            ],
            outcome: Outcome::Granted,
            reason: None,
            detail: None,
            uid: 1000,
            count: None,
        };
        let expected = format!(
            concat!(
                r#"{{"timestamp":"2026-05-21T10:34:02.123456789Z","action":"read","pid":8412,"#,
                r#""binary_path":"/usr/local/bin/agentsecrets","binary_hash":"sha256:{}","#,
                r#""service":"agentsecrets","targets":["production/OPENAI_API_KEY","a\"b\\c"],"#,
                r#""result":"GRANTED","uid":1000"#
            ),
            "fd".repeat(32)
        );
        assert_eq!(String::from_utf8(event.render()).unwrap(), expected);
    }

    #[test]
    fn what_is_unknown_is_empty_and_what_misleads_is_escaped() {
        let event = Event {
            timestamp: "2026-05-21T10:34:02Z".parse().unwrap(),
            action: Action::Connect,
            pid: 0,
            binary_path: "/tmp/\u{1b}[2J\u{202e}\n\u{85}x".into(),
            binary_hash: None,
            service: None,
            targets: Vec::new(),
            outcome: Outcome::Denied,
            reason: Some("untrusted_caller"),
            detail: Some("peer_gone".into()),
            uid: 0,
            count: Some(7),
        };
        let expected = concat!(
            r#"{"timestamp":"2026-05-21T10:34:02.000000000Z","action":"connect","pid":0,"#,
            r#""binary_path":"/tmp/\u001b[2J\u202e\u000a\u0085x","binary_hash":"","service":"","targets":[],"#,
            r#""result":"DENIED","reason":"untrusted_caller","detail":"peer_gone","uid":0,"count":7"#
        );
        assert_eq!(String::from_utf8(event.render()).unwrap(), expected);
    }
}
