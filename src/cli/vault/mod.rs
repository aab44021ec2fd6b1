//! `vault`: what the owner of the vault does with it, without a daemon in between.

mod export;
mod import;
mod plan;

use super::{context::Context, failure::Failure, output::Output};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Take in secrets from elsewhere; only says what it would do until --apply is given
    #[command(subcommand)]
    Import(import::Source),
    /// Write secrets into a file that is encrypted to you
    Export(export::Args),
}

pub(super) fn run(command: &Command, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Import(source) => import::run(source, cx, out),
        Command::Export(args) => export::run(args, cx, out),
    }
}
