//! What an open vault knows of itself, and what it hands on.

use std::sync::PoisonError;

use super::{Vault, closed};
use crate::store::{
    batch::{AuditMemory, OutboxEntry, RenderRecord, StoreError},
    files::Folder,
    group::Step,
    keychain::Keychain,
    seat::Seat,
    source::KeySource,
    transport::{PolicySeal, Transport},
};

impl Vault {
    /// Where its key comes from.
    pub fn source(&self) -> KeySource {
        self.source
    }

    /// Another hand on the folder that the vault is in.
    pub(in crate::store) fn folder(&self) -> Result<Folder, StoreError> {
        Ok(self.folder.try_clone()?)
    }

    /// The key under which the vault key travels to a locked daemon.
    pub(in crate::store) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// SHA-256 of the config.json that is accepted; zeros where any is.
    pub(in crate::store) fn policy_seal(&self) -> PolicySeal {
        self.write_lock().header.policy
    }

    /// Changes that, durable with its line.
    pub(in crate::store) fn seal_policy(
        &self,
        seal: PolicySeal,
        record: RenderRecord,
    ) -> Result<OutboxEntry, StoreError> {
        let step = Step { change: None, policy: Some(seal), record };
        let outcome = self.perform(vec![step]).pop();
        let committed = outcome.unwrap_or_else(|| Err(closed()))?;
        committed.outbox().cloned().ok_or_else(closed)
    }

    /// What was noted of the audit log and is not durable yet.
    pub(in crate::store) fn noted_audit(&self) -> AuditMemory {
        self.noted().clone()
    }

    /// Takes over what was noted while the vault was locked.
    pub(in crate::store) fn note_memory(&self, memory: AuditMemory) {
        *self.noted() = memory;
    }

    /// How many commits the vault has seen. Grows with each; kept elsewhere too, it shows a vault that was put back.
    pub fn generation(&self) -> u64 {
        self.write_lock().header.generation
    }

    /// The place of the audit chain's key. Given once: the log that takes it is the only one.
    pub fn take_seat(&self) -> Option<Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The keychain where the values rest.
    pub(in crate::store) fn keychain(&self) -> Option<Keychain> {
        self.carrier.as_ref().map(|carrier| carrier.keychain.clone())
    }

    /// How many secrets there are.
    pub fn count(&self) -> u64 {
        self.write_lock().header.count
    }
}
