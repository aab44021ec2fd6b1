//! `start`: the daemon, in the foreground.

use std::{
    env,
    io::{self, IsTerminal},
};

use tracing::level_filters::LevelFilter;

use super::{context::Context, failure::Failure, journal::Journal};
use crate::{
    audit::Rotation,
    daemon::{self, AuditSettings, Durability, Opening},
    sandbox::Hardening,
    store::{KeySource, StoreKind},
};

/// Says how much the daemon tells on stderr: `error`, `warn`, `info` (default) or `debug`.
const LOG_LEVEL: &str = "KEYCHAIN_AUTH_LOG";

/// Names the socket of journald, where stderr leads to it.
const JOURNAL: &str = "JOURNAL_STREAM";

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
    /// Where the secrets rest: vault (a file of the daemon), keychain (the user's own, over Secret Service). Kept from the
    /// first start on
    #[arg(long, value_name = "KIND", default_value = "vault")]
    store: StoreKind,
    /// Serve what is intact of a damaged vault, for reading only: what is damaged is answered with an error, and nothing
    /// of the vault is changed
    #[arg(long)]
    salvage: bool,
    /// How far a record must have come before its reply leaves: written (in the kernel) or synced (on the disk)
    #[arg(long, value_name = "HOW", default_value = "written")]
    audit_durability: Durability,
    /// Size at which the audit log begins another file, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4096))]
    audit_max_size: u64,
    /// Age at which it does, in days
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    audit_max_age: u16,
    /// How many earlier files are kept
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    audit_max_files: u16,
}

pub(super) fn run(args: &Args, cx: Context) -> Result<(), Failure> {
    if args.salvage && args.store == StoreKind::Keychain {
        return Err(Failure::new(
            "--salvage reads the vault's own file, and the secrets shall rest in the keychain",
            "see what is damaged: keychain-auth vault verify",
        ));
    }
    let level = env::var(LOG_LEVEL).ok().and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    let told = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none())
        .with_max_level(level)
        .with_target(false)
        // a line that stderr does not take, as on a full disk, would else be told to stderr: a panic, and the end of the daemon
        .log_internal_errors(false);
    if env::var(JOURNAL).is_ok_and(|stream| Journal::is_stderr(&stream)) {
        told.event_format(Journal).init();
    } else {
        told.init();
    }
    let rotation = Rotation {
        max_size: args.audit_max_size << 20,
        max_age: i64::from(args.audit_max_age) * 24 * 60 * 60,
        max_files: args.audit_max_files.into(),
    };
    let audit = AuditSettings { durability: args.audit_durability, rotation };
    let Args { key: source, store, salvage, .. } = *args;
    let opening = Opening { source, store, passphrase: cx.passphrase, salvage, audit };
    daemon::run(cx.paths, args.hardening, opening, |name| env::var_os(name))
        .map_err(|error| Failure::new(error.to_string(), error.advice()))
}
