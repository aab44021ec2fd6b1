#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    os::unix::fs::{PermissionsExt, chown, symlink},
    time::Duration,
};

use rustix::process::geteuid;

use super::*;

const EMPTY: &str = r#"{"protocol_version":"1","registered_binaries":[]}"#;

struct Setup {
    folder: tempfile::TempDir,
    source: PolicySource,
}

fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let source = PolicySource::new(folder.path().join("config.json"));
    Setup { folder, source }
}

impl Setup {
    fn path(&self) -> PathBuf {
        self.folder.path().join("config.json")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
        mode(&self.path(), 0o600);
    }

    fn current(&mut self) -> Result<Arc<Policy>, PolicyError> {
        self.source.current(uid())
    }

    fn distrust(&mut self) -> Distrust {
        match self.current() {
            Err(PolicyError::Untrusted { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }
}

fn uid() -> u32 {
    geteuid().as_raw()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn entry(path: &str) -> String {
    let hash = "ab".repeat(32);
    format!(
        r#"{{"protocol_version":"1","registered_binaries":[{{"path":"{path}","hash":"sha256:{hash}"}}]}}"#
    )
}

#[test]
fn a_missing_file_is_the_empty_policy_and_one_that_appears_counts_at_once() {
    let mut setup = setup();
    assert!(setup.current().unwrap().entries().is_empty());
    setup.write(&entry("/bin/a"));
    assert_eq!(setup.current().unwrap().entries().len(), 1);
    fs::remove_file(setup.path()).unwrap();
    assert!(setup.current().unwrap().entries().is_empty(), "a removed file revokes everything");
}

#[test]
fn an_edit_of_equal_length_within_one_tick_is_seen() {
    let mut setup = setup();
    for round in 0..200 {
        let path = format!("/bin/{:03}", round);
        setup.write(&entry(&path));
        assert!(setup.current().unwrap().knows_path(Path::new(&path)), "round {round}");
    }
}

#[test]
fn a_file_read_within_the_grain_is_read_again_even_much_later() {
    let mut setup = setup();
    setup.write(&entry("/bin/a"));
    let stamp = fs::metadata(setup.path()).unwrap();
    let soon = stamp.modified().unwrap() + Duration::from_millis(1);
    setup.source.current_at(uid(), soon).unwrap();
    assert!(!setup.source.seen.unwrap().settled);
    let late = soon + Duration::from_secs(60);
    setup.source.current_at(uid(), late).unwrap();
    assert!(setup.source.seen.unwrap().settled, "now an equal stamp means an equal file");
    assert!(setup.source.unchanged(uid()));
    assert!(!setup.source.unchanged(uid() + 1), "trust was judged for another user");
    let generation = setup.source.generation();
    // a second reading would see that this is wrong
    setup.source.effective = Effective::Missing;
    setup.source.current_at(uid(), late).unwrap();
    assert_eq!(setup.source.generation(), generation, "one stat, and nothing was read");
}

#[test]
fn the_generation_grows_with_content_and_not_with_time_stamps() {
    let mut setup = setup();
    setup.write(EMPTY);
    let first = setup.current().unwrap();
    let generation = setup.source.generation();
    setup.write(EMPTY);
    assert!(Arc::ptr_eq(&first, &setup.current().unwrap()));
    assert_eq!(setup.source.generation(), generation);
    setup.write(&entry("/bin/a"));
    setup.current().unwrap();
    assert_eq!(setup.source.generation(), generation + 1);
    setup.write("{");
    setup.current().unwrap_err();
    assert_eq!(setup.source.generation(), generation + 2, "a refused policy is a change too");
    setup.current().unwrap_err();
    assert_eq!(setup.source.generation(), generation + 2);
}

#[test]
fn a_broken_file_is_an_error_on_every_call_and_names_line_and_column_only() {
    let mut setup = setup();
    setup.write(&entry("/bin/a"));
    assert!(setup.current().is_ok());
    setup.write("{\"protocol_version\": \"s3cr3t\"}");
    for _ in 0..2 {
        let text = setup.current().unwrap_err().to_string();
        assert_eq!(
            text,
            format!("{}:1:30: protocol_version must be the string \"1\"", setup.path().display())
        );
    }
    setup.write(&entry("/bin/b"));
    assert!(setup.current().unwrap().knows_path(Path::new("/bin/b")));
}

#[test]
fn a_file_or_folder_that_others_can_write_is_refused_until_it_is_repaired() {
    let mut setup = setup();
    setup.write(EMPTY);
    for bits in [0o620, 0o602] {
        mode(&setup.path(), bits);
        assert_eq!(setup.distrust(), Distrust::Writable);
    }
    mode(&setup.path(), 0o644);
    assert!(setup.current().is_ok(), "being readable is no harm");
    mode(&setup.path(), 0o600);
    mode(setup.folder.path(), 0o770);
    assert_eq!(setup.distrust(), Distrust::Writable);
    mode(setup.folder.path(), 0o700);
    assert!(
        setup.current().is_ok(),
        "a folder's repair does not change the file's stamp and counts all the same"
    );
}

#[test]
fn a_file_of_another_user_is_refused() {
    let mut setup = setup();
    setup.write(EMPTY);
    if uid() == 0 {
        chown(setup.path(), Some(12345), None).unwrap();
        assert_eq!(setup.distrust(), Distrust::ForeignOwner);
        assert!(setup.source.current(12345).is_ok());
    } else {
        let refused = setup.source.current(uid() + 1);
        assert!(matches!(refused, Err(PolicyError::Untrusted { why: Distrust::ForeignOwner, .. })));
    }
}

#[test]
fn a_fifo_or_folder_in_its_place_is_refused_without_waiting() {
    let mut setup = setup();
    fs::create_dir(setup.path()).unwrap();
    assert_eq!(setup.distrust(), Distrust::NotAFile);
    fs::remove_dir(setup.path()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, setup.path(), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(setup.distrust(), Distrust::NotAFile);
}

#[test]
fn a_file_over_four_mebibytes_is_refused() {
    let mut setup = setup();
    setup.write(&format!("{EMPTY}{}", " ".repeat(MAX_CONFIG as usize - EMPTY.len())));
    assert!(setup.current().is_ok());
    setup.write(&format!("{EMPTY}{}", " ".repeat(MAX_CONFIG as usize + 1 - EMPTY.len())));
    assert_eq!(setup.distrust(), Distrust::TooLarge);
}

#[test]
fn a_symbolic_link_is_followed_and_its_target_folder_is_judged_too() {
    let mut setup = setup();
    let repository = tempfile::tempdir().unwrap();
    let real = repository.path().join("keychain.json");
    symlink(&real, setup.path()).unwrap();
    assert_eq!(setup.distrust(), Distrust::DanglingLink);
    fs::write(&real, entry("/bin/a")).unwrap();
    mode(&real, 0o600);
    assert_eq!(setup.current().unwrap().entries().len(), 1);
    mode(repository.path(), 0o777);
    // the file's own stamp is unchanged, and the grain has not passed: it is read again
    assert_eq!(setup.distrust(), Distrust::Writable);
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[test]
fn of_a_sealed_policy_only_the_file_with_that_hash_counts_and_nothing_else_stays_in_force() {
    let mut setup = setup();
    let (sealed, other) = (entry("/bin/a"), entry("/bin/b"));
    let unsealed = |setup: &Setup, found| PolicyError::Unsealed { file: setup.path(), found, broken: None };
    setup.source.accept_only(Some(hash(&sealed)));
    assert_eq!(
        setup.current().unwrap_err(),
        unsealed(&setup, None),
        "a missing file is not the empty policy"
    );
    setup.write(&sealed);
    assert!(setup.current().unwrap().knows_path(Path::new("/bin/a")));
    assert_eq!(setup.source.digest(), Some(Digest::new(hash(&sealed))));
    setup.write(&other);
    let found = Some(Digest::new(hash(&other)));
    assert_eq!(setup.current().unwrap_err(), unsealed(&setup, found));
    assert!(setup.source.last().entries().is_empty());
    assert_eq!(setup.source.digest(), None);
    setup.source.accept_only(None);
    assert!(setup.current().unwrap().knows_path(Path::new("/bin/b")));
    assert!(setup.source.last().knows_path(Path::new("/bin/b")));
}

#[test]
fn another_seal_is_looked_at_although_the_file_is_the_same() {
    let mut setup = setup();
    let text = entry("/bin/a");
    setup.write(&text);
    let late = SystemTime::now() + Duration::from_secs(60);
    setup.source.accept_only(Some(hash(&text)));
    setup.source.current_at(uid(), late).unwrap();
    assert!(setup.source.unchanged(uid()));
    setup.source.accept_only(Some(hash(&text)));
    assert!(setup.source.unchanged(uid()), "the same seal costs no reading");
    setup.source.accept_only(Some([0; 32]));
    assert!(matches!(setup.source.current_at(uid(), late), Err(PolicyError::Unsealed { .. })));
}

#[test]
fn a_sealed_policy_that_is_half_edited_is_told_with_the_place_of_the_fault() {
    let mut setup = setup();
    setup.source.accept_only(Some([0; 32]));
    setup.write("{\n \"protocol_version\": \"2\",\n}");
    let path = setup.path().display().to_string();
    assert_eq!(
        setup.current().unwrap_err().to_string(),
        format!(
            "{path} is not the policy that was sealed; {path}:2:24: protocol_version must be the string \"1\""
        )
    );
    setup.write(EMPTY);
    let text = setup.current().unwrap_err().to_string();
    assert_eq!(text, format!("{path} is not the policy that was sealed"));
}

#[test]
fn a_link_that_leads_nowhere_but_to_itself_is_an_error_and_no_missing_file() {
    let mut setup = setup();
    symlink(setup.path(), setup.path()).unwrap();
    for _ in 0..2 {
        let refused = setup.current().unwrap_err();
        assert!(
            matches!(&refused, PolicyError::Unreadable { file, .. } if *file == setup.path()),
            "{refused}"
        );
    }
    assert_eq!(setup.source.digest(), None);
}
