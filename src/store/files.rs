//! Private files in a private folder: opened by descriptor, checked for owner, mode and kind before a byte is used.
//!
//! Every name is resolved against the folder's descriptor and no symbolic link is followed, so that a folder swapped
//! under a running daemon changes nothing. A wrong owner or mode is an error in words, never repaired silently: a
//! file that others could write may already have been written.

use std::{
    fs::{DirBuilder, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::Path,
};

use rustix::{
    fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat},
    io::Errno,
    process::geteuid,
};

use super::batch::StoreError;

/// Owner may read and write, nobody else anything.
const PRIVATE: Mode = Mode::from_raw_mode(0o600);

/// Why a private file or folder can't be used. Names only files of our own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Another process holds the folder.
    #[error("another process holds the folder")]
    InUse,
    /// Somebody else owns it, others may use it, or it is not a plain file or folder.
    #[error("{0}")]
    Exposed(String),
    /// The system refused.
    #[error("{name}: {reason}")]
    Io {
        /// The file's name within the folder.
        name: String,
        /// The system's words.
        reason: String,
    },
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::InUse => Self::InUse,
            FileError::Exposed(text) => Self::Exposed(text),
            error @ FileError::Io { .. } => Self::Io(error.to_string()),
        }
    }
}

fn io_error(name: &str, error: Errno) -> FileError {
    FileError::Io { name: name.to_owned(), reason: io::Error::from(error).to_string() }
}

/// An open folder that only its owner can enter.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl Folder {
    /// Opens the folder, making it (0700) if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let label = "the data folder";
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| FileError::Io { name: label.to_owned(), reason: error.to_string() })?;
        Self::existing(path)?
            .ok_or_else(|| FileError::Io { name: label.to_owned(), reason: "it is gone".to_owned() })
    }

    /// Opens the folder. None if there is none.
    pub(crate) fn existing(path: &Path) -> Result<Option<Self>, FileError> {
        let label = "the data folder";
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let folder = match fs::open(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.map_err(|error| io_error(label, error))?,
        };
        let stat = fs::fstat(&folder).map_err(|error| io_error(label, error))?;
        private(label, &stat, 0o700)?;
        Ok(Some(Self(folder)))
    }

    /// Takes the folder for this process, until the `Folder` is dropped.
    pub(crate) fn lock(&self) -> Result<(), FileError> {
        match fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(Errno::WOULDBLOCK) => Err(FileError::InUse),
            Err(error) => Err(io_error("the data folder", error)),
        }
    }

    /// Gives the folder to whoever takes it next.
    pub(crate) fn unlock(&self) -> Result<(), FileError> {
        fs::flock(&self.0, FlockOperation::Unlock).map_err(|error| io_error("the data folder", error))
    }

    /// Another hand on the same open folder: both have one lock.
    pub(crate) fn try_clone(&self) -> Result<Self, FileError> {
        let again = rustix::io::fcntl_dupfd_cloexec(&self.0, 0);
        again.map(Self).map_err(|error| io_error("the data folder", error))
    }

    /// Opens a file that is ours alone, for reading and writing. None if there is none.
    pub(crate) fn find(&self, name: &str, extra: OFlags) -> Result<Option<File>, FileError> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | extra;
        let file = match fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(FileError::Exposed(format!("{name} is a symbolic link"))),
            Err(error) => return Err(io_error(name, error)),
        };
        let stat = fs::fstat(&file).map_err(|error| io_error(name, error))?;
        plain(name, &stat)?;
        Ok(Some(File::from(file)))
    }

    /// Makes a file that was not there, 0600 from its first moment.
    pub(crate) fn create(&self, name: &str, extra: OFlags) -> Result<File, FileError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | extra;
        let file = fs::openat(&self.0, name, flags, PRIVATE).map_err(|error| io_error(name, error))?;
        // the daemon's umask takes none of these bits, and once it is caged it may change no mode: a folder whose default
        // ACL takes some is refused
        let stat = fs::fstat(&file).map_err(|error| io_error(name, error))?;
        if Mode::from_raw_mode(stat.st_mode) & Mode::from_raw_mode(0o7777) != PRIVATE {
            self.remove(name)?;
            let why =
                format!("{name} can't be made with mode 0600: a default ACL of its folder gives another");
            return Err(FileError::Exposed(why));
        }
        Ok(File::from(file))
    }

    /// Gives a finished file its real name, over nothing, and makes the name durable.
    pub(crate) fn publish(&self, draft: &str, name: &str) -> Result<(), FileError> {
        fs::renameat_with(&self.0, draft, &self.0, name, RenameFlags::NOREPLACE)
            .map_err(|error| io_error(name, error))?;
        self.sync()
    }

    /// Gives a finished file its real name, in place of the one that is there, and makes that durable.
    pub(crate) fn replace(&self, draft: &str, name: &str) -> Result<(), FileError> {
        fs::renameat(&self.0, draft, &self.0, name).map_err(|error| io_error(name, error))?;
        self.sync()
    }

    /// Removes a file if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), FileError> {
        match fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io_error(name, error)),
        }
    }

    /// What the name stands for now, without following a link. None if nothing.
    pub(crate) fn stat(&self, name: &str) -> Result<Option<Stat>, FileError> {
        match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(io_error(name, error)),
        }
    }

    /// Makes the folder's names durable.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        fs::fsync(&self.0).map_err(|error| io_error("the data folder", error))
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Refuses what is not a regular file with one name, owned by us and closed to others.
pub(crate) fn plain(name: &str, stat: &Stat) -> Result<(), FileError> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::Exposed(format!("{name} is not a regular file")));
    }
    // a second name could lie in a folder that others can reach
    if stat.st_nlink != 1 {
        return Err(FileError::Exposed(format!("{name} has {} names instead of one", stat.st_nlink)));
    }
    private(name, stat, 0o600)
}

fn private(name: &str, stat: &Stat, wanted: u32) -> Result<(), FileError> {
    let user = geteuid().as_raw();
    if stat.st_uid != user {
        return Err(FileError::Exposed(format!("{name} belongs to uid {} instead of {user}", stat.st_uid)));
    }
    let mode = stat.st_mode & 0o7777;
    if mode != wanted {
        return Err(FileError::Exposed(format!("{name} has mode {mode:04o} instead of {wanted:04o}")));
    }
    Ok(())
}

/// A folder for one test, as private as the real one.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) fn scratch() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}
