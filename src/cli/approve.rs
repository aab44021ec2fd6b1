//! `approve`: a program that waits becomes a registered one, if the file still has the hash that was seen.

use std::path::PathBuf;

use super::{
    args::{self, Risks},
    arrivals::await_arrivals,
    context::Context,
    failure::Failure,
    output::Output,
    register::{next_step, registered, settle},
};
use crate::{
    digest::Digest,
    policy::{Candidate, Registration},
};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The whole hash, as list-pending shows it
    #[arg(value_parser = args::digest)]
    hash: Digest,
    /// The program, where it is not among those that wait or several have this hash
    path: Option<PathBuf>,
    #[command(flatten)]
    risks: Risks,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let path = match &args.path {
        Some(path) => path.clone(),
        None => waiting(&args.hash, cx, out)?,
    };
    let candidate = Candidate::examine(&path, args.risks.into(), cx.uid)?;
    if *candidate.digest() != args.hash {
        return Err(Failure::new(
            format!("{} has another hash: {}", candidate.path().display(), candidate.digest()),
            "find out why it changed before you approve its new hash",
        ));
    }
    let done = cx.registry().register(&candidate, cx.now)?;
    registered(&candidate, out);
    if done == Registration::Added {
        next_step(&candidate, out);
    }
    settle(&candidate, cx, out);
    Ok(())
}

fn waiting(hash: &Digest, cx: &Context, out: &mut Output) -> Result<PathBuf, Failure> {
    await_arrivals(cx, out);
    let (queue, _) = cx.pending_file().load(cx.now)?;
    let mut found = queue.with_digest(hash).map(|pending| pending.sighting().path.clone());
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        (Some(_), Some(_)) => Err(Failure::new(
            "several programs with this hash wait for approval",
            format!("keychain-auth approve {hash} PATH, with a path of keychain-auth list-pending"),
        )),
        (None, _) => Err(not_waiting(hash, cx)?),
    }
}

fn not_waiting(hash: &Digest, cx: &Context) -> Result<Failure, Failure> {
    let policy = cx.policy_source().current(cx.uid)?;
    match policy.entries().iter().find(|entry| entry.digest() == Some(hash)) {
        Some(entry) => Ok(Failure::new(
            format!("{} is registered with this hash already", entry.path().display()),
            "see what it may do: keychain-auth list",
        )),
        None => Ok(Failure::new(
            "no program with this hash waits for approval",
            format!("start the program once more, or: keychain-auth approve {hash} PATH"),
        )),
    }
}
