//! keychain-auth: a hardened daemon between command-line tools and a user's secrets.
//!
//! A request passes the rooms of this crate in one direction:
//! `bytes → Frame → Request → Authorized<Batch> → Committed → Reply`.
//! `ARCHITECTURE.md` is the map; `daemon::corridor` is the one place that knows the order.

// lets tests be shared between this crate and those outside of it
#[cfg(test)]
extern crate self as keychain_auth;

#[cfg(test)]
#[path = "../proptests/admitted.rs"]
#[allow(dead_code, unreachable_pub, clippy::expect_used)]
mod admitted;

pub mod audit;
pub mod broker;
pub mod caller;
pub mod chain;
mod child;
pub mod cli;
pub mod daemon;
pub mod desktop_keychain;
pub mod digest;
pub mod import;
pub mod keys;
pub mod name;
pub mod paths;
pub mod policy;
pub mod sandbox;
pub mod secret;
pub mod store;
pub mod sys;
pub mod text;
pub mod transfer;
pub mod wire;
pub mod witness;
