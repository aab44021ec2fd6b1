//! `LOCK` and `UNLOCK`: for any process of the daemon's user, as stopping it is; who unlocks must have the vault's key.
//!
//! Nobody looks who asks before, so a line that changes nothing costs next to nothing, and leaves no record if it is
//! answered; whoever wrote one that is refused is looked at for its record. Whoever has no key does not reach the writing
//! thread.

use std::{cell::Cell, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::sleep;

use super::{
    house::House,
    identity::{Identity, Shown},
    refusal::Refusal,
    writer::QueueFull,
};
use crate::{
    audit::{self, Event, Outcome, Receipt},
    store::{Store, StoreError},
    wire::{Carried, Nonce, Reason, Reply, Writer},
};

/// How often a key that must go asks for a place in the writing thread's queue, and how long it waits between.
const TRIES: usize = 1000;
const PAUSE: Duration = Duration::from_millis(10);

/// One at a time locks or unlocks the vault.
#[derive(Default)]
pub(super) struct Turn(Cell<bool>);

/// Gives the turn back, however its holder ends.
struct Held<'a>(&'a Turn);

impl Turn {
    fn take(&self) -> Result<Held<'_>, Refusal> {
        if self.0.replace(true) { Err(Refusal::overloaded(false)) } else { Ok(Held(self)) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.set(false);
    }
}

/// Whoever wrote a line that acts on the whole vault. Looked at only once the line changes something.
pub(super) struct Asker<'a> {
    pub(super) connection: u64,
    pub(super) identity: &'a Identity,
    pub(super) writer: Writer,
}

impl Asker<'_> {
    /// What a record says of it. Strangers can't end its connection any more: what follows would be half done.
    pub(super) async fn show(&self, house: &House) -> Shown {
        house.admission.borrow_mut().prove(self.connection);
        self.identity.look_at(self.writer, house).await
    }
}

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
    pub(super) async fn lock(&self, asker: &Asker<'_>) -> Result<Reply, Refusal> {
        if self.vault.salvage().is_some() {
            return Err(Refusal::not_locked());
        }
        let _turn = self.turn.take()?;
        if self.vault.is_locked() {
            return Ok(Reply::vault_unchanged("LOCK", "locked"));
        }
        // strangers must not end this connection between the record and the lock
        let shown = asker.show(self).await;
        let receipt = self.record(event(&shown, Outcome::Granted, "vault locked")).await?;
        let locked = self.forget_key().await;
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
        asker: &Asker<'_>,
    ) -> Result<Reply, Refusal> {
        let Some(Carried { nonce, key }) = carried else {
            let state = if self.vault.serves() { "unlocked" } else { "locked" };
            return Ok(Reply::unlock_nonce(state, given.renew().map_err(|error| self.internal(&error))?));
        };
        if self.vault.salvage().is_some() {
            return Err(Refusal::not_unlocked());
        }
        let nonce = given.take(&nonce).ok_or_else(|| Refusal::still_locked(&StoreError::WrongKey))?;
        let fits = self.vault.fits(nonce.as_bytes(), &key);
        fits.map_err(|error| Refusal::still_locked(&error))?;
        let _turn = self.turn.take()?;
        if self.vault.serves() {
            return Ok(Reply::vault_unchanged("UNLOCK", "unlocked"));
        }
        // nor end that of whoever has the key: an open vault would be told to be locked
        let shown = asker.show(self).await;
        let vault = Arc::clone(&self.vault);
        let opened = self.writer.task(move || vault.unlock(nonce.as_bytes(), &key)).await;
        let opened = opened.map_err(|_| Refusal::overloaded(false))?;
        let receipt = match self.serve_again(opened, &shown).await {
            Ok(receipt) => receipt,
            Err(refusal) => {
                // it is said to be locked, so nothing of the key may stay
                if self.forget_key().await.is_err() {
                    tracing::error!("the vault was not unlocked, and its key could not be forgotten");
                }
                return Err(refusal);
            }
        };
        if let Some(keychain) = &self.keychain {
            keychain.bell.ring();
        }
        tracing::info!("the vault is unlocked");
        Ok(Reply::vault("UNLOCK", "unlocked", receipt))
    }

    /// The steps from an open vault to one that answers requests. If one fails, the vault must forget its key again.
    async fn serve_again(&self, opened: Result<(), StoreError>, shown: &Shown) -> Result<Receipt, Refusal> {
        opened.and_then(|()| self.take_up()).map_err(|error| {
            tracing::warn!("the vault was not unlocked: {error}");
            Refusal::still_locked(&error)
        })?;
        let receipt = self.record(event(shown, Outcome::Granted, "vault unlocked")).await?;
        self.vault.resume();
        self.accept_sealed_policy();
        // what was sealed meanwhile is recorded before anybody hears that it counts; a policy that can't be used is told to
        // those who ask
        match self.policy().await {
            Err(refusal) if refusal.reason == Reason::AuditUnavailable => Err(refusal),
            _ => Ok(receipt),
        }
    }

    /// Has the writing thread close the vault, also where its queue is full for a while: somebody is told that it is locked.
    async fn forget_key(&self) -> Result<Result<(), StoreError>, QueueFull> {
        let mut tries = 0;
        loop {
            let vault = Arc::clone(&self.vault);
            match self.writer.task(move || vault.lock()).await {
                Err(QueueFull) if tries < TRIES => tries += 1,
                outcome => return outcome,
            }
            sleep(PAUSE).await;
        }
    }

    /// Brings to the log what commands did while the vault was locked. No change can be committed before.
    fn take_up(&self) -> Result<(), StoreError> {
        let outbox = self.vault.outbox()?;
        self.replay(&outbox).map(drop).map_err(|error| StoreError::Io(error.to_string()))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_locks_or_unlocks_and_the_next_is_told_to_come_back() {
        let turn = Turn::default();
        let held = turn.take().ok().unwrap();
        assert!(turn.take().is_err_and(|refusal| refusal.reason == Reason::Overloaded && !refusal.closes));
        drop(held);
        assert!(turn.take().is_ok());
    }
}
