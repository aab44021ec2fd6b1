//! Who is calling: from facts about a process to a [`VerifiedCaller`], or to the check that failed.
//!
//! Pure: the facts are arguments, so that every combination of them can be tested without a kernel. Knows no /proc.
#![forbid(unsafe_code)]

mod check;

pub use check::Check;
