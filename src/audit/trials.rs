//! The log as a file: crashes, hands from outside, full disks.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{BufReader, Write},
    path::{Path, PathBuf},
    process::Command,
};

use jiff::Timestamp;

use super::*;
use crate::{
    name::{Service, Target},
    store::{OutboxEntry, files::scratch},
    wire,
};

fn event(target: &str) -> Event {
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
    }
}

fn entry(id: u64, target: &str) -> OutboxEntry {
    OutboxEntry { id, line: event(target).render() }
}

/// Every line as `seq target`, or `seq: detail` for what the log says about itself.
fn said(path: &Path) -> Vec<String> {
    let lines = Lines::new(BufReader::new(File::open(path).unwrap()));
    let word = |line: Line| {
        let record = line.record.unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(&line.bytes)));
        match record.detail {
            Some(detail) => format!("{}: {detail}", record.seq.unwrap()),
            None => format!("{} {}", record.seq.unwrap(), record.targets.join(",")),
        }
    };
    lines.map(|line| word(line.unwrap())).collect()
}

fn begun() -> (tempfile::TempDir, PathBuf, Log) {
    let dir = scratch();
    let path = dir.path().join("audit.log");
    let mut log = Log::open(&path).unwrap();
    assert_eq!(log.append(&event("a")).unwrap().seq(), 1);
    assert_eq!(log.append(&event("b")).unwrap().seq(), 2);
    (dir, path, log)
}

/// Waits for the disk; the outbox line that may be forgotten then.
fn synced(log: &mut Log) -> Option<u64> {
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
    let mut log = Log::open(&path).unwrap();
    assert_eq!(log.append(&event("c")).unwrap().seq(), 3);
    assert_eq!(said(&path), ["1 a", "2 b", "3 c"]);
}

#[test]
fn a_torn_last_line_is_cut_off_whole_ones_stay_and_a_record_says_so() {
    for left in [1, 20, 200] {
        let (_dir, path, log) = begun();
        drop(log);
        let line = fs::read(&path).unwrap().split_off(fs::read(&path).unwrap().len() / 2);
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&line[..left.min(line.len() - 1)])
            .unwrap();
        let mut log = Log::open(&path).unwrap();
        assert_eq!(log.append(&event("c")).unwrap().seq(), 4);
        assert_eq!(said(&path), ["1 a", "2 b", "3: half a line at the end was cut off", "4 c"]);
    }
}

#[test]
fn a_file_without_records_is_left_alone() {
    let dir = scratch();
    let path = dir.path().join("audit.log");
    drop(Log::open(&path).unwrap());
    fs::write(&path, "somebody's notes\n").unwrap();
    assert_eq!(Log::open(&path).err(), Some(AuditError::Foreign));
    assert_eq!(fs::read(&path).unwrap(), b"somebody's notes\n");
}

#[test]
fn what_happens_to_the_file_from_outside_is_recorded_before_anything_else() {
    let gone = "the file was removed or replaced; this one continues it";
    let (_dir, path, mut log) = begun();
    fs::remove_file(&path).unwrap();
    assert_eq!(log.append(&event("c")).unwrap().seq(), 4);
    assert_eq!(said(&path), [format!("3: {gone}"), "4 c".to_owned()]);

    let (dir, path, mut log) = begun();
    fs::rename(&path, dir.path().join("audit.log.1")).unwrap();
    let _ = log.append(&event("c")).unwrap();
    assert_eq!(said(&path), [format!("3: {gone}"), "4 c".to_owned()]);
    assert_eq!(said(&dir.path().join("audit.log.1")), ["1 a", "2 b"]);

    for (keep, rest) in [(0, 0), (1, 0), (1, 30)] {
        let (_dir, path, mut log) = begun();
        let first = fs::read(&path).unwrap().iter().position(|byte| *byte == b'\n').unwrap() + 1;
        OpenOptions::new().write(true).open(&path).unwrap().set_len((keep * first + rest) as u64).unwrap();
        let _ = log.append(&event("c")).unwrap();
        let expected = ["1 a", "3: the file was truncated", "4 c"];
        assert_eq!(said(&path), expected[1 - keep..]);
    }

    let (_dir, path, mut log) = begun();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{}\nhalf").unwrap();
    let _ = log.append(&event("c")).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 5);
    assert!(fs::read_to_string(&path).unwrap().contains("written by others"));
}

#[test]
fn an_exposed_or_linked_log_is_refused() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let (dir, path, log) = begun();
    drop(log);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Log::open(&path), Err(AuditError::File(_))));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&path, dir.path().join("real")).unwrap();
    symlink("real", &path).unwrap();
    assert!(matches!(Log::open(&path), Err(AuditError::File(_))));
}

#[test]
fn the_outbox_is_replayed_without_losing_or_doubling_a_line() {
    let (_dir, path, mut log) = begun();
    let twin = event("twin").render();
    let outbox: Vec<OutboxEntry> = [entry(5, "in the log"), entry(6, "lost"), entry(7, "in the log too")]
        .into_iter()
        .chain([8, 9].map(|id| OutboxEntry { id, line: twin.clone() }))
        .collect();
    for logged in [0, 2, 3] {
        let _ = log.append_rendered(&outbox[logged]).unwrap();
    }
    assert_eq!(synced(&mut log), Some(8));
    drop(log);
    let mut log = Log::open(&path).unwrap();
    assert_eq!(log.replay(&outbox).unwrap(), 2);
    assert_eq!(synced(&mut log), Some(9));
    assert_eq!(said(&path)[5..], ["6 lost", "7 twin"]);
    assert_eq!(log.replay(&outbox).unwrap(), 0);
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
    assert_eq!(log.replay(&[first, last]).unwrap(), 1);
    assert_eq!(said(&path).last().unwrap(), "3004 last");

    // old lines before the slack are not read, and hide nothing
    let mut old = event("old");
    old.timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let dir = scratch();
    let path = dir.path().join("audit.log");
    let mut log = Log::open(&path).unwrap();
    for _ in 0..3000 {
        let _ = log.append(&old).unwrap();
    }
    let new = entry(1, "new");
    let _ = log.append_rendered(&new).unwrap();
    assert_eq!(log.replay(std::slice::from_ref(&new)).unwrap(), 0);
}

const CHILD: &str = "KEYCHAIN_AUTH_FULL_LOG";

#[test]
fn a_full_disk_takes_no_half_line_and_what_waits_goes_out_first() {
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "audit::trials::full_disk_child", "--ignored", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "run as a child by the test above"]
fn full_disk_child() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    if env::var_os(CHILD).is_none() {
        return;
    }
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    let limit = |bytes: Option<u64>| {
        setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
    };
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
    assert_eq!(said(&path), ["1 a", "2 b", "3 change 1", "4 change 2", "5 after"]);
    assert_eq!(synced(&mut log), Some(2));
}

#[test]
fn a_forged_number_neither_ends_the_log_nor_counts() {
    let (_dir, path, mut log) = begun();
    let _ = log.append(&event("ours")).unwrap();
    let last = fs::read_to_string(&path).unwrap().lines().last().unwrap().to_owned();
    let (line, _) = last.rsplit_once("\"seq\":").unwrap();
    let forged = format!("{line}\"seq\":{}}}\n", u64::MAX);
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(forged.as_bytes()).unwrap();
    let before = log.append(&event("next")).unwrap().seq();
    assert!(before < 100, "{before}");
    drop(log);
    assert_eq!(Log::open(&path).unwrap().append(&event("again")).unwrap().seq(), before + 1);
}

#[test]
fn a_log_that_somebody_made_huge_is_an_error_and_read_no_further_than_a_line() {
    let (_dir, path, mut log) = begun();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(300 << 30).unwrap();
    assert!(log.append(&event("refused")).is_err());
    assert!(Log::open(&path).is_err());
}
