//! The wire protocol: bytes in, types out, types in, bytes out; everything bounded.
//!
//! Knows no tokio, no files, no clocks.
#![forbid(unsafe_code)]

mod request;

pub use request::Action;
