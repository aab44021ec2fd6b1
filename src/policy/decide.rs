//! The decision: pure, total, deny by default. The only place where [`Authorized`] is made.

use std::path::Path;

use jiff::Timestamp;

use super::{Entry, Permissions, Policy, Standing};
use crate::{
    caller::VerifiedCaller,
    name::Service,
    store::{Change, Names, Query, Selection},
};

/// A verified caller with its entry in the policy of this moment. Made only by [`Policy::admit`], and every decision
/// needs one: nobody decides about a caller that was not verified.
#[derive(Debug, Clone)]
#[must_use]
pub struct Admitted<'p> {
    caller: VerifiedCaller,
    entry: &'p Entry,
}

impl<'p> Admitted<'p> {
    /// The caller.
    pub fn caller(&self) -> &VerifiedCaller {
        &self.caller
    }

    /// Its entry.
    pub fn entry(&self) -> &'p Entry {
        self.entry
    }
}

impl Policy {
    /// Admits a verified caller whose path and digest match an entry that has not expired.
    pub fn admit(&self, caller: &VerifiedCaller, now: Timestamp) -> Result<Admitted<'_>, Standing<'_>> {
        match self.recognise(Path::new(caller.path()), caller.digest(), now) {
            Standing::Registered(entry) => Ok(Admitted { caller: caller.clone(), entry }),
            otherwise => Err(otherwise),
        }
    }
}

/// A batch that the policy allows to the caller it was decided for. Made only by this file; a store takes nothing else.
#[must_use]
pub struct Authorized<T>(T);

impl<T> Authorized<T> {
    /// The batch.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// The batch, used up by the store that applies it.
    pub(crate) fn into_inner(self) -> T {
        self.0
    }
}

/// Why the policy refuses a batch. The first failing check answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Denial {
    /// The service is not in the list that the action needs.
    #[error("the service is not in the list that this action needs")]
    ServiceNotAllowed,
    /// A search or prefix action without `can_search`.
    #[error("search and prefix actions need can_search")]
    ActionNotInPolicy,
    /// A target outside `allowed_target_prefixes`.
    #[error("a target is outside allowed_target_prefixes")]
    TargetNotAllowed,
}

/// Decides a `read` or `search`.
pub fn decide_query(admitted: &Admitted<'_>, query: Query) -> Result<Authorized<Query>, Denial> {
    let permissions = admitted.entry.permissions();
    if !permissions.reads(&query.selection.service) {
        return Err(Denial::ServiceNotAllowed);
    }
    let searches = !query.values || !matches!(query.selection.names, Names::Exact(_));
    if searches && !permissions.can_search() {
        return Err(Denial::ActionNotInPolicy);
    }
    targets_allowed(permissions, &query.selection.names)?;
    Ok(Authorized(query))
}

/// Decides a `write` or `delete`.
pub fn decide_change(admitted: &Admitted<'_>, change: Change) -> Result<Authorized<Change>, Denial> {
    let permissions = admitted.entry.permissions();
    match &change {
        Change::Write { service, items, .. } => {
            if !permissions.writes(service) {
                return Err(Denial::ServiceNotAllowed);
            }
            if !items.iter().all(|item| permissions.covers(item.target.as_str())) {
                return Err(Denial::TargetNotAllowed);
            }
        }
        Change::Delete(selection) => {
            if !permissions.writes(&selection.service) {
                return Err(Denial::ServiceNotAllowed);
            }
            if !matches!(selection.names, Names::Exact(_)) && !permissions.can_search() {
                return Err(Denial::ActionNotInPolicy);
            }
            targets_allowed(permissions, &selection.names)?;
        }
    }
    Ok(Authorized(change))
}

/// Decides a `check`: whether the service is allowed at all, and the names if any were given. Nothing is released by it.
pub fn decide_check(permissions: &Permissions, asked: &Selection) -> Result<(), Denial> {
    let service: &Service = &asked.service;
    if !permissions.reads(service) && !permissions.writes(service) {
        return Err(Denial::ServiceNotAllowed);
    }
    match &asked.names {
        // an entry that allows no target allows nothing of the service
        Names::All if permissions.allows_no_target() => Err(Denial::TargetNotAllowed),
        Names::All => Ok(()),
        Names::Prefix(_) if !permissions.can_search() => Err(Denial::ActionNotInPolicy),
        names => targets_allowed(permissions, names),
    }
}

fn targets_allowed(permissions: &Permissions, names: &Names) -> Result<(), Denial> {
    let allowed = match names {
        Names::Exact(targets) => targets.iter().all(|target| permissions.covers(target.as_str())),
        Names::Prefix(prefixes) => prefixes.iter().all(|prefix| permissions.covers(prefix.as_str())),
        // every name of the service is more than a list of prefixes allows
        Names::All => permissions.covers(""),
    };
    if allowed { Ok(()) } else { Err(Denial::TargetNotAllowed) }
}
