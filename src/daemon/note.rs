//! What the audit log will say of one line, gathered on its way through the corridor.

use std::{borrow::Cow, path::Path};

use jiff::Timestamp;

use super::{identity::Shown, refusal::Refusal};
use crate::{
    audit::{self, Event, Outcome},
    digest::Digest,
    name::{Service, Target},
    policy::{Admitted, Policy, changes},
    store::{Record, RenderRecord},
    wire::{Action, Asked, Malformed, Message, Status},
};

/// What a line asked, as far as it could be read. It holds names, never values.
#[derive(Default)]
pub(super) struct Note(Option<Asked>);

impl Note {
    /// Keeps what a well-formed request asks.
    pub(super) fn asked(&mut self, message: &Result<Message, Malformed>) {
        if let Ok(Message::Request(request)) = message {
            self.0 = Some(request.asked().clone());
        }
    }

    /// The action, where the line was a request.
    pub(super) fn action(&self) -> Option<Action> {
        self.0.as_ref().map(|asked| asked.action)
    }

    /// The namespace, where the line was a request.
    pub(super) fn service(&self) -> Option<&Service> {
        self.0.as_ref().map(|asked| &asked.service)
    }

    /// The names that were asked for. A prefix is a filter, not a name.
    pub(super) fn targets(&self) -> &[Target] {
        match &self.0 {
            Some(asked) if !asked.prefix => &asked.targets,
            _ => &[],
        }
    }

    /// The record of an answer that releases `records`.
    pub(super) fn granted(&self, shown: &Shown, admitted: &Admitted<'_>, records: &[Record]) -> Event {
        let found = self.0.as_ref().is_some_and(|asked| asked.prefix || asked.action == Action::Search);
        let targets = if found {
            records.iter().map(|record| record.target.clone()).collect()
        } else {
            self.targets().to_vec()
        };
        Event { detail: remarks(admitted), ..self.event(shown, Outcome::Granted, targets) }
    }

    /// The record of a change, made inside its transaction from the names that it touched.
    pub(super) fn granted_later(&self, shown: &Shown, admitted: &Admitted<'_>) -> RenderRecord {
        let event = self.granted(shown, admitted, &[]);
        let touched = self.0.as_ref().is_some_and(|asked| asked.prefix);
        Box::new(move |names| if touched { event.render_with(names) } else { event.render() })
    }

    /// The record of a refusal.
    pub(super) fn refused(&self, shown: &Shown, refusal: &Refusal) -> Event {
        let outcome =
            if refusal.reason.status() == Status::Denied { Outcome::Denied } else { Outcome::Error };
        Event {
            reason: Some(refusal.reason.as_str()),
            detail: refusal.detail.clone().map(Cow::Owned),
            ..self.event(shown, outcome, self.targets().to_vec())
        }
    }

    fn event(&self, shown: &Shown, outcome: Outcome, targets: Vec<Target>) -> Event {
        Event {
            timestamp: Timestamp::now(),
            action: self.action().map_or(audit::Action::Connect, audit::Action::Request),
            pid: shown.pid,
            binary_path: shown.path.clone().into(),
            binary_hash: shown.digest,
            service: self.service().cloned(),
            targets,
            outcome,
            reason: None,
            detail: None,
            uid: shown.uid,
            count: None,
        }
    }
}

/// Most changes of one policy that have records of their own; a last one tells of the others.
const MOST_CHANGES: usize = 256;

/// What the log says of a policy: each entry that is different, and which file is in force where none is or at first.
pub(super) fn policy_events(
    before: Option<&Policy>,
    now: Result<&Policy, &String>,
    file: Option<Digest>,
    uid: u32,
) -> Vec<Event> {
    let event = |path: &Path, hash, what: String| Event {
        timestamp: Timestamp::now(),
        action: audit::Action::Policy,
        pid: std::process::id(),
        binary_path: path.to_owned(),
        binary_hash: hash,
        service: None,
        targets: Vec::new(),
        outcome: Outcome::Granted,
        reason: None,
        detail: Some(what.into()),
        uid,
        count: None,
    };
    let policy = match now {
        Ok(policy) => policy,
        Err(error) => {
            let refused = event(Path::new(""), None, error.clone());
            return vec![Event { outcome: Outcome::Error, reason: Some("policy_refused"), ..refused }];
        }
    };
    let differences = before.map(|before| changes(before, policy)).unwrap_or_default();
    let mut events: Vec<Event> = differences
        .iter()
        .take(MOST_CHANGES)
        .map(|change| event(&change.path, change.digest, change.what.clone()))
        .collect();
    let more = differences.len().saturating_sub(MOST_CHANGES);
    if more > 0 || events.is_empty() {
        let file = file.map_or("no config.json".to_owned(), |hash| format!("config.json {hash}"));
        let more = if more > 0 { format!("; {more} more entries changed") } else { String::new() };
        events.push(event(
            Path::new(""),
            None,
            format!("in force: {file}, {} entries{more}", policy.entries().len()),
        ));
    }
    events
}

/// What a reader of the log must know of a caller that was served: checks that failed and that its entry turns off, and
/// mounts of its own.
fn remarks(admitted: &Admitted<'_>) -> Option<Cow<'static, str>> {
    let caller = admitted.caller();
    let mut words: Vec<_> = caller.relaxed().iter().map(|check| format!("relaxed: {check}")).collect();
    if caller.has_own_mounts() {
        words.push("own mount namespace".to_owned());
    }
    (!words.is_empty()).then(|| words.join("; ").into())
}
