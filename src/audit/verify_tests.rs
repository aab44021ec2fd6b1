#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::{
    audit::{Action, Because, Event, trials::event},
    chain::link,
};

/// Lines that somebody writes who has the key of the chain.
struct Written {
    key: VerificationKey,
    ratchet: Ratchet,
    head: Head,
    /// The first record of the last epoch.
    first: u64,
    text: Vec<u8>,
}

impl Written {
    fn begun() -> Self {
        let key = VerificationKey::parse("0b".repeat(32).as_bytes()).unwrap();
        let head = Head { chain: key.chain(), ..Head::default() };
        let mut written = Self { ratchet: key.first(), key, head, first: 0, text: Vec::new() };
        written.boundary(0, 0);
        written
    }

    fn line(&mut self, event: &Event) {
        let mut line = Vec::new();
        self.head = link(&self.ratchet, &self.head, &event.render(), &mut line);
        self.text.extend(line);
    }

    fn records(&mut self, count: usize) {
        for _ in 0..count {
            self.line(&event("x"));
        }
    }

    /// Begins this epoch and says that the one before had so many records.
    fn boundary(&mut self, epoch: u64, count: u64) {
        self.head.epoch = epoch;
        let Head { chain, epoch, seq, mac: previous, digest } = self.head;
        let boundary =
            Boundary { chain, epoch, because: Because::Full, first: self.first, count, previous, digest };
        self.first = seq + 1;
        let detail = Some(boundary.to_string().into());
        self.line(&Event { action: Action::Policy, detail, ..event("x") });
    }

    fn checked(self) -> Verdict {
        self.checked_while(false)
    }

    fn checked_while(self, live: bool) -> Verdict {
        let witnesses = Witnesses { key: Some(self.key), head: Some(self.head), checkpoints: Vec::new() };
        let file = LogFile { path: "audit.log".into(), reader: Box::new(io::Cursor::new(self.text)) };
        verify(vec![file], witnesses, live, |_| {}).unwrap()
    }
}

fn found(verdict: &Verdict) -> Vec<(u64, Wrong)> {
    verdict.findings.iter().map(|finding| (finding.line, finding.wrong)).collect()
}

#[test]
fn half_a_line_at_the_end_is_one_that_is_being_written_only_where_a_daemon_writes_and_nothing_known_is_in_it()
{
    for (live, known, expected) in [
        (true, false, vec![]),
        (false, false, vec![(4, Wrong::NoRecord)]),
        (true, true, vec![(4, Wrong::NoRecord), (5, Wrong::Cut { from: 4, to: 4 })]),
    ] {
        let mut log = Written::begun();
        log.records(2);
        let before = log.head;
        log.records(1);
        log.text.truncate(log.text.len() - 10);
        if !known {
            log.head = before;
        }
        assert_eq!(found(&log.checked_while(live)), expected, "{live} {known}");
    }
}

#[test]
fn an_epoch_that_says_another_number_of_records_than_stand_there_is_found_also_where_every_hash_fits() {
    for (says, expected) in [(4, vec![]), (3, vec![(5, Wrong::Count { was: 3, is: 4 })])] {
        let mut log = Written::begun();
        log.records(3);
        log.ratchet = log.ratchet.next();
        log.boundary(1, says);
        log.records(2);
        let verdict = log.checked();
        assert_eq!(found(&verdict), expected);
        assert_eq!((verdict.keyed, verdict.compared), (7, true));
    }
}

#[test]
fn an_earlier_epoch_behind_a_later_one_is_found_and_checked_under_its_own_key() {
    for forged in [false, true] {
        let mut log = Written::begun();
        log.ratchet = log.ratchet.next();
        log.boundary(1, 1);
        log.ratchet = if forged { log.ratchet.next() } else { log.key.first() };
        log.boundary(0, 1);
        let verdict = log.checked();
        let mut expected = vec![(3, Wrong::Epoch)];
        expected.extend(forged.then_some((3, Wrong::Forged)));
        assert_eq!(found(&verdict), expected);
        assert_eq!(verdict.keyed, 3);
    }
}

#[test]
fn a_number_of_an_epoch_that_no_chain_reaches_is_not_counted_up_to() {
    let mut log = Written::begun();
    log.boundary(u64::MAX, 1);
    let verdict = log.checked();
    assert_eq!(found(&verdict), [(2, Wrong::Epoch), (2, Wrong::Epoch)]);
    assert_eq!(verdict.keyed, 1);
}

#[test]
fn of_very_many_findings_the_first_are_kept_and_all_are_counted() {
    let mut log = Written::begun();
    log.records(1);
    for _ in 0..MAX_FINDINGS + 5 {
        log.text.extend_from_slice(b"no record\n");
    }
    let verdict = log.checked();
    assert_eq!((verdict.findings.len(), verdict.wrong), (MAX_FINDINGS, MAX_FINDINGS as u64 + 5));
    assert!(verdict.findings.iter().all(|finding| finding.wrong == Wrong::NoRecord));
    assert_eq!(verdict.findings[0].line, 3);
}

#[test]
fn whatever_is_wrong_is_said_with_its_numbers() {
    let (from, to) = (4, 9);
    let words = [
        (Wrong::NoRecord, "this line is no record"),
        (Wrong::Unchained, "this record has no number and hash of the chain"),
        (Wrong::Headless, "the beginning of this epoch is missing before it, or was changed"),
        (Wrong::Missing { from, to: from }, "record 4 is missing before it"),
        (Wrong::Missing { from, to }, "records 4 to 9 are missing before it"),
        (Wrong::Repeated, "a record with this number was there already: doubled or moved"),
        (Wrong::Forged, "its hash does not fit: the record or its place was changed"),
        (Wrong::Changed { from, to }, "a record between 4 and 9 was changed"),
        (Wrong::Epoch, "this epoch does not follow the one before it"),
        (Wrong::Unannounced, "a chain begins that the record before it does not announce"),
        (Wrong::Count { was: 4, is: 9 }, "the epoch that ended had 4 records, and 9 are there"),
        (Wrong::Removed { to }, "what was here before was removed: records up to 9 are missing"),
        (
            Wrong::Known { from, to },
            "this is not the log that the daemon wrote: a record between 4 and 9 was changed",
        ),
        (Wrong::Cut { from, to: from }, "the log ends before record 4"),
        (Wrong::Cut { from, to }, "the log ends before records 4 to 9"),
    ];
    for (wrong, said) in words {
        assert_eq!(wrong.to_string(), said);
    }
}
