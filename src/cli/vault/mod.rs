//! `vault`: the vault as a whole, its key and its state.

mod export;
mod import;
mod init;
mod list;
mod locking;
mod plan;
mod rekey;
mod salvage;
mod state;
mod verify;

use clap::Subcommand;

use super::{
    context::Context,
    failure::Failure,
    output::Output,
    owner::{Owner, close_to_others},
    values,
};
use crate::{
    audit::Action,
    name::Service,
    store::{Keychain, NamesByService},
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make an empty vault, and its key
    Init(init::Args),
    /// Say where the vault's key comes from, and whether it is locked
    Status(state::Args),
    /// Let the daemon forget the vault's key: requests are answered with store_locked until it is unlocked
    Lock,
    /// Give the daemon the vault's key again
    Unlock,
    /// Give the vault another key, and seal every secret anew; no daemon may run
    Rekey,
    /// Try everything in the vault, and say what is damaged; nothing is changed
    Verify(verify::Args),
    /// Let the vault's key come from elsewhere, or under another passphrase
    ChangeKeySource(rekey::ChangeArgs),
    /// Show the names of the secrets, never a value
    List(list::Args),
    /// Take in secrets from elsewhere; only says what it would do until --apply is given
    #[command(subcommand)]
    Import(import::Source),
    /// Write secrets into a file that is encrypted to you
    Export(export::Args),
}

pub(super) fn run(command: &Command, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Status(args) => state::run(args, cx, out),
        Command::Lock => locking::lock(cx, out),
        Command::Verify(args) => verify::run(args, cx, values::way()?, out),
        Command::Rekey => rekey::rekey(cx, values::way()?, out),
        Command::Import(source) if source.applies() => import::run(source, cx, values::way()?, out),
        Command::Export(args) if !args.salvages() => export::run(args, cx, values::way()?, out),
        _ => {
            close_to_others()?;
            match command {
                Command::Init(args) => init::run(args, cx, out),
                Command::ChangeKeySource(args) => rekey::change(args, cx, out),
                Command::List(args) => list::run(args, cx, out),
                // what is salvaged is never in the keychain
                Command::Export(args) => salvage::run(args, cx, out),
                // a dry run asks the keychain for no value
                Command::Import(source) => import::run(source, cx, Keychain::unasked(), out),
                _ => locking::unlock(cx, out),
            }
        }
    }
}

/// The names of the wanted services, or all. A service that is not there is an error: it may be misspelt. That was told to
/// somebody too, and has its record.
fn chosen(owner: Owner, wanted: &[Service], action: Action) -> Result<(Owner, NamesByService), Failure> {
    match of_services(owner.names(), wanted) {
        Ok(names) => Ok((owner, names)),
        Err(service) => {
            owner.record_nothing(action, Some(service))?;
            owner.close()?;
            Err(Failure::new(
                format!("the vault has no secret of the service {service}"),
                "see what there is: keychain-auth vault list",
            ))
        }
    }
}

/// The names of the wanted services, or all; or the first of those that has none.
fn of_services(all: NamesByService, wanted: &[Service]) -> Result<NamesByService, &Service> {
    match wanted.iter().find(|service| !all.iter().any(|(there, _)| there == *service)) {
        Some(missing) => Err(missing),
        None => Ok(limited(all, wanted)),
    }
}

/// Those of the wanted services, or all.
fn limited(mut all: NamesByService, wanted: &[Service]) -> NamesByService {
    all.retain(|(service, _)| wanted.is_empty() || wanted.contains(service));
    all
}
