//! Which policy is in force, and what the log is told of it.

use std::{collections::VecDeque, sync::Arc};

use super::{
    house::House,
    note::{NoPolicy, config_file, policy_events},
    refusal::Refusal,
};
use crate::{
    audit::Event,
    policy::{Policy, PolicyError},
    store::StoreError,
};

/// How often a policy that changes while it is taken up is looked at again before the client is told to come back.
pub(super) const SETTLING: usize = 4;

/// What the log was told of the policy last.
#[derive(Default)]
pub(super) struct Recorded {
    /// The last one that was in force.
    policy: Option<Arc<Policy>>,
    /// Why there is none since.
    refused: Option<NoPolicy>,
    /// What the log has not taken yet of that.
    unwritten: VecDeque<Event>,
}

/// The policy that was in force at a moment. A verdict under another generation does not count.
pub(super) struct InForce {
    pub(super) policy: Arc<Policy>,
    pub(super) generation: u64,
}

impl House {
    /// The policy of this moment, which the witness has been told of. There is no pause between the last look at the file
    /// and the return.
    pub(super) async fn policy(&self) -> Result<InForce, Refusal> {
        for _ in 0..SETTLING {
            // who may ask can hang on a seal that was committed and not told
            self.complete_log()?;
            // the look is over before anything is recorded of it
            let looked = self.policy.borrow_mut().current(self.observer.uid);
            let policy = looked.map_err(|error| self.no_policy(&error))?;
            let generation = self.policy.borrow().generation();
            self.record_policy(Ok(Arc::clone(&policy)))?;
            if self.watched.get() == generation {
                return Ok(InForce { policy, generation });
            }
            self.witness.watch(&policy).await.map_err(|error| self.internal(&error))?;
            for warning in policy.warnings() {
                tracing::warn!("config.json: {warning}");
            }
            self.watched.set(generation);
        }
        Err(Refusal::overloaded(false))
    }

    /// Why no request is served, for its client.
    pub(super) fn policy_refusal(&self, error: &PolicyError) -> Refusal {
        if self.is_untold(error) { Refusal::store(&StoreError::Locked) } else { Refusal::policy(error) }
    }

    /// The same for the user.
    pub(super) fn policy_fault(&self, error: &PolicyError) -> String {
        if self.is_untold(error) {
            format!("the vault is locked, and only it can tell what was sealed since: {error}")
        } else {
            error.to_string()
        }
    }

    /// Why there is none now: once for the operator, and in one record.
    ///
    /// An owner may seal another one while the vault is locked. What can't be told then is no finding against
    /// config.json: it is recorded under a word of its own, since it may be put back before the unlock, and for what it is
    /// before the unlock is answered.
    fn no_policy(&self, error: &PolicyError) -> Refusal {
        let fault = self.policy_fault(error);
        self.say_once(format!("{fault}; every request is denied meanwhile"));
        let refused = match error {
            PolicyError::Unsealed { found, .. } if self.is_untold(error) => {
                let file = config_file(*found);
                let why = format!("{file} is not what was sealed when the vault was locked");
                NoPolicy { reason: "policy_untold", why }
            }
            _ => NoPolicy { reason: "policy_refused", why: fault },
        };
        let recorded = self.record_policy(Err(refused));
        recorded.err().unwrap_or_else(|| self.policy_refusal(error))
    }

    /// Whether only a vault that is locked knows if this is an error.
    fn is_untold(&self, error: &PolicyError) -> bool {
        matches!(error, PolicyError::Unsealed { .. }) && !self.vault.serves()
    }

    /// Records what is different from the policy that was recorded last. What the log does not take is tried again at the
    /// next look, and no request is served before that.
    fn record_policy(&self, now: Result<Arc<Policy>, NoPolicy>) -> Result<(), Refusal> {
        let recorded = &mut *self.recorded.borrow_mut();
        // whoever changes it again and again meanwhile gathers nothing here
        self.write_policy_events(&mut recorded.unwritten)?;
        match (&now, &*recorded) {
            (Ok(policy), Recorded { policy: Some(before), refused: None, .. })
                if Arc::ptr_eq(policy, before) =>
            {
                return Ok(());
            }
            (Err(error), Recorded { refused: Some(before), .. }) if error == before => return Ok(()),
            _ => {}
        }
        let before = recorded.policy.as_deref();
        let digest = self.policy.borrow().digest();
        recorded.unwritten.extend(policy_events(before, now.as_deref(), digest, self.observer.uid));
        match now {
            Ok(policy) => (recorded.policy, recorded.refused) = (Some(policy), None),
            Err(error) => recorded.refused = Some(error),
        }
        self.write_policy_events(&mut recorded.unwritten)
    }

    fn write_policy_events(&self, unwritten: &mut VecDeque<Event>) -> Result<(), Refusal> {
        while let Some(event) = unwritten.front() {
            let _ = self.append(event)?;
            unwritten.pop_front();
        }
        Ok(())
    }
}
