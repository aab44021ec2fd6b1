//! Where secrets rest. A store takes only [`Authorized`] batches and says [`Committed`] only when it is durable.
//!
//! Knows no JSON, and not who asked.
#![forbid(unsafe_code)]

mod batch;

pub use batch::{
    Change, Committed, Names, OutboxEntry, PendingChange, Query, Record, RenderRecord, Selection, Store,
    StoreError, WriteItem,
};
