//! `vault`: what the owner of the vault does with it, without a daemon in between.

use super::{context::Context, failure::Failure, output::Output, vault_export, vault_import};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Take in secrets from elsewhere; only says what it would do until --apply is given
    #[command(subcommand)]
    Import(vault_import::Source),
    /// Write secrets into a file that is encrypted to you
    Export(vault_export::Args),
}

pub(super) fn run(command: &Command, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Import(source) => vault_import::run(source, cx, out),
        Command::Export(args) => vault_export::run(args, cx, out),
    }
}
