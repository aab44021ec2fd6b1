//! Whether config.json is what the daemon goes by. Only the vault knows the seal: the daemon that has it is asked, and where
//! none runs, the copy of what was sealed last is all there is.

use std::path::Path;

use super::{
    advice::put_policy_back,
    context::Context,
    failure::Failure,
    output::Output,
    sealing::copy,
    status_query::{DaemonStatus, Found, ask},
};
use crate::{policy::read_config, wire::Reason};

const UNSEALED: &str = Reason::PolicyUnsealed.as_str();
const LOCKED: &str = Reason::StoreLocked.as_str();

/// What is known of it.
pub(super) enum Acceptance {
    /// The daemon that runs goes by it.
    InForce,
    /// Every request is denied, or would be as far as anybody can tell.
    Refused(Refused),
    /// No daemon runs that reads it. `sealed` where a copy says that it was sealed, and is the same.
    Untold {
        /// Whether there is such a copy.
        sealed: bool,
    },
}

/// Why it is not accepted.
pub(super) struct Refused {
    /// The reason that requests get.
    pub(super) reason: String,
    pub(super) sentence: String,
    pub(super) advice: String,
}

impl Acceptance {
    pub(super) fn ask(cx: &Context) -> Self {
        Self::of(&ask(&cx.paths.socket, cx.uid), cx)
    }

    pub(super) fn of(found: &Found, cx: &Context) -> Self {
        let of_another = |status: &DaemonStatus| {
            status.config_path.as_ref().is_some_and(|theirs| Path::new(theirs) != cx.paths.config())
        };
        match found {
            Found::Running(status) if !of_another(status) => said(status, cx),
            _ => by_copy(cx),
        }
    }

    /// The failure of whoever asks what is allowed.
    pub(super) fn refusal(&self) -> Option<(&str, Failure)> {
        let Self::Refused(Refused { reason, sentence, advice }) = self else { return None };
        Some((reason, Failure::new(format!("every request is denied: {sentence}"), advice)))
    }

    /// What a reader of config.json must know.
    pub(super) fn note(&self, out: &mut Output) {
        match self {
            Self::Refused(Refused { sentence, advice, .. }) => {
                out.note(&format!("warning: every request is denied, whatever is listed here: {sentence}"));
                out.note(&format!("  try: {advice}"));
            }
            Self::Untold { sealed: true } => out.note(
                "No daemon runs that reads this config.json. It is the copy of what was sealed last; which one is accepted can be told by a daemon, or with the vault's key",
            ),
            Self::InForce | Self::Untold { sealed: false } => {}
        }
    }
}

fn said(status: &DaemonStatus, cx: &Context) -> Acceptance {
    let Some(policy) = status.policy.as_ref().filter(|policy| policy.state == "error") else {
        return Acceptance::InForce;
    };
    let reason = policy.reason.clone().unwrap_or_else(|| Reason::InternalError.as_str().to_owned());
    Acceptance::Refused(Refused {
        advice: match reason.as_str() {
            UNSEALED => put_policy_back(cx),
            LOCKED => "keychain-auth vault unlock".to_owned(),
            _ => "keychain-auth doctor says what to mend".to_owned(),
        },
        sentence: policy.message.clone().unwrap_or_else(|| "the daemon does not say why".to_owned()),
        reason,
    })
}

fn by_copy(cx: &Context) -> Acceptance {
    let config = cx.paths.config();
    match (copy(cx).read(cx.uid), read_config(&config, cx.uid)) {
        (Some(sealed), Ok(now)) if now.as_ref() != Some(&sealed) => Acceptance::Refused(Refused {
            reason: UNSEALED.to_owned(),
            sentence: format!(
                "{} is not the copy of the policy that was sealed last; no daemon runs to say which one holds",
                config.display()
            ),
            advice: put_policy_back(cx),
        }),
        (sealed, _) => Acceptance::Untold { sealed: sealed.is_some() },
    }
}
