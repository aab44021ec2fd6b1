//! The policy as a whole: whether it is in force, and who can change it.

use super::super::{
    facts::{Counted, PolicyFacts, Seal, Unusable, Writers},
    row::{Area, Row, State},
};

/// Most warnings that are shown one by one: one screen.
const SHOWN: usize = 20;

pub(super) fn rows(policy: &PolicyFacts) -> Vec<Row> {
    let mut rows = Vec::new();
    match &policy.state {
        Ok(Counted { entries, warnings }) => {
            rows.push(Row::ok(
                Area::Policy,
                "policy",
                if *entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") },
                "what it does not name is denied",
            ));
            rows.extend(warnings.iter().take(SHOWN).map(|warning| {
                Row::ok(Area::Policy, "entry", "no effect", warning.as_str())
                    .but(State::Warn, "correct the entry in config.json")
            }));
            if let Some(more @ 1..) = warnings.len().checked_sub(SHOWN) {
                rows.push(
                    Row::ok(Area::Policy, "entry", "no effect", format!("and {more} more"))
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
    rows.push(match &policy.writers {
        Writers::RootOnly => Row::ok(
            Area::Policy,
            "policy writers",
            "root",
            "no process of yours can register itself",
        ),
        Writers::User(place) => Row::ok(
            Area::Policy,
            "policy writers",
            "you and root",
            format!("any process of yours can register itself, through {}", place.display()),
        )
        .but(
            State::Warn,
            "to close this, let root own the policy's folder and every folder above it, and name it in XDG_CONFIG_HOME",
        ),
    });
    rows
}
