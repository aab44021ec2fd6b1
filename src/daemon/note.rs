//! What the audit log will say of one line, gathered on its way through the corridor.

use std::{borrow::Cow, path::Path};

use jiff::Timestamp;

use super::{
    identity::{Identity, Shown},
    refusal::Refusal,
};
use crate::{
    audit::{self, Event, Outcome},
    digest::Digest,
    name::{Service, Target},
    policy::{Admitted, Policy, changes},
    store::{Record, RenderRecord},
    text::counted,
    wire::{Action, Asked, Malformed, Message, Status},
};

/// What a line asked, as far as it could be read, and who wrote it. It holds names, never values.
#[derive(Default)]
pub(super) struct Note {
    asked: Option<Asked>,
    /// Where nobody had to be verified: who was seen to have written it.
    sender: Option<Sender>,
}

/// Who wrote a line that needs no verified caller.
pub(super) struct Sender {
    pub(super) shown: Shown,
    /// Verified only where it is the process that was verified on its connection.
    pub(super) known: Known,
}

/// How far it is known of whom a refusal is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// A caller was verified on the connection.
    Verified,
    /// Nobody was; the policy may know path and hash all the same.
    Peer,
    /// The writer was looked at and had nothing to prove.
    Writer,
}

impl Note {
    /// Keeps what a well-formed request asks.
    pub(super) fn asked(&mut self, message: &Result<Message, Malformed>) {
        if let Ok(Message::Request(request)) = message {
            self.asked = Some(request.asked().clone());
        }
    }

    /// Keeps who wrote the line, whoever connected.
    pub(super) fn sent_by(&mut self, sender: Sender) {
        self.sender = Some(sender);
    }

    /// Of whom a refusal is told: what is known of the connection's peer, or of the line's own writer.
    pub(super) fn refused_as<'a>(&'a self, identity: &'a Identity) -> (&'a Shown, Known) {
        match &self.sender {
            Some(Sender { shown, known }) => (shown, *known),
            None if identity.was_verified() => (identity.shown(), Known::Verified),
            None => (identity.shown(), Known::Peer),
        }
    }

    /// The action, where the line was a request.
    pub(super) fn action(&self) -> Option<Action> {
        self.asked.as_ref().map(|asked| asked.action)
    }

    /// The namespace, where the line was a request.
    pub(super) fn service(&self) -> Option<&Service> {
        self.asked.as_ref().map(|asked| &asked.service)
    }

    /// The names that were asked for. A prefix is a filter, not a name.
    pub(super) fn targets(&self) -> &[Target] {
        match &self.asked {
            Some(asked) if !asked.prefix => &asked.targets,
            _ => &[],
        }
    }

    /// The record of an answer that releases `records`.
    pub(super) fn granted(&self, shown: &Shown, admitted: &Admitted<'_>, records: &[Record]) -> Event {
        let found = self.asked.as_ref().is_some_and(|asked| asked.prefix || asked.action == Action::Search);
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
        let touched = self.asked.as_ref().is_some_and(|asked| asked.prefix);
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

/// Why no policy is in force, as the log says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoPolicy {
    pub(super) reason: &'static str,
    pub(super) why: String,
}

/// What the log says of a policy: each entry that is different, and which file is in force where none is or at first.
pub(super) fn policy_events(
    before: Option<&Policy>,
    now: Result<&Policy, &NoPolicy>,
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
        Err(NoPolicy { reason, why }) => {
            let refused = event(Path::new(""), None, why.clone());
            return vec![Event { outcome: Outcome::Error, reason: Some(reason), ..refused }];
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
        let file = config_file(file);
        let more = if more > 0 { format!("; {more} more entries changed") } else { String::new() };
        let entries = counted(policy.entries().len() as u64, "entry", "entries");
        events.push(event(Path::new(""), None, format!("in force: {file}, {entries}{more}")));
    }
    events
}

/// A config.json by its hash; or that there is none.
pub(super) fn config_file(hash: Option<Digest>) -> String {
    hash.map_or("no config.json".to_owned(), |hash| format!("config.json {hash}"))
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{admitted, wire::Request};

    /// A line that writes `values`, and the note of it.
    fn noted(targets: &[String], values: &[String]) -> (Note, Option<Request>) {
        let line = serde_json::json!({
            "type": "REQUEST", "action": "write", "service": "s", "targets": targets, "values": values,
        });
        let message = Message::parse(&line.to_string());
        let mut note = Note::default();
        note.asked(&message);
        match message {
            Ok(Message::Request(request)) => (note, Some(request)),
            _ => (note, None),
        }
    }

    fn rendered(event: &Event) -> Vec<u8> {
        Event { timestamp: Timestamp::UNIX_EPOCH, ..event.clone() }.render()
    }

    proptest! {
        /// Whatever depended on a value, its length or its digest would differ.
        #[test]
        fn records_say_the_same_whatever_the_values_are(
            items in vec(("[^\\p{Cc}]{1,20}", "\\PC{0,40}", "\\PC{0,400}"), 1..6),
        ) {
            let targets: Vec<String> = items.iter().map(|(target, ..)| target.clone()).collect();
            let one: Vec<String> = items.iter().map(|(_, value, _)| value.clone()).collect();
            let other: Vec<String> = items.iter().map(|(.., value)| value.clone()).collect();
            let policy = admitted::policy_for(&["s"]);
            let admitted = admitted::admit(&policy);
            let shown = Shown::default();
            let ((first, asked), (second, also)) = (noted(&targets, &one), noted(&targets, &other));
            prop_assert_eq!(asked.is_some(), also.is_some());
            let granted = |note: &Note| rendered(&note.granted(&shown, &admitted, &[]));
            prop_assert_eq!(granted(&first), granted(&second));
            for refusal in [Refusal::too_large(), Refusal::overloaded(false), Refusal::unlisted()] {
                prop_assert_eq!(rendered(&first.refused(&shown, &refusal)), rendered(&second.refused(&shown, &refusal)));
            }
            // a line that can't be read says where to its sender, and not to the log
            let broken = |values: &[String]| {
                let line = format!(r#"{{"type":"REQUEST","values":{},"#, serde_json::to_string(values).unwrap());
                let error = Message::parse(&line).err().expect("it has no end");
                rendered(&Note::default().refused(&shown, &Refusal::malformed(error)))
            };
            prop_assert_eq!(broken(&one), broken(&other));
        }
    }
}
