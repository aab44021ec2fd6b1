//! Where secrets rest. A store takes only [`Authorized`](crate::policy::Authorized) batches and says [`Committed`]
//! only when it is durable.
//!
//! Knows no JSON, and not who asked.
#![forbid(unsafe_code)]

mod advice;
mod batch;
mod carry;
mod disk;
mod fetch;
pub(crate) mod files;
mod group;
mod head;
mod key;
mod keychain;
mod label;
mod lockable;
mod look;
mod memory;
mod names;
mod owned;
mod place;
mod rekey;
mod salvage;
mod scan;
mod seal;
pub(crate) mod seat;
mod shadow;
mod slot;
mod source;
mod sync;
mod taken;
mod transport;
#[cfg(test)]
pub(crate) mod trials;
mod vault;
mod verify;

pub use batch::{
    AuditMemory, Change, Committed, MAX_ANSWER, MAX_REMOVED, Names, Outbox, OutboxEntry, PendingChange,
    Query, Record, RenderRecord, Selection, Store, StoreError, WriteItem,
};
pub use carry::MAX_WAITING;
pub use keychain::{Items, Keychain, StoreKind, Take, UnknownStore};
pub use lockable::Lockable;
pub use memory::Memory;
pub use names::NamesByService;
pub use owned::{OwnedSalvage, OwnedVault};
pub use rekey::Progress;
pub use salvage::{Age, Extent, Salvage};
pub use seat::{Seat, Unreadable};
pub use slot::Slot;
pub use source::{ItemId, KeyMaterial, KeySource, MAX_SOURCE_SECRET, MIN_CREDENTIAL, UnknownSource};
pub use taken::Taken;
pub use transport::{CARRIED, KeyHolder, PolicySeal};
pub use vault::Vault;
pub use verify::{DamagedRecord, Findings, InKeychain};
