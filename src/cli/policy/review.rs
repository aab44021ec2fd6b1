//! `policy review`: what config.json says differently than the policy that was sealed last.
//!
//! The copy of that policy lies where every process of the user can write: one that was made to look like config.json would
//! have its owner seal what somebody else wrote. So the seal in the vault is asked whether it is what was sealed, which only
//! the holder of the vault's key can do; what listens at the socket is not believed in place of it. Where the key is not
//! given, the first line says that nothing is proven.

use super::{
    super::{
        advice::{accept_or_put_back, put_policy_back},
        context::Context,
        failure::Failure,
        output::{Output, Style},
        owner::close_to_others,
        sealing::{Seat, copy, seal_of, seems_sealed},
        status_query::{Found, ask},
        text::word,
    },
    config,
};
use crate::{
    keys::KeyError,
    policy::{Policy, PolicyError, differences},
    store::{PolicySeal, Slot},
};

/// What is known of the seal.
enum Known {
    /// It is this one, by the vault's key; zeros where any config.json is accepted.
    Seal(PolicySeal),
    /// Nothing, for this reason.
    Nothing(String),
}

impl Known {
    fn of(cx: &Context) -> Result<Self, Failure> {
        let Some(slot) = Slot::peek(&cx.paths.data_dir)? else {
            return Ok(Self::Seal(PolicySeal::default()));
        };
        if let Found::Running(status) = ask(&cx.paths.socket, cx.uid)
            && status.vault.is_some_and(|vault| vault.state == "salvaged")
        {
            return Ok(Self::Nothing("the daemon reads what is intact of a damaged vault".to_owned()));
        }
        close_to_others()?;
        match cx.asking().for_slot(&slot) {
            Ok(material) => Ok(Self::Seal(Seat::with(cx, &slot, &material, "policy review")?.current())),
            Err(KeyError::Store(error)) => Err(error.into()),
            Err(why) => Ok(Self::Nothing(why.to_string())),
        }
    }
}

pub(super) fn run(cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let now = config(cx)?;
    let sealed = copy(cx).read(cx.uid);
    if let Some(Err(error)) = now.as_deref().map(Policy::parse) {
        return Err(broken(cx, PolicyError::Broken { file: cx.paths.config(), error }, sealed.is_some()));
    }
    let known = Known::of(cx)?;
    let is_sealed = match &known {
        Known::Seal(seal) => *seal != PolicySeal::default(),
        Known::Nothing(_) => sealed.is_some() || seems_sealed(cx),
    };
    if !is_sealed {
        out.line(&match &known {
            Known::Seal(_) => "The policy is not sealed".to_owned(),
            Known::Nothing(why) => {
                format!("The policy is not sealed, as far as can be told without the vault's key: {why}")
            }
        });
        return Ok(());
    }
    if let (Known::Seal(seal), Some(now)) = (&known, &now)
        && seal_of(now) == *seal
    {
        out.line("config.json is the policy that was sealed, as the seal in the vault proves");
        return Ok(());
    }
    let (base, trusted) = base(cx, &known, sealed, out);
    let differ = show(&base, now.as_deref().unwrap_or_default(), out);
    let proven = matches!(known, Known::Seal(_));
    let sentence = match (&now, proven) {
        (None, _) => "there is no config.json, so every request is denied",
        (Some(_), false) if !differ => {
            out.line("config.json says what the copy of the sealed policy says");
            return Ok(());
        }
        (Some(_), true) if !differ => {
            "config.json says the same as what was sealed and is not the same, so every request is denied"
        }
        (Some(_), _) => "config.json is not what was sealed, so every request is denied",
    };
    let advice = match (&now, trusted) {
        (_, false) => "put config.json back from a backup; or accept it, if all that is shown is yours: keychain-auth policy seal".to_owned(),
        (None, _) => put_policy_back(cx),
        (Some(_), _) => accept_or_put_back(cx),
    };
    Err(Failure::new(sentence, advice))
}

fn broken(cx: &Context, error: PolicyError, copied: bool) -> Failure {
    Failure::new(
        format!("{error}; what is no policy can't be compared, and every request is denied"),
        match copied {
            true => format!(
                "correct it there, or put back what was sealed: cp {} {}",
                word(copy(cx).path()),
                word(&cx.paths.config())
            ),
            false => "correct the file there".to_owned(),
        },
    )
}

/// What config.json is compared with, and whether it may be put back. The first line of all says what that is worth.
fn base(cx: &Context, known: &Known, sealed: Option<Vec<u8>>, out: &mut Output) -> (Vec<u8>, bool) {
    let place = copy(cx);
    let place = place.path().display();
    let (style, said, base) = match (known, sealed) {
        (_, None) => (
            Style::Bad,
            format!("{place}, the copy of the sealed policy, is gone, so everything in config.json is shown"),
            None,
        ),
        (Known::Nothing(why), Some(copy)) => (
            Style::Warn,
            format!(
                "UNPROVEN: {place} was not compared with the seal in the vault ({why}); any process of yours can have changed it"
            ),
            Some(copy),
        ),
        (Known::Seal(seal), Some(copy)) if seal_of(&copy) == *seal => (
            Style::Good,
            format!("Proven: {place} is what was sealed, as the seal in the vault says"),
            Some(copy),
        ),
        (Known::Seal(_), Some(_)) => (
            Style::Bad,
            format!("CHANGED: {place} is not what was sealed, so everything in config.json is shown"),
            None,
        ),
    };
    out.cells(&[(style, &said)]);
    let trusted = base.is_some();
    (base.unwrap_or_default(), trusted)
}

/// Shows who gains and who loses what. False if nobody does.
fn show(before: &[u8], after: &[u8], out: &mut Output) -> bool {
    let differences = differences(before, after);
    for difference in &differences {
        out.cells(&[(Style::Bold, &difference.path)]);
        for gain in &difference.gains {
            out.cells(&[(Style::Bad, &format!("  + {gain}"))]);
        }
        for loss in &difference.loses {
            out.cells(&[(Style::Good, &format!("  - {loss}"))]);
        }
    }
    !differences.is_empty()
}
