//! Properties over the pure rooms, and the seeds of the fuzz targets replayed on stable.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    dead_code,
    unreachable_pub
)]

mod admitted;
mod caller;
mod corridor;
#[path = "../fuzz/src/laws/mod.rs"]
mod laws;
mod names;
mod replay;
mod wire;

/// Every property keeps what broke it beside its source.
fn config(cases: u32) -> proptest::prelude::ProptestConfig {
    proptest::prelude::ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(proptest::test_runner::FileFailurePersistence::WithSource(
            "regressions",
        ))),
        ..proptest::prelude::ProptestConfig::default()
    }
}
