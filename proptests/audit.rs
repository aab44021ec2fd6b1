//! An audit line is one JSON object with its members in order, whatever the words in it.

use keychain_auth::{
    audit::{Action, Event, Filter, Lines, Outcome, RecordLine},
    digest::Digest,
    name::{Service, Target},
    wire,
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::Value;

fn actions() -> Vec<Action> {
    wire::Action::ALL.into_iter().map(Action::Request).chain([Action::Connect, Action::Policy]).collect()
}

fn outcomes() -> Vec<Outcome> {
    vec![Outcome::Granted, Outcome::Denied, Outcome::Error]
}

prop_compose! {
    fn any_event()(
        nanoseconds in 0..4_000_000_000_000_000_000_i128,
        action in select(actions()), pid: u32, uid: u32,
        path in vec(any::<char>(), 0..40),
        hash in option::of(any::<[u8; 32]>()),
        service in option::of("[^\\p{Cc}]{1,30}"),
        targets in vec("[^\\p{Cc}]{1,30}", 0..6),
        outcome in select(outcomes()),
        reason in option::of(select(vec!["service_not_allowed", "audit_unavailable"])),
        detail in option::of(vec(any::<char>(), 0..40)),
        count in option::of(2_u64..1000),
    ) -> Event {
        Event {
            timestamp: jiff::Timestamp::from_nanosecond(nanoseconds).unwrap(),
            action, pid, uid, outcome, reason,
            binary_path: path.into_iter().collect::<String>().into(),
            binary_hash: hash.map(Digest::new),
            service: service.map(|service| Service::parse(&service).unwrap()),
            targets: targets.iter().map(|target| Target::parse(target).unwrap()).collect(),
            detail: detail.map(|detail| detail.into_iter().collect::<String>().into()),
            count,
        }
    }
}

proptest! {
    #[test]
    fn a_line_parses_back_to_its_event_with_its_members_in_order(event in any_event()) {
        let line = String::from_utf8(event.render()).unwrap() + ",\"seq\":7}";
        prop_assert!(!line.chars().any(char::is_control), "one line, and nothing that moves a cursor");
        let Value::Object(members) = serde_json::from_str(&line).unwrap() else { panic!("no object") };
        let mut order = vec![
            "timestamp", "action", "pid", "binary_path", "binary_hash", "service", "targets", "result",
        ];
        order.extend(event.reason.map(|_| "reason"));
        order.extend(event.detail.as_ref().map(|_| "detail"));
        order.push("uid");
        order.extend(event.count.map(|_| "count"));
        order.push("seq");
        prop_assert_eq!(members.keys().map(String::as_str).collect::<Vec<_>>(), order);

        let record = RecordLine::parse(line.as_bytes()).unwrap();
        prop_assert_eq!(record.when(), Some(event.timestamp));
        prop_assert_eq!(&record.action, event.action.as_str());
        prop_assert_eq!(record.binary_path.as_str(), event.binary_path.to_str().unwrap());
        prop_assert_eq!(&record.service, event.service.as_ref().map_or("", Service::as_str));
        prop_assert!(record.targets.iter().eq(event.targets.iter().map(Target::as_str)));
        prop_assert_eq!(record.detail.as_deref(), event.detail.as_deref());
        prop_assert_eq!((record.uid, record.seq), (Some(event.uid), Some(7)));
        let filter = Filter { since: Some(event.timestamp), reason: record.reason.clone(), ..Filter::default() };
        prop_assert!(filter.admits(&record));
    }

    #[test]
    fn any_bytes_are_read_as_lines_without_losing_one(bytes in vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300)) {
        let lines: Vec<_> = Lines::new(bytes.as_slice()).map(Result::unwrap).collect();
        let mut joined = lines.iter().map(|line| line.bytes.as_slice()).collect::<Vec<_>>().join(&b'\n');
        if bytes.last() == Some(&b'\n') {
            joined.push(b'\n');
        }
        prop_assert_eq!(joined, bytes);
    }
}
