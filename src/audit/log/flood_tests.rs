#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use super::*;
use crate::audit::{
    FOLD_BEYOND, FOLD_PERIOD, RecordLine, open,
    query::Lines,
    trials::{begun, event, wrong},
};

fn refusal(path: &str, pid: u32) -> Event {
    let reason = Some("binary_not_registered");
    Event { pid, binary_path: path.into(), outcome: Outcome::Denied, reason, ..event("x") }
}

/// The records from this number on: whose they are, and for how many they stand.
fn from(path: &Path, seq: u64) -> Vec<(String, u32, Option<u64>)> {
    let records: Vec<RecordLine> =
        Lines::new(open(path).unwrap()).map(|line| line.unwrap().record.unwrap()).collect();
    let records = records.into_iter().filter(|record| record.seq >= Some(seq));
    records.map(|record| (record.binary_path, record.pid, record.count)).collect()
}

/// A log in which a stranger was refused as often as each has a record, and fifty times more, which are gathered.
fn flooded(log: &mut Log, now: Instant) -> u64 {
    for seq in 4..4 + FOLD_BEYOND {
        assert_eq!(log.append_refusal(&refusal("/x", 1), now).unwrap().seq(), seq);
    }
    let last = log.head().seq;
    for pid in 1..=50 {
        assert_eq!(log.append_refusal(&refusal("/x", pid), now).unwrap().seq(), last, "it is counted only");
    }
    last
}

#[test]
fn a_flood_shares_a_record_that_says_how_many_it_stands_for_and_what_is_granted_does_not_wait() {
    let (_dir, path, mut log) = begun();
    let now = Instant::now();
    let last = flooded(&mut log, now);
    assert_eq!(log.append_refusal(&event("granted"), now).unwrap().seq(), last + 1);
    let almost = now + FOLD_PERIOD - Duration::from_nanos(1);
    assert!(log.write_gathered(almost, false).unwrap(), "something is left");
    assert_eq!(log.head().seq, last + 1);
    assert!(!log.write_gathered(now + FOLD_PERIOD, false).unwrap());
    let granted = ("/usr/bin/tool".to_owned(), 7, None);
    assert_eq!(from(&path, last + 1), [granted, ("/x".to_owned(), 50, Some(50))]);
    assert!(!log.write_gathered(now + 2 * FOLD_PERIOD, true).unwrap());
    assert_eq!(log.head().seq, last + 2, "it has one record");
    assert_eq!(wrong(&path, &log.head()), []);
}

#[test]
fn what_was_gathered_goes_out_before_the_next_refusal_or_at_once_where_all_of_it_shall() {
    let (_dir, path, mut log) = begun();
    let now = Instant::now();
    let last = flooded(&mut log, now);
    let other = log.append_refusal(&refusal("/y", 9), now + FOLD_PERIOD).unwrap();
    assert_eq!(other.seq(), last + 2);
    let expected = [("/x".to_owned(), 50, Some(50)), ("/y".to_owned(), 9, None)];
    assert_eq!(from(&path, last + 1), expected);
    // within the same minute it goes on, and a daemon that ends does not wait for it
    assert_eq!(log.append_refusal(&refusal("/x", 51), now + FOLD_PERIOD).unwrap().seq(), last + 2);
    assert!(!log.write_gathered(now + FOLD_PERIOD, true).unwrap());
    assert_eq!(from(&path, last + 3), [("/x".to_owned(), 51, Some(1))]);
}

#[test]
fn what_was_gathered_and_could_not_be_written_goes_out_later_and_once() {
    let (_dir, path, mut log) = begun();
    let now = Instant::now();
    let last = flooded(&mut log, now);
    // a file that can't be written, nor cut
    let file = std::mem::replace(&mut log.file, File::open(&path).unwrap());
    for _ in 0..2 {
        assert!(log.write_gathered(now, true).is_err());
    }
    assert_eq!(log.head().seq, last);
    log.file = file;
    for _ in 0..2 {
        assert!(!log.write_gathered(now, false).unwrap());
    }
    assert_eq!(from(&path, last + 1), [("/x".to_owned(), 50, Some(50))]);
    assert_eq!(wrong(&path, &log.head()), []);
}
