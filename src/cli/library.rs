//! `trust-library` and `distrust-library`: libraries that a program may map although its user can write them, as those of
//! Homebrew, conda, pyenv or cargo are.

use std::path::{self, PathBuf};

use super::{
    context::{Context, resolve},
    failure::{Failure, untaken, unusable_path},
    output::Output,
};
use crate::policy::{Allowances, DraftError, LibraryFile, RegistryError};

#[derive(clap::Args)]
pub(super) struct TrustArgs {
    /// The registered program
    binary: PathBuf,
    /// The library; symbolic links are followed
    library: PathBuf,
    /// Trust a library that somebody else could replace
    #[arg(long)]
    allow_writable: bool,
    /// Trust a library on FUSE or a network file system
    #[arg(long)]
    allow_foreign_filesystem: bool,
}

#[derive(clap::Args)]
pub(super) struct DistrustArgs {
    /// The registered program; it need not exist any more
    binary: PathBuf,
    /// The library; it need not exist any more
    library: PathBuf,
}

pub(super) fn trust(args: &TrustArgs, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let binary = cx.entry_path(&args.binary)?;
    let allowed = Allowances {
        writable: args.allow_writable,
        foreign_filesystem: args.allow_foreign_filesystem,
        ..Allowances::default()
    };
    let library = LibraryFile::candidate(&args.library, allowed, cx.uid)?;
    let known = cx.policy_source().current(cx.uid)?.knows_path(&binary);
    if known && library.is_of_root() {
        out.note(&format!(
            "Nothing to do: {} and every folder above it can be changed by root alone, so every registered program may map it",
            library.path().display()
        ));
        return Ok(());
    }
    cx.registry().trust_library(&binary, &library)?;
    out.line(&format!(
        "Trusted {} with hash {} for {}",
        library.path().display(),
        library.digest(),
        binary.display()
    ));
    out.note(
        "Its hash is checked whenever the program is verified, but any process of yours can write into a library while it is mapped: this is worth less than a library that only root can change",
    );
    Ok(())
}

pub(super) fn distrust(args: &DistrustArgs, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let binary = cx.entry_path(&args.binary)?;
    let library = resolve(&args.library).map_err(|error| unusable_path(&args.library, &error))?;
    let mut done = cx.registry().distrust_library(&binary, &library);
    // an entry written by hand may name a link
    if let (Err(RegistryError::Draft(DraftError::UnknownLibrary { .. })), Ok(given)) =
        (&done, path::absolute(&args.library))
        && given != library
        && cx.registry().distrust_library(&binary, &given).is_ok()
    {
        done = Ok(());
    }
    done.map_err(untaken)?;
    out.line(&format!("Distrusted {} for {}", library.display(), binary.display()));
    Ok(())
}
