//! `policy`: a config.json that only whoever has the vault's key can change.

mod review;

use clap::Subcommand;

use super::{
    advice::put_policy_back,
    context::Context,
    failure::Failure,
    output::Output,
    sealing::{Seat, copy, seal_of, seems_sealed, uncopied},
};
use crate::{
    policy::{Policy, read_config},
    store::{KeySource, PolicySeal, Slot},
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Accept config.json as it is now, and from now on no other that was not sealed
    Seal,
    /// Accept any config.json again
    Unseal,
    /// Show what config.json says differently than the policy that was sealed last; exit code 1 when it does, and when the
    /// vault's key was not given to prove it
    Review,
}

pub(super) fn run(command: &Command, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Seal => seal(cx, out),
        Command::Unseal => unseal(cx, out),
        Command::Review => review::run(cx, out),
    }
}

fn seal(cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let bytes = config(cx)?.ok_or_else(|| {
        let advice = match seems_sealed(cx) {
            true => put_policy_back(cx),
            false => "register a program first: keychain-auth register PATH".to_owned(),
        };
        Failure::new("there is no config.json to seal", advice)
    })?;
    Policy::parse(&bytes)
        .map_err(|error| crate::policy::PolicyError::Broken { file: cx.paths.config(), error })?;
    let seat = Seat::take(cx, "policy seal")?;
    seat.seal(cx, &seal_of(&bytes))?;
    copy(cx).write(&bytes).map_err(|error| uncopied(&error))?;
    out.line(&format!(
        "Sealed {}: no other is accepted, and commands that change it ask for the vault's key",
        cx.paths.config().display()
    ));
    let source = Slot::peek(&cx.paths.data_dir)?.map(|slot| slot.source());
    if let Some(source @ (KeySource::File | KeySource::Keychain)) = source {
        out.note(&format!(
            "The key comes from the source {source}, which your own processes can use: they can seal what they like; a passphrase closes that"
        ));
    }
    Ok(())
}

fn unseal(cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let seat = Seat::take(cx, "policy unseal")?;
    if seat.current() == PolicySeal::default() {
        out.line("The policy is not sealed");
    } else {
        seat.seal(cx, &PolicySeal::default())?;
        out.line("Took the seal off: any config.json of yours is accepted");
    }
    copy(cx).remove().map_err(|error| uncopied(&error))
}

fn config(cx: &Context) -> Result<Option<Vec<u8>>, Failure> {
    Ok(read_config(&cx.paths.config(), cx.uid)?)
}
