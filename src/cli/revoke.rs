//! `revoke`: permissions taken from a program, and terms lifted from its entry. It never widens what a program may do
//! by way of an empty list.

use std::path::PathBuf;

use super::{
    args,
    context::Context,
    failure::{Failure, untaken},
    output::Output,
    text::word,
    words,
};
use crate::{
    caller::Check,
    name::{Service, TargetPrefix},
    policy::{Grant, Lift},
};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The registered program; it need not exist any more
    path: PathBuf,
    #[command(flatten)]
    asked: Asked,
}

#[derive(clap::Args)]
#[group(required = true, multiple = true)]
struct Asked {
    /// A service that it may no longer read or search in; may be repeated
    #[arg(long, value_name = "SERVICE", value_parser = args::service)]
    read: Vec<Service>,
    /// A service that it may no longer write or delete in; may be repeated
    #[arg(long, value_name = "SERVICE", value_parser = args::service)]
    write: Vec<Service>,
    /// Search and prefix actions
    #[arg(long)]
    search: bool,
    /// A prefix whose targets are no longer allowed; may be repeated. Without any prefix left, no target is allowed
    #[arg(long, value_name = "PREFIX", value_parser = args::prefix)]
    prefix: Vec<TargetPrefix>,
    /// Require no challenge any more
    #[arg(long)]
    challenge: bool,
    /// Turn an identity check on again; may be repeated
    #[arg(long, value_name = "CHECK", value_parser = args::check)]
    relax: Vec<Check>,
    /// Let the entry have no end
    #[arg(long)]
    expires: bool,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let path = cx.entry_path(&args.path)?;
    let (grant, lift) = (args.asked.grant(), args.asked.lift());
    let (absent, lifted) = cx.registry().revoke(&path, &grant, &lift).map_err(untaken)?;
    let asked: Vec<String> = all(&grant, &lift).collect();
    let absent: Vec<String> = all(&absent, &lifted.absent).collect();
    let done: Vec<&str> = asked.iter().filter(|word| !absent.contains(word)).map(String::as_str).collect();
    if !done.is_empty() {
        out.line(&format!("Revoked from {} {}", path.display(), done.join(", ")));
    }
    if !absent.is_empty() {
        let only = if done.is_empty() { "Nothing was revoked: the" } else { "The" };
        let (path, absent) = (path.display(), absent.join(", "));
        out.note(&format!("{only} entry of {path} does not have {absent}; what it has: keychain-auth list"));
    }
    for prefix in &lifted.still_covered {
        out.note(&format!("Targets {prefix}… stay allowed by a shorter prefix of the entry"));
    }
    if lifted.no_target_left {
        out.note(&format!(
            "No target is allowed any more; to allow every target: keychain-auth grant {} --all-targets",
            word(&path)
        ));
    }
    Ok(())
}

impl Asked {
    fn grant(&self) -> Grant {
        Grant {
            read: self.read.iter().cloned().collect(),
            write: self.write.iter().cloned().collect(),
            search: self.search,
        }
    }

    fn lift(&self) -> Lift {
        Lift {
            prefixes: self.prefix.iter().cloned().collect(),
            challenge: self.challenge,
            relax: self.relax.iter().copied().collect(),
            expiry: self.expires,
        }
    }
}

fn all(grant: &Grant, lift: &Lift) -> impl Iterator<Item = String> {
    let prefixes = lift.prefixes.iter().map(|prefix| format!("targets {prefix}…"));
    let challenge = lift.challenge.then(|| "the challenge".to_owned());
    let relax = lift.relax.iter().map(|check| format!("relaxed {check}"));
    let expiry = lift.expiry.then(|| "its end".to_owned());
    words::grant(grant).chain(prefixes).chain(challenge).chain(relax).chain(expiry)
}
