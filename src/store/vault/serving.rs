//! The vault as the store that the daemon's rooms ask.

use std::sync::atomic::Ordering;

use redb::ReadableDatabase;

use super::{Vault, closed, kind};
use crate::{
    chain::{self, Checkpoint},
    policy::Authorized,
    store::{
        batch::{AuditMemory, Committed, Outbox, PendingChange, Query, Store, StoreError},
        carry::Carrier,
        disk::{self, failed},
        group::Step,
        keychain::StoreKind,
    },
};

impl Store for Vault {
    fn read(&self, query: Authorized<Query>) -> Result<Committed, StoreError> {
        self.find(&query.into_inner())
    }

    fn commit(&self, changes: Vec<PendingChange>) -> Vec<Result<Committed, StoreError>> {
        self.perform(changes.into_iter().map(Step::from).collect())
    }

    fn outbox(&self) -> Result<Outbox, StoreError> {
        let mut writer = self.write_lock();
        if writer.db.is_none() {
            self.reopen(&mut writer)?;
        }
        let db = writer.db.as_ref().ok_or_else(closed)?;
        let mut lines = disk::lines(&db.begin_read().map_err(failed)?, &self.sealer, &writer.header)?;
        let settled = self.settled.load(Ordering::Acquire);
        lines.retain(|entry| entry.id > settled);
        Ok(Outbox { lines, last: writer.header.next_line - 1 })
    }

    fn settle(&self, id: u64) {
        self.settled.fetch_max(id, Ordering::AcqRel);
    }

    fn kind(&self) -> StoreKind {
        kind(self.keychain().as_ref())
    }

    fn carry(&self) -> Result<bool, StoreError> {
        self.carrier.as_ref().map_or(Ok(false), |carrier| self.carry_some(carrier))
    }

    fn waiting(&self) -> usize {
        self.carrier.as_ref().map_or(0, Carrier::count)
    }

    fn note_audit(&self, head: chain::Head, ended: Option<Checkpoint>) {
        let mut noted = self.noted();
        noted.head = head;
        noted.checkpoints.extend(ended);
    }

    fn keep_audit(&self) -> Result<(), StoreError> {
        let mut writer = self.write_lock();
        if self.noted().head == writer.header.audit {
            return Ok(());
        }
        self.transact(&mut writer, Vec::new()).map(drop)
    }

    fn audit_memory(&self) -> Result<AuditMemory, StoreError> {
        let writer = self.write_lock();
        let db = writer.db.as_ref().ok_or_else(closed)?;
        let checkpoints = disk::checkpoints(&db.begin_read().map_err(failed)?, &self.sealer)?;
        Ok(AuditMemory { head: writer.header.audit, checkpoints })
    }
}
