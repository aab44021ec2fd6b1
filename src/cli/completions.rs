//! `completions`: a script for the user's shell, from the same definition as the parser.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, failure::Failure, output::Output};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "keychain-auth", &mut script);
    out.data(&script);
    Ok(())
}
