//! The cage: what a process that was taken over could still do is almost nothing. Every function says what it really
//! achieved; nothing here is a silent best effort.
//!
//! Order, measured: close to others, witness, privileges, open everything, [`cage`], threads, [`filter`], [`probe`].
#![forbid(unsafe_code)]

mod calls;
mod filter;
mod landlock;
mod privileges;
mod probe;

pub use calls::{broker, keeper, witness};
pub use filter::{Call, FilterError, Only, filter};
pub use landlock::{Folders, NEWEST_ABI, REQUIRED_ABI, cage, cage_without_files};
pub use privileges::{Keep, drop_privileges};
pub use probe::{Applied, Protection, probe};

use std::str::FromStr;

/// What happens when a protection can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hardening {
    /// The daemon does not start, and names what is missing.
    #[default]
    Enforce,
    /// The daemon starts, and says what is missing.
    BestEffort,
    /// Nothing is asked for. For debugging only.
    Off,
}

impl FromStr for Hardening {
    type Err = UnknownHardening;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "enforce" => Ok(Self::Enforce),
            "best-effort" => Ok(Self::BestEffort),
            "off" => Ok(Self::Off),
            _ => Err(UnknownHardening),
        }
    }
}

/// A word that names no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of enforce, best-effort, off")]
pub struct UnknownHardening;
