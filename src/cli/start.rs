//! `start`: the daemon, in the foreground.

use super::{context::Context, failure::Failure};
use crate::daemon;

pub(super) fn run(cx: Context) -> Result<(), Failure> {
    daemon::run(cx.paths).map_err(|error| Failure::new(error.to_string(), error.advice()))
}
