//! The terms of an entry: for which targets, how long, and after which checks its permissions hold.

use std::{collections::BTreeSet, path::Path};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::draft::{Draft, DraftError, add, remove_each, seconds};
use crate::{
    caller::{Check, UNRELAXABLE},
    name::TargetPrefix,
};

const PREFIXES: &str = "allowed_target_prefixes";
const CHALLENGE: &str = "challenge";
const RELAX: &str = "relax";
const EXPIRES: &str = "expires_at";

/// Terms to set on an entry. The default sets none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Which targets to allow.
    pub targets: Targets,
    /// Every connection must prove itself by the nonce of a HELLO.
    pub challenge: bool,
    /// Identity checks to turn off.
    pub relax: BTreeSet<Relaxable>,
    /// From when on the entry matches nothing.
    pub expires: Option<Timestamp>,
}

/// Targets to allow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Targets {
    /// Those that are allowed already.
    #[default]
    Unchanged,
    /// Every target, as in an entry without a list of prefixes.
    Every,
    /// Those that begin like one of these too. The first prefix of an entry takes all other targets away.
    Prefixes(BTreeSet<TargetPrefix>),
}

/// Terms to lift from an entry. The default lifts none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lift {
    /// Beginnings of targets that are no longer allowed.
    pub prefixes: BTreeSet<TargetPrefix>,
    /// No challenge is required any more.
    pub challenge: bool,
    /// Identity checks to turn on again, by any name that config.json may hold.
    pub relax: BTreeSet<Check>,
    /// The entry has no end any more.
    pub expiry: bool,
}

/// Whether a list of prefixes began: before, every target was allowed.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Narrowed(pub bool);

/// What lifting terms found.
#[must_use]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lifted {
    /// What no entry had.
    pub absent: Lift,
    /// Prefixes that were taken away although a shorter one still allows their targets.
    pub still_covered: BTreeSet<TargetPrefix>,
    /// An entry's list of prefixes is empty now, so that no target is allowed. It does not become unrestricted: what
    /// takes away never gives.
    pub no_target_left: bool,
}

/// An identity check that an entry may turn off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relaxable(Check);

/// A check that no entry can turn off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{check} can't be relaxed: {}", self.why())]
pub struct NeverRelaxed {
    check: Check,
}

impl Relaxable {
    /// The check, if an entry may turn it off.
    pub fn new(check: Check) -> Result<Self, NeverRelaxed> {
        if UNRELAXABLE.contains(&check) || check == Check::ChallengeMissing {
            return Err(NeverRelaxed { check });
        }
        Ok(Self(check))
    }

    /// The check.
    pub fn check(self) -> Check {
        self.0
    }
}

impl NeverRelaxed {
    /// The check.
    pub fn check(self) -> Check {
        self.check
    }

    fn why(self) -> &'static str {
        match self.check {
            Check::PeerGone => "a process that has ended can't be told from one that took its number",
            Check::ForeignUid => "the secrets are one user's, and another user's process is never theirs",
            Check::ExecutableChanged => "the process would run another program than the registered one",
            Check::ForeignSender => "another process than the verified one would be served",
            Check::ChallengeMissing => "it is asked for by the entry itself",
            _ => "without it the other checks prove nothing",
        }
    }
}

impl Draft {
    /// Sets terms on every entry of this path.
    pub fn set_terms(&mut self, path: &Path, terms: &Terms) -> Result<Narrowed, DraftError> {
        let mut narrowed = false;
        self.each(path, |entry| {
            match &terms.targets {
                Targets::Unchanged => {}
                Targets::Every => drop(entry.shift_remove(PREFIXES)),
                Targets::Prefixes(prefixes) => {
                    narrowed |= !prefixes.is_empty() && !entry.contains_key(PREFIXES);
                    add(entry, PREFIXES, prefixes.iter().map(TargetPrefix::as_str));
                }
            }
            if terms.challenge {
                entry.insert(CHALLENGE.into(), json!(true));
            }
            add(entry, RELAX, terms.relax.iter().map(|relaxed| relaxed.0.as_str()));
            if let Some(end) = terms.expires {
                entry.insert(EXPIRES.into(), json!(seconds(end)));
            }
        })?;
        Ok(Narrowed(narrowed))
    }

    /// Lifts terms from every entry of this path. A prefix can't be taken from an entry that allows every target: the
    /// list names what is allowed, and nothing else could.
    pub fn lift_terms(&mut self, path: &Path, lift: &Lift) -> Result<Lifted, DraftError> {
        let mut unrestricted = false;
        self.each(path, |entry| unrestricted |= !entry.contains_key(PREFIXES))?;
        if unrestricted && !lift.prefixes.is_empty() {
            return Err(DraftError::Unrestricted(path.into()));
        }
        let mut lifted = Lifted { absent: lift.clone(), ..Lifted::default() };
        self.each(path, |entry| {
            if !lift.prefixes.is_empty() {
                let absent = &mut lifted.absent.prefixes;
                remove_each(entry, PREFIXES, &lift.prefixes, TargetPrefix::as_str, absent);
                let left = prefixes(entry);
                lifted.no_target_left |= left.is_empty();
                let covered = |prefix: &&TargetPrefix| left.iter().any(|left| left.covers(prefix.as_str()));
                lifted.still_covered.extend(lift.prefixes.iter().filter(covered).cloned());
            }
            if lift.challenge {
                lifted.absent.challenge &= entry.shift_remove(CHALLENGE) != Some(json!(true));
            }
            remove_each(entry, RELAX, &lift.relax, |check| check.as_str(), &mut lifted.absent.relax);
            if lift.expiry {
                lifted.absent.expiry &= entry.shift_remove(EXPIRES).is_none();
            }
        })?;
        Ok(lifted)
    }
}

fn prefixes(entry: &Map<String, Value>) -> Vec<TargetPrefix> {
    let list = entry.get(PREFIXES).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|text| TargetPrefix::parse(text.as_str()?).ok()).collect()
}

#[cfg(test)]
#[path = "terms_tests.rs"]
mod tests;
