//! Whether executable memory belongs where it is: every mapped file must be one that only root can change.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::fs::{FileType, Stat, StatVfsMountFlags, lstat, major, minor, stat, statfs, statvfs};

use super::{
    examine::file_key,
    hashing::{Fingerprints, SMALL},
    procfs::CodeMapping,
    protocol::Unseen,
    written::PageMap,
};
use crate::caller::{Executable, FileKey, ForeignCode};

/// How long a folder that only root can change is believed to stay so: only root could change that.
const FOLDER_TRUST: Duration = Duration::from_secs(2);
/// Most folders that are remembered.
const FOLDERS: usize = 256;
/// Most pieces of foreign code that are told, since an entry may admit them: more would not fit into a message. A process
/// with more is refused, for what is not told is not judged.
const TOLD: usize = 192;

/// Looks at files that are mapped executable.
#[derive(Default)]
pub(super) struct Libraries {
    folders: Mutex<HashMap<PathBuf, (bool, Instant)>>,
}

/// What the executable mappings of a process show.
pub(super) struct Code {
    /// Whether the executable itself is among them.
    pub(super) executable_mapped: bool,
    /// What has no business there.
    pub(super) foreign: Vec<ForeignCode>,
}

impl Libraries {
    /// Sorts mappings into the executable, libraries of root, and foreign code, which all
    /// code is that was written in memory. Files in `pinned` are hashed.
    pub(super) fn sort(
        &self,
        mappings: &[CodeMapping],
        executable: &Executable,
        pinned: &[String],
        fingerprints: &Fingerprints,
        pages: &mut PageMap,
    ) -> Result<Code, Unseen> {
        let mut code = Code { executable_mapped: false, foreign: Vec::new() };
        for mapping in mappings {
            let is_executable = is_of_executable(mapping, executable);
            code.executable_mapped |= is_executable;
            let piece = if mapping.has_pages() && pages.is_written(mapping.range)? {
                // no digest: what is in memory is not what an entry could admit
                ForeignCode { path: mapping.name.clone(), key: None, digest: None }
            } else if is_executable || mapping.is_kernel() || self.belongs_to_root(mapping) {
                continue;
            } else {
                describe(mapping, code.foreign.is_empty(), pinned, fingerprints)
            };
            // many mappings of one file must not hide another one
            if code.foreign.contains(&piece) {
                continue;
            }
            if code.foreign.len() == TOLD {
                return Err(Unseen::TooLarge);
            }
            code.foreign.push(piece);
        }
        Ok(code)
    }

    /// Whether the mapped inode is still what its path names, and root alone can change it or put another in its place.
    fn belongs_to_root(&self, mapping: &CodeMapping) -> bool {
        let path = Path::new(&mapping.name);
        if mapping.inode == 0 || !path.is_absolute() {
            return false;
        }
        // not followed: the map names files, so a link here was put in a file's place
        let Ok(file) = lstat(path) else { return false };
        FileType::from_raw_mode(file.st_mode) == FileType::RegularFile
            && is_mapping_of(mapping, &file_key(&file))
            && only_root_writes(&file)
            && path.parent().is_some_and(|folder| self.folder_of_root(folder))
    }

    fn folder_of_root(&self, folder: &Path) -> bool {
        let now = Instant::now();
        if let Some((trusted, seen)) = self.known().get(folder)
            && now.duration_since(*seen) < FOLDER_TRUST
        {
            return *trusted;
        }
        // a folder of a filesystem that does not answer makes this look wait, and no other
        let trusted = folder.ancestors().all(|part| lstat(part).is_ok_and(|part| only_root_writes(&part)))
            && owners_count(folder);
        let mut known = self.known();
        if known.len() >= FOLDERS {
            known.clear();
        }
        known.insert(folder.to_owned(), (trusted, now));
        trusted
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, (bool, Instant)>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the owners that a filesystem tells are those that this machine's root gave: not on one that is mounted only
/// without set-uid, as a user's own disk or image is, where a file of root may be anybody's.
fn owners_count(folder: &Path) -> bool {
    let Ok(found) = lstat(folder) else { return false };
    folder
        .ancestors()
        .take_while(|part| lstat(*part).is_ok_and(|part| part.st_dev == found.st_dev))
        .any(|part| statvfs(part).is_ok_and(|mount| !mount.f_flag.contains(StatVfsMountFlags::NOSUID)))
}

fn describe(
    mapping: &CodeMapping,
    first: bool,
    pinned: &[String],
    fingerprints: &Fingerprints,
) -> ForeignCode {
    let key = stat(&mapping.name).ok().map(|file| file_key(&file)).filter(|key| is_mapping_of(mapping, key));
    // the refusal names the first one with its hash, if that is cheap, so that the user can see what to trust
    let asked = pinned.contains(&mapping.name);
    let digest = key
        .filter(|key| asked || (first && key.size <= SMALL))
        .and_then(|key| fingerprints.of_path(Path::new(&mapping.name), &key));
    ForeignCode { path: mapping.name.clone(), key, digest }
}

/// Whether a mapping is of the executable, whose path the kernel told.
///
/// Where its device number is another, it must have the path of the executable as well, alive or deleted like it. A path
/// that is alive must lead to the executable: an ordinary user can have a filesystem of his own put over a file of his.
fn is_of_executable(mapping: &CodeMapping, executable: &Executable) -> bool {
    let Executable { path, deleted, key, .. } = executable;
    let named_alike = || match mapping.name.strip_suffix(" (deleted)") {
        Some(name) if *deleted => name == path,
        _ => {
            let leads_to_it = || stat(path).is_ok_and(|file| file_key(&file) == *key);
            !deleted && mapping.name == *path && leads_to_it()
        }
    };
    mapping.inode == key.inode
        && (has_device_of(mapping, key) || (has_two_device_numbers(path) && named_alike()))
}

/// Whether a mapping is of the file that its name led to, with this key.
fn is_mapping_of(mapping: &CodeMapping, key: &FileKey) -> bool {
    mapping.inode == key.inode && (has_device_of(mapping, key) || has_two_device_numbers(&mapping.name))
}

fn has_device_of(mapping: &CodeMapping, key: &FileKey) -> bool {
    mapping.device == (major(key.device), minor(key.device))
}

/// Some filesystems show `stat` another device number than the memory map: btrfs has one for each subvolume, overlayfs
/// one for each layer.
fn has_two_device_numbers(path: &str) -> bool {
    const BTRFS: u64 = 0x9123_683e;
    const OVERLAY: u64 = 0x794c_7630;
    // the file may be deleted by now; its folder lies on the same filesystem, or nothing is gained by it
    let Some(folder) = Path::new(path).parent() else { return false };
    statfs(folder).is_ok_and(|found| [BTRFS, OVERLAY].contains(&(found.f_type as u64 & 0xffff_ffff)))
}

/// Whether only root can change a file or folder.
pub(super) fn only_root_writes(file: &Stat) -> bool {
    file.st_uid == 0 && file.st_mode & 0o022 == 0
}
