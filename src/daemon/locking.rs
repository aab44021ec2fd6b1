//! `LOCK` and `UNLOCK`: for any process of the daemon's user, as stopping it is; who unlocks must have the vault's key.

use std::sync::Arc;

use jiff::Timestamp;

use super::{house::House, identity::Shown, refusal::Refusal};
use crate::{
    audit::{self, Event, Outcome},
    store::{Store, StoreError},
    wire::{Carried, Nonce, Reply},
};

/// The nonce of a connection for which something may be sealed. Used once.
#[derive(Default)]
pub(super) struct OneNonce(Option<Nonce>);

impl OneNonce {
    /// Another one, in place of the one before.
    pub(super) fn renew(&mut self) -> Result<&Nonce, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        Ok(self.0.insert(Nonce::new(random)))
    }

    /// The one that was given, if it is this one.
    pub(super) fn take(&mut self, repeated: &Nonce) -> Option<Nonce> {
        self.0.take().filter(|ours| ours.matches(repeated))
    }
}

impl House {
    /// Forgets the vault's key. The record is there first: what follows can't be prevented any more.
    pub(super) async fn lock(&self, shown: &Shown) -> Result<Reply, Refusal> {
        if self.vault.salvage().is_some() {
            return Err(Refusal::not_locked());
        }
        let receipt = self.record(event(shown, Outcome::Granted, "vault locked")).await?;
        let vault = Arc::clone(&self.vault);
        let locked = self.writer.task(move || vault.lock()).await;
        if let Err(error) = locked.map_err(|_| Refusal::overloaded(false))? {
            tracing::error!("the vault is locked, and was not closed cleanly: {error}");
        }
        tracing::info!("the vault is locked");
        Ok(Reply::vault("LOCK", "locked", receipt))
    }

    /// Gives a nonce for a key to come, or opens the vault with the key that has come.
    pub(super) async fn unlock(
        &self,
        given: &mut OneNonce,
        carried: Option<Carried>,
        shown: &Shown,
    ) -> Result<Reply, Refusal> {
        let Some(Carried { nonce, key }) = carried else {
            let state = if self.vault.is_locked() { "locked" } else { "unlocked" };
            return Ok(Reply::unlock_nonce(state, given.renew().map_err(|error| self.internal(&error))?));
        };
        let opened = match given.take(&nonce) {
            Some(nonce) => {
                let vault = Arc::clone(&self.vault);
                let opened = self.writer.task(move || vault.unlock(nonce.as_bytes(), &key)).await;
                opened.map_err(|_| Refusal::overloaded(false))?
            }
            None => Err(StoreError::WrongKey),
        };
        opened.and_then(|()| self.take_up()).map_err(|error| {
            tracing::warn!("the vault was not unlocked: {error}");
            Refusal::still_locked(&error)
        })?;
        let receipt = self.record(event(shown, Outcome::Granted, "vault unlocked")).await?;
        self.vault.resume();
        self.accept_sealed_policy();
        if let Some(keychain) = &self.keychain {
            keychain.bell.ring();
        }
        tracing::info!("the vault is unlocked");
        Ok(Reply::vault("UNLOCK", "unlocked", receipt))
    }

    /// Brings to the log what commands did while the vault was locked. No change can be committed before.
    fn take_up(&self) -> Result<(), StoreError> {
        let outbox = self.vault.outbox()?;
        let replayed = self.log.borrow_mut().replay(&outbox);
        replayed.map_err(|error| StoreError::Io(error.to_string()))?;
        self.unsynced.notify_one();
        self.note_chain();
        Ok(())
    }
}

/// The record of an act on the whole vault.
pub(super) fn event(shown: &Shown, outcome: Outcome, what: &'static str) -> Event {
    Event {
        timestamp: Timestamp::now(),
        action: audit::Action::Vault,
        pid: shown.pid,
        binary_path: shown.path.clone().into(),
        binary_hash: shown.digest,
        service: None,
        targets: Vec::new(),
        outcome,
        reason: None,
        detail: Some(what.into()),
        uid: shown.uid,
        count: None,
    }
}
