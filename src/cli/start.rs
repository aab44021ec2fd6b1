//! `start`: the daemon, in the foreground.

use std::env;

use super::{context::Context, failure::Failure, operator_log, output::Output};
use crate::{
    audit::Rotation,
    daemon::{self, AuditSettings, Durability, Opening},
    sandbox::Hardening,
    store::{KeySource, StoreKind},
};

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
    /// Where the secrets rest, when the vault is made: vault (a file of the daemon), keychain (the user's own, over Secret
    /// Service) [default: vault]
    #[arg(long, value_name = "KIND")]
    store: Option<StoreKind>,
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

pub(super) fn run(args: &Args, cx: Context, out: &mut Output) -> Result<(), Failure> {
    if args.salvage && args.store == Some(StoreKind::Keychain) {
        return Err(Failure::new(
            "--salvage reads the vault's own file, and the secrets shall rest in the keychain",
            "see what is damaged: keychain-auth vault verify",
        ));
    }
    operator_log::begin();
    out.say_through(Box::new(operator_log::LastWords));
    let rotation = Rotation {
        max_size: args.audit_max_size << 20,
        max_age: i64::from(args.audit_max_age) * 24 * 60 * 60,
        max_files: args.audit_max_files.into(),
    };
    let audit = AuditSettings { durability: args.audit_durability, rotation };
    let Args { key: source, store, salvage, .. } = *args;
    let opening = Opening { source, store, passphrase: cx.passphrase, salvage, audit };
    daemon::run(cx.paths, args.hardening, opening, |name| env::var_os(name))?;
    operator_log::finish();
    Ok(())
}
