//! The vault in the hands of its owner: who has its key and its files needs no daemon, and no decision of one.
//!
//! This is for commands that work on the files while no daemon holds them. It is not a [`Store`](super::Store): nothing
//! in the rooms that serve clients can use it in place of one, and an open [`Vault`] never becomes one outside of this
//! room. Every call leaves an audit line in the vault, durable before a value is returned or with the change, which the
//! next start or `unlock` brings to the log.

use super::{
    batch::{
        AuditMemory, Change, Committed, Names, Outbox, Query, Record, RenderRecord, Selection, Store,
        StoreError, WriteItem,
    },
    group::Step,
    names::NamesByService,
    rekey::Progress,
    salvage::{Extent, Salvage},
    seat::Seat,
    transport::PolicySeal,
    vault::Vault,
};
use crate::{
    chain::{Checkpoint, Head},
    name::{Attributes, Service, Target},
};

/// An open vault whose owner acts on it directly.
pub struct OwnedVault(Vault);

impl OwnedVault {
    pub(super) fn new(vault: Vault) -> Self {
        Self(vault)
    }

    /// Every name that is there, by service, sorted. Names are not values; who shows them leaves a line
    /// with [`note_all`](Self::note_all).
    pub fn names(&self) -> NamesByService {
        self.0.names()
    }

    /// How many secrets there are.
    pub fn count(&self) -> u64 {
        self.0.count()
    }

    /// Reads these names with their values and attributes; missing ones are left out. The line of it is durable first.
    ///
    /// At most [`MAX_ANSWER`](super::MAX_ANSWER) bytes: 128 names always fit.
    pub fn read(
        &self,
        service: &Service,
        targets: Vec<Target>,
        record: RenderRecord,
    ) -> Result<Vec<Record>, StoreError> {
        let names = targets.clone();
        self.note(Box::new(move |_| record(&names)))?;
        let selection =
            Selection { service: service.clone(), names: Names::Exact(targets), filter: Attributes::new() };
        Ok(self.0.find(&Query { selection, values: true })?.into_records())
    }

    /// Puts secrets in place, over what is there, all or none, in one durable transaction with its line.
    pub fn write(
        &self,
        service: &Service,
        items: Vec<WriteItem>,
        attributes: Attributes,
        record: RenderRecord,
    ) -> Result<(), StoreError> {
        let change = Change::Write { service: service.clone(), items, attributes };
        self.perform(Step { change: Some(change), policy: None, record }).map(drop)
    }

    /// Puts several batches in place, all or none, in one durable transaction. Each has its line.
    pub fn write_all(
        &self,
        batches: Vec<(Service, Vec<WriteItem>, Attributes, RenderRecord)>,
    ) -> Result<(), StoreError> {
        let step = |(service, items, attributes, record)| Step {
            change: Some(Change::Write { service, items, attributes }),
            policy: None,
            record,
        };
        self.0
            .perform(batches.into_iter().map(step).collect())
            .into_iter()
            .try_for_each(|done| done.map(drop))
    }

    /// Brings the values of changed records where they rest, if that is not the vault's own file. What did not arrive when
    /// this fails is as durable as before, and [waits](Self::waiting) to be brought there by whoever opens the vault next.
    pub fn carry(&self, progress: Progress<'_>) -> Result<(), StoreError> {
        let all = self.0.waiting();
        loop {
            let more = self.0.carry()?;
            progress(all.saturating_sub(self.0.waiting()) as u64, all as u64);
            if !more {
                return Ok(());
            }
        }
    }

    /// How many changed records are still to be brought where their values rest.
    pub fn waiting(&self) -> usize {
        self.0.waiting()
    }

    /// SHA-256 of the config.json that is accepted; zeros where any is.
    pub fn policy_seal(&self) -> PolicySeal {
        self.0.policy_seal()
    }

    /// Changes that, durable with its line.
    pub fn seal_policy(&self, seal: PolicySeal, record: RenderRecord) -> Result<(), StoreError> {
        self.0.seal_policy(seal, record).map(drop)
    }

    /// Makes lines durable, all or none, that say what is about to be shown.
    pub fn note_all(&self, records: Vec<RenderRecord>) -> Result<(), StoreError> {
        let step = |record| Step { change: None, policy: None, record };
        self.0
            .perform(records.into_iter().map(step).collect())
            .into_iter()
            .try_for_each(|done| done.map(drop))
    }

    /// Makes a line durable that says what is about to be done.
    pub fn note(&self, record: RenderRecord) -> Result<(), StoreError> {
        self.perform(Step { change: None, policy: None, record }).map(drop)
    }

    /// The lines that may not have reached the log.
    pub fn outbox(&self) -> Result<Outbox, StoreError> {
        self.0.outbox()
    }

    /// Says that every line up to and with `id` is in the log, on the disk.
    pub fn settle(&self, id: u64) {
        self.0.settle(id);
    }

    /// The place of the audit chain's key; none where it was taken already.
    pub fn take_seat(&self) -> Option<Seat> {
        self.0.take_seat()
    }

    /// What the vault knows of the audit log.
    pub fn audit_memory(&self) -> Result<AuditMemory, StoreError> {
        self.0.audit_memory()
    }

    /// Notes how far the audit log has come; durable when the vault is closed.
    pub fn note_audit(&self, head: Head, ended: Option<Checkpoint>) {
        self.0.note_audit(head, ended);
    }

    /// Forgets the settled lines and closes the file cleanly.
    pub fn close(self) -> Result<(), StoreError> {
        self.0.close()
    }

    fn perform(&self, step: Step) -> Result<Committed, StoreError> {
        let mut outcomes = self.0.perform(vec![step]);
        outcomes.pop().unwrap_or_else(|| Err(StoreError::Io("nothing was done".to_owned())))
    }
}

/// What is intact of a damaged vault, in the hands of its owner. No byte of the vault changes, so that it can't keep a line
/// either: who reads hands in how the line of it becomes durable elsewhere.
pub struct OwnedSalvage(Salvage);

impl OwnedSalvage {
    pub(super) fn new(salvage: Salvage) -> Self {
        Self(salvage)
    }

    /// How much is intact.
    pub fn extent(&self) -> Extent {
        self.0.extent()
    }

    /// Every name whose record is intact, by service, sorted; and those whose record is damaged, as far as they can be told.
    pub fn names(&self) -> (NamesByService, NamesByService) {
        self.0.names_by_state()
    }

    /// Reads these names with their values and attributes, once `record` has made the line of it durable.
    ///
    /// [`StoreError::Damaged`] if one of them is damaged. At most [`MAX_ANSWER`](super::MAX_ANSWER) bytes.
    pub fn read<E: From<StoreError>>(
        &self,
        service: &Service,
        targets: Vec<Target>,
        record: impl FnOnce(&[Target]) -> Result<(), E>,
    ) -> Result<Vec<Record>, E> {
        record(&targets)?;
        let selection =
            Selection { service: service.clone(), names: Names::Exact(targets), filter: Attributes::new() };
        Ok(self.0.find(&Query { selection, values: true })?.into_records())
    }

    /// The lines that may not have reached the log.
    pub fn outbox(&self) -> Result<Outbox, StoreError> {
        self.0.outbox()
    }

    /// The place of the audit chain's key; none where it was taken already.
    pub fn take_seat(&self) -> Option<Seat> {
        self.0.take_seat()
    }

    /// What the vault knows of the audit log.
    pub fn audit_memory(&self) -> Result<AuditMemory, StoreError> {
        self.0.audit_memory()
    }
}
