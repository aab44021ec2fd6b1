//! Properties over the pure rooms and the stores.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[allow(dead_code, clippy::expect_used)]
mod admitted;
mod audit;
mod store;
