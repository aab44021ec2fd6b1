//! Properties over the pure rooms and the stores, and the seeds of the fuzz targets replayed on stable.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, unreachable_pub)]

#[allow(dead_code, unreachable_pub, clippy::expect_used)]
mod admitted;
mod audit;
mod cache;
mod caller;
mod chain;
mod corridor;
mod decision;
mod imports;
#[path = "../fuzz/src/laws/mod.rs"]
#[allow(dead_code)]
mod laws;
mod names;
mod policy;
mod replay;
mod store;
mod wire;

/// As many cases as said; every property keeps what broke it beside its source.
fn config(cases: u32) -> proptest::prelude::ProptestConfig {
    let beside = proptest::test_runner::FileFailurePersistence::WithSource("regressions");
    proptest::prelude::ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(beside)),
        ..proptest::prelude::ProptestConfig::default()
    }
}
