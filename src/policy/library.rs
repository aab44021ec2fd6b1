//! Libraries that an entry admits although its user can write them, pinned by path and hash.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    candidate::{Allowances, Exposed, closed_to_others},
    draft::{Draft, DraftError},
    measure::{MeasureError, Measured, Opened},
    source::{Distrust, judge},
};
use crate::{digest::Digest, sys::filesystem::foreign};

const LIBRARIES: &str = "libraries";

/// A library that may be trusted: measured, and out of reach of everybody but its user and root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryFile {
    measured: Measured,
    elf: bool,
    of_root: bool,
}

/// Why a library is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// It can't be measured.
    #[error(transparent)]
    Unmeasured(#[from] MeasureError),
    /// The loader maps no such file.
    #[error("{} is not an ELF file, so no program maps it as a library", .0.display())]
    NotElf(PathBuf),
    /// The library or a folder above it can be changed by others.
    #[error("{}: {why}, so somebody else could change the library", place.display())]
    Exposed {
        /// The file or folder.
        place: PathBuf,
        /// What speaks against it.
        why: Distrust,
    },
    /// FUSE or a network.
    #[error(
        "{} lies on a {kind} file system, whose server could show one file to the check and map another",
        path.display()
    )]
    ForeignFilesystem {
        /// The library.
        path: PathBuf,
        /// The kind of file system.
        kind: &'static str,
    },
}

impl LibraryFile {
    /// Examines and measures the library at `path`, links resolved, for the user `uid`. Of `allowed`, the risks of a
    /// place count.
    pub fn examine(path: &Path, allowed: Allowances, uid: u32) -> Result<Self, LibraryError> {
        let opened = Opened::file(path)?;
        if !allowed.writable {
            closed_to_others(&opened, uid)
                .map_err(|Exposed { place, why }| LibraryError::Exposed { place, why })?;
        }
        if !allowed.foreign_filesystem
            && let Some(kind) = foreign(&opened.file)
        {
            return Err(LibraryError::ForeignFilesystem { path: opened.path, kind });
        }
        let (elf, of_root) = (opened.is_elf(), only_root_changes(&opened));
        Ok(Self { measured: opened.measure()?, elf, of_root })
    }

    /// The same for a library that an entry shall name from now on: what no loader maps is refused.
    pub fn candidate(path: &Path, allowed: Allowances, uid: u32) -> Result<Self, LibraryError> {
        let library = Self::examine(path, allowed, uid)?;
        if library.elf { Ok(library) } else { Err(LibraryError::NotElf(library.path().into())) }
    }

    /// Whether nobody but root can change it: then every program may map it, and no entry has to name it.
    pub fn is_of_root(&self) -> bool {
        self.of_root
    }

    /// The canonical path, as the kernel shows it among a process's mappings.
    pub fn path(&self) -> &Path {
        self.measured.path()
    }

    /// The hash of its bytes.
    pub fn digest(&self) -> &Digest {
        self.measured.digest()
    }
}

/// As the witness sees it, and rather too strictly: an entry that is not needed does no harm. On a file system that is
/// mounted without set-uid, as a user's own disk is, a file of root may be anybody's.
fn only_root_changes(opened: &Opened) -> bool {
    let folder = |folder: &Path| fs::symlink_metadata(folder).is_ok_and(|found| judge(&found, 0).is_ok());
    let owners_count = || {
        rustix::fs::fstatvfs(&opened.file)
            .is_ok_and(|mount| !mount.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID))
    };
    judge(&opened.metadata, 0).is_ok() && opened.path.ancestors().skip(1).all(folder) && owners_count()
}

impl Draft {
    /// Adds a library to every entry of this path; one that is listed already gets the new hash.
    pub fn trust_library(&mut self, path: &Path, library: &Path, digest: &Digest) -> Result<(), DraftError> {
        let name = library.to_str().ok_or(DraftError::NotUtf8)?;
        self.each(path, |entry| {
            let list = entry.entry(LIBRARIES).or_insert_with(|| json!([]));
            let Some(list) = list.as_array_mut() else { return };
            let known = list.iter().position(|known| is_about(known, library));
            match known.and_then(|at| list.get_mut(at)).and_then(Value::as_object_mut) {
                Some(known) => {
                    known.insert("hash".into(), json!(digest.to_string()));
                }
                None => list.push(json!({"path": name, "hash": digest.to_string()})),
            }
            // a second one with the same path would keep the old hash trusted
            let mut first = true;
            list.retain(|known| !is_about(known, library) || std::mem::take(&mut first));
        })
    }

    /// Removes a library from every entry of this path.
    pub fn distrust_library(&mut self, path: &Path, library: &Path) -> Result<(), DraftError> {
        let mut found = false;
        self.each(path, |entry| {
            if let Some(list) = entry.get_mut(LIBRARIES).and_then(Value::as_array_mut) {
                let before = list.len();
                list.retain(|known| !is_about(known, library));
                found |= list.len() < before;
            }
        })?;
        let unknown = || DraftError::UnknownLibrary { path: path.into(), library: library.into() };
        if found { Ok(()) } else { Err(unknown()) }
    }
}

fn is_about(known: &Value, library: &Path) -> bool {
    known.get("path").and_then(Value::as_str).is_some_and(|path| Path::new(path) == library)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::policy::Policy;

    const PATH: &str = "/bin/a";

    fn libraries(draft: &Draft) -> Vec<Vec<(PathBuf, Digest)>> {
        let policy = Policy::parse(&draft.render()).unwrap();
        let of = |entry: &crate::policy::Entry| {
            let libraries = entry.libraries().iter();
            libraries.map(|library| (library.path().to_owned(), *library.digest())).collect()
        };
        policy.entries().iter().map(of).collect()
    }

    fn draft(members: &str) -> Draft {
        let entry =
            |hash: &str| format!(r#"{{"path":"{PATH}","hash":"sha256:{}"{members}}}"#, hash.repeat(32));
        let text =
            format!(r#"{{"protocol_version":"1","registered_binaries":[{},{}]}}"#, entry("aa"), entry("bb"));
        Draft::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_library_is_listed_once_and_with_its_newest_hash() {
        let mut draft = draft("");
        let library = Path::new("/l.so");
        for byte in [1, 1, 2] {
            draft.trust_library(Path::new(PATH), library, &Digest::new([byte; 32])).unwrap();
        }
        let expected = vec![(library.to_owned(), Digest::new([2; 32]))];
        assert_eq!(libraries(&draft), [expected.clone(), expected]);
    }

    #[test]
    fn an_old_hash_of_a_library_that_is_listed_twice_does_not_stay() {
        let old = Digest::new([1; 32]);
        let mut draft = draft(&format!(
            r#","libraries":[{{"path":"/l.so","hash":"{old}"}},{{"path":"/k.so","hash":"{old}"}},{{"path":"/l.so","hash":"{old}"}}]"#
        ));
        draft.trust_library(Path::new(PATH), Path::new("/l.so"), &Digest::new([2; 32])).unwrap();
        let expected = vec![(PathBuf::from("/l.so"), Digest::new([2; 32])), (PathBuf::from("/k.so"), old)];
        assert_eq!(libraries(&draft)[0], expected);
    }

    #[test]
    fn a_library_that_is_not_listed_can_not_be_taken_away() {
        let mut draft = draft("");
        let (path, library) = (Path::new(PATH), Path::new("/l.so"));
        let unknown = Err(DraftError::UnknownLibrary { path: path.into(), library: library.into() });
        assert_eq!(draft.distrust_library(path, library), unknown);
        draft.trust_library(path, library, &Digest::new([1; 32])).unwrap();
        assert_eq!(draft.distrust_library(path, library), Ok(()));
        assert_eq!(libraries(&draft), [vec![], vec![]]);
        assert_eq!(
            draft.trust_library(Path::new("/bin/b"), library, &Digest::new([1; 32])),
            Err(DraftError::UnknownPath("/bin/b".into()))
        );
    }

    #[test]
    fn a_library_is_of_root_only_where_nobody_else_can_put_another_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("l.so");
        fs::write(&own, b"\x7fELFcode").unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let examine = |path: &Path| LibraryFile::candidate(path, Allowances::default(), uid).unwrap();
        assert!(!examine(&own).is_of_root(), "everybody can write in a folder above it, or it is the user's");
        let shell = fs::canonicalize("/bin/sh").unwrap();
        let mount = rustix::fs::statvfs(&shell).unwrap();
        // where the system is elsewhere, or mounted as a user's disk is, it is not for this test to say
        if shell.starts_with("/usr") && !mount.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID) {
            assert!(examine(&shell).is_of_root());
        }
    }

    #[test]
    fn a_library_need_not_be_executable_and_must_be_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(folder.path()).unwrap().join("l.so");
        fs::write(&path, b"\x7fELFcode").unwrap();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let examine = |allowed| LibraryFile::examine(&path, allowed, uid);
        mode(0o644);
        let link = path.with_file_name("link.so");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let through_link = LibraryFile::examine(&link, Allowances::default(), uid).unwrap();
        assert_eq!(through_link.path(), path);
        assert_eq!(*through_link.digest(), Digest::new(Sha256::digest(b"\x7fELFcode").into()));
        assert_eq!(Ok(through_link), examine(Allowances::default()));
        mode(0o666);
        let exposed = LibraryError::Exposed { place: path.clone(), why: Distrust::Writable };
        assert_eq!(examine(Allowances::default()), Err(exposed));
        assert!(examine(Allowances { writable: true, ..Allowances::default() }).is_ok());
        fs::write(&path, "#!/bin/sh").unwrap();
        let all = Allowances { writable: true, ..Allowances::default() };
        assert!(examine(all).is_ok(), "what is listed is compared, whatever it is");
        assert_eq!(LibraryFile::candidate(&path, all, uid), Err(LibraryError::NotElf(path.clone())));
        let folder = LibraryFile::examine(folder.path(), Allowances::default(), uid);
        assert!(matches!(folder, Err(LibraryError::Unmeasured(MeasureError::NotAFile(_)))));
    }
}
