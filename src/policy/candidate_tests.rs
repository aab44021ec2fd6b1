#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs::Permissions,
    os::unix::fs::{PermissionsExt, chown, symlink},
};

use rustix::process::geteuid;
use sha2::{Digest as _, Sha256};

use super::*;

fn uid() -> u32 {
    geteuid().as_raw()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn file(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

fn elf(folder: &Path, name: &str) -> PathBuf {
    file(folder, name, b"\x7fELF tool", 0o755)
}

fn examine(path: &Path) -> Result<Candidate, CandidateError> {
    Candidate::examine(path, Allowances::default(), uid())
}

fn risk(path: &Path) -> Risk {
    match examine(path) {
        Err(CandidateError::Refused { risk, .. }) => risk,
        other => panic!("{other:?}"),
    }
}

fn unmeasured(path: &Path) -> MeasureError {
    match examine(path) {
        Err(CandidateError::Unmeasured(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn all() -> Allowances {
    Allowances { interpreter: true, setuid: true, writable: true, foreign_filesystem: true }
}

#[test]
fn an_ordinary_executable_is_measured_under_its_canonical_path() {
    let folder = folder();
    let real = elf(folder.path(), "tool-1.2");
    let link = folder.path().join("tool");
    symlink(&real, &link).unwrap();
    let candidate = examine(&link).unwrap();
    assert_eq!(candidate.path(), fs::canonicalize(&real).unwrap());
    assert_eq!(candidate.digest().as_bytes(), &<[u8; 32]>::from(Sha256::digest(b"\x7fELF tool")));
    assert_eq!(candidate.size(), 9);
}

#[test]
fn what_is_no_executable_file_is_a_plain_error() {
    let folder = folder();
    assert!(matches!(unmeasured(&folder.path().join("none")), MeasureError::NotFound(_)));
    assert!(matches!(unmeasured(folder.path()), MeasureError::NotAFile(_)));
    let plain = file(folder.path(), "plain", b"\x7fELF", 0o644);
    assert!(matches!(unmeasured(&plain), MeasureError::NotExecutable(_)));
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o700.into(), 0).unwrap();
    assert!(matches!(unmeasured(&fifo), MeasureError::NotAFile(_)));
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(unmeasured(&socket), MeasureError::NotAFile(_)));
}

#[test]
fn an_interpreter_is_refused_by_name_and_allowed_by_its_flag() {
    let folder = folder();
    let python = elf(folder.path(), "python3.11");
    assert_eq!(risk(&python), Risk::Interpreter);
    let link = folder.path().join("mytool");
    symlink(&python, &link).unwrap();
    assert_eq!(risk(&link), Risk::Interpreter, "the link's name is no disguise");
    let allowed = Allowances { interpreter: true, ..Allowances::default() };
    assert!(Candidate::examine(&python, allowed, uid()).is_ok());
}

#[test]
fn a_copy_of_a_shell_under_another_name_is_refused() {
    let folder = folder();
    let shell = fs::canonicalize("/bin/sh").unwrap();
    let copy = folder.path().join("mytool");
    fs::copy(&shell, &copy).unwrap();
    assert!(matches!(risk(&copy), Risk::RenamedInterpreter(_)));
    let allowed = Allowances { interpreter: true, ..Allowances::default() };
    assert!(Candidate::examine(&copy, allowed, uid()).is_ok());
}

#[test]
fn a_program_that_is_only_as_long_as_a_shell_is_no_shell() {
    let folder = folder();
    let mut bytes = fs::read("/bin/sh").unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    assert!(examine(&file(folder.path(), "mytool", &bytes, 0o755)).is_ok());
}

#[test]
fn a_hard_link_to_a_shell_is_refused_where_one_can_be_made() {
    let shell = fs::canonicalize("/bin/sh").unwrap();
    let Some(folder) =
        ["/usr/local/lib", "/usr/lib", "/tmp"].into_iter().find_map(|at| tempfile::tempdir_in(at).ok())
    else {
        return;
    };
    let link = folder.path().join("mytool");
    if fs::hard_link(&shell, &link).is_ok() {
        assert!(matches!(risk(&link), Risk::RenamedInterpreter(_)));
    }
}

#[test]
fn a_script_is_refused_under_every_flag_and_names_its_interpreter() {
    let folder = folder();
    for (line, interpreter) in [
        ("#!/bin/sh\necho", "/bin/sh"),
        ("#! /usr/bin/python3 -I\n", "/usr/bin/python3"),
        ("#!/usr/bin/awk print\n", "/usr/bin/awk"),
        ("#!/usr/bin/env node\n", "node"),
        ("#!/usr/bin/env -S A=1 deno run\n", "deno"),
        ("#!", "an unnamed interpreter"),
    ] {
        let script = file(folder.path(), "tool", line.as_bytes(), 0o755);
        let refused = Candidate::examine(&script, all(), uid());
        let Err(CandidateError::Refused { risk, .. }) = refused else { panic!("{line}: {refused:?}") };
        assert_eq!(risk, Risk::Script(interpreter.to_owned()), "{line}");
    }
}

#[test]
fn what_the_kernel_would_not_load_itself_is_refused_under_every_flag() {
    let folder = folder();
    for bytes in [&b""[..], b"MZ\x90", b"\x7fEL"] {
        let path = file(folder.path(), "tool", bytes, 0o755);
        let refused = Candidate::examine(&path, all(), uid());
        assert!(matches!(refused, Err(CandidateError::Refused { risk: Risk::NotElf, .. })));
    }
}

#[test]
fn setuid_and_setgid_files_are_refused() {
    let folder = folder();
    for mode in [0o4755, 0o2755] {
        let path = file(folder.path(), "tool", b"\x7fELF", mode);
        assert_eq!(risk(&path), Risk::Setuid);
        let allowed = Allowances { setuid: true, ..Allowances::default() };
        assert!(Candidate::examine(&path, allowed, uid()).is_ok());
    }
}

#[test]
fn file_capabilities_are_refused_where_they_can_be_set() {
    let folder = folder();
    let path = elf(folder.path(), "tool");
    // version 2, CAP_NET_RAW permitted and effective
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set =
        rustix::fs::setxattr(&path, "security.capability", &capability, rustix::fs::XattrFlags::empty());
    if set.is_ok() {
        assert_eq!(risk(&path), Risk::Setuid);
    } else {
        // an ordinary user may not set them, and then a file without them passes
        assert!(examine(&path).is_ok());
    }
}

#[test]
fn a_file_or_folder_that_others_can_write_is_refused() {
    let outer = folder();
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let path = elf(&inner, "tool");
    assert!(examine(&path).is_ok(), "sticky /tmp higher up is accepted");
    for mode in [0o775, 0o757] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert_eq!(risk(&path), Risk::File(Distrust::Writable));
    }
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    for folder in [inner.as_path(), outer.path()] {
        fs::set_permissions(folder, Permissions::from_mode(0o770)).unwrap();
        let real = fs::canonicalize(folder).unwrap();
        assert_eq!(risk(&path), Risk::Folder { folder: real, why: Distrust::Writable });
        let allowed = Allowances { writable: true, ..Allowances::default() };
        assert!(Candidate::examine(&path, allowed, uid()).is_ok());
        fs::set_permissions(folder, Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_sticky_folder_is_refused_as_the_folder_of_the_file() {
    let outer = folder();
    fs::set_permissions(outer.path(), Permissions::from_mode(0o1777)).unwrap();
    let path = elf(outer.path(), "tool");
    assert!(matches!(risk(&path), Risk::Folder { why: Distrust::Writable, .. }));
}

#[test]
fn a_file_of_another_user_is_refused() {
    let folder = folder();
    let path = elf(folder.path(), "tool");
    if uid() == 0 {
        chown(&path, Some(12345), None).unwrap();
        assert_eq!(risk(&path), Risk::File(Distrust::ForeignOwner));
    } else {
        let refused = Candidate::examine(&path, Allowances::default(), uid() + 1);
        assert!(matches!(
            refused,
            Err(CandidateError::Refused { risk: Risk::File(Distrust::ForeignOwner), .. })
        ));
    }
}

#[test]
fn a_file_that_grows_while_it_is_hashed_is_not_registered() {
    let folder = folder();
    let path = elf(folder.path(), "tool");
    let opened = Opened::new(&path).unwrap();
    fs::write(&path, b"\x7fELF tool, and more").unwrap();
    assert!(matches!(opened.measure(), Err(MeasureError::Changing(_))));
}

#[test]
fn a_path_that_config_json_can_not_name_is_refused() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let folder = folder();
    let path = elf(folder.path(), "tool");
    let odd = folder.path().join(OsStr::from_bytes(b"tool-\xff"));
    fs::rename(path, &odd).unwrap();
    let link = folder.path().join("innocent");
    symlink(&odd, &link).unwrap();
    let real = fs::canonicalize(&odd).unwrap();
    assert_eq!(unmeasured(&link), MeasureError::NotUtf8(real));
}

#[test]
fn what_the_system_does_not_let_be_found_or_read_is_no_missing_file() {
    let folder = folder();
    let link = folder.path().join("tool");
    symlink(&link, &link).unwrap();
    assert!(matches!(unmeasured(&link), MeasureError::Unreadable { file, .. } if file == link));
    // a regular file that opens, and whose first byte nobody can read
    let memory = Opened::file(Path::new("/proc/self/mem")).unwrap();
    assert!(!memory.is_elf());
    let path = memory.path.clone();
    assert!(matches!(memory.measure(), Err(MeasureError::Unreadable { file, .. }) if file == path));
}

#[test]
fn a_program_below_a_file_is_missing_like_any_other() {
    let folder = folder();
    let below = elf(folder.path(), "tool").join("tool");
    assert_eq!(unmeasured(&below), MeasureError::NotFound(below));
}
