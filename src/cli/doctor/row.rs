//! One line of the table.

use serde::Serialize;

/// How a protection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// Weaker than it could be.
    Warn,
    /// Below what `--hardening=enforce` asks for, or exposed to others.
    Bad,
    /// It could not be told.
    Unknown,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
        }
    }
}

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Area {
    Daemon,
    System,
    Files,
    Policy,
    Programs,
}

impl Area {
    pub(super) const ALL: [Self; 5] = [Self::Daemon, Self::System, Self::Files, Self::Policy, Self::Programs];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::System => "system",
            Self::Files => "files",
            Self::Policy => "policy",
            Self::Programs => "programs",
        }
    }
}

/// One protection: how it stands, what was found, what that means, and what to do where it is not well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) area: Area,
    pub(super) name: String,
    pub(super) state: State,
    pub(super) found: String,
    pub(super) means: String,
    /// One line; none only where all is well.
    pub(super) advice: Option<String>,
}

impl Row {
    /// All is well.
    pub(super) fn ok(
        area: Area,
        name: impl Into<String>,
        found: impl Into<String>,
        means: impl Into<String>,
    ) -> Self {
        let (name, found, means) = (name.into(), found.into(), means.into());
        Self { area, name, state: State::Ok, found, means, advice: None }
    }

    /// All is not well, and this is what to do.
    pub(super) fn but(self, state: State, advice: impl Into<String>) -> Self {
        Self { state, advice: Some(advice.into()), ..self }
    }
}
