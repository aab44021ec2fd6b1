//! Records to one line: valid JSON that says exactly what the store found, and no byte after its end.
//!
//! The input is a list of records divided by the record separator (0x1e), their parts by the unit separator (0x1f):
//! target, value, then `name=value` for each attribute.

use std::collections::BTreeMap;

use keychain_auth::{
    audit::Outcome,
    name::{Attributes, Service, Target},
    policy::{Admitted, decide_change, decide_query},
    secret::{Buffer, SecretValue},
    store::{Change, Committed, Memory, Names, PendingChange, Query, Selection, Store, WriteItem},
    wire::{Fitting, Nonce, Reason, Reply, limits::MAX_REPLY},
};
use serde_json::{Map, Value, json};

use super::{
    Seen,
    receipts::{logged, receipt},
};
use crate::admitted::{admit, policy_for};

/// Every reason with its status, as the contract's table has them.
const REASONS: [(Reason, &str, &str); Reason::ALL.len()] = [
    (Reason::UnregisteredBinary, "denied", "unregistered_binary_pending_approval"),
    (Reason::ServiceNotAllowed, "denied", "service_not_allowed"),
    (Reason::ActionNotInPolicy, "denied", "action_not_in_policy"),
    (Reason::TargetNotAllowed, "denied", "target_not_allowed"),
    (Reason::UntrustedCaller, "denied", "untrusted_caller"),
    (Reason::MalformedRequest, "error", "malformed_request"),
    (Reason::PolicyUnsealed, "error", "policy_unsealed"),
    (Reason::StoreLocked, "error", "store_locked"),
    (Reason::AuditUnavailable, "error", "audit_unavailable"),
    (Reason::Overloaded, "error", "overloaded"),
    (Reason::ResponseTooLarge, "error", "response_too_large"),
    (Reason::InternalError, "error", "internal_error"),
];

type Model = BTreeMap<String, (String, BTreeMap<String, String>)>;

/// What is written is what replies say of it, and any message fits into a refusal.
pub fn hold(bytes: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(bytes);
    others(&text);
    let policy = policy_for(&["s"]);
    let admitted = admit(&policy);
    let (store, mut model) = (Memory::new(), Model::new());
    for record in text.split('\u{1e}') {
        let mut parts = record.split('\u{1f}');
        let (Some(target), Some(value)) = (parts.next(), parts.next()) else { continue };
        let mut attributes = Attributes::new();
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            // an attribute beyond a limit is left out
            let _ = attributes.insert(name, value);
        }
        write(&store, &admitted, target, value, attributes, &mut model);
    }
    for names in [Names::All, Names::Exact(model.keys().map(|name| target(name)).collect())] {
        for values in [true, false] {
            let selection = Selection { service: service(), names: names.clone(), filter: Attributes::new() };
            let query = decide_query(&admitted, Query { selection, values }).expect("all is allowed");
            let found = store.read(query).expect("a model does not fail");
            check_released(&found, &model, values);
        }
    }
    Seen::when(!model.is_empty())
}

fn service() -> Service {
    Service::parse("s").expect("a name")
}

fn target(name: &str) -> Target {
    Target::parse(name).expect("a name")
}

fn write(
    store: &Memory,
    admitted: &Admitted<'_>,
    name: &str,
    value: &str,
    attributes: Attributes,
    model: &mut Model,
) {
    let (Ok(target), Some(secret)) =
        (Target::parse(name), SecretValue::from_buffer(Buffer::from(value.as_bytes())))
    else {
        return;
    };
    let pairs = attributes.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    model.insert(name.to_owned(), (value.to_owned(), pairs));
    let change =
        Change::Write { service: service(), items: vec![WriteItem { target, value: secret }], attributes };
    let change = decide_change(admitted, change).expect("all is allowed");
    // the log refuses to break its own lines, so the line is a fixed one
    let record = Box::new(|_: &[Target]| br#"{"timestamp":"1970-01-01T00:00:00.000000000Z""#.to_vec());
    let mut done = store.commit(vec![PendingChange { change, record }]);
    let committed = done.pop().expect("one result").expect("a model does not fail");
    let entry = committed.outbox().expect("a change has a line");
    let _ = logged(entry);
    let line = Reply::changed(&committed, entry);
    assert_eq!(parse(&line), json!({"type": "RESPONSE", "status": "success", "results": []}));
}

fn check_released(found: &Committed, model: &Model, values: bool) {
    let fitting = Fitting::of(found).expect("an input is far smaller than a reply may be");
    let reply = Reply::released(&fitting, receipt(Outcome::Granted));
    assert!(reply.as_bytes().len() <= MAX_REPLY);
    let results: Vec<Value> = model
        .iter()
        .map(|(name, (value, attributes))| result(name, values.then_some(value), attributes))
        .collect();
    assert_eq!(parse(&reply), json!({"type": "RESPONSE", "status": "success", "results": results}));
}

/// One member of `results` as the contract has it.
pub(super) fn result(target: &str, value: Option<&String>, attributes: &BTreeMap<String, String>) -> Value {
    let mut result = Map::new();
    result.insert("target".into(), json!(target));
    if let Some(value) = value {
        result.insert("value".into(), json!(value));
    }
    if !attributes.is_empty() {
        result.insert("attributes".into(), json!(attributes));
    }
    Value::Object(result)
}

/// The one JSON object of a reply, which ends with the only line feed.
pub(super) fn parse(reply: &Reply) -> Value {
    let (end, line) = reply.as_bytes().split_last().expect("a reply is not empty");
    assert_eq!(*end, b'\n', "a reply ends its line");
    assert!(!line.contains(&b'\n'), "a reply is one line");
    serde_json::from_slice(line).expect("a reply is JSON")
}

/// The replies that release nothing, with any words in them.
fn others(text: &str) {
    let recorded = receipt(Outcome::Denied);
    for (reason, status, code) in REASONS {
        let reply = Reply::refusal(reason, text, &recorded);
        assert_eq!(
            parse(&reply),
            json!({"type": "RESPONSE", "status": status, "reason": code, "message": text})
        );
    }
    let hello = parse(&Reply::hello(text, &Nonce::new([0xa5; 32])));
    assert_eq!(hello, json!({"type": "HELLO", "version": text, "nonce": "a5".repeat(32)}));
    let facts = json!({"daemon_running": true, "warnings": [text]});
    assert_eq!(parse(&Reply::status(&facts)), facts);
    assert_eq!(parse(&Reply::unrecorded())["reason"], "audit_unavailable");
}
