//! The keeper: the one room that knows tokio, deadlines and limits, and the order of all the others.
#![forbid(unsafe_code)]

mod admission;
mod cage;
mod connection;
mod corridor;
mod crowd;
mod house;
mod identity;
mod in_force;
mod keychain;
mod lines;
mod listener;
mod lock;
mod locking;
mod note;
mod policy_watch;
mod refusal;
mod sealing;
mod serving;
mod start;
mod store_kind;
mod strangers;
mod sync;
mod threads;
mod untaken;
mod vault_key;
mod witness_link;
mod writer;

pub(crate) use cage::live_as_broker;
pub(crate) use lock::{Lock, LockError};
pub use start::{Opening, StartError, run};
pub(crate) use store_kind::salvageable;
pub use sync::{AuditSettings, Durability};
pub(crate) use vault_key::survives;
