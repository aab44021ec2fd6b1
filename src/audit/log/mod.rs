//! The log file: one write a line, in the kernel before anything is released, never half a line; each line chained to the
//! one before.

mod begin;
mod flood;
mod turn;

pub use turn::Rotation;

use std::{borrow::Cow, collections::VecDeque, fs::File, io::Write, path::PathBuf};

use jiff::Timestamp;
use rustix::{
    fs::{Stat, fstat},
    process::geteuid,
};

use self::begin::obtain;
use super::{
    archive::Archive,
    boundary::{Because, Boundary},
    error::{AuditError, Receipt, Unsynced, failed},
    fold::Fold,
    record::{Action, Event, Outcome},
    replay,
    reserve::Reserve,
    tail::Tail,
};
use crate::{
    chain::{Checkpoint, Epoch, Head, link},
    store::{
        Outbox, OutboxEntry, Seat,
        files::{FileError, Folder},
    },
};

/// Most lines of committed changes that wait for a log that can't be written. No change is committed while one waits
/// (see [`Log::ready`]), so that only those of one group, committed when the log failed, are ever here.
const MAX_WAITING: usize = 4096;
/// What is said of a file that was cut.
pub(super) const TRUNCATED: &str = "the file was truncated";
/// What is said of a file that went with its records.
pub(super) const REMOVED: &str = "the file was removed or replaced; this one continues it";
/// The open audit log.
///
/// What happens to its file from outside, removed, replaced, truncated or written by somebody else, is noticed at the
/// next record, and a record says so before any other goes out.
pub struct Log {
    path: PathBuf,
    folder: Folder,
    name: String,
    file: File,
    /// Device and inode: the file under the log's name must still be this one.
    identity: (u64, u64),
    /// Bytes of whole lines; the file is never longer once a call returns.
    length: u64,
    /// The number of the file's first record, and when it was, in seconds.
    first: (u64, i64),
    rotation: Rotation,
    rotate_at: u64,
    archive: Archive,
    reserve: Reserve,
    epoch: Epoch,
    head: Head,
    seat: Seat,
    /// The first record of the epoch, until it is written. Nothing goes out before it.
    boundary: Option<Boundary>,
    /// Ends of epochs that the store was not told of yet.
    ended: Vec<Checkpoint>,
    /// Earlier files that nobody was told of yet.
    unpacked: Vec<PathBuf>,
    /// Whether somebody said that the file was moved.
    moving: bool,
    /// Half a line could not be cut off; nothing is written before that succeeds.
    torn: bool,
    /// What was done to the log from outside; goes out behind the boundary.
    notices: VecDeque<Cow<'static, str>>,
    /// The last of those, for `status`.
    noticed: Option<String>,
    /// Refusals of strangers that share records, and such records that could not be written yet.
    fold: Fold,
    gathered: VecDeque<Event>,
    /// Lines of committed changes that go out before any other.
    waiting: VecDeque<OutboxEntry>,
    /// The store has lines that never came here, or may have. Only refusals are written before it is asked for them.
    incomplete: bool,
    /// The last outbox line that is in the log, with all before it: they come in the order of their numbers.
    logged: u64,
    /// Files with lines that the disk may not have.
    unsynced: Vec<File>,
    dirty: bool,
    /// One line, reused.
    buffer: Vec<u8>,
    executable: PathBuf,
}

impl Log {
    /// Writes one record. It is in the kernel, whole, when this returns.
    pub fn append(&mut self, event: &Event) -> Result<Receipt, AuditError> {
        let releases = event.outcome == Outcome::Granted;
        self.prepare(releases)?;
        self.put(&event.render(), releases)
    }

    /// Writes the line of a committed change. None if a replay came first: then it is in the log already.
    ///
    /// Lines come in the order of their commits, none left out: once the disk has this one, [`Unsynced::sync`] lets the store
    /// forget it with all before it, and what was forgotten is not replayed after a crash.
    ///
    /// If that fails, the line is kept and goes out before any other record; until then everything is refused. One that
    /// does not follow the one before is [`AuditError::Incomplete`], with all that come after it.
    pub fn append_rendered(&mut self, entry: &OutboxEntry) -> Result<Option<Receipt>, AuditError> {
        if entry.id <= self.logged {
            return Ok(None);
        }
        let before = self.waiting.back().map_or(self.logged, |waits| waits.id);
        if self.incomplete || entry.id != before + 1 {
            self.incomplete = true;
            return Err(AuditError::Incomplete);
        }
        let written = self.prepare(false).and_then(|()| self.put(&entry.line, false));
        match &written {
            Ok(_) => self.logged = entry.id,
            Err(_) if self.waiting.len() < MAX_WAITING => self.waiting.push_back(entry.clone()),
            Err(_) => self.incomplete = true,
        }
        written.map(Some)
    }

    /// Writes what waits. A change must not be committed before this succeeds.
    pub fn ready(&mut self) -> Result<(), AuditError> {
        self.prepare(true)
    }

    /// Says that the store may have committed a line that nobody could tell of. Until the outbox was [replayed](Self::replay)
    /// nothing is granted.
    pub fn doubt(&mut self) {
        self.incomplete = true;
    }

    /// Whether lines are missing, or may be.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Writes those lines of the store's whole outbox that the log lacks, and returns how many.
    ///
    /// Called at start, and after [`AuditError::Incomplete`].
    pub fn replay(&mut self, outbox: &Outbox) -> Result<usize, AuditError> {
        self.look_at_file()?;
        // whatever waits is in the outbox too
        self.waiting.clear();
        self.incomplete = true;
        let earlier = self.archive.newest();
        let missing = replay::missing(&self.file, self.length, earlier.as_deref(), &outbox.lines)
            .map_err(|error| failed(&error))?;
        self.flush()?;
        for entry in &missing {
            let _ = self.put(&entry.line, false)?;
        }
        self.logged = outbox.last;
        // the lines that were there may have reached only the kernel
        self.dirty = true;
        self.incomplete = false;
        Ok(missing.len())
    }

    /// Looks at the file now, since somebody says that it was moved (`SIGHUP`).
    ///
    /// A file that was moved away, and not changed, is no reason for a notice then.
    pub fn reopen(&mut self) -> Result<(), AuditError> {
        self.moving = true;
        let looked = self.prepare(false);
        self.moving = false;
        looked
    }

    /// What has to be waited for until every record so far is on the disk, so that another thread can do it.
    ///
    /// None when nothing was written since the last call. The daemon asks within 200 ms of a record.
    pub fn unsynced(&mut self) -> Result<Option<Unsynced>, AuditError> {
        if !self.dirty {
            return Ok(None);
        }
        let mut files = std::mem::take(&mut self.unsynced);
        files.push(self.file.try_clone().map_err(|error| failed(&error))?);
        self.dirty = false;
        Ok(Some(Unsynced { files, logged: self.logged, seq: self.head.seq }))
    }

    /// Where the chain stands. The store is told of it after every record.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The ends of epochs since the last call, for the store to keep.
    pub fn take_ended(&mut self) -> Vec<Checkpoint> {
        std::mem::take(&mut self.ended)
    }

    /// Earlier files that can be packed, each told once.
    pub fn take_unpacked(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.unpacked)
    }

    /// What was done to the log from outside, last, since it was opened.
    pub fn noticed(&self) -> Option<&str> {
        self.noticed.as_deref()
    }

    fn prepare(&mut self, releases: bool) -> Result<(), AuditError> {
        if self.incomplete && releases {
            return Err(AuditError::Incomplete);
        }
        if !self.reserve.is_held() && releases {
            return Err(AuditError::Full);
        }
        self.look_at_file()?;
        self.turn_over(Timestamp::now().as_second());
        self.flush()
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
                let truncated = size < self.length;
                self.continue_in(&stat)?;
                self.changed(if truncated { TRUNCATED } else { "the file was written by others" });
            }
            _ => {
                let moved = fstat(&self.file).is_ok_and(|stat| stat.st_nlink > 0);
                let (file, stat) = obtain(&self.folder, &self.name)?;
                self.unsynced.push(std::mem::replace(&mut self.file, file));
                self.continue_in(&stat)?;
                if moved && self.moving && self.length == 0 {
                    self.advance(Because::Rotation);
                    return Ok(());
                }
                self.changed(if moved { "the file was moved away; this one continues it" } else { REMOVED });
            }
        }
        Ok(())
    }

    /// Takes the open file as the log: behind its last whole line.
    fn continue_in(&mut self, stat: &Stat) -> Result<(), AuditError> {
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let tail = Tail::read(&self.file, size).map_err(|error| failed(&error))?;
        if tail.whole > 0 && tail.last_seq == 0 {
            return Err(AuditError::Foreign);
        }
        self.identity = (stat.st_dev, stat.st_ino);
        self.length = tail.whole;
        self.rotate_at = self.rotation.max_size.max(self.length.saturating_add(1));
        if size > tail.whole {
            self.torn = true;
            self.cut()?;
            self.notices.push_back("half a line at the end was cut off".into());
        }
        self.first = self.first_record().map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Says what was seen, in an epoch of its own: a check can go on at its beginning.
    fn changed(&mut self, what: &'static str) {
        self.advance(Because::Changed);
        self.notices.push_back(what.into());
    }

    /// Writes the boundary, the notices and what waits, in this order.
    fn flush(&mut self) -> Result<(), AuditError> {
        if let Some(boundary) = self.boundary {
            let event = Event { outcome: Outcome::Granted, reason: None, ..self.about_itself() };
            let event = Event { detail: Some(boundary.to_string().into()), ..event };
            let _ = self.put(&event.render(), false)?;
            self.boundary = None;
        }
        while let Some(what) = self.notices.pop_front() {
            let event = Event { detail: Some(what.clone()), ..self.about_itself() };
            if let Err(error) = self.put(&event.render(), false) {
                self.notices.push_front(what);
                return Err(error);
            }
            tracing::warn!("the audit log was changed: {what}");
            self.noticed = Some(format!("{}: {what}", event.timestamp));
        }
        while let Some(entry) = self.waiting.pop_front() {
            match self.put(&entry.line, false) {
                Ok(_) => self.logged = entry.id,
                Err(error) => {
                    self.waiting.push_front(entry);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// One line. Where the disk is full, what is kept for refusals is spent on it, unless it releases something.
    fn put(&mut self, rendered: &[u8], releases: bool) -> Result<Receipt, AuditError> {
        match self.write(rendered) {
            Err(AuditError::Full) if !releases && self.reserve.spend() => self.write(rendered),
            written => written,
        }
    }

    /// One line, in one write. What the system took of a line that failed is cut off again.
    fn write(&mut self, rendered: &[u8]) -> Result<Receipt, AuditError> {
        let head = link(&self.epoch.ratchet, &self.head, rendered, &mut self.buffer);
        match (&self.file).write_all(&self.buffer) {
            Ok(()) => {
                if self.length == 0 {
                    self.first = (head.seq, Timestamp::now().as_second());
                }
                self.length += self.buffer.len() as u64;
                self.head = head;
                self.dirty = true;
                Ok(Receipt::new(head.seq))
            }
            Err(error) => {
                self.torn = true;
                self.cut()?;
                Err(failed(&error))
            }
        }
    }

    fn cut(&mut self) -> Result<(), AuditError> {
        self.file.set_len(self.length).map_err(|error| failed(&error))?;
        self.torn = false;
        Ok(())
    }

    fn about_itself(&self) -> Event {
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
            detail: None,
            uid: geteuid().as_raw(),
            count: None,
        }
    }
}

impl From<FileError> for AuditError {
    fn from(error: FileError) -> Self {
        Self::File(error.to_string())
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
