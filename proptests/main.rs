//! Properties over the pure rooms.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod policy;
