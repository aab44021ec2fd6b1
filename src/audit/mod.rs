//! What happened, one line each: who asked for which names, and what was answered.
//!
//! Secrets have no way in: no type of this room can hold a [`SecretValue`](crate::secret::SecretValue), and an
//! [`Event`] is made of names, numbers, a path, a digest and fixed words.
#![forbid(unsafe_code)]

mod archive;
mod boundary;
mod error;
mod export;
mod fold;
mod json;
mod log;
mod query;
mod record;
mod replay;
mod reserve;
mod resume;
mod tail;
#[cfg(test)]
pub(crate) mod trials;
mod verify;

pub use archive::{LogFile, files, open, opened, pack};
pub use boundary::{Because, Boundary};
pub use error::{AuditError, Receipt, Unsynced};
pub use export::{Form, export};
pub use fold::{FOLD_BEYOND, FOLD_PERIOD};
pub use log::{Log, Rotation};
pub use query::{BadLine, Filter, Line, Lines, RecordLine};
pub use record::{Action, Event, MAX_LINE, Outcome};
pub use resume::EPOCH_RECORDS;
pub use verify::{Finding, Verdict, Verifier, Witnesses, Wrong, verify};
