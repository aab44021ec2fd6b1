//! The policy as a whole: whether it is in force, and who can change it.

use super::super::{
    facts::{Counted, PolicyFacts, Seal, Unusable, Writers},
    row::{Area, Row, State},
};
use crate::{
    cli::{status_query::Found, words::counted},
    store::KeySource,
};

/// Most warnings that are shown one by one: one screen.
const SHOWN: usize = 20;

pub(super) fn rows(policy: &PolicyFacts, daemon: &Found, source: Option<KeySource>) -> Vec<Row> {
    let mut rows = Vec::new();
    match &policy.state {
        Ok(Counted { entries, warnings }) => {
            rows.push(Row::ok(
                Area::Policy,
                "policy",
                counted(*entries as u64, "entry", "entries"),
                "what it does not name is denied",
            ));
            rows.extend(warnings.iter().take(SHOWN).map(|warning| {
                Row::ok(Area::Policy, "config.json entry", "ignored in part", warning.as_str())
                    .but(State::Warn, "correct the entry in config.json")
            }));
            if let Some(more @ 1..) = warnings.len().checked_sub(SHOWN) {
                rows.push(
                    Row::ok(Area::Policy, "config.json entry", "ignored in part", format!("and {more} more"))
                        .but(State::Warn, "keychain-auth list shows all of them"),
                );
            }
        }
        Err(Unusable { sentence, advice }) => rows.push(
            Row::ok(Area::Policy, "policy", "unusable", format!("every request is denied: {sentence}"))
                .but(State::Bad, advice),
        ),
    }
    if let Seal::Untold { copy } = policy.seal {
        let copy =
            if copy { "a copy of a sealed policy is there" } else { "no copy of a sealed policy is there" };
        let means = format!("a seal would lie in the vault, and no daemon runs to tell; {copy}");
        rows.push(
            Row::ok(Area::Policy, "policy seal", "not told", means)
                .but(State::Unknown, "start the daemon and ask again"),
        );
    }
    rows.push(writers(&policy.writers, worth(policy.seal, daemon, source)));
    rows
}

/// What a seal keeps from whoever can write config.json.
enum Worth {
    /// There is none, or they can get the key that seals.
    Nothing,
    /// There is none, where it would need the passphrase.
    Unsealed,
    /// Nobody tells whether there is one.
    Untold,
    /// Only who knows the passphrase can change what is accepted.
    All,
}

fn worth(seal: Seal, daemon: &Found, source: Option<KeySource>) -> Worth {
    let passphrase = |source: &str| source == KeySource::Passphrase.as_str();
    match (daemon, seal) {
        (Found::Running(status), _) => {
            let sealed = status.policy.as_ref().is_some_and(|policy| policy.sealed);
            let known = status.vault.as_ref().is_some_and(|vault| passphrase(&vault.key_source));
            match (sealed, known) {
                (true, true) => Worth::All,
                (false, true) => Worth::Unsealed,
                _ => Worth::Nothing,
            }
        }
        (_, Seal::Untold { copy: true }) if source == Some(KeySource::Passphrase) => Worth::Untold,
        _ => Worth::Nothing,
    }
}

fn writers(writers: &Writers, worth: Worth) -> Row {
    let row = |found: &str, means: String| Row::ok(Area::Policy, "policy writers", found, means);
    let Writers::User(place) = writers else {
        return row("root", "no process of yours can register itself".to_owned());
    };
    let place = place.display();
    match worth {
        Worth::All => row(
            "you and root",
            format!(
                "a process of yours can change the file, through {place}; the seal denies everything then, and nothing is granted"
            ),
        ),
        Worth::Untold => row(
            "you and root",
            format!("a process of yours can change the file, through {place}; a seal would deny everything then"),
        )
        .but(State::Unknown, "start the daemon and ask again"),
        Worth::Unsealed => row(
            "you and root",
            format!("any process of yours can register itself, through {place}"),
        )
        .but(State::Warn, "to close this: keychain-auth policy seal"),
        Worth::Nothing => row(
            "you and root",
            format!("any process of yours can register itself, through {place}"),
        )
        .but(
            State::Warn,
            "to close this, give the vault a passphrase while no daemon runs: keychain-auth vault change-key-source --key passphrase (where there is no vault yet: keychain-auth vault init --key passphrase); register what may ask, then keychain-auth policy seal; or let root own the policy's folder and every folder above it, and name it in XDG_CONFIG_HOME",
        ),
    }
}
