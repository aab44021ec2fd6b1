//! What audit.log says, and the shape that every line of it must have.

use std::fs;

use serde_json::{Value, json};

use crate::world::{World, await_that};

/// The members of a record, in the only order in which they may stand.
const ORDER: [&str; 14] = [
    "timestamp",
    "action",
    "pid",
    "binary_path",
    "binary_hash",
    "service",
    "targets",
    "result",
    "reason",
    "detail",
    "uid",
    "count",
    "seq",
    "mac",
];
const ACTIONS: [&str; 11] =
    ["read", "write", "delete", "search", "check", "connect", "policy", "import", "export", "list", "vault"];
const RESULTS: [&str; 3] = ["GRANTED", "DENIED", "ERROR"];

impl World {
    /// Every record of a request so far, and of what was done to the log. Fails on a line that is cut or not of the
    /// contract's shape.
    #[track_caller]
    pub fn audit(&self) -> Vec<Value> {
        let own = |record: &Value| record["action"] == "policy" && record["result"] == "GRANTED";
        self.audit_all().into_iter().filter(|record| !own(record)).collect()
    }

    /// Every record so far, also those with which epochs begin.
    #[track_caller]
    pub fn audit_all(&self) -> Vec<Value> {
        let text = match fs::read_to_string(self.data().join("audit.log")) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => panic!("audit.log: {error}"),
        };
        assert!(text.is_empty() || text.ends_with('\n'), "the last line is cut: {:?}", text.lines().last());
        text.lines().map(record).collect()
    }

    /// The records of one process.
    #[track_caller]
    pub fn audit_of(&self, pid: u32) -> Vec<Value> {
        self.audit().into_iter().filter(|record| record["pid"] == json!(pid)).collect()
    }

    /// Waits until a record satisfies `wanted`, and gives it. A refusal's record may follow its reply.
    #[track_caller]
    pub fn audit_where(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        await_that(what, || self.audit().into_iter().find(&wanted))
    }
}

fn record(line: &str) -> Value {
    let record: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON in audit.log: {line}"));
    let members = record.as_object().unwrap();
    let place = |name: &String| ORDER.iter().position(|known| known == name);
    assert!(members.keys().all(|name| place(name).is_some()), "an unknown member: {line}");
    assert!(members.keys().map(place).is_sorted(), "members out of order: {line}");
    for required in ["timestamp", "action", "result"] {
        assert!(members.contains_key(required), "no {required}: {line}");
    }
    assert!(ACTIONS.contains(&record["action"].as_str().unwrap()), "{line}");
    assert!(RESULTS.contains(&record["result"].as_str().unwrap()), "{line}");
    assert!(
        members.get("reason").is_none() == (record["result"] == "GRANTED"),
        "a reason stands on refusals only: {line}"
    );
    let time = record["timestamp"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T', "not RFC 3339 in UTC: {line}");
    record
}
