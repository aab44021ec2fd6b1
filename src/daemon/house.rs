//! The rooms that every connection of one daemon shares. All of it lives on the runtime's one thread.

use std::{
    cell::{Cell, RefCell},
    fmt,
    sync::Arc,
};

use data_encoding::HEXLOWER;
use serde::Serialize;
use tokio::sync::Notify;

use super::{
    admission::Admission, identity::Shown, listener::Closer, note::Note, refusal::Refusal,
    strangers::Strangers, witness_link::WitnessLink, writer::Writer,
};
use crate::{
    audit::{AuditError, Event, Log, Receipt},
    caller::Observer,
    chain::{Checkpoint, Head},
    paths::Paths,
    policy::{Policy, PolicySource},
    sandbox::Protection,
    secret::Buffer,
    store::{Committed, KeySource, OutboxEntry, Store, StoreError},
    wire::Reply,
};

/// The rooms, and what the daemon knows of itself.
pub(super) struct House {
    pub(super) paths: Paths,
    pub(super) observer: Observer,
    pub(super) policy: RefCell<PolicySource>,
    /// The policy that the witness was told of.
    pub(super) watched: Cell<u64>,
    pub(super) witness: WitnessLink,
    pub(super) store: Arc<dyn Store>,
    pub(super) key_source: KeySource,
    pub(super) writer: Writer,
    pub(super) log: RefCell<Log>,
    /// Wakes the task that syncs the log.
    pub(super) unsynced: Notify,
    /// The hashes of the log at the ends of epochs, as the vault keeps them.
    pub(super) checkpoints: RefCell<Vec<Checkpoint>>,
    /// Wakes the task that keeps the head of the log's chain in the vault.
    pub(super) unkept: Notify,
    pub(super) admission: RefCell<Admission<Closer>>,
    pub(super) strangers: Strangers,
    /// Bytes of lines that are unfinished or not answered yet, over all connections.
    pub(super) unfinished: Cell<usize>,
    /// Where chunks arrive before they are lines; wiped after each.
    pub(super) chunk: RefCell<Buffer>,
    /// Protections that this kernel lacks.
    pub(super) missing: Vec<&'static str>,
    /// The last fault of the policy or the log that was told.
    pub(super) fault: RefCell<String>,
    /// What the kernel said of a worker thread once everything was in force.
    pub(super) protections: Vec<Protection>,
}

/// Most ends of epochs that `STATUS` tells, the newest: a check finds a change at least within such a span.
const SHOWN: usize = 256;

/// How often a policy that changes while it is taken up is looked at again before the client is told to come back.
pub(super) const SETTLING: usize = 4;

/// The policy that was in force at a moment. A verdict under another generation does not count.
pub(super) struct InForce {
    pub(super) policy: Arc<Policy>,
    pub(super) generation: u64,
}

/// What `STATUS` tells: nothing that a process of the same user could not find out otherwise.
#[derive(Serialize)]
pub(super) struct StatusFacts {
    #[serde(rename = "type")]
    kind: &'static str,
    version: &'static str,
    pid: u32,
    mode: &'static str,
    config_path: String,
    socket_path: String,
    data_path: String,
    requires_sudo: bool,
    store: &'static str,
    vault: VaultState,
    policy: PolicyState,
    missing: Vec<&'static str>,
    protections: Vec<Protection>,
    connections: usize,
    audit: AuditState,
}

/// The chain of the audit log, for whoever compares the file with it.
#[derive(Serialize)]
struct AuditState {
    path: String,
    chain: String,
    epoch: u64,
    seq: u64,
    mac: String,
    digest: String,
    checkpoints: Vec<(u64, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<String>,
}

/// The vault, without a word about what is in it.
#[derive(Serialize)]
struct VaultState {
    key_source: &'static str,
    key_means: &'static str,
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum PolicyState {
    Ok { entries: usize, warnings: Vec<String> },
    Error { message: String },
}

impl House {
    /// The policy of this moment, which the witness has been told of. There is no pause between the last look at the file
    /// and the return.
    pub(super) async fn policy(&self) -> Result<InForce, Refusal> {
        for _ in 0..SETTLING {
            let policy = self.policy.borrow_mut().current(self.observer.uid).map_err(|error| {
                self.say_once(format!("{error}; every request is denied until it is mended"));
                Refusal::policy(&error)
            })?;
            let generation = self.policy.borrow().generation();
            if self.watched.get() == generation {
                return Ok(InForce { policy, generation });
            }
            self.witness.watch(&policy).await.map_err(|error| self.internal(&error))?;
            for warning in policy.warnings() {
                tracing::warn!("config.json: {warning}");
            }
            self.watched.set(generation);
        }
        Err(Refusal::overloaded(false))
    }

    /// Tells the operator of a fault that every request meets, once: clients must not be able to fill the log with it.
    fn say_once(&self, fault: String) {
        let mut said = self.fault.borrow_mut();
        if *said != fault {
            tracing::error!("{fault}");
            *said = fault;
        }
    }

    /// Writes a record. Without its receipt nothing is said.
    pub(super) fn record(&self, event: Event) -> Result<Receipt, Refusal> {
        let receipt = self.log.borrow_mut().append(&event).map_err(|error| self.unrecorded(&error))?;
        self.unsynced.notify_one();
        self.note_chain();
        Ok(receipt)
    }

    /// Tells the store how far the log has come.
    pub(super) fn note_chain(&self) {
        let mut log = self.log.borrow_mut();
        for ended in log.take_ended() {
            self.store.note_audit(log.head(), Some(ended));
            let mut kept = self.checkpoints.borrow_mut();
            kept.push(ended);
            let beyond = kept.len().saturating_sub(SHOWN);
            kept.drain(..beyond);
        }
        self.store.note_audit(log.head(), None);
        self.unkept.notify_one();
    }

    /// Brings the record that a change has made durable with itself from the store's outbox to the log. If the log does
    /// not take it now, it goes out before the next record: the change has happened, and saying otherwise would be a lie.
    pub(super) fn log_committed<'c>(&self, committed: &'c Committed) -> Result<&'c OutboxEntry, Refusal> {
        let entry = committed.outbox().ok_or_else(|| self.internal(&"a change without a record"))?;
        match self.log.borrow_mut().append_rendered(entry) {
            Ok(_receipt) => self.unsynced.notify_one(),
            Err(error) => tracing::error!("{error}; the record waits in the store's outbox"),
        }
        self.note_chain();
        Ok(entry)
    }

    /// A fault of ours: told to the operator, not to the client.
    pub(super) fn internal(&self, error: &dyn fmt::Display) -> Refusal {
        tracing::error!("{error}");
        Refusal::internal(error)
    }

    pub(super) fn store_failed(&self, error: &StoreError) -> Refusal {
        tracing::error!("{error}");
        Refusal::store(error)
    }

    /// Refuses a connection that gets no place; nobody has looked who it is.
    pub(super) fn refuse_unseen(&self, peer: (Option<u32>, u32)) -> Reply {
        let shown = Shown { pid: peer.0.unwrap_or_default(), uid: peer.1, ..Shown::default() };
        let refusal = Refusal::overloaded(true);
        match self.record(Note::default().refused(&shown, &refusal)) {
            Ok(receipt) => Reply::refusal(refusal.reason, &refusal.message, &receipt),
            Err(_) => Reply::unrecorded(),
        }
    }

    pub(super) fn unrecorded(&self, error: &AuditError) -> Refusal {
        self.say_once(format!("{error}; nothing is released until the audit log can be written"));
        Refusal::unrecorded()
    }

    /// Answers `STATUS`.
    pub(super) fn status(&self) -> StatusFacts {
        let policy = match self.policy.borrow_mut().current(self.observer.uid) {
            Ok(policy) => PolicyState::Ok {
                entries: policy.entries().len(),
                warnings: policy.warnings().iter().map(ToString::to_string).collect(),
            },
            Err(error) => PolicyState::Error { message: error.to_string() },
        };
        StatusFacts {
            kind: "STATUS",
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            mode: "user",
            config_path: self.paths.config().display().to_string(),
            socket_path: self.paths.socket.display().to_string(),
            data_path: self.paths.data_dir.display().to_string(),
            requires_sudo: false,
            store: "vault",
            vault: VaultState { key_source: self.key_source.as_str(), key_means: self.key_source.means() },
            policy,
            missing: self.missing.clone(),
            protections: self.protections.clone(),
            connections: self.admission.borrow().len(),
            audit: self.audit_state(),
        }
    }

    fn audit_state(&self) -> AuditState {
        let log = self.log.borrow();
        let Head { chain, epoch, seq, mac, digest } = log.head();
        let kept = self.checkpoints.borrow();
        let checkpoints = kept.iter().map(|one| (one.seq, HEXLOWER.encode(&one.digest))).collect();
        let (mac, digest) = (HEXLOWER.encode(&mac), HEXLOWER.encode(&digest));
        let path = self.paths.audit_log().display().to_string();
        let changed = log.noticed().map(str::to_owned);
        AuditState { path, chain: chain.to_string(), epoch, seq, mac, digest, checkpoints, changed }
    }
}
