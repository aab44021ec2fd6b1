//! Properties over the pure rooms and the stores.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, unreachable_pub)]

#[allow(dead_code, unreachable_pub, clippy::expect_used)]
mod admitted;
mod audit;
mod decision;
mod policy;
mod store;
