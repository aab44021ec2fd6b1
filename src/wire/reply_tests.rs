#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::{
    admitted::{admit, policy_for},
    audit::{Log, Rotation, trials::event},
    chain::Head,
    name::{Attributes, Service, Target},
    policy::{decide_change, decide_query},
    secret::{MAX_VALUE, SecretValue},
    store::{Change, Memory, Names, PendingChange, Query, Seat, Selection, Store, WriteItem},
};

/// The receipt of a record in a real log: there is no other way to get one.
fn receipt() -> Receipt {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit/audit.log");
    let mut log = Log::open(&path, Seat::nowhere(), &Head::default(), Rotation::default()).unwrap();
    log.append(&event("x")).unwrap()
}

fn line(reply: &Reply) -> &str {
    std::str::from_utf8(reply.as_bytes()).unwrap()
}

fn service() -> Service {
    Service::parse("s").unwrap()
}

fn commit(store: &Memory, change: Change) -> Committed {
    let policy = policy_for(&["s"]);
    let change = decide_change(&admit(&policy), change).unwrap();
    let record = Box::new(|_: &[Target]| b"{}".to_vec());
    store.commit(vec![PendingChange { change, record }]).remove(0).unwrap()
}

/// A store with `a`, which has attributes, and `b`, which has none.
fn store() -> Memory {
    let store = Memory::new();
    let mut attributes = Attributes::new();
    attributes.insert("env", "dev").unwrap();
    attributes.insert("team", "\"x\"").unwrap();
    for (name, text, attributes) in [("a", "1\n\u{e9}", attributes), ("b", "", Attributes::new())] {
        let value = SecretValue::from_buffer(Buffer::from(text.as_bytes())).unwrap();
        let items = vec![WriteItem { target: Target::parse(name).unwrap(), value }];
        let _ = commit(&store, Change::Write { service: service(), items, attributes });
    }
    store
}

fn found(store: &Memory, values: bool) -> Committed {
    let policy = policy_for(&["s"]);
    let selection = Selection { service: service(), names: Names::All, filter: Attributes::new() };
    store.read(decide_query(&admit(&policy), Query { selection, values }).unwrap()).unwrap()
}

#[test]
fn what_is_released_is_one_line_that_ends_as_it_was_measured() {
    let store = store();
    let (read, searched) = (found(&store, true), found(&store, false));
    let released = |found: &Committed| {
        let fitting = Fitting::of(found).unwrap();
        let reply = Reply::released(&fitting, receipt());
        assert_eq!(reply.as_bytes().len(), fitting.length);
        line(&reply).to_owned()
    };
    assert_eq!(
        released(&read),
        concat!(
            r#"{"type":"RESPONSE","status":"success","results":["#,
            r#"{"target":"a","value":"1\né","attributes":{"env":"dev","team":"\"x\""}},"#,
            r#"{"target":"b","value":""}]}"#,
            "\n"
        )
    );
    assert_eq!(
        released(&searched),
        concat!(
            r#"{"type":"RESPONSE","status":"success","results":["#,
            r#"{"target":"a","attributes":{"env":"dev","team":"\"x\""}},{"target":"b"}]}"#,
            "\n"
        )
    );
}

#[test]
fn what_does_not_fit_into_a_reply_is_refused_before_it_is_recorded() {
    // six bytes for each in JSON
    let value = "\u{1}".repeat(MAX_VALUE);
    let (fits, beyond) = (MAX_REPLY / (6 * value.len()), MAX_REPLY / (6 * value.len()) + 1);
    let read = |count: usize| {
        let records = (0..count).map(|n| Record {
            target: Target::parse(&n.to_string()).unwrap(),
            value: SecretValue::from_buffer(Buffer::from(value.as_bytes())),
            attributes: Attributes::new(),
        });
        records.collect::<Vec<_>>()
    };
    assert!(measure(&read(fits)) <= MAX_REPLY);
    let store = Memory::new();
    let items = read(beyond).into_iter();
    let items = items.map(|Record { target, value, .. }| WriteItem { target, value: value.unwrap() });
    let write = Change::Write { service: service(), items: items.collect(), attributes: Attributes::new() };
    let _ = commit(&store, write);
    assert_eq!(Fitting::of(&found(&store, true)).err(), Some(TooLarge));
    assert!(Fitting::of(&found(&store, false)).is_ok());
}

#[test]
fn a_reply_may_be_exactly_as_long_as_replies_may_be() {
    let record = |number: usize, length: usize| Record {
        target: Target::parse(&format!("{number:04}")).unwrap(),
        value: SecretValue::from_buffer(Buffer::from("v".repeat(length).as_bytes())),
        attributes: Attributes::new(),
    };
    let (one, two) = (measure(&[record(0, 0)]), measure(&[record(0, 0), record(1, 0)]));
    let full = MAX_VALUE + two - one;
    let (count, last) = ((MAX_REPLY - one) / full, (MAX_REPLY - one) % full);
    let records = (0..count).map(|number| record(number, MAX_VALUE)).chain([record(count, last)]);
    let store = Memory::new();
    let items = records.map(|Record { target, value, .. }| WriteItem { target, value: value.unwrap() });
    let _ = commit(
        &store,
        Change::Write { service: service(), items: items.collect(), attributes: Attributes::new() },
    );
    let read = found(&store, true);
    let reply = Reply::released(&Fitting::of(&read).unwrap(), receipt());
    assert_eq!(reply.as_bytes().len(), MAX_REPLY);
}

#[test]
fn a_change_names_what_it_removed_and_nothing_of_what_it_wrote() {
    let store = store();
    let names = Names::Exact(["b", "none"].map(|name| Target::parse(name).unwrap()).to_vec());
    let removed =
        commit(&store, Change::Delete(Selection { service: service(), names, filter: Attributes::new() }));
    let reply = Reply::changed(&removed, removed.outbox().unwrap());
    assert_eq!(
        line(&reply),
        "{\"type\":\"RESPONSE\",\"status\":\"success\",\"results\":[{\"target\":\"b\"}]}\n"
    );
    let value = SecretValue::from_buffer(Buffer::from(&b"hunter2"[..])).unwrap();
    let items = vec![WriteItem { target: Target::parse("b").unwrap(), value }];
    let written = commit(&store, Change::Write { service: service(), items, attributes: Attributes::new() });
    let nothing = "{\"type\":\"RESPONSE\",\"status\":\"success\",\"results\":[]}\n";
    assert_eq!(line(&Reply::changed(&written, written.outbox().unwrap())), nothing);
    assert_eq!(line(&Reply::allowed(receipt())), nothing);
}

#[test]
fn every_refusal_has_the_status_that_the_protocol_gives_to_its_reason() {
    // the table of reasons: | `reason` | status | when | connection |
    let protocol = include_str!("../../docs/protocol.md");
    let table = protocol.split_once("\n## Reasons\n").unwrap().1.split_once("\n## ").unwrap().0;
    let rows = table.lines().filter_map(|row| row.strip_prefix("| `")?.split_once("` | "));
    let told: BTreeMap<&str, &str> =
        rows.map(|(reason, rest)| (reason, rest.split(' ').next().unwrap())).collect();
    assert_eq!(told.len(), Reason::ALL.len());
    for reason in Reason::ALL {
        let (code, status) = (reason.as_str(), told[reason.as_str()]);
        let reply = Reply::refusal(reason, "say \"please\"\n", &receipt());
        assert_eq!(
            line(&reply),
            format!(
                "{{\"type\":\"RESPONSE\",\"status\":\"{status}\",\"reason\":\"{code}\",\"message\":\"say \\\"please\\\"\\n\"}}\n"
            )
        );
    }
    let unrecorded = Reply::unrecorded();
    let expected = Reply::refusal(Reason::AuditUnavailable, UNRECORDED, &receipt());
    assert_eq!(line(&unrecorded), line(&expected));
}

#[test]
fn a_challenge_is_answered_with_the_version_and_the_nonce() {
    let reply = Reply::hello("0.1.0", &Nonce::new([0xa5; 32]));
    let nonce = "a5".repeat(32);
    assert_eq!(line(&reply), format!("{{\"type\":\"HELLO\",\"version\":\"0.1.0\",\"nonce\":\"{nonce}\"}}\n"));
}

#[test]
fn the_facts_of_a_status_are_the_line_and_no_more() {
    let reply = Reply::status(&json!({"type": "STATUS", "path": "a\nb"}));
    assert_eq!(line(&reply), "{\"type\":\"STATUS\",\"path\":\"a\\nb\"}\n");
}

#[test]
fn the_state_of_the_vault_is_told_with_a_nonce_only_where_a_key_is_asked_for() {
    let locked = "{\"type\":\"LOCK\",\"state\":\"locked\"}\n";
    assert_eq!(line(&Reply::vault("LOCK", "locked", receipt())), locked);
    assert_eq!(line(&Reply::vault_unchanged("LOCK", "locked")), locked);
    let unlocked = "{\"type\":\"UNLOCK\",\"state\":\"unlocked\"}\n";
    assert_eq!(line(&Reply::vault("UNLOCK", "unlocked", receipt())), unlocked);
    let asks = Reply::unlock_nonce("locked", &Nonce::new([0x0f; 32]));
    let nonce = "0f".repeat(32);
    assert_eq!(line(&asks), format!("{{\"type\":\"UNLOCK\",\"state\":\"locked\",\"nonce\":\"{nonce}\"}}\n"));
}

#[test]
fn the_seal_of_the_policy_is_told_sealed_and_a_new_one_by_its_state_alone() {
    let told = Reply::policy_seal("sealed", &Nonce::new([1; 32]), &[0xde, 0xad]);
    let nonce = "01".repeat(32);
    assert_eq!(
        line(&told),
        format!("{{\"type\":\"SEAL\",\"state\":\"sealed\",\"nonce\":\"{nonce}\",\"key\":\"dead\"}}\n")
    );
    let entry = OutboxEntry { id: 1, line: b"{}".to_vec() };
    let taken = Reply::policy_sealed("unsealed", &entry);
    assert_eq!(line(&taken), "{\"type\":\"SEAL\",\"state\":\"unsealed\"}\n");
}
