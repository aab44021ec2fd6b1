//! Properties over the pure rooms and the stores.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod audit;
mod store;
