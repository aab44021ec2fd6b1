//! What a verified caller may do: config.json as types, and one pure decision that denies by default.
//!
//! Knows no sockets and no secrets.
#![forbid(unsafe_code)]

mod decide;
mod document;

pub use decide::{Authorized, Denial, decide_change, decide_check, decide_query};
pub use document::Permissions;
