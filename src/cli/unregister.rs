//! `unregister`: a program out of the policy, with all its permissions.

use std::path::PathBuf;

use super::{
    args,
    context::Context,
    failure::{Failure, untaken},
    output::Output,
};
use crate::digest::Digest;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The program; it need not exist any more
    path: PathBuf,
    /// Remove only the entry with this hash
    #[arg(long, value_parser = args::digest)]
    hash: Option<Digest>,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let path = cx.entry_path(&args.path)?;
    cx.registry().unregister(&path, args.hash.as_ref()).map_err(untaken)?;
    out.line(&format!("Unregistered {}", path.display()));
    Ok(())
}
