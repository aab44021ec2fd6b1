#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    thread,
};

use rustix::process::geteuid;

use super::*;
use crate::{
    digest::Digest,
    name::Target,
    policy::{CommandLine, Sighting},
};

fn setup() -> (tempfile::TempDir, PendingFile) {
    let folder = tempfile::tempdir().unwrap();
    fs::DirBuilder::new().mode(0o700).create(folder.path().join("data")).unwrap();
    let file = PendingFile::new(folder.path().join("data/pending.json"), geteuid().as_raw());
    (folder, file)
}

fn sighting(number: u8) -> Sighting {
    Sighting {
        times: 1,
        path: format!("/bin/{number}").into(),
        digest: Digest::new([number; 32]),
        pid: 7,
        command_line: CommandLine::default(),
        action: None,
        service: None,
        targets: Vec::new(),
    }
}

fn record(file: &PendingFile, number: u8) -> Option<Foreign> {
    let now = Timestamp::now();
    file.update(COMMAND_PATIENCE, now, |queue| queue.record(sighting(number), now)).unwrap().1
}

#[test]
fn a_missing_file_is_an_empty_queue_and_the_first_update_makes_it_private() {
    let (folder, file) = setup();
    assert!(file.load(Timestamp::now()).unwrap().0.is_empty());
    assert_eq!(record(&file, 1), None);
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("data/pending.json"), 0o600);
    assert_eq!(file.load(Timestamp::now()).unwrap().0.len(), 1);
    assert!(file.has_folder() && PendingFile::new("/x", 4242).uid() == 4242);
}

#[test]
fn a_queue_with_every_limit_used_is_read_back() {
    let (_folder, file) = setup();
    let now = Timestamp::now();
    let long = "\u{1}".repeat(64);
    let full = |number: u8| Sighting {
        path: format!("/{number}{}", "\u{1}".repeat(4000)).into(),
        command_line: CommandLine::masked(std::iter::repeat_n(long.as_bytes(), 32)),
        targets: (0..8).map(|n| Target::parse(&format!("{n}{}", "\"".repeat(1000))).unwrap()).collect(),
        ..sighting(number)
    };
    let fill = |queue: &mut PendingQueue| (0..128).for_each(|number| queue.record(full(number), now));
    let (_, foreign) = file.update(COMMAND_PATIENCE, now, fill).unwrap();
    assert_eq!(foreign, None);
    let (queue, foreign) = file.load(now).unwrap();
    assert_eq!((queue.len(), foreign), (128, None));
}

#[test]
fn a_file_larger_than_any_queue_is_none_of_ours() {
    let (folder, file) = setup();
    let empty = r#"{"pending":[]}"#;
    for (size, foreign) in [(MAX_FILE, None), (MAX_FILE + 1, Some(Foreign))] {
        let padding = " ".repeat(usize::try_from(size).unwrap() - empty.len());
        fs::write(folder.path().join("data/pending.json"), format!("{empty}{padding}")).unwrap();
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(folder.path().join("data/pending.json"), private).unwrap();
        assert_eq!(file.load(Timestamp::now()).unwrap().1, foreign, "{size}");
    }
}

#[test]
fn without_its_folder_nobody_waits_and_nothing_is_made() {
    let (folder, file) = setup();
    fs::remove_dir(folder.path().join("data")).unwrap();
    assert_eq!(record(&file, 1), None);
    assert!(!file.has_folder());
    assert!(file.load(Timestamp::now()).unwrap().0.is_empty());
}

#[test]
fn updates_at_once_lose_nothing() {
    let (_folder, file) = setup();
    thread::scope(|scope| {
        for number in 0..8 {
            let file = &file;
            scope.spawn(move || record(file, number));
        }
    });
    assert_eq!(file.load(Timestamp::now()).unwrap().0.len(), 8);
}

#[test]
fn a_broken_file_is_replaced_and_said() {
    let (folder, file) = setup();
    record(&file, 1);
    let path = folder.path().join("data/pending.json");
    fs::write(&path, "{\"pending\":").unwrap();
    assert_eq!(file.load(Timestamp::now()).unwrap().1, Some(Foreign));
    assert_eq!(record(&file, 2), Some(Foreign));
    assert_eq!(record(&file, 3), None);
    assert_eq!(file.load(Timestamp::now()).unwrap().0.len(), 2);
}

#[test]
fn a_link_in_its_place_is_replaced_and_its_target_left_alone() {
    let (folder, file) = setup();
    record(&file, 1);
    let path = folder.path().join("data/pending.json");
    let target = folder.path().join("precious");
    fs::write(&target, "precious").unwrap();
    fs::remove_file(&path).unwrap();
    symlink(&target, &path).unwrap();
    assert_eq!(record(&file, 1), Some(Foreign));
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
}

#[test]
fn a_queue_that_others_can_write_is_given_up() {
    let (folder, file) = setup();
    record(&file, 1);
    fs::set_permissions(folder.path().join("data/pending.json"), fs::Permissions::from_mode(0o666)).unwrap();
    let (queue, foreign) = file.load(Timestamp::now()).unwrap();
    assert_eq!((queue.len(), foreign), (0, Some(Foreign)));
}

#[test]
fn the_daemon_does_not_wait_for_a_command_that_holds_the_lock() {
    let (folder, file) = setup();
    record(&file, 1);
    let lock = folder.path().join("data/pending.lock");
    let held = FileLock::acquire(&lock, Duration::ZERO).unwrap().unwrap();
    let now = Timestamp::now();
    let busy = file.update(Duration::ZERO, now, |queue| queue.record(sighting(2), now));
    assert!(matches!(busy, Err(PendingError::Busy(_))));
    drop(held);
    assert!(file.update(Duration::ZERO, now, |queue| queue.record(sighting(2), now)).is_ok());
}

#[test]
fn what_the_system_refuses_is_an_error_that_names_the_file_and_no_empty_queue() {
    let (folder, _) = setup();
    let below = folder.path().join("data/file");
    fs::write(&below, "").unwrap();
    let file = PendingFile::new(below.join("pending.json"), geteuid().as_raw());
    let refused = |file: PathBuf| Some(PendingError::Io { file, kind: io::ErrorKind::NotADirectory });
    let now = Timestamp::now();
    assert_eq!(file.load(now).err(), refused(below.join("pending.json")));
    let updated = file.update(COMMAND_PATIENCE, now, |queue| queue.record(sighting(1), now));
    assert_eq!(updated.err(), refused(below.join("pending.lock")));
}

#[test]
fn a_folder_in_place_of_the_queue_is_said_and_not_removed() {
    let (folder, file) = setup();
    let path = folder.path().join("data/pending.json");
    fs::create_dir(&path).unwrap();
    let now = Timestamp::now();
    assert_eq!(file.load(now).unwrap().1, Some(Foreign));
    let updated = file.update(COMMAND_PATIENCE, now, |queue| queue.record(sighting(1), now));
    assert_eq!(
        updated.err(),
        Some(PendingError::Io { file: path.clone(), kind: io::ErrorKind::IsADirectory })
    );
    assert!(path.is_dir());
}
