//! Properties over the pure rooms.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, unreachable_pub)]

#[allow(dead_code)]
mod admitted;
mod decision;
mod policy;
