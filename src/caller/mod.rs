//! Who is calling: from facts about a process to a [`VerifiedCaller`], or to the check that failed.
//!
//! Pure: the facts are arguments, so that every combination of them can be tested without a kernel. Knows no /proc.
#![forbid(unsafe_code)]

mod cache;
mod check;
mod facts;
mod verdict;

pub use cache::DigestCache;
pub use check::Check;
pub use facts::{Custody, Executable, Facts, FileKey, ForeignCode, Namespace, Sighting};
pub use verdict::{
    OTHER_NETWORK, Observer, Terms, UNDER_FILTER, UNRELAXABLE, Untrusted, VerifiedCaller, verify,
};
