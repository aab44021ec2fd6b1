//! `policy review`: what config.json says differently than the policy that was sealed last.
//!
//! The copy of that policy lies where every process of the user can write: one that was made to look like config.json would
//! have its owner seal what somebody else wrote. So the seal in the vault is asked whether it is what was sealed, which only
//! the holder of the vault's key can do; what listens at the socket is not believed in place of it. Where the key is not
//! given, the first line says that nothing is proven, nothing is advised to be put back, and the review fails whatever it
//! shows.

use super::{
    super::{
        advice::{UNSEAL, put_sealed_back, salvages},
        context::Context,
        failure::Failure,
        output::{Output, Style},
        owner::close_to_others,
        sealing::{Seat, copy, seal_of},
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
    /// Nothing: why, and what to do about that.
    Nothing(String, &'static str),
}

impl Known {
    fn of(cx: &Context) -> Result<Self, Failure> {
        let Some(slot) = Slot::peek(&cx.paths.data_dir)? else {
            return Ok(Self::Seal(PolicySeal::default()));
        };
        if salvages(cx) {
            return Ok(Self::Nothing(
                "the daemon reads what is intact of a damaged vault".to_owned(),
                "restore the vault from a backup, start the daemon without --salvage, and review again",
            ));
        }
        close_to_others()?;
        match cx.asking().for_slot(&slot) {
            Ok(material) => Ok(Self::Seal(Seat::with(cx, &slot, &material, "policy review")?.current())),
            Err(KeyError::Store(error)) => Err(error.into()),
            Err(why) => Ok(Self::Nothing(why.to_string(), why.advice())),
        }
    }
}

/// What config.json is compared with.
enum Base {
    /// What was sealed.
    Proven(Vec<u8>),
    /// The copy of it, which anybody can have changed.
    Unproven(Vec<u8>),
    /// Nothing: there is no copy, or it is not what was sealed.
    Nothing,
}

impl Base {
    fn text(&self) -> &[u8] {
        match self {
            Self::Proven(text) | Self::Unproven(text) => text,
            Self::Nothing => &[],
        }
    }
}

pub(super) fn run(cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let now = config(cx)?;
    let known = Known::of(cx)?;
    if let Some(Err(error)) = now.as_deref().map(Policy::parse) {
        return Err(broken(cx, PolicyError::Broken { file: cx.paths.config(), error }, &known, out));
    }
    if let Known::Seal(seal) = &known {
        if *seal == PolicySeal::default() {
            out.line("The policy is not sealed");
            return Ok(());
        }
        if now.as_deref().map(seal_of).as_ref() == Some(seal) {
            out.line("config.json is the policy that was sealed, as the seal in the vault proves");
            return Ok(());
        }
    }
    let base = base(cx, &known, out);
    let differ = show(base.text(), now.as_deref().unwrap_or_default(), out);
    Err(match known {
        Known::Nothing(why, advice) => unproven(&base, now.is_some(), differ, &why, advice),
        Known::Seal(_) => unsealed(cx, &base, now.is_some(), differ),
    })
}

/// The seal was asked, and config.json is not what it is of.
fn unsealed(cx: &Context, base: &Base, there: bool, differ: bool) -> Failure {
    let sentence = match (there, differ) {
        (false, _) => "there is no config.json, so every request is denied",
        (true, false) => {
            "config.json says the same as what was sealed and is not the same, so every request is denied"
        }
        (true, true) => "config.json is not what was sealed, so every request is denied",
    };
    let advice = match (base, there) {
        (Base::Proven(_), true) => {
            format!("accept it: keychain-auth policy seal; or {}", put_sealed_back(cx))
        }
        (Base::Proven(_), false) => format!("{}; or {UNSEAL}", put_sealed_back(cx)),
        (_, true) => "put config.json back from a backup; or accept it, if all that is shown is yours: keychain-auth policy seal".to_owned(),
        (_, false) => format!("put config.json back from a backup; or {UNSEAL}"),
    };
    Failure::new(sentence, advice)
}

/// The seal was not asked: what is shown may be a lie, also where nothing is.
fn unproven(base: &Base, there: bool, differ: bool, why: &str, advice: &'static str) -> Failure {
    let found = match (base, there, differ) {
        (_, false, _) => "there is no config.json, so every request is denied",
        (Base::Nothing, true, _) => "there is no copy of a sealed policy to compare config.json with",
        (_, true, true) => "config.json says something else than the copy of the sealed policy",
        (_, true, false) => "config.json says what the copy of the sealed policy says",
    };
    Failure::new(format!("{found}, and the seal in the vault was not asked: {why}"), advice)
}

fn broken(cx: &Context, error: PolicyError, known: &Known, out: &mut Output) -> Failure {
    let is_sealed = !matches!(known, Known::Seal(seal) if *seal == PolicySeal::default());
    let advice = match is_sealed.then(|| base(cx, known, out)) {
        Some(Base::Proven(_)) => format!("correct it there, or {}", put_sealed_back(cx)),
        Some(_) => "correct it there, or put it back from a backup".to_owned(),
        None => "correct the file there".to_owned(),
    };
    let sentence = format!("{error}; what is no policy can't be compared, and every request is denied");
    Failure::new(sentence, advice)
}

/// What config.json is compared with. The first line of all says what that is worth.
fn base(cx: &Context, known: &Known, out: &mut Output) -> Base {
    let place = copy(cx);
    let sealed = place.read(cx.uid);
    let place = place.path().display();
    let (style, said, base) = match (known, sealed) {
        (Known::Nothing(why, _), None) => (
            Style::Warn,
            format!(
                "UNPROVEN: the seal in the vault was not asked ({why}) and there is no {place}, so everything in config.json is shown"
            ),
            Base::Nothing,
        ),
        (Known::Nothing(why, _), Some(copy)) => (
            Style::Warn,
            format!(
                "UNPROVEN: {place} was not compared with the seal in the vault ({why}); any process of yours can have changed it"
            ),
            Base::Unproven(copy),
        ),
        (Known::Seal(_), None) => (
            Style::Bad,
            format!("{place}, the copy of the sealed policy, is gone, so everything in config.json is shown"),
            Base::Nothing,
        ),
        (Known::Seal(seal), Some(copy)) if seal_of(&copy) == *seal => (
            Style::Good,
            format!("Proven: {place} is what was sealed, as the seal in the vault says"),
            Base::Proven(copy),
        ),
        (Known::Seal(_), Some(_)) => (
            Style::Bad,
            format!("CHANGED: {place} is not what was sealed, so everything in config.json is shown"),
            Base::Nothing,
        ),
    };
    out.cells(&[(style, &said)]);
    base
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
