//! One daemon a socket and one a data folder: locks that the kernel gives back when their holder dies.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags, flock};

/// A lock file that is held as long as this lives. It holds our pid, for whoever comes second.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Why a lock is not ours.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process holds it, with the pid it wrote there.
    Held(Option<u32>),
    /// The lock file can't be used.
    Io(PathBuf, io::Error),
}

impl Lock {
    /// Takes the lock, or says at once who has it.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |error| LockError::Io(path.to_owned(), error);
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)
            .map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut text = String::new();
            // its writer may be between lock and line
            let _ = (&file).take(16).read_to_string(&mut text);
            return Err(LockError::Held(text.trim().parse().ok()));
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
