#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use super::*;
use crate::{
    audit::{
        LogFile, Verdict, Witnesses, Wrong, files, opened, pack,
        query::Lines,
        trials::{begun, event, open, said, synced, wrong},
        verify,
    },
    store::{
        files::scratch,
        seat::tests::seat,
        trials::disk_errors::{in_a_process_that_may_not_grow_files, limit},
    },
};

fn rotating(path: &Path, rotation: Rotation) -> Log {
    Log::open(path, seat(path.parent().unwrap()), &Head::default(), rotation).unwrap()
}

fn append(log: &mut Log, target: &str) -> u64 {
    log.append(&event(target)).unwrap().seq()
}

/// Where the file rests whose first record has this number.
fn place(path: &Path, first: u64) -> PathBuf {
    path.with_added_extension(format!("{first:016}"))
}

/// Why each epoch of a file began, and what it says of the one before: its first record, and how many it had.
fn turns(path: &Path) -> Vec<(Because, u64, u64)> {
    let lines = Lines::new(crate::audit::open(path).unwrap());
    let boundaries = lines.filter_map(|line| Boundary::of(&line.unwrap().record.unwrap()));
    boundaries.map(|it| (it.because, it.first, it.count)).collect()
}

/// What a check says that has everything the daemon tells, and this key.
fn checked(path: &Path, log: &mut Log, key: Option<VerificationKey>) -> Verdict {
    let witnesses = Witnesses { key, head: Some(log.head()), checkpoints: log.take_ended() };
    verify(opened(path).unwrap(), witnesses, false, |_| {}).unwrap()
}

#[test]
fn a_full_file_rests_under_its_first_number_and_the_chain_goes_on_in_a_new_one() {
    let (_dir, path, mut log) = begun();
    log.rotate_at = log.length + 1;
    assert_eq!(append(&mut log, "c"), 4);
    assert_eq!(said(&path), [": epoch 0", "a", "b", "c"], "the last line reaches beyond the size");
    assert_eq!(append(&mut log, "d"), 6);
    log.rotate_at = log.length;
    assert_eq!(append(&mut log, "e"), 8);
    assert_eq!(append(&mut log, "f"), 9, "a new file has all of its size again");
    let earlier = [place(&path, 1), place(&path, 5)];
    assert_eq!(said(&earlier[0]), [": epoch 0", "a", "b", "c"]);
    assert_eq!(said(&earlier[1]), [": epoch 1", "d"]);
    assert_eq!(said(&path), [": epoch 2", "e", "f"]);
    assert_eq!(turns(&path), [(Because::Rotation, 5, 2)]);
    assert_eq!(log.take_unpacked(), earlier);
    assert!(log.take_unpacked().is_empty(), "each is told once");
    // what the disk may lack is in all three
    let unsynced = log.unsynced().unwrap().unwrap();
    assert_eq!((unsynced.files.len(), unsynced.seq()), (3, 9));
    let _ = unsynced.sync().unwrap();
    assert_eq!(synced(&mut log), None);
    let verdict = checked(&path, &mut log, None);
    assert_eq!((verdict.findings, verdict.lines), (Vec::new(), 9));
}

#[test]
fn as_many_earlier_files_are_kept_as_there_may_be_packed_or_not_and_a_check_goes_on_from_the_oldest() {
    let dir = scratch();
    let path = dir.path().join("audit.log");
    let rotation = Rotation { max_size: 1, max_files: 2, ..Rotation::default() };
    let mut log = rotating(&path, rotation);
    for target in ["a", "b", "c", "d"] {
        // one stays unpacked
        for full in log.take_unpacked() {
            pack(&full).unwrap();
        }
        append(&mut log, target);
    }
    let packed = place(&path, 4).with_added_extension("zst");
    assert_eq!(files(&path).unwrap(), [packed, place(&path, 6), path.clone()]);
    assert_eq!(said(&path), [": epoch 4", "d"]);
    let verdict = checked(&path, &mut log, None);
    assert_eq!((verdict.findings, verdict.first, verdict.last), (Vec::new(), Some(4), Some(9)));
    drop(log);
    // who opens it again knows of them
    let mut log = rotating(&path, rotation);
    assert_eq!(log.take_unpacked(), [place(&path, 6)]);
    append(&mut log, "e");
    assert_eq!(files(&path).unwrap().len(), 3);
    assert!(!place(&path, 4).with_added_extension("zst").exists());
}

#[test]
fn an_old_file_is_moved_at_its_age_counted_from_its_first_record() {
    let (_dir, path, log) = begun();
    let first = Lines::new(crate::audit::open(&path).unwrap()).next().unwrap().unwrap().record.unwrap();
    let since = first.when().unwrap().as_second();
    drop(log);
    let mut log = open(&path).unwrap();
    assert_eq!(log.first, (1, since), "opened again, it is no younger");
    let age = log.rotation.max_age;
    log.epoch.began = since + age;
    log.turn_over(since + age - 1);
    assert_eq!((log.boundary, place(&path, 1).exists()), (None, false));
    log.turn_over(since + age);
    assert!(place(&path, 1).exists());
    assert_eq!(append(&mut log, "c"), 6);
    assert_eq!(turns(&path), [(Because::Rotation, 4, 1)]);
    assert_eq!(said(&path), [": epoch 2", "c"]);
    assert_eq!(wrong(&path, &log.head()), []);
}

#[test]
fn an_epoch_ends_at_its_age_and_not_a_second_time_before_its_first_record() {
    let (_dir, path, mut log) = begun();
    let began = log.epoch.began;
    log.turn_over(began + EPOCH_SECONDS - 1);
    assert_eq!(log.boundary, None);
    log.turn_over(began + EPOCH_SECONDS);
    assert_eq!(log.boundary.map(|it| it.epoch), Some(1));
    log.turn_over(began + 9 * EPOCH_SECONDS);
    let ended = log.take_ended();
    assert_eq!(ended.iter().map(|end| end.seq).collect::<Vec<_>>(), [3]);
    append(&mut log, "c");
    assert_eq!(said(&path), [": epoch 0", "a", "b", ": epoch 1", "c"]);
    assert_eq!(turns(&path)[1], (Because::Age, 1, 3));
    assert_eq!(wrong(&path, &log.head()), []);
}

#[test]
fn an_epoch_ends_with_its_last_record() {
    let (_dir, path, mut log) = begun();
    while log.head().seq < EPOCH_RECORDS {
        append(&mut log, "x");
    }
    assert_eq!(turns(&path).len(), 1);
    assert_eq!(append(&mut log, "next"), EPOCH_RECORDS + 2);
    assert_eq!(turns(&path)[1], (Because::Full, 1, EPOCH_RECORDS));
    assert_eq!(checked(&path, &mut log, None).findings, []);
}

#[test]
fn a_file_whose_place_is_taken_only_grows_and_is_moved_a_megabyte_later() {
    let dir = scratch();
    let path = dir.path().join("audit.log");
    let taken = place(&path, 1);
    fs::create_dir(&taken).unwrap();
    let mut log = rotating(&path, Rotation { max_size: 1, ..Rotation::default() });
    for target in ["a", "b"] {
        append(&mut log, target);
    }
    assert_eq!(said(&path), [": epoch 0", ": epoch 1", "a", "b"], "it is not tried at each record");
    assert!(log.take_unpacked().is_empty());
    fs::remove_dir(&taken).unwrap();
    let long = Event { detail: Some("x".repeat(100_000).into()), ..event("long") };
    for _ in 0..10 {
        let _ = log.append(&long).unwrap();
    }
    assert!(!taken.exists(), "{}", log.length);
    let _ = log.append(&long).unwrap();
    append(&mut log, "c");
    assert_eq!(said(&path), [": epoch 2", "c"]);
    assert_eq!(log.take_unpacked(), [taken]);
    assert_eq!(wrong(&path, &log.head()), []);
}

#[test]
fn an_old_file_whose_place_is_taken_is_not_tried_again_before_it_is_as_old_again() {
    let (_dir, path, mut log) = begun();
    fs::create_dir(place(&path, 1)).unwrap();
    let old = log.first.1 + log.rotation.max_age;
    log.first.1 = 0;
    log.turn_over(old);
    append(&mut log, "c");
    assert_eq!(said(&path), [": epoch 0", "a", "b", ": epoch 1", "c"]);
    append(&mut log, "d");
    assert_eq!(turns(&path).len(), 2);
}

#[test]
fn a_chain_with_a_key_of_its_own_begins_behind_a_record_that_says_so_and_every_line_fits_the_key() {
    let (_dir, path, mut log) = begun();
    let key = VerificationKey::generate().unwrap();
    let (earlier, later) = (log.head().chain, key.chain());
    log.begin_chain(&key).unwrap();
    append(&mut log, "c");
    let follows = format!(": chain={earlier} ends, chain={later} follows");
    assert_eq!(said(&path), [": epoch 0", "a", "b", &follows, ": epoch 0", "c"]);
    assert_eq!(turns(&path)[1], (Because::NewChain, 1, 4));
    assert_eq!((log.head().chain, log.head().seq), (later, 6));
    let ended = log.take_ended();
    assert_eq!(ended.iter().map(|end| end.seq).collect::<Vec<_>>(), [4]);
    drop(log);
    // its key was saved: a log that is opened again goes on with the chain
    let mut log = open(&path).unwrap();
    append(&mut log, "d");
    assert_eq!(said(&path)[6..], [": epoch 1", "d"]);
    let verdict = checked(&path, &mut log, Some(key));
    assert_eq!((verdict.findings, verdict.keyed), (Vec::new(), 4));
    // behind any other record it would be a chain of somebody without the key
    let text = fs::read_to_string(&path).unwrap();
    let cut: Vec<&str> = text.split_inclusive('\n').filter(|line| !line.contains(" follows")).collect();
    let reader = Box::new(io::Cursor::new(cut.concat()));
    let unsaid = verify(vec![LogFile { path, reader }], Witnesses::default(), false, |_| {}).unwrap();
    assert!(unsaid.findings.iter().any(|finding| finding.wrong == Wrong::Unannounced));
}

#[test]
fn an_epoch_whose_key_can_not_be_saved_begins_all_the_same_and_a_chain_does_not() {
    in_a_process_that_may_not_grow_files(
        "audit::log::turn::tests::an_epoch_whose_key_can_not_be_saved_begins_all_the_same_and_a_chain_does_not",
        || {
            // the second slot of the state lies beyond it, and the log does not
            let full = || limit(Some(4096));
            let (_dir, path, mut log) = begun();
            full();
            for target in ["c", "d"] {
                log.turn_over(log.epoch.began + EPOCH_SECONDS);
                append(&mut log, target);
            }
            let saved = seat(path.parent().unwrap()).load().unwrap().unwrap();
            assert!(saved.before.epoch < log.head().epoch);
            drop(log);
            limit(None);
            let mut log = open(&path).unwrap();
            append(&mut log, "e");
            assert_eq!(
                said(&path),
                [": epoch 0", "a", "b", ": epoch 1", "c", ": epoch 2", "d", ": epoch 3", "e"]
            );
            assert_eq!(wrong(&path, &log.head()), []);

            // whichever of the two slots is written first
            for epochs in [0, 1] {
                let (_dir, path, mut log) = begun();
                for _ in 0..epochs {
                    log.advance(Because::Full);
                }
                full();
                let key = VerificationKey::generate().unwrap();
                assert!(log.begin_chain(&key).is_err(), "nobody may be shown a key that is not used");
                assert!(said(&path).last().unwrap().ends_with(" follows"), "it was the state that failed");
                drop(log);
                limit(None);
                let mut log = open(&path).unwrap();
                append(&mut log, "c");
                assert_eq!(wrong(&path, &log.head()), [], "{:?}", said(&path));
            }
        },
    );
}
