//! `SEAL`: which config.json is accepted, changed by whoever has the vault's key and by nobody else.

use std::sync::Arc;

use super::{
    house::House,
    locking::{Asker, OneNonce, event},
    refusal::Refusal,
};
use crate::{
    audit::Outcome,
    store::{PolicySeal, StoreError},
    wire::{Carried, Nonce, Reply},
};

impl House {
    /// The SHA-256 that config.json must have; None where any is accepted.
    pub(super) fn accept_sealed_policy(&self) {
        let seal = self.vault.policy_seal();
        self.policy.borrow_mut().accept_only(accepted(seal));
    }

    /// Tells which seal holds, to be read by the vault's key only, and gives a nonce for another.
    pub(super) fn tell_seal(&self, given: &mut OneNonce, theirs: &Nonce) -> Result<Reply, Refusal> {
        let carried =
            self.vault.tell_policy_seal(theirs.as_bytes()).map_err(|error| self.store_failed(&error))?;
        let ours = given.renew().map_err(|error| self.internal(&error))?;
        Ok(Reply::policy_seal(self.seal_state(), ours, &carried))
    }

    /// Takes another seal. It counts from the next request on.
    pub(super) async fn seal(
        &self,
        given: &mut OneNonce,
        carried: Carried,
        asker: &Asker<'_>,
    ) -> Result<Reply, Refusal> {
        // as every change: not begun while its record could not follow it
        self.ready_for_change()?;
        let Carried { nonce, key } = carried;
        let Some(nonce) = given.take(&nonce) else { return Err(Refusal::not_sealed(&StoreError::WrongKey)) };
        // whoever has no key must not keep the writing thread from the others
        let fits = self.vault.seal_fits(nonce.as_bytes(), &key);
        fits.map_err(|error| Refusal::not_sealed(&error))?;
        // nor may strangers end the connection of whoever has one: half of this would be done
        let shown = asker.show(self).await;
        let event = event(&shown, Outcome::Granted, "another seal for the policy");
        let vault = Arc::clone(&self.vault);
        let taken = self.writer.commit(move || {
            vault.take_policy_seal(nonce.as_bytes(), &key, Box::new(move |_| event.render()))
        });
        let entry = taken.await.map_err(|_| Refusal::overloaded(false))?;
        let entry = entry.map_err(|error| Refusal::not_sealed(&error))?;
        self.log_committed();
        self.accept_sealed_policy();
        Ok(Reply::policy_sealed(self.seal_state(), &entry))
    }

    fn seal_state(&self) -> &'static str {
        if self.vault.policy_seal() == PolicySeal::default() { "unsealed" } else { "sealed" }
    }

    /// Whether the policy is sealed, for `STATUS`.
    pub(super) fn is_policy_sealed(&self) -> bool {
        self.vault.policy_seal() != PolicySeal::default()
    }
}

/// The SHA-256 that config.json must have under a seal; None where any is accepted.
pub(super) fn accepted(seal: PolicySeal) -> Option<PolicySeal> {
    (seal != PolicySeal::default()).then_some(seal)
}
