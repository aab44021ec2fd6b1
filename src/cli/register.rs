//! `register` and `upgrade`: a program's path and hash into the policy.

use std::path::PathBuf;

use super::{args::Risks, context::Context, failure::Failure, output::Output, text::word};
use crate::policy::{COMMAND_PATIENCE, Candidate, Registration};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The program; symbolic links are followed
    path: PathBuf,
    #[command(flatten)]
    risks: Risks,
}

pub(super) fn register(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let candidate = Candidate::examine(&args.path, args.risks.into(), cx.uid)?;
    let done = cx.registry().register(&candidate, cx.now)?;
    registered(&candidate, out);
    if done == Registration::Added {
        next_step(&candidate, out);
    }
    settle(&candidate, cx, out);
    Ok(())
}

pub(super) fn upgrade(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let candidate = Candidate::examine(&args.path, args.risks.into(), cx.uid)?;
    let done = cx.registry().upgrade(&candidate, cx.now)?;
    let (path, hash) = (candidate.path().display(), candidate.digest());
    match done {
        Registration::Unchanged => {
            out.line(&format!("Nothing to upgrade: {path} is registered with hash {hash}"))
        }
        _ => out.line(&format!("Upgraded {path} to new hash {hash}")),
    }
    settle(&candidate, cx, out);
    Ok(())
}

pub(super) fn registered(candidate: &Candidate, out: &mut Output) {
    out.line(&format!("Registered {} with hash {}", candidate.path().display(), candidate.digest()));
}

/// A new entry allows nothing: say how it gets something.
pub(super) fn next_step(candidate: &Candidate, out: &mut Output) {
    let path = word(candidate.path());
    out.note(&format!(
        "It may do nothing yet; grant what it needs: keychain-auth grant {path} --read SERVICE"
    ));
}

/// What follows for a program whose hash is in the policy now: it waits no longer, and may have expired.
pub(super) fn settle(candidate: &Candidate, cx: &Context, out: &mut Output) {
    expiry_note(candidate, cx, out);
    forget(candidate, cx, out);
}

/// A new hash does not lengthen the time that the user gave the entry: say so when it is over.
fn expiry_note(candidate: &Candidate, cx: &Context, out: &mut Output) {
    let Ok(policy) = cx.policy_source().current(cx.uid) else { return };
    let over = policy.with_path(candidate.path()).any(|entry| entry.expired(cx.now));
    if over {
        out.note(&format!(
            "Its entry has expired and matches nothing; give it more time: keychain-auth grant {} --expires 30d",
            word(candidate.path())
        ));
    }
}

/// It is registered already: a queue that can't be changed is worth a note and no more.
fn forget(candidate: &Candidate, cx: &Context, out: &mut Output) {
    let (hash, path) = (candidate.digest(), candidate.path());
    let removed = cx.pending_file().update(COMMAND_PATIENCE, cx.now, |queue| queue.remove(hash, Some(path)));
    if let Err(error) = removed {
        out.note(&format!("warning: it is still listed as waiting: {error}"));
    }
}
