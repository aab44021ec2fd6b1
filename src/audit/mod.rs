//! What happened, one line each: who asked for which names, and what was answered.
//!
//! Secrets have no way in: no type of this room can hold a [`SecretValue`](crate::secret::SecretValue), and an
//! [`Event`] is made of names, numbers, a path, a digest and fixed words.
#![forbid(unsafe_code)]

mod json;
mod log;
mod query;
mod record;
mod replay;
mod tail;
#[cfg(test)]
mod trials;

pub use log::{AuditError, Log, Receipt, Unsynced};
pub use query::{BadLine, Filter, Line, Lines, RecordLine};
pub use record::{Action, Event, MAX_LINE, Outcome};
