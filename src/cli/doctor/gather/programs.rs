//! Each registered program: its file today, and its libraries.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{
    super::facts::{FileState, LibraryFacts, Program},
    place_of_user,
};
use crate::{
    cli::text::moment,
    digest::Digest,
    policy::{
        Allowances, Candidate, CandidateError, Entry, Library, LibraryError, LibraryFile, MeasureError,
        Measured, Policy, Risk,
    },
};

/// Where a path leads today, and the hash of what is there.
type Today = Result<(PathBuf, Digest), MeasureError>;

pub(super) fn programs(policy: &Policy, uid: u32, now: Timestamp) -> Vec<Program> {
    policy.entries().iter().map(|entry| program(entry, uid, now)).collect()
}

fn program(entry: &Entry, uid: u32, now: Timestamp) -> Program {
    let path = entry.path();
    let (risks, file) = match entry.digest() {
        Some(digest) if path.is_absolute() => {
            let (risks, today) = examine(path, uid);
            (risks, compare(today, path, digest))
        }
        _ => (Vec::new(), FileState::Unasked),
    };
    Program {
        path: path.to_owned(),
        digest: entry.digest().copied(),
        unusable: entry.unusable(),
        expired: entry.expires_at().filter(|_| entry.expired(now)).map(moment),
        relaxed: entry.relaxed().collect(),
        replaceable: matches!(file, FileState::Same | FileState::Other) && place_of_user(path, uid).is_some(),
        file,
        risks,
        libraries: entry.libraries().iter().map(|library| self::library(library, uid)).collect(),
    }
}

/// Every risk of a file, found by allowing one after the other, and the file as it is.
fn examine(path: &Path, uid: u32) -> (Vec<Risk>, Today) {
    let (mut risks, mut allowed) = (Vec::new(), Allowances::default());
    loop {
        let risk = match Candidate::examine(path, allowed, uid) {
            Ok(found) => return (risks, Ok((found.path().to_owned(), *found.digest()))),
            Err(CandidateError::Unmeasured(error)) => return (risks, Err(error)),
            Err(CandidateError::Refused { risk, .. }) => risk,
        };
        let allowance = match &risk {
            Risk::Interpreter | Risk::RenamedInterpreter(_) => Some(&mut allowed.interpreter),
            Risk::Setuid => Some(&mut allowed.setuid),
            Risk::File(_) | Risk::Folder { .. } => Some(&mut allowed.writable),
            Risk::ForeignFilesystem(_) => Some(&mut allowed.foreign_filesystem),
            // no flag allows it, and it answers before all others
            _ => None,
        };
        risks.push(risk);
        match allowance {
            Some(allowance) if !*allowance => *allowance = true,
            _ => break,
        }
    }
    (risks, Measured::take(path).map(|found| (found.path().to_owned(), *found.digest())))
}

/// A file whose path leads elsewhere by a link now is another one: the kernel shows the real path.
fn compare(today: Today, path: &Path, registered: &Digest) -> FileState {
    match today {
        Ok((real, digest)) if real == path && digest == *registered => FileState::Same,
        Ok(_) => FileState::Other,
        Err(MeasureError::NotFound(_)) => FileState::Gone,
        Err(error) => FileState::Unread(error.to_string()),
    }
}

fn library(library: &Library, uid: u32) -> LibraryFacts {
    let path = library.path();
    let allowed = Allowances { foreign_filesystem: true, ..Allowances::default() };
    let (exposed, found) = match LibraryFile::examine(path, allowed, uid) {
        Err(LibraryError::Exposed { place, why }) => {
            (Some((place, why)), LibraryFile::examine(path, Allowances { writable: true, ..allowed }, uid))
        }
        found => (None, found),
    };
    let file = match found {
        Ok(found) if found.path() == path && found.digest() == library.digest() => FileState::Same,
        Ok(_) => FileState::Other,
        Err(LibraryError::Unmeasured(MeasureError::NotFound(_))) => FileState::Gone,
        Err(error) => FileState::Unread(error.to_string()),
    };
    LibraryFacts { path: path.to_owned(), file, exposed }
}
