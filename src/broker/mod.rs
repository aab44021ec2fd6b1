//! The process that speaks to the user's keychain (Secret Service, over D-Bus), for `--store keychain` only. It moves sealed
//! records between the keeper and the keychain, and can open none of them: it has no key, and no name in clear.
//!
//! It is a process of its own since the caged keeper may connect to nothing.
#![forbid(unsafe_code)]

mod desk;
mod health;
mod items;
mod lane;
mod protocol;
#[cfg(test)]
pub(crate) mod trials;

pub use desk::serve;
pub use health::Health;
pub use lane::Lane;
pub use protocol::{Answer, Key, MAX_KEYS, MAX_PACKET, NotUnderstood, Order, Question, Report, VaultId};
