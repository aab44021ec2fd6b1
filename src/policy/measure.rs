//! One state of an executable file or a library, hashed through one descriptor.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Seek},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::stamp::Stamp;
use crate::{digest::Digest, sys::filesystem::open};

/// How much is hashed at a time: large enough that the hash and not the call is what costs.
const BLOCK: usize = 128 * 1024;

/// Why a file can't be measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// There is nothing at this path.
    #[error("{} does not exist", .0.display())]
    NotFound(PathBuf),
    /// A folder, fifo, socket or device.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Nobody may execute it.
    #[error("{} is not executable", .0.display())]
    NotExecutable(PathBuf),
    /// It was written while it was read.
    #[error("{} changed while it was hashed", .0.display())]
    Changing(PathBuf),
    /// JSON can't hold the path.
    #[error("the path of {} is not UTF-8, so config.json can't name it", .0.display())]
    NotUtf8(PathBuf),
    /// The system did not let it be read.
    #[error("{} can't be read: {kind}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        kind: io::ErrorKind,
    },
}

/// An executable file that is open: its canonical path and what the descriptor says about it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) metadata: Metadata,
}

/// An executable file as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

impl Measured {
    /// Measures the executable at `path`, links resolved. Reads all of it.
    pub fn take(path: &Path) -> Result<Self, MeasureError> {
        Opened::new(path)?.measure()
    }

    /// The canonical path, absolute and UTF-8.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The hash of its bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Opened {
    /// Opens the executable at `path`, links resolved.
    pub(super) fn new(path: &Path) -> Result<Self, MeasureError> {
        let opened = Self::file(path)?;
        if opened.metadata.mode() & 0o111 == 0 {
            return Err(MeasureError::NotExecutable(opened.path));
        }
        Ok(opened)
    }

    /// Opens the regular file at `path`, links resolved; a library need not be executable.
    pub(super) fn file(path: &Path) -> Result<Self, MeasureError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => MeasureError::NotFound(path.into()),
            kind => MeasureError::Unreadable { file: path.into(), kind },
        };
        let real = fs::canonicalize(path).map_err(failed)?;
        if real.to_str().is_none() {
            return Err(MeasureError::NotUtf8(real));
        }
        let file = open(&real).map_err(|error| match fs::metadata(&real) {
            // a socket can't be opened at all
            Ok(metadata) if !metadata.is_file() => MeasureError::NotAFile(real.clone()),
            _ => failed(error),
        })?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(MeasureError::NotAFile(real));
        }
        Ok(Self { path: real, file, metadata })
    }

    /// Whether it begins as what the kernel and the loader map.
    pub(super) fn is_elf(&self) -> bool {
        let mut head = [0; 4];
        self.file.read_exact_at(&mut head, 0).is_ok() && head == *b"\x7fELF"
    }

    /// Hashes it. Size and time stamps must be equal before and after: what is registered is one state of the file.
    pub(super) fn measure(mut self) -> Result<Measured, MeasureError> {
        let unreadable = |path: &Path, error: io::Error| MeasureError::Unreadable {
            file: path.into(),
            kind: error.kind(),
        };
        let digest = hash(&mut self.file).map_err(|error| unreadable(&self.path, error))?;
        let after = self.file.metadata().map_err(|error| unreadable(&self.path, error))?;
        if Stamp::of(&self.metadata) != Stamp::of(&after) {
            return Err(MeasureError::Changing(self.path));
        }
        Ok(Measured { path: self.path, digest, size: after.len() })
    }
}

/// The hash of the whole file, from its beginning.
pub(super) fn hash(file: &mut File) -> io::Result<Digest> {
    file.rewind()?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(Digest::new(hasher.finalize().into())),
            Ok(count) => hasher.update(block.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
