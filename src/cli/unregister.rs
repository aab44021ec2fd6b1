//! `unregister`: a program out of the policy, with all its permissions.

use std::path::PathBuf;

use super::{args, context::Context, failure::Failure, output::Output};
use crate::{
    digest::Digest,
    policy::{DraftError, RegistryError},
};

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
    match cx.registry().unregister(&path, args.hash.as_ref()) {
        Ok(_) => {}
        Err(RegistryError::Draft(error @ DraftError::UnknownPath(_))) => {
            return Err(Failure::new(error.to_string(), "keychain-auth list shows what is registered"));
        }
        Err(error) => return Err(error.into()),
    }
    out.line(&format!("Unregistered {}", path.display()));
    Ok(())
}
