//! Lines of the audit log: nobody's line hides another's, and what is written is read back.

use jiff::Timestamp;
use keychain_auth::{
    audit::{Action, Event, Filter, Form, Line, Lines, Outcome, RecordLine, Verifier, Witnesses, export},
    chain::{Head, VerificationKey},
    digest::Digest,
    name::{Service, Target},
    wire,
};

use super::Seen;

/// Every line is read alone, none is lost; a record can be written again and says the same.
pub fn hold(log: &[u8]) -> Seen {
    let lines: Vec<_> = Lines::new(log).map(|line| line.expect("memory can be read")).collect();
    let joined = lines.iter().map(|line| line.bytes.as_slice()).collect::<Vec<_>>().join(&b'\n');
    assert_eq!(joined, log.strip_suffix(b"\n").unwrap_or(log), "a byte is lost");
    assert!(lines.iter().zip(1..).all(|(line, number)| line.number == number));
    is_judged_within_itself(&lines);
    let mut all = true;
    for line in &lines {
        match &line.record {
            Ok(record) => {
                assert_eq!(RecordLine::parse(&line.bytes).as_ref(), Ok(record));
                filters_by_what_it_says(record);
                is_written_and_read_back(record);
            }
            Err(error) => {
                assert_eq!(error.to_string(), "not an audit record");
                all = false;
            }
        }
    }
    Seen::when(all && !lines.is_empty())
}

/// A check of any bytes ends, names lines that are there, and finds what is no record.
fn is_judged_within_itself(lines: &[Line]) {
    for head in [None, Some(Head { seq: 3, mac: [0xa7; 32], digest: [0x7a; 32], ..Head::default() })] {
        let key = VerificationKey::parse(&[b'7'; 64]);
        let mut verifier = Verifier::new(Witnesses { key, head, checkpoints: Vec::new() });
        lines.iter().for_each(|line| verifier.line(0, line));
        let verdict = verifier.finish();
        assert_eq!(verdict.lines, lines.len() as u64);
        assert!(verdict.findings.iter().all(|it| it.line <= verdict.lines + 1));
        assert!(verdict.findings.len() as u64 <= verdict.wrong);
        let strange = lines.iter().filter(|line| line.record.is_err()).count();
        assert!(verdict.wrong >= strange as u64, "what is no record was passed over");
        // what was not made with the key is not whole under it, and what the head knows is not there
        assert!(verdict.keyed == 0 || verdict.wrong > 0, "a hash was guessed");
        assert!(head.is_none() || verdict.wrong > 0, "nothing is missing where all is");
    }
    for record in lines.iter().filter_map(|line| line.record.as_ref().ok()) {
        for form in [Form::Ecs, Form::Ocsf] {
            let text = export(record, form);
            assert!(text.starts_with('{') && !text.contains('\n'), "one object a line");
        }
        assert!(!export(record, Form::Cef).chars().any(char::is_control), "one line");
    }
}

fn filters_by_what_it_says(record: &RecordLine) {
    let filter = Filter {
        since: record.when(),
        binary: Some(record.binary_path.clone()),
        service: Some(record.service.clone()),
        result: Some(record.result.to_ascii_lowercase()),
        reason: Some(record.reason.clone().unwrap_or_default()),
        until: record.when(),
        target: record.targets.first().cloned(),
        action: Some(record.action.clone()),
        pid: Some(record.pid),
    };
    assert!(filter.admits(record), "a record does not match what it says");
    let later = record.when().and_then(|when| when.checked_add(jiff::SignedDuration::from_nanos(1)).ok());
    if let Some(later) = later {
        assert!(!Filter { since: Some(later), ..Filter::default() }.admits(record));
    }
    let other = format!("{}x", record.service);
    assert!(!Filter { service: Some(other), ..Filter::default() }.admits(record));
}

fn is_written_and_read_back(record: &RecordLine) {
    let targets: Vec<Target> = record.targets.iter().filter_map(|name| Target::parse(name).ok()).collect();
    let event = Event {
        timestamp: record.when().unwrap_or(Timestamp::UNIX_EPOCH),
        action: wire::Action::ALL
            .into_iter()
            .find(|action| action.as_str() == record.action)
            .map_or(Action::Connect, Action::Request),
        pid: record.pid,
        binary_path: record.binary_path.clone().into(),
        binary_hash: Digest::parse(&record.binary_hash),
        service: Service::parse(&record.service).ok(),
        targets,
        outcome: Outcome::Denied,
        reason: None,
        detail: record.detail.clone().map(Into::into),
        uid: record.uid.unwrap_or_default(),
        count: record.count,
    };
    let mut line = event.render();
    line.extend_from_slice(b",\"seq\":7}");
    let text = std::str::from_utf8(&line).expect("a record is UTF-8");
    assert!(!text.chars().any(char::is_control), "a record is one line and moves no cursor");
    let again = RecordLine::parse(&line).expect("what is written is a record");
    assert_eq!(again.when(), Some(event.timestamp));
    assert_eq!((again.pid, again.uid, again.seq), (event.pid, Some(event.uid), Some(7)));
    assert_eq!((&again.binary_path, &again.detail), (&record.binary_path, &record.detail));
    assert_eq!(again.service, event.service.as_ref().map_or("", Service::as_str));
    assert!(again.targets.iter().eq(event.targets.iter().map(Target::as_str)));
}
