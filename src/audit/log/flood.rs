//! Refusals of strangers, of which a flood is gathered in few records.

use std::time::Instant;

use super::Log;
use crate::audit::{
    error::{AuditError, Receipt},
    record::{Event, Outcome},
};

impl Log {
    /// Writes the record of a stranger's refusal, or counts it to others of the same stranger and reason, which then
    /// share a record within [`FOLD_PERIOD`](crate::audit::FOLD_PERIOD). Its receipt is that it is written or counted.
    ///
    /// Whatever was granted is written, also if it comes here.
    pub fn append_refusal(&mut self, event: &Event, now: Instant) -> Result<Receipt, AuditError> {
        if event.outcome == Outcome::Granted {
            return self.append(event);
        }
        self.write_gathered(now, false)?;
        if self.fold.gathers(event, now) {
            return Ok(Receipt::new(self.head.seq));
        }
        self.put(&event.render(), false)
    }

    /// Writes what was gathered long enough, or everything. True if something is left.
    pub fn write_gathered(&mut self, now: Instant, all: bool) -> Result<bool, AuditError> {
        self.prepare(false)?;
        self.gathered.extend(self.fold.due(now, all));
        while let Some(event) = self.gathered.pop_front() {
            if let Err(error) = self.put(&event.render(), false) {
                self.gathered.push_front(event);
                return Err(error);
            }
        }
        Ok(self.fold.is_gathering())
    }
}

#[cfg(test)]
#[path = "flood_tests.rs"]
mod tests;
