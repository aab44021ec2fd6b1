//! pending.json on disk, written by the daemon and the commands in turn.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    lock::{FileLock, replace},
    pending::PendingQueue,
    source::judge,
};
use crate::sys::filesystem::open;

/// Largest pending.json that is read, in bytes: 128 entries with every limit used and every character escaped.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// How long a command waits for the daemon's update.
pub const COMMAND_PATIENCE: Duration = Duration::from_secs(2);

/// The file of the queue. It is only a convenience: what is unreadable in it is given up, and said.
#[derive(Debug)]
pub struct PendingFile {
    path: PathBuf,
    uid: u32,
}

/// What was there is not a queue that we wrote; a new one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pending.json was not written by keychain-auth, and a new queue begins")]
pub struct Foreign;

/// Why the queue can't be read or changed. It is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PendingError {
    /// Somebody else is changing it. The daemon tries again with its next update.
    #[error("{} is being changed by another process", .0.display())]
    Busy(PathBuf),
    /// The system refused.
    #[error("{} can't be used: {kind}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        kind: io::ErrorKind,
    },
}

impl PendingFile {
    /// The queue in the file at `path`, for the user `uid`. Nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>, uid: u32) -> Self {
        Self { path: path.into(), uid }
    }

    /// Whose queue it is.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Whether the folder of the file is there, so that [`Self::update`] can write.
    pub fn has_folder(&self) -> bool {
        self.path.parent().is_some_and(Path::is_dir)
    }

    /// The strangers that wait now. A missing file is an empty queue.
    pub fn load(&self, now: Timestamp) -> Result<(PendingQueue, Option<Foreign>), PendingError> {
        let (mut queue, foreign) = match self.read() {
            Ok(Some(queue)) => (queue, None),
            Ok(None) => (PendingQueue::default(), Some(Foreign)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (PendingQueue::default(), None),
            Err(error) => return Err(failed(&self.path, &error)),
        };
        queue.expire(now);
        Ok((queue, foreign))
    }

    /// Changes the queue, alone and at once. Waits at most `patience` for others: nothing in the daemon, whose clients
    /// would wait with it, [`COMMAND_PATIENCE`] in a command. Nothing is written when nothing changed, nor where the
    /// folder is missing: the daemon makes it at its start, and may make none once it is caged.
    pub fn update<T>(
        &self,
        patience: Duration,
        now: Timestamp,
        edit: impl FnOnce(&mut PendingQueue) -> T,
    ) -> Result<(T, Option<Foreign>), PendingError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let lock = folder.join("pending.lock");
        let lock = match FileLock::acquire(&lock, patience) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((edit(&mut PendingQueue::default()), None));
            }
            acquired => acquired.map_err(|error| failed(&lock, &error))?,
        };
        let Some(_lock) = lock else { return Err(PendingError::Busy(self.path.clone())) };
        let (before, foreign) = self.load(now)?;
        let mut queue = before.clone();
        let done = edit(&mut queue);
        if queue != before || foreign.is_some() {
            replace(&self.path, &queue.render()).map_err(|error| failed(&self.path, &error))?;
        }
        Ok((done, foreign))
    }

    /// None for what is not ours: a link, another kind of file, another's file, another form.
    fn read(&self) -> io::Result<Option<PendingQueue>> {
        let file = match open(&self.path) {
            Ok(file) => file,
            Err(error) if matches!(error.raw_os_error(), Some(LOOP | NO_DEVICE)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > MAX_FILE || judge(&metadata, self.uid).is_err() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(PendingQueue::parse(&bytes))
    }
}

/// What open says about a symbolic link, because of `O_NOFOLLOW`.
const LOOP: i32 = rustix::io::Errno::LOOP.raw_os_error();
/// What open says about a socket.
const NO_DEVICE: i32 = rustix::io::Errno::NXIO.raw_os_error();

fn failed(file: &Path, error: &io::Error) -> PendingError {
    PendingError::Io { file: file.into(), kind: error.kind() }
}

#[cfg(test)]
#[path = "pending_file_tests.rs"]
mod tests;
