//! `start`: the daemon, in the foreground.

use std::{
    env,
    io::{self, IsTerminal},
};

use tracing::level_filters::LevelFilter;

use super::{context::Context, failure::Failure};
use crate::{
    daemon::{self, Opening},
    sandbox::Hardening,
    store::KeySource,
};

/// Says how much the daemon tells on stderr: `error`, `warn`, `info` (default) or `debug`.
const LOG_LEVEL: &str = "KEYCHAIN_AUTH_LOG";

/// Run the daemon in the foreground.
#[derive(clap::Args)]
pub(super) struct Args {
    /// What happens when a protection can't be had: enforce (do not start), best-effort (say so), off (for debugging)
    #[arg(long, value_name = "LEVEL", default_value = "enforce")]
    hardening: Hardening,
    /// Where the vault's key comes from, when the vault is made: credential, keychain, passphrase, file [default: the
    /// first of credential, keychain and file that is there]
    #[arg(long, value_name = "SOURCE")]
    key: Option<KeySource>,
}

pub(super) fn run(args: &Args, cx: Context) -> Result<(), Failure> {
    let level = env::var(LOG_LEVEL).ok().and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none())
        .with_max_level(level)
        .with_target(false)
        .init();
    let opening = Opening { source: args.key, passphrase: cx.passphrase };
    daemon::run(cx.paths, args.hardening, opening, |name| env::var_os(name))
        .map_err(|error| Failure::new(error.to_string(), error.advice()))
}
