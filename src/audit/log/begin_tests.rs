#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::*;
use crate::{
    audit::{
        Wrong, pack,
        trials::{begun, event, open as reopened, open_knowing, said, wrong},
    },
    store::seat::tests::seat,
};

/// A log whose daemon ended between the beginning of a new file and its first record; and where the earlier file is.
fn between_files() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let (dir, path, mut log) = begun();
    log.rotate_at = 1;
    log.turn_over(Timestamp::now().as_second());
    let earlier = log.take_unpacked().remove(0);
    assert_eq!((said(&earlier).len(), said(&path).len()), (3, 0));
    (dir, path, earlier)
}

#[test]
fn a_new_file_without_a_record_goes_on_from_the_end_of_the_one_before_packed_or_not() {
    for packed in [false, true] {
        let (_dir, path, earlier) = between_files();
        if packed {
            pack(&earlier).unwrap();
        }
        let mut log = reopened(&path).unwrap();
        assert_eq!(log.append(&event("c")).unwrap().seq(), 5);
        assert_eq!(said(&path), [": epoch 1", "c"], "packed: {packed}");
        assert_eq!(log.noticed(), None);
        assert_eq!(wrong(&path, &log.head()), []);
    }
}

#[test]
fn a_new_file_behind_one_that_was_cut_spoiled_or_removed_says_so() {
    let cut = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        fs::write(path, lines[..2].concat()).unwrap();
    };
    let cut_and_packed = |path: &Path| {
        cut(path);
        pack(path).unwrap();
    };
    let spoiled = |path: &Path| {
        pack(path).unwrap();
        fs::write(path.with_added_extension("zst"), "no such file").unwrap();
    };
    let emptied = |path: &Path| fs::write(path, "").unwrap();
    let removed = |path: &Path| fs::remove_file(path).unwrap();
    let ways: [&dyn Fn(&Path); 5] = [&cut, &cut_and_packed, &spoiled, &emptied, &removed];
    for (number, way) in ways.into_iter().enumerate() {
        let (_dir, path, earlier) = between_files();
        way(&earlier);
        let mut log = reopened(&path).unwrap();
        assert_eq!(log.append(&event("c")).unwrap().seq(), 6);
        let missing = ": the records from 4 on are not there";
        assert_eq!(said(&path), [": epoch 2", missing, "c"], "way {number}");
        assert!(log.noticed().unwrap().ends_with(&missing[2..]));
    }
}

#[test]
fn a_chain_whose_state_is_lost_is_followed_by_another_one_behind_the_last_number_that_is_known() {
    let gone = ": audit.state, which held the key of the chain, is gone; a new chain begins";
    let spoiled = ": audit.state, which held the key of the chain, can't be read; a new chain begins";
    for (known, next) in [(2, 4), (3, 4), (10, 11)] {
        for (left, says) in [(None, gone), (Some("spoiled"), spoiled)] {
            let (_dir, path, log) = begun();
            let head = Head { seq: known, ..log.head() };
            drop(log);
            let state = path.with_file_name("audit.state");
            match left {
                None => fs::remove_file(&state).unwrap(),
                Some(text) => fs::write(&state, text).unwrap(),
            }
            let mut log = open_knowing(&path, &head).unwrap();
            assert_ne!(log.head().chain, head.chain);
            assert_eq!(log.append(&event("c")).unwrap().seq(), next + 2, "behind {known}");
            assert_eq!(said(&path), [": epoch 0", "a", "b", ": epoch 0", says, "c"]);
            assert!(wrong(&path, &log.head()).contains(&Wrong::Unannounced), "behind {known}");
        }
    }
}

#[test]
fn a_log_without_state_and_without_a_memory_of_it_is_followed_by_a_chain_without_a_word() {
    let (_dir, path, log) = begun();
    drop(log);
    fs::remove_file(path.with_file_name("audit.state")).unwrap();
    let mut log = reopened(&path).unwrap();
    assert_eq!(log.append(&event("c")).unwrap().seq(), 5);
    assert_eq!(said(&path), [": epoch 0", "a", "b", ": epoch 0", "c"]);
    assert_eq!(wrong(&path, &log.head()), [Wrong::Unannounced], "a check finds it all the same");
}

#[test]
fn a_path_that_names_no_file_is_refused() {
    let dir = crate::store::files::scratch();
    for path in [Path::new("/"), &dir.path().join("..")] {
        let refused = Log::open(path, seat(dir.path()), &Head::default(), Rotation::default()).err();
        assert_eq!(refused, Some(AuditError::File("its path names no file".to_owned())));
    }
}
