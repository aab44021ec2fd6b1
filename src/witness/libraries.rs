//! Whether executable memory belongs where it is: every mapped file must be one that only root can change.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{FileType, Stat, lstat, major, minor, stat, statfs};

use super::{
    examine::file_key,
    hashing::{Fingerprints, SMALL},
    procfs::CodeMapping,
};
use crate::caller::{FileKey, ForeignCode};

/// How long a folder that only root can change is believed to stay so: only root could change that.
const FOLDER_TRUST: Duration = Duration::from_secs(2);
/// Most folders that are remembered.
const FOLDERS: usize = 256;
/// Most pieces of foreign code that are told: one is enough to refuse.
const TOLD: usize = 16;

/// Looks at files that are mapped executable.
#[derive(Default)]
pub(super) struct Libraries {
    folders: HashMap<PathBuf, (bool, Instant)>,
}

/// What the executable mappings of a process show.
pub(super) struct Code {
    /// Whether the executable itself is among them.
    pub(super) executable_mapped: bool,
    /// What has no business there.
    pub(super) foreign: Vec<ForeignCode>,
}

impl Libraries {
    /// Sorts mappings into the executable, whose path the kernel told, libraries of root, and foreign code. Files in
    /// `pinned` are hashed.
    pub(super) fn sort(
        &mut self,
        mappings: &[CodeMapping],
        path: &str,
        executable: &FileKey,
        pinned: &[String],
        fingerprints: &Fingerprints,
    ) -> Code {
        let mut code = Code { executable_mapped: false, foreign: Vec::new() };
        for mapping in mappings.iter().filter(|mapping| !mapping.is_kernel()) {
            if is_mapping_of(mapping, path, executable) {
                code.executable_mapped = true;
            } else if !self.belongs_to_root(mapping) && code.foreign.len() < TOLD {
                let first = code.foreign.is_empty();
                code.foreign.push(describe(mapping, first, pinned, fingerprints));
            }
        }
        code
    }

    /// Whether the mapped inode is still what its path names, and root alone can change it or put another in its place.
    fn belongs_to_root(&mut self, mapping: &CodeMapping) -> bool {
        let path = Path::new(&mapping.name);
        if mapping.inode == 0 || !path.is_absolute() {
            return false;
        }
        // not followed: the map names files, so a link here was put in a file's place
        let Ok(file) = lstat(path) else { return false };
        FileType::from_raw_mode(file.st_mode) == FileType::RegularFile
            && is_mapping_of(mapping, &mapping.name, &file_key(&file))
            && only_root_writes(&file)
            && path.parent().is_some_and(|folder| self.folder_of_root(folder))
    }

    fn folder_of_root(&mut self, folder: &Path) -> bool {
        let now = Instant::now();
        if let Some((trusted, seen)) = self.folders.get(folder)
            && now.duration_since(*seen) < FOLDER_TRUST
        {
            return *trusted;
        }
        let trusted = folder.ancestors().all(|part| lstat(part).is_ok_and(|part| only_root_writes(&part)));
        if self.folders.len() >= FOLDERS {
            self.folders.clear();
        }
        self.folders.insert(folder.to_owned(), (trusted, now));
        trusted
    }
}

fn describe(
    mapping: &CodeMapping,
    first: bool,
    pinned: &[String],
    fingerprints: &Fingerprints,
) -> ForeignCode {
    let key = stat(&mapping.name)
        .ok()
        .map(|file| file_key(&file))
        .filter(|key| is_mapping_of(mapping, &mapping.name, key));
    // the refusal names the first one with its hash, if that is cheap, so that the user can see what to trust
    let asked = pinned.contains(&mapping.name);
    let digest = key
        .filter(|key| asked || (first && key.size <= SMALL))
        .and_then(|key| fingerprints.of_path(Path::new(&mapping.name), &key));
    ForeignCode { path: mapping.name.clone(), key, digest }
}

/// Whether a mapping is of the file with this path and key.
///
/// Some filesystems show `stat` another device number than the memory map. There the same inode number under the same
/// path must do: a second file system under that path takes a user namespace, which is refused, or root.
fn is_mapping_of(mapping: &CodeMapping, path: &str, key: &FileKey) -> bool {
    if mapping.inode != key.inode {
        return false;
    }
    let name = mapping.name.strip_suffix(" (deleted)").unwrap_or(&mapping.name);
    mapping.device == (major(key.device), minor(key.device))
        || ((name == path || mapping.name == path) && has_two_device_numbers(path))
}

/// Btrfs has a number for each subvolume, and overlayfs one for each layer.
fn has_two_device_numbers(path: &str) -> bool {
    const BTRFS: u64 = 0x9123_683e;
    const OVERLAY: u64 = 0x794c_7630;
    // the file may be deleted by now; its folder lies on the same filesystem, or nothing is gained by it
    let Some(folder) = Path::new(path).parent() else { return false };
    statfs(folder).is_ok_and(|found| [BTRFS, OVERLAY].contains(&(found.f_type as u64 & 0xffff_ffff)))
}

fn only_root_writes(file: &Stat) -> bool {
    file.st_uid == 0 && file.st_mode & 0o022 == 0
}
