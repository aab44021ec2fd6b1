//! Types to one line. A reply to a request needs the receipt of its audit record; a success needs what was committed.

use data_encoding::HEXLOWER;
use secrecy::ExposeSecret;
use std::io::{self, Write};

use super::{limits::MAX_REPLY, nonce::Nonce};
use crate::{
    audit::Receipt,
    secret::Buffer,
    store::{Committed, OutboxEntry, Record},
};
use serde::Serialize;

/// What a client is told when its request could not be recorded.
pub const UNRECORDED: &str = "the audit log can't be written, so nothing was released; make room or mend the log's folder, then try again";

/// The first word of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Success,
    /// Refused by identity or policy.
    Denied,
    /// Not possible.
    Error,
}

impl Status {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denied => "denied",
            Self::Error => "error",
        }
    }
}

/// Why a request was not served: the codes for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Path and hash of the caller match no entry.
    UnregisteredBinary,
    /// The service is not in the list that the action needs.
    ServiceNotAllowed,
    /// `search` or prefix without `can_search`.
    ActionNotInPolicy,
    /// A target outside `allowed_target_prefixes`.
    TargetNotAllowed,
    /// An identity check other than registration failed.
    UntrustedCaller,
    /// The line is not a request.
    MalformedRequest,
    /// The policy was sealed, and config.json is not what was sealed.
    PolicyUnsealed,
    /// The vault is locked.
    StoreLocked,
    /// The audit record could not be made durable.
    AuditUnavailable,
    /// A limit on connections or memory is reached.
    Overloaded,
    /// The reply would be over 10 MiB.
    ResponseTooLarge,
    /// Anything else; details only in the operator's log.
    InternalError,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::UnregisteredBinary,
        Self::ServiceNotAllowed,
        Self::ActionNotInPolicy,
        Self::TargetNotAllowed,
        Self::UntrustedCaller,
        Self::MalformedRequest,
        Self::PolicyUnsealed,
        Self::StoreLocked,
        Self::AuditUnavailable,
        Self::Overloaded,
        Self::ResponseTooLarge,
        Self::InternalError,
    ];

    /// The code on the wire and in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnregisteredBinary => "unregistered_binary_pending_approval",
            Self::ServiceNotAllowed => "service_not_allowed",
            Self::ActionNotInPolicy => "action_not_in_policy",
            Self::TargetNotAllowed => "target_not_allowed",
            Self::UntrustedCaller => "untrusted_caller",
            Self::MalformedRequest => "malformed_request",
            Self::PolicyUnsealed => "policy_unsealed",
            Self::StoreLocked => "store_locked",
            Self::AuditUnavailable => "audit_unavailable",
            Self::Overloaded => "overloaded",
            Self::ResponseTooLarge => "response_too_large",
            Self::InternalError => "internal_error",
        }
    }

    /// Whether it is a denial or an error.
    pub const fn status(self) -> Status {
        match self {
            Self::UnregisteredBinary
            | Self::ServiceNotAllowed
            | Self::ActionNotInPolicy
            | Self::TargetNotAllowed
            | Self::UntrustedCaller => Status::Denied,
            _ => Status::Error,
        }
    }
}

/// The reply would be over [`MAX_REPLY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reply would be over {MAX_REPLY} bytes")]
pub struct TooLarge;

/// One line for a client, ended by a line feed, in a buffer that is wiped.
///
/// Made only here: of a success only from what a store committed and the receipt of its audit record, of a refusal
/// only with a receipt, so that nothing is released or refused without a record.
pub struct Reply(Buffer);

impl Reply {
    /// The answer to `read` and `search`: what was found, once the record of it is written.
    pub fn released(found: &Fitting<'_>, _recorded: Receipt) -> Self {
        Self::success(found.records, found.length)
    }

    /// The answer to `write` and `delete`: the record became durable in the same transaction as the change.
    pub fn changed(changed: &Committed, _recorded: &OutboxEntry) -> Self {
        let records = changed.records();
        Self::success(records, measure(records))
    }

    /// The answer to a `check` that found the service allowed.
    pub fn allowed(_recorded: Receipt) -> Self {
        Self::success(&[], measure(&[]))
    }

    /// A refusal: its code, and one sentence of advice that repeats nothing of the request.
    pub fn refusal(reason: Reason, message: &str, _recorded: &Receipt) -> Self {
        Self(refusal(reason, message))
    }

    /// The one answer without a record: there could be none, so nothing was released or changed.
    pub fn unrecorded() -> Self {
        Self(refusal(Reason::AuditUnavailable, UNRECORDED))
    }

    /// The answer to `HELLO`.
    pub fn hello(version: &str, nonce: &Nonce) -> Self {
        Self::object(&Hello { kind: "HELLO", version, nonce: nonce.to_hex() })
    }

    /// The answer to `STATUS`: public facts about the daemon, as a flat or nested JSON object.
    pub fn status(facts: &impl Serialize) -> Self {
        Self::object(facts)
    }

    /// The answer to `LOCK` and `UNLOCK`, once the record of it is written.
    pub fn vault(kind: &'static str, state: &'static str, _recorded: Receipt) -> Self {
        Self::object(&VaultState { kind, state, nonce: None, key: None })
    }

    /// The answer to a `LOCK` of a locked vault, or to an `UNLOCK` of an open one with its key: nothing happened.
    pub fn vault_unchanged(kind: &'static str, state: &'static str) -> Self {
        Self::object(&VaultState { kind, state, nonce: None, key: None })
    }

    /// The answer to an `UNLOCK` without a key: whether one is needed, and the nonce to seal it for.
    pub fn unlock_nonce(state: &'static str, nonce: &Nonce) -> Self {
        Self::object(&VaultState { kind: "UNLOCK", state, nonce: Some(nonce.to_hex()), key: None })
    }

    /// The answer to a `SEAL` without a key: whether the policy is sealed, the nonce to seal another for, and which one holds,
    /// sealed for whoever asked.
    pub fn policy_seal(state: &'static str, nonce: &Nonce, carried: &[u8]) -> Self {
        let key = Some(HEXLOWER.encode(carried));
        Self::object(&VaultState { kind: "SEAL", state, nonce: Some(nonce.to_hex()), key })
    }

    /// The answer to a `SEAL` with a key: the record became durable in the same transaction.
    pub fn policy_sealed(state: &'static str, _recorded: &OutboxEntry) -> Self {
        Self::object(&VaultState { kind: "SEAL", state, nonce: None, key: None })
    }

    /// The line.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    fn success(records: &[Record], length: usize) -> Self {
        let mut line = Line::with_capacity(length);
        line.results(records);
        Self(line.0)
    }

    fn object(object: &impl Serialize) -> Self {
        let mut line = Buffer::with_capacity(256);
        // strings and numbers into memory: nothing here can fail
        let _ = serde_json::to_writer(&mut line, object);
        line.extend_from_slice(b"\n");
        Self(line)
    }
}

/// What was found and fits into a reply: asked before the record is written, so that the log never says GRANTED for what
/// could not be sent.
pub struct Fitting<'a> {
    records: &'a [Record],
    length: usize,
}

impl<'a> Fitting<'a> {
    /// Measures the reply. [`TooLarge`] if it would be over [`MAX_REPLY`].
    pub fn of(found: &'a Committed) -> Result<Self, TooLarge> {
        let records = found.records();
        let length = measure(records);
        if length > MAX_REPLY { Err(TooLarge) } else { Ok(Self { records, length }) }
    }
}

#[derive(Serialize)]
struct Hello<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    version: &'a str,
    nonce: String,
}

#[derive(Serialize)]
struct VaultState {
    #[serde(rename = "type")]
    kind: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

fn refusal(reason: Reason, message: &str) -> Buffer {
    let mut line = Line::with_capacity(256);
    line.raw(br#"{"type":"RESPONSE","status":""#);
    line.raw(reason.status().as_str().as_bytes());
    line.raw(br#"","reason":""#);
    line.raw(reason.as_str().as_bytes());
    line.raw(br#"","message":"#);
    line.string(message);
    line.raw(b"}\n");
    line.0
}

/// The exact length of a success reply with these records.
fn measure(records: &[Record]) -> usize {
    let mut counter = Line(Counter(0));
    counter.results(records);
    counter.0.0
}

struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line in the making: the same walk counts and writes, so that the buffer has its final size from the start and no
/// growing leaves copies of secrets behind.
struct Line<W>(W);

impl Line<Buffer> {
    fn with_capacity(bytes: usize) -> Self {
        Self(Buffer::with_capacity(bytes))
    }
}

impl<W: Write> Line<W> {
    fn results(&mut self, records: &[Record]) {
        self.raw(br#"{"type":"RESPONSE","status":"success","results":["#);
        for (index, record) in records.iter().enumerate() {
            self.raw(if index == 0 { br#"{"target":"# } else { br#",{"target":"# });
            self.string(record.target.as_str());
            if let Some(value) = &record.value {
                self.raw(br#","value":"#);
                self.string(value.expose_secret());
            }
            if !record.attributes.is_empty() {
                self.raw(br#","attributes":{"#);
                for (index, (name, value)) in record.attributes.iter().enumerate() {
                    self.raw(if index == 0 { b"" } else { b"," });
                    self.string(name);
                    self.raw(b":");
                    self.string(value);
                }
                self.raw(b"}");
            }
            self.raw(b"}");
        }
        self.raw(b"]}\n");
    }

    fn raw(&mut self, bytes: &[u8]) {
        // memory and counters take every byte
        let _ = self.0.write_all(bytes);
    }

    /// A JSON string with its quotes. serde_json writes the text in pieces and keeps no copy of it.
    fn string(&mut self, text: &str) {
        let _ = serde_json::to_writer(&mut self.0, text);
    }
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
