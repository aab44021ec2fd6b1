//! The log as a file: crashes, hands from outside, full disks.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs::{self, File, OpenOptions},
    io::{BufReader, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::*;
use crate::{
    chain::Head,
    name::{Service, Target},
    store::{
        Outbox, OutboxEntry,
        files::scratch,
        seat::tests::seat,
        trials::disk_errors::{in_a_process_that_may_not_grow_files, limit},
    },
    wire,
};

pub(crate) fn event(target: &str) -> Event {
    Event {
        timestamp: Timestamp::now(),
        action: Action::Request(wire::Action::Write),
        pid: 7,
        binary_path: "/usr/bin/tool".into(),
        binary_hash: None,
        service: Some(Service::parse("s").unwrap()),
        targets: vec![Target::parse(target).unwrap()],
        outcome: Outcome::Granted,
        reason: None,
        detail: None,
        uid: 1000,
        count: None,
    }
}

pub(super) fn entry(id: u64, target: &str) -> OutboxEntry {
    OutboxEntry { id, line: event(target).render() }
}

/// An outbox in which these are the last lines.
pub(super) fn of(lines: &[OutboxEntry]) -> Outbox {
    Outbox { lines: lines.to_vec(), last: lines.last().map_or(0, |entry| entry.id) }
}

/// Every line as its targets, `epoch N` for a boundary, or `: detail` for what the log says about itself.
pub(super) fn said(path: &Path) -> Vec<String> {
    let lines = Lines::new(BufReader::new(File::open(path).unwrap()));
    let word = |line: Line| {
        let record = line.record.unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(&line.bytes)));
        let boundary = Boundary::of(&record).map(|it| format!("epoch {}", it.epoch));
        match boundary.or(record.detail) {
            Some(detail) => format!(": {detail}"),
            None => record.targets.join(","),
        }
    };
    lines.map(|line| word(line.unwrap())).collect()
}

/// The log, as a daemon with one vault key opens it.
pub(super) fn open(path: &Path) -> Result<Log, AuditError> {
    open_knowing(path, &Head::default())
}

pub(super) fn open_knowing(path: &Path, known: &Head) -> Result<Log, AuditError> {
    Log::open(path, seat(path.parent().unwrap()), known, Rotation::default())
}

pub(super) fn begun() -> (tempfile::TempDir, PathBuf, Log) {
    let dir = scratch();
    let path = dir.path().join("audit.log");
    let mut log = open(&path).unwrap();
    assert_eq!(log.append(&event("a")).unwrap().seq(), 2);
    assert_eq!(log.append(&event("b")).unwrap().seq(), 3);
    (dir, path, log)
}

/// What a check of all files finds that knows the head.
pub(super) fn wrong(path: &Path, head: &Head) -> Vec<Wrong> {
    let witnesses = Witnesses { head: Some(*head), ..Witnesses::default() };
    let verdict = verify(opened(path).unwrap(), witnesses, false, |_| {}).unwrap();
    verdict.findings.iter().map(|finding| finding.wrong).collect()
}

/// Waits for the disk; the outbox line that may be forgotten then.
pub(super) fn synced(log: &mut Log) -> Option<u64> {
    log.unsynced().unwrap().map(|unsynced| unsynced.sync().unwrap())
}

#[test]
fn numbers_go_on_when_the_log_is_opened_again() {
    use std::os::unix::fs::PermissionsExt;

    let (_dir, path, mut log) = begun();
    assert_eq!(synced(&mut log), Some(0));
    assert_eq!(synced(&mut log), None, "nothing was written since");
    drop(log);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let mut log = open(&path).unwrap();
    assert_eq!(log.append(&event("c")).unwrap().seq(), 5);
    assert_eq!(said(&path), [": epoch 0", "a", "b", ": epoch 1", "c"]);
    assert_eq!(wrong(&path, &log.head()), []);
}

#[test]
fn an_epoch_that_a_crash_left_without_a_record_is_begun_with_what_the_one_before_had() {
    let (_dir, path, log) = begun();
    drop(log);
    let before = fs::read(&path).unwrap();
    drop(open(&path).unwrap());
    // the key of the new epoch was saved, and its first record never came
    fs::write(&path, before).unwrap();
    let mut log = open(&path).unwrap();
    let _ = log.append(&event("c")).unwrap();
    assert_eq!(said(&path), [": epoch 0", "a", "b", ": epoch 1", "c"]);
    assert_eq!(wrong(&path, &log.head()), []);
}

#[test]
fn a_torn_last_line_is_cut_off_whole_ones_stay_and_a_record_says_so() {
    for left in [1, 20, 200] {
        let (_dir, path, log) = begun();
        drop(log);
        let text = fs::read(&path).unwrap();
        let line = text.split_inclusive(|byte| *byte == b'\n').next_back().unwrap();
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&line[..left.min(line.len() - 1)])
            .unwrap();
        let mut log = open(&path).unwrap();
        let _ = log.append(&event("c")).unwrap();
        let expected = [": epoch 0", "a", "b", ": epoch 1", ": half a line at the end was cut off", "c"];
        assert_eq!(said(&path), expected);
        assert_eq!(wrong(&path, &log.head()), []);
    }
}

#[test]
fn a_file_without_records_is_left_alone() {
    let dir = scratch();
    let path = dir.path().join("audit.log");
    drop(open(&path).unwrap());
    fs::write(&path, "somebody's notes\n").unwrap();
    assert_eq!(open(&path).err(), Some(AuditError::Foreign));
    assert_eq!(fs::read(&path).unwrap(), b"somebody's notes\n");
    // and under a log that is open nothing is recorded, so nothing is released, until it is gone
    let (_dir, path, mut log) = begun();
    fs::write(&path, "somebody's notes\n").unwrap();
    for _ in 0..2 {
        assert_eq!(log.append(&event("c")).err(), Some(AuditError::Foreign));
        assert_eq!(fs::read(&path).unwrap(), b"somebody's notes\n");
    }
    fs::remove_file(&path).unwrap();
    let _ = log.append(&event("c")).unwrap();
    assert_eq!(said(&path).last().unwrap(), "c");
}

#[test]
fn what_happens_to_the_file_from_outside_is_recorded_before_anything_else() {
    let gone = ": the file was removed or replaced; this one continues it";
    let (_dir, path, mut log) = begun();
    fs::remove_file(&path).unwrap();
    assert_eq!(log.append(&event("c")).unwrap().seq(), 6);
    assert_eq!(said(&path), [": epoch 1", gone, "c"]);
    assert_eq!(wrong(&path, &log.head()), [Wrong::Removed { to: 3 }]);

    let (dir, path, mut log) = begun();
    fs::rename(&path, dir.path().join("audit.log.1")).unwrap();
    let _ = log.append(&event("c")).unwrap();
    assert_eq!(said(&path), [": epoch 1", ": the file was moved away; this one continues it", "c"]);
    assert_eq!(said(&dir.path().join("audit.log.1")), [": epoch 0", "a", "b"]);
    assert_eq!(wrong(&path, &log.head()), [], "both files are one log");

    for (keep, rest) in [(0, 0), (1, 0), (2, 0), (2, 30)] {
        let (_dir, path, mut log) = begun();
        let text = fs::read(&path).unwrap();
        let ends: Vec<usize> =
            text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
        let length = if keep == 0 { 0 } else { ends[keep - 1] } + rest;
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length as u64).unwrap();
        let _ = log.append(&event("c")).unwrap();
        let mut expected = vec![": epoch 0", "a"][..keep].to_vec();
        expected.push(": epoch 1");
        expected.extend((rest > 0).then_some(": half a line at the end was cut off"));
        expected.extend([": the file was truncated", "c"]);
        assert_eq!(said(&path), expected);
        let missing = Wrong::Missing { from: keep as u64 + 1, to: 3 };
        let lost = if keep == 0 { Wrong::Removed { to: 3 } } else { missing };
        assert_eq!(wrong(&path, &log.head()), [lost], "the gap stays");
    }

    let (_dir, path, mut log) = begun();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{}\nhalf").unwrap();
    let _ = log.append(&event("c")).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 8, "{text}");
    assert!(text.contains("written by others"));
    assert_eq!(wrong(&path, &log.head()), [Wrong::Unchained]);
}

#[test]
fn an_exposed_or_linked_log_is_refused() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let (dir, path, log) = begun();
    drop(log);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(open(&path), Err(AuditError::File(_))));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&path, dir.path().join("real")).unwrap();
    symlink("real", &path).unwrap();
    assert!(matches!(open(&path), Err(AuditError::File(_))));
}

#[test]
fn the_outbox_is_replayed_without_losing_or_doubling_a_line() {
    let (_dir, path, mut log) = begun();
    let twin = event("twin").render();
    let outbox: Vec<OutboxEntry> = [entry(5, "in the log"), entry(6, "in the log too"), entry(7, "lost")]
        .into_iter()
        .chain([8, 9].map(|id| OutboxEntry { id, line: twin.clone() }))
        .collect();
    assert_eq!(log.replay(&Outbox { lines: Vec::new(), last: 4 }).unwrap(), 0);
    for logged in &outbox[..2] {
        let _ = log.append_rendered(logged).unwrap();
    }
    let _ = log.append(&event("between")).unwrap();
    assert_eq!(synced(&mut log), Some(6));
    drop(log);
    let mut log = open(&path).unwrap();
    assert_eq!(log.replay(&of(&outbox)).unwrap(), 3);
    assert_eq!(synced(&mut log), Some(9));
    assert_eq!(said(&path)[6..], [": epoch 1", "lost", "twin", "twin"]);
    assert_eq!(log.replay(&of(&outbox)).unwrap(), 0);
}

#[test]
fn a_change_that_is_told_of_after_a_replay_brought_its_line_is_not_written_again() {
    let (_dir, path, mut log) = begun();
    let [first, second, third] =
        [(1, "first"), (2, "second"), (3, "third")].map(|(id, line)| entry(id, line));
    let _ = log.append_rendered(&first).unwrap();
    // the others were committed, and whoever waits for them did not have his turn yet
    assert_eq!(log.replay(&of(&[first.clone(), second.clone(), third.clone()])).unwrap(), 2);
    for late in [&third, &second, &first] {
        assert!(log.append_rendered(late).unwrap().is_none());
    }
    assert!(log.append_rendered(&entry(4, "fourth")).unwrap().is_some());
    assert_eq!(said(&path)[3..], ["first", "second", "third", "fourth"]);
}

#[test]
fn a_line_behind_one_that_never_came_is_not_taken_and_nothing_is_granted_until_the_outbox_was_asked() {
    let (_dir, path, mut log) = begun();
    let lines = [(1, "first"), (2, "never told of"), (3, "third"), (4, "fourth")];
    let lines = lines.map(|(id, line)| entry(id, line));
    let _ = log.append_rendered(&lines[0]).unwrap();
    for behind in &lines[2..] {
        assert_eq!(log.append_rendered(behind), Err(AuditError::Incomplete));
    }
    assert_eq!(synced(&mut log), Some(1), "the store must not forget what is not here");
    assert_eq!(log.append(&event("granted")), Err(AuditError::Incomplete));
    assert_eq!(log.ready(), Err(AuditError::Incomplete));
    let refused = Event { outcome: Outcome::Denied, ..event("refused") };
    let _ = log.append(&refused).unwrap();
    assert_eq!(log.replay(&of(&lines)).unwrap(), 3);
    let _ = log.append(&event("granted")).unwrap();
    assert_eq!(said(&path)[3..], ["first", "refused", "never told of", "third", "fourth", "granted"]);
    assert_eq!(synced(&mut log), Some(4));

    // nor where the store alone knows whether there is another line
    log.doubt();
    assert_eq!(log.append(&event("granted")), Err(AuditError::Incomplete));
    assert_eq!(log.replay(&Outbox { lines: Vec::new(), last: 4 }).unwrap(), 0);
    assert!(log.append_rendered(&entry(5, "fifth")).unwrap().is_some());
}

#[test]
fn replay_looks_back_as_far_as_the_oldest_entry_and_no_line_is_missed() {
    let (_dir, path, mut log) = begun();
    let first = entry(1, "first");
    let _ = log.append_rendered(&first).unwrap();
    for _ in 0..3000 {
        let _ = log.append(&event("between")).unwrap();
    }
    let last = entry(2, "last");
    assert_eq!(log.replay(&of(&[first, last])).unwrap(), 1);
    assert_eq!(said(&path).last().unwrap(), "last");

    // old lines before the slack are not read, and hide nothing
    let mut old = event("old");
    old.timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let dir = scratch();
    let path = dir.path().join("audit.log");
    let mut log = open(&path).unwrap();
    for _ in 0..3000 {
        let _ = log.append(&old).unwrap();
    }
    let new = entry(1, "new");
    let _ = log.append_rendered(&new).unwrap();
    assert_eq!(log.replay(&of(std::slice::from_ref(&new))).unwrap(), 0);
}

#[test]
fn a_full_disk_takes_no_half_line_and_what_waits_goes_out_first() {
    in_a_process_that_may_not_grow_files(
        "audit::trials::a_full_disk_takes_no_half_line_and_what_waits_goes_out_first",
        || {
            let (_dir, path, mut log) = begun();
            let before = fs::read(&path).unwrap();
            // room for half a line
            limit(Some(before.len() as u64 + 60));
            assert!(matches!(log.append(&event("refused")), Err(AuditError::Write(_))));
            assert_eq!(fs::read(&path).unwrap(), before, "half a line stayed");
            let changes = [entry(1, "change 1"), entry(2, "change 2")];
            for change in &changes {
                assert!(log.append_rendered(change).is_err());
            }
            assert!(log.ready().is_err(), "no change may be committed now");
            assert!(log.append(&event("refused too")).is_err());
            assert_eq!(fs::read(&path).unwrap(), before);
            limit(None);
            let _ = log.append(&event("after")).unwrap();
            assert_eq!(said(&path), [": epoch 0", "a", "b", "change 1", "change 2", "after"]);
            assert_eq!(synced(&mut log), Some(2));
            assert_eq!(wrong(&path, &log.head()), []);
        },
    );
}

#[test]
fn a_forged_number_neither_ends_the_log_nor_counts() {
    let (_dir, path, mut log) = begun();
    let _ = log.append(&event("ours")).unwrap();
    let last = fs::read_to_string(&path).unwrap().lines().last().unwrap().to_owned();
    let (line, _) = last.rsplit_once("\"seq\":").unwrap();
    for seq in [u64::MAX, 1 << 52] {
        let forged = format!("{line}\"seq\":{seq},\"mac\":\"{}\"}}\n", "ab".repeat(32));
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(forged.as_bytes()).unwrap();
        let before = log.append(&event("next")).unwrap().seq();
        assert!(before < 100, "{before}");
        drop(log);
        log = open(&path).unwrap();
        assert!(log.append(&event("again")).unwrap().seq() < 100);
    }
}

#[test]
fn a_log_that_somebody_made_huge_is_an_error_and_read_no_further_than_a_line() {
    let (_dir, path, mut log) = begun();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(300 << 30).unwrap();
    assert!(log.append(&event("refused")).is_err());
    assert!(open(&path).is_err());
}
