//! When an epoch ends, and when a file does.

use std::{fs, io};

use jiff::Timestamp;

use super::{Log, begin::obtain};
use crate::{
    audit::{
        boundary::{Because, Boundary, announcement},
        error::{AuditError, failed},
        record::{Event, Outcome},
        resume::{self, EPOCH_RECORDS, Resumed},
    },
    chain::{Checkpoint, Epoch, Head, VerificationKey},
};

/// Longest time of an epoch, in seconds, where there are records: how far back a stolen key reaches.
const EPOCH_SECONDS: i64 = 60 * 60;
/// How much a file grows before it is tried again to rotate it.
const ROTATE_AGAIN: u64 = 1024 * 1024;

/// When a file ends and another one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Size of a file, in bytes; the last line may reach beyond it.
    pub max_size: u64,
    /// Age of a file, in seconds since its first record.
    pub max_age: i64,
    /// Earlier files that are kept.
    pub max_files: usize,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_size: 64 * 1024 * 1024, max_age: 30 * 24 * 60 * 60, max_files: 10 }
    }
}

impl Log {
    /// Ends this chain and begins another one, whose key is kept off the machine.
    pub fn begin_chain(&mut self, key: &VerificationKey) -> Result<(), AuditError> {
        self.ready()?;
        let last = Event { outcome: Outcome::Granted, reason: None, ..self.about_itself() };
        let detail = announcement(self.head.chain, key.chain());
        let _ = self.put(&Event { detail: Some(detail.into()), ..last }.render(), false)?;
        self.end_epoch();
        let first = self.epoch.before.seq + 1;
        let Resumed { epoch, head, .. } = resume::begin(key, self.head, first, Timestamp::now().as_second());
        (self.epoch, self.head) = (epoch, head);
        // here it must succeed: a key that was shown and is not used would be a promise that nobody keeps
        self.seat.save(&self.epoch).map_err(|error| failed(&error))?;
        self.announce(Because::NewChain);
        self.ready()
    }

    /// Ends the file, or the epoch, whose time has come.
    pub(super) fn turn_over(&mut self, now: i64) {
        if self.boundary.is_some() {
            return;
        }
        let old = self.length > 0 && now.saturating_sub(self.first.1) >= self.rotation.max_age;
        if self.length >= self.rotate_at || old {
            self.rotate();
        } else if self.head.seq - self.epoch.before.seq >= EPOCH_RECORDS {
            self.advance(Because::Full);
        } else if now.saturating_sub(self.epoch.began) >= EPOCH_SECONDS {
            self.advance(Because::Age);
        }
    }

    /// Moves the file to its place and begins another one. If the system refuses, the file only grows.
    fn rotate(&mut self) {
        self.advance(Because::Rotation);
        let place = self.archive.place(self.first.0);
        let moved = match fs::symlink_metadata(&place) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(&self.path, &place),
        };
        let begun = moved.map_err(|error| failed(&error)).and_then(|()| {
            if let Err(error) = self.archive.add(self.first.0, self.rotation.max_files) {
                tracing::warn!("an old audit log can't be removed: {error}");
            }
            obtain(&self.folder, &self.name)
        });
        match begun {
            Ok((file, stat)) => {
                self.unpacked.push(place);
                self.unsynced.push(std::mem::replace(&mut self.file, file));
                self.identity = (stat.st_dev, stat.st_ino);
                self.length = 0;
                self.rotate_at = self.rotation.max_size;
                self.first = (self.head.seq + 1, Timestamp::now().as_second());
            }
            Err(error) => {
                self.rotate_at = self.length.saturating_add(ROTATE_AGAIN);
                // an age can't be put off by growth
                self.first.1 = Timestamp::now().as_second();
                tracing::warn!("the audit log could not be rotated: {error}");
            }
        }
    }

    /// Goes to the next epoch: the key of this one is gone when this returns, and the next record is the boundary.
    ///
    /// An epoch that waits for its boundary has no record, and is not ended: its own boundary would never be written.
    pub(super) fn advance(&mut self, because: Because) {
        if self.boundary.is_some() {
            return;
        }
        self.end_epoch();
        let previous = self.epoch.before.seq + 1;
        let before = Head { epoch: self.head.epoch + 1, ..self.head };
        let began = Timestamp::now().as_second();
        self.epoch = Epoch { ratchet: self.epoch.ratchet.next(), before, previous, began };
        self.head = before;
        self.save_epoch();
        self.announce(because);
    }

    fn end_epoch(&mut self) {
        self.ended.push(Checkpoint { seq: self.head.seq, digest: self.head.digest });
    }

    /// Without it the log goes on all the same: the key of the epoch before stays readable with the vault key meanwhile,
    /// and leads to this one.
    pub(super) fn save_epoch(&mut self) {
        if let Err(error) = self.seat.save(&self.epoch) {
            tracing::warn!("audit.state can't be written, so an old key stays on the disk: {error}");
        }
    }

    pub(super) fn announce(&mut self, because: Because) {
        let first = self.epoch.previous;
        let Head { chain, epoch, seq, mac: previous, digest } = self.head;
        let count = if first == 0 { 0 } else { (seq + 1).saturating_sub(first) };
        self.boundary = Some(Boundary { chain, epoch, because, first, count, previous, digest });
    }
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
