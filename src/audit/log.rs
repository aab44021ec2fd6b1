//! The log file: one write a line, in the kernel before anything is released, never half a line.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rustix::{
    fs::{OFlags, Stat, fstat},
    process::geteuid,
};

use super::{
    record::{Action, Event, Outcome},
    replay::{self, SEQ},
    tail::Tail,
};
use crate::store::{
    OutboxEntry,
    files::{FileError, Folder, plain},
};

/// Most lines of committed changes that wait for a log that can't be written. No change is committed while one waits
/// (see [`Log::ready`]), so that only those of one group, committed when the log failed, are ever here.
const MAX_WAITING: usize = 4096;

/// Why the log did not take a record. Nothing may be released then: `audit_unavailable`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The log's file or folder can't be used; the text says which and why.
    #[error("the audit log can't be used: {0}")]
    File(String),
    /// A file under the log's name has lines, and none of them is a record.
    #[error("the audit log holds no records of this program")]
    Foreign,
    /// The system did not take the line. Nothing of it is in the file.
    #[error("the audit log can't be written: {0}")]
    Write(String),
    /// More lines of committed changes wait than can be kept; they are in the store's outbox.
    #[error("audit lines wait in the store's outbox")]
    Incomplete,
}

/// Proof that a record is in the log. Only [`Log`] makes one; a reply that releases something needs it.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Receipt {
    seq: u64,
}

impl Receipt {
    /// The record's number. Numbers grow by one from record to record.
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// Records that are in the kernel and may not be on the disk.
#[derive(Debug)]
#[must_use]
pub struct Unsynced {
    file: File,
    logged: u64,
}

impl Unsynced {
    /// Waits for the disk. Returns the number of the last outbox line that the store may now forget.
    ///
    /// After an error the store must forget none any more: what the disk has lost is known only to the outbox.
    pub fn sync(self) -> Result<u64, AuditError> {
        self.file.sync_data().map_err(|error| failed(&error))?;
        Ok(self.logged)
    }
}

/// The open audit log.
///
/// What happens to its file from outside, removed, replaced, truncated or written by somebody else, is noticed at the
/// next record, and a record says so before any other goes out.
#[derive(Debug)]
pub struct Log {
    folder: Folder,
    name: String,
    file: File,
    /// Device and inode: the file under the log's name must still be this one.
    identity: (u64, u64),
    /// Bytes of whole lines; the file is never longer once a call returns.
    length: u64,
    next_seq: u64,
    /// Half a line could not be cut off; nothing is written before that succeeds.
    torn: bool,
    /// What was done to the file from outside; goes out first.
    notice: Option<&'static str>,
    /// Lines of committed changes that go out before any other.
    waiting: VecDeque<OutboxEntry>,
    incomplete: bool,
    /// The last outbox line that is in the log, with all before it.
    logged: u64,
    unsynced: bool,
    /// One line, reused.
    buffer: Vec<u8>,
    executable: PathBuf,
}

impl Log {
    /// Opens the log, or begins one, 0600 in a folder 0700; continues the numbers of what is there.
    ///
    /// A torn last line, left by a crash of the machine, is cut off, and a record says so.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Err(AuditError::File("its path names no file".to_owned()));
        };
        let folder = Folder::open(parent)?;
        let (file, stat) = obtain(&folder, name)?;
        let mut log = Self {
            folder,
            name: name.to_owned(),
            file,
            identity: (0, 0),
            length: 0,
            next_seq: 1,
            torn: false,
            notice: None,
            waiting: VecDeque::new(),
            incomplete: false,
            logged: 0,
            unsynced: false,
            buffer: Vec::new(),
            // asked now: a sandboxed process can't look at itself
            executable: std::env::current_exe().unwrap_or_default(),
        };
        log.continue_in(&stat)?;
        log.flush()?;
        Ok(log)
    }

    /// Writes one record. It is in the kernel, whole, when this returns.
    pub fn append(&mut self, event: &Event) -> Result<Receipt, AuditError> {
        self.ready()?;
        self.put(&event.render())
    }

    /// Writes the line of a committed change.
    ///
    /// If that fails, the line is kept and goes out before any other record; until then everything is refused.
    pub fn append_rendered(&mut self, entry: &OutboxEntry) -> Result<Receipt, AuditError> {
        let written = self.ready().and_then(|()| self.put(&entry.line));
        match &written {
            Ok(_) => self.logged = entry.id,
            Err(_) if self.incomplete => {}
            Err(_) if self.waiting.len() < MAX_WAITING => self.waiting.push_back(entry.clone()),
            Err(_) => self.incomplete = true,
        }
        written
    }

    /// Writes what waits. A change must not be committed before this succeeds.
    pub fn ready(&mut self) -> Result<(), AuditError> {
        if self.incomplete {
            return Err(AuditError::Incomplete);
        }
        self.look_at_file()?;
        self.flush()
    }

    /// Writes those lines of the store's whole outbox that the log lacks, and returns how many.
    ///
    /// Called at start, and after [`AuditError::Incomplete`].
    pub fn replay(&mut self, outbox: &[OutboxEntry]) -> Result<usize, AuditError> {
        self.look_at_file()?;
        // whatever waits is in the outbox too
        self.waiting.clear();
        self.incomplete = true;
        let missing = replay::missing(&self.file, self.length, outbox).map_err(|error| failed(&error))?;
        self.flush()?;
        for entry in &missing {
            let _ = self.put(&entry.line)?;
        }
        self.logged = outbox.last().map_or(self.logged, |entry| entry.id);
        // the lines that were there may have reached only the kernel
        self.unsynced = true;
        self.incomplete = false;
        Ok(missing.len())
    }

    /// What has to be waited for until every record so far is on the disk, so that another thread can do it.
    ///
    /// None when nothing was written since the last call. The daemon asks within 200 ms of a record.
    pub fn unsynced(&mut self) -> Result<Option<Unsynced>, AuditError> {
        if !self.unsynced {
            return Ok(None);
        }
        let file = self.file.try_clone().map_err(|error| failed(&error))?;
        self.unsynced = false;
        Ok(Some(Unsynced { file, logged: self.logged }))
    }

    /// One look at what the log's name stands for: its kind, its size and whether it is still our file.
    fn look_at_file(&mut self) -> Result<(), AuditError> {
        if self.torn {
            self.cut()?;
        }
        match self.folder.stat(&self.name)? {
            Some(stat) if (stat.st_dev, stat.st_ino) == self.identity => {
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                if size == self.length {
                    return Ok(());
                }
                let what = if size < self.length {
                    "the file was truncated"
                } else {
                    "the file was written by others"
                };
                self.continue_in(&stat)?;
                self.notice = Some(what);
            }
            _ => {
                let (file, stat) = obtain(&self.folder, &self.name)?;
                self.file = file;
                self.continue_in(&stat)?;
                self.notice = Some("the file was removed or replaced; this one continues it");
            }
        }
        Ok(())
    }

    /// Takes the open file as the log: behind its last whole line, with the number after its last.
    fn continue_in(&mut self, stat: &Stat) -> Result<(), AuditError> {
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let tail = Tail::read(&self.file, size).map_err(|error| failed(&error))?;
        if tail.whole > 0 && tail.last_seq == 0 {
            return Err(AuditError::Foreign);
        }
        self.identity = (stat.st_dev, stat.st_ino);
        self.length = tail.whole;
        self.next_seq = self.next_seq.max(tail.last_seq.saturating_add(1));
        if size > tail.whole {
            self.cut()?;
            self.notice = Some("half a line at the end was cut off");
        }
        Ok(())
    }

    /// Writes the notice and what waits, in this order.
    fn flush(&mut self) -> Result<(), AuditError> {
        if let Some(what) = self.notice {
            let _ = self.put(&self.about_itself(what).render())?;
            self.notice = None;
        }
        while let Some(entry) = self.waiting.pop_front() {
            match self.put(&entry.line) {
                Ok(_) => self.logged = entry.id,
                Err(error) => {
                    self.waiting.push_front(entry);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// One line, in one write. What the system took of a line that failed is cut off again.
    fn put(&mut self, rendered: &[u8]) -> Result<Receipt, AuditError> {
        let seq = self.next_seq;
        self.buffer.clear();
        self.buffer.extend_from_slice(rendered);
        self.buffer.extend_from_slice(SEQ);
        self.buffer.extend_from_slice(seq.to_string().as_bytes());
        self.buffer.extend_from_slice(b"}\n");
        let written = loop {
            match (&self.file).write(&self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => break written,
            }
        };
        match written {
            Ok(bytes) if bytes == self.buffer.len() => {
                self.length += bytes as u64;
                self.next_seq = seq.saturating_add(1);
                self.unsynced = true;
                Ok(Receipt { seq })
            }
            partly => {
                self.torn = true;
                self.cut()?;
                Err(partly
                    .err()
                    .map_or_else(|| AuditError::Write("no room for a line".to_owned()), |e| failed(&e)))
            }
        }
    }

    fn cut(&mut self) -> Result<(), AuditError> {
        self.file.set_len(self.length).map_err(|error| failed(&error))?;
        self.torn = false;
        Ok(())
    }

    fn about_itself(&self, what: &'static str) -> Event {
        Event {
            timestamp: Timestamp::now(),
            action: Action::Policy,
            pid: std::process::id(),
            binary_path: self.executable.clone(),
            binary_hash: None,
            service: None,
            targets: Vec::new(),
            outcome: Outcome::Error,
            reason: Some("audit_log_changed"),
            detail: Some(what.into()),
            uid: geteuid().as_raw(),
        }
    }
}

/// The file under the log's name, made if there is none; and what it is.
fn obtain(folder: &Folder, name: &str) -> Result<(File, Stat), AuditError> {
    let file = match folder.find(name, OFlags::APPEND)? {
        Some(file) => file,
        None => {
            let file = folder.create(name, OFlags::APPEND)?;
            folder.sync()?;
            file
        }
    };
    let stat = fstat(&file).map_err(|error| failed(&error.into()))?;
    plain(name, &stat)?;
    Ok((file, stat))
}

fn failed(error: &io::Error) -> AuditError {
    AuditError::Write(error.to_string())
}

impl From<FileError> for AuditError {
    fn from(error: FileError) -> Self {
        Self::File(error.to_string())
    }
}
