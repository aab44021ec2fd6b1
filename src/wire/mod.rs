//! The wire protocol: bytes in, types out; types in, bytes out; everything bounded.
//!
//! Knows no tokio, no files, no clocks. The daemon, the properties and the fuzzer call the same functions.
#![forbid(unsafe_code)]

mod frame;
pub(crate) mod json;
pub mod limits;
mod malformed;
mod nonce;
mod reply;
mod request;

pub use frame::{Frame, FrameBuffer, FrameError, Writer};
pub use malformed::{Malformed, Problem};
pub use nonce::Nonce;
pub use reply::{Fitting, Reason, Reply, Status, TooLarge, UNRECORDED};
pub use request::{Action, Asked, Batch, Carried, Message, Request};
