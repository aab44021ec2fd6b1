//! `deny`: a program that waits is forgotten. It waits again when it asks again.

use super::{args, arrivals::await_arrivals, context::Context, failure::Failure, output::Output};
use crate::{digest::Digest, policy::COMMAND_PATIENCE};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The whole hash, as list-pending shows it
    #[arg(value_parser = args::digest)]
    hash: Digest,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    await_arrivals(cx, out);
    let (removed, foreign) =
        cx.pending_file().update(COMMAND_PATIENCE, cx.now, |queue| queue.remove(&args.hash, None))?;
    if let Some(foreign) = foreign {
        out.note(&format!("warning: {foreign}"));
    }
    if removed == 0 {
        return Err(Failure::new(
            "no program with this hash waits for approval",
            "keychain-auth list-pending shows those that do",
        ));
    }
    out.line(&format!("Denied {}", args.hash));
    Ok(())
}
