//! What a log gives back: the proof of a record, what is left to wait for, or why there is no record.

use std::{fs::File, io};

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
    /// The disk has no room for another record; what is kept in reserve is for refusals.
    #[error("the audit log can't be written: no room for a line on its disk")]
    Full,
    /// A line of a committed change is missing, or may be: it is in the store's outbox, and everything that would follow it
    /// waits there or is refused.
    #[error("audit lines wait in the store's outbox")]
    Incomplete,
}

/// Proof that a record is in the log. Only a log makes one; a reply that releases something needs it.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Receipt {
    seq: u64,
}

impl Receipt {
    pub(super) fn new(seq: u64) -> Self {
        Self { seq }
    }

    /// The record's number. Numbers grow by one from record to record.
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// Records that are in the kernel and may not be on the disk.
#[derive(Debug)]
#[must_use]
pub struct Unsynced {
    pub(super) files: Vec<File>,
    pub(super) logged: u64,
    pub(super) seq: u64,
}

impl Unsynced {
    /// The last record that is meant.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Waits for the disk. Returns the number of the last outbox line that the store may now forget.
    ///
    /// After an error the store must forget none any more: what the disk has lost is known only to the outbox.
    pub fn sync(self) -> Result<u64, AuditError> {
        for file in &self.files {
            file.sync_data().map_err(|error| failed(&error))?;
        }
        Ok(self.logged)
    }
}

pub(super) fn failed(error: &io::Error) -> AuditError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AuditError::Full,
        _ => AuditError::Write(error.to_string()),
    }
}
