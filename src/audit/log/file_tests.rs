#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs::{self, File, OpenOptions};

use super::*;
use crate::{
    audit::{
        Wrong,
        trials::{begun, entry, event, of, open, said, synced, wrong},
    },
    store::{
        files::scratch,
        trials::disk_errors::{in_a_process_that_may_not_grow_files, limit},
    },
};

fn refused(target: &str) -> Event {
    Event { outcome: Outcome::Denied, ..event(target) }
}

#[test]
fn a_file_that_somebody_says_was_moved_is_continued_without_a_notice_and_no_other_one() {
    let (dir, path, mut log) = begun();
    log.reopen().unwrap();
    assert_eq!(log.head().seq, 3, "it was not moved");
    fs::rename(&path, dir.path().join("audit.log.1")).unwrap();
    log.reopen().unwrap();
    assert_eq!(said(&path), [": epoch 1"]);
    let _ = log.append(&event("c")).unwrap();
    assert_eq!((said(&path).len(), log.noticed()), (2, None));
    // nobody says so of the next one
    fs::rename(&path, dir.path().join("audit.log.2")).unwrap();
    let _ = log.append(&event("d")).unwrap();
    let moved = "the file was moved away; this one continues it";
    assert_eq!(said(&path), [": epoch 2", &format!(": {moved}"), "d"]);
    assert!(log.noticed().unwrap().ends_with(moved));
    assert_eq!(wrong(&path, &log.head()), []);
    // and one that was removed was not moved, whatever is said
    fs::remove_file(&path).unwrap();
    log.reopen().unwrap();
    assert_eq!(said(&path), [": epoch 3", &format!(": {REMOVED}")]);
    assert!(log.noticed().unwrap().ends_with(REMOVED));
    assert_eq!(wrong(&path, &log.head()), [Wrong::Missing { from: 6, to: 8 }, Wrong::Epoch]);
}

#[test]
fn a_moved_file_in_whose_place_another_one_has_records_is_told_of_also_at_the_signal() {
    let (dir, path, mut log) = begun();
    fs::rename(&path, dir.path().join("audit.log.1")).unwrap();
    // a copy of the older part, as whoever rolls a log back would put there
    fs::copy(dir.path().join("audit.log.1"), &path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let older: usize = text.split_inclusive('\n').take(2).map(str::len).sum();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(older as u64).unwrap();
    log.reopen().unwrap();
    let moved = ": the file was moved away; this one continues it";
    assert_eq!(said(&path), [": epoch 0", "a", ": epoch 1", moved]);
}

#[test]
fn a_disk_without_room_is_told_from_any_other_error() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(failed(&(&full).write_all(b"x").unwrap_err()), AuditError::Full);
    let read_only = File::open("/dev/null").unwrap();
    assert!(matches!(failed(&(&read_only).write_all(b"x").unwrap_err()), AuditError::Write(_)));
}

#[test]
fn where_there_is_no_room_in_reserve_refusals_are_recorded_and_nothing_is_granted() {
    in_a_process_that_may_not_grow_files(
        "audit::log::tests::where_there_is_no_room_in_reserve_refusals_are_recorded_and_nothing_is_granted",
        || {
            let dir = scratch();
            let path = dir.path().join("audit.log");
            drop(open(&path).unwrap());
            let reserve = dir.path().join(super::super::reserve::RESERVE_FILE);
            fs::remove_file(&reserve).unwrap();
            // room for the log, and not for all of the reserve
            limit(Some(64 * 1024));
            assert_eq!(
                open(&path).err(),
                Some(AuditError::Full),
                "a daemon does not start where it could grant nothing"
            );
            assert_eq!(fs::metadata(&reserve).unwrap().len(), 0, "half of it is given back");
            limit(None);
            let mut log = open(&path).unwrap();
            assert!(log.reserve.spend());
            limit(Some(64 * 1024));
            assert_eq!(log.append(&event("granted")), Err(AuditError::Full));
            assert_eq!(log.ready(), Err(AuditError::Full), "no change may be committed");
            let _ = log.append(&refused("refused")).unwrap();
            limit(None);
            drop(log);
            let mut log = open(&path).unwrap();
            let _ = log.append(&event("granted again")).unwrap();
            let all = said(&path);
            let all: Vec<&str> =
                all.iter().map(String::as_str).filter(|word| !word.starts_with(": epoch")).collect();
            assert_eq!(all, ["refused", "granted again"]);
        },
    );
}

#[test]
fn lines_beyond_those_that_may_wait_are_asked_of_the_store_and_none_is_lost() {
    in_a_process_that_may_not_grow_files(
        "audit::log::tests::lines_beyond_those_that_may_wait_are_asked_of_the_store_and_none_is_lost",
        || {
            let (_dir, path, mut log) = begun();
            let line = entry(1, "change").line;
            let all: Vec<OutboxEntry> =
                (1..=MAX_WAITING as u64 + 2).map(|id| OutboxEntry { id, line: line.clone() }).collect();
            limit(Some(log.length));
            for entry in &all[..MAX_WAITING] {
                assert!(log.append_rendered(entry).is_err());
            }
            assert!(!log.is_incomplete());
            assert!(log.append_rendered(&all[MAX_WAITING]).is_err());
            assert!(log.is_incomplete());
            limit(None);
            assert_eq!(log.append_rendered(&all[MAX_WAITING + 1]), Err(AuditError::Incomplete));
            assert_eq!(log.append(&event("granted")), Err(AuditError::Incomplete));
            let _ = log.replay(&of(&all)).unwrap();
            assert!(!log.is_incomplete());
            let _ = log.append(&event("granted")).unwrap();
            assert_eq!(synced(&mut log), Some(all.len() as u64));
            let said = said(&path);
            assert_eq!(said.iter().filter(|word| *word == "change").count(), all.len());
            assert_eq!(said.last().unwrap(), "granted");
        },
    );
}

#[test]
fn a_notice_that_could_not_be_written_goes_out_later_and_once() {
    in_a_process_that_may_not_grow_files(
        "audit::log::tests::a_notice_that_could_not_be_written_goes_out_later_and_once",
        || {
            let (_dir, path, mut log) = begun();
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<usize> = text.split_inclusive('\n').map(str::len).collect();
            OpenOptions::new()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len((lines[0] + lines[1]) as u64)
                .unwrap();
            // room for the first record of an epoch, and half of a notice
            limit(Some((2 * lines[0] + lines[1] + 60) as u64));
            for _ in 0..2 {
                assert!(log.append(&refused("c")).is_err());
                assert_eq!(said(&path), [": epoch 0", "a", ": epoch 1"]);
                assert_eq!(log.noticed(), None);
            }
            limit(None);
            let _ = log.append(&event("d")).unwrap();
            assert_eq!(said(&path), [": epoch 0", "a", ": epoch 1", &format!(": {TRUNCATED}"), "d"]);
            assert!(log.noticed().unwrap().ends_with(TRUNCATED));
            assert_eq!(wrong(&path, &log.head()), [Wrong::Missing { from: 3, to: 3 }]);
        },
    );
}
