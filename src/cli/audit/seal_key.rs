//! `audit seal-key`: a new chain whose verification key is shown once, to be kept off the machine.

use serde::Serialize;

use crate::cli::{
    context::Context,
    failure::Failure,
    output::Output,
    owner::{Owner, alone, close_to_others},
};

#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown<'k> {
    chain: String,
    verification_key: &'k str,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    close_to_others()?;
    // before a key is asked for; not beside a locked daemon either: it goes on with its chain
    let alone = alone(cx)?;
    let key = Owner::open_without_values(cx, "audit seal-key")?.begin_chain(&alone)?;
    let (chain, revealed) = (key.chain().to_string(), key.reveal());
    if args.json {
        out.json(&Shown { chain, verification_key: &revealed });
        return Ok(());
    }
    out.line(&revealed);
    out.note(&format!(
        "This is the verification key of chain {chain}. It is not kept here and not shown again: keep it off this machine. Who has it can check every record from now on, and could forge them."
    ));
    out.note("Check with: keychain-auth audit verify --key FILE");
    Ok(())
}
