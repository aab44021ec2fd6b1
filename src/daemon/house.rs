//! The rooms that every connection of one daemon shares. All of it lives on the runtime's one thread.

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    sync::Arc,
    time::Instant,
};

use data_encoding::HEXLOWER;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::{
    admission::Admission,
    crowd::Crowd,
    identity::Shown,
    in_force::Recorded,
    keychain::KeychainLink,
    listener::Closer,
    locking::Turn,
    note::{Known, Note},
    refusal::Refusal,
    strangers::{QueueState, Strangers},
    sync::{Durability, Synced, is_synced},
    untaken::Untaken,
    witness_link::WitnessLink,
    writer::{News, Writer},
};
use crate::{
    audit::{AuditError, Event, Log, Outcome, Receipt},
    caller::Observer,
    chain::{Checkpoint, Head},
    paths::Paths,
    policy::PolicySource,
    sandbox::Protection,
    secret::Buffer,
    store::{Lockable, Outbox, Store, StoreError},
    sys::locked,
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
    /// The same store, to be locked and unlocked.
    pub(super) vault: Arc<Lockable>,
    /// Who locks or unlocks it now.
    pub(super) turn: Turn,
    pub(super) writer: Writer,
    /// None where the secrets rest in the vault's own file.
    pub(super) keychain: Option<KeychainLink>,
    pub(super) log: RefCell<Log>,
    /// Wakes the task that syncs the log.
    pub(super) unsynced: Notify,
    /// When a reply may leave.
    pub(super) durability: Durability,
    /// Which records the disk has.
    pub(super) synced: watch::Receiver<Synced>,
    /// The hashes of the log at the ends of epochs, as the vault keeps them.
    pub(super) checkpoints: RefCell<Vec<Checkpoint>>,
    /// Wakes the task that keeps the head of the log's chain in the vault.
    pub(super) unkept: Notify,
    pub(super) admission: RefCell<Admission<Closer>>,
    pub(super) strangers: Strangers,
    /// Bytes of lines that are unfinished or not answered yet, over all connections.
    pub(super) unfinished: Cell<usize>,
    /// Replies that wait for their clients.
    pub(super) untaken: Untaken,
    /// Whether others are answered at this moment too.
    pub(super) crowd: Crowd,
    /// Where chunks arrive before they are lines; wiped after each.
    pub(super) chunk: RefCell<Buffer>,
    /// Protections that this kernel lacks.
    pub(super) missing: Vec<&'static str>,
    /// The policy that the log was told of last.
    pub(super) recorded: RefCell<Recorded>,
    /// Wakes the task that writes gathered refusals.
    pub(super) gathering: Notify,
    /// The last fault of the policy or the log that was told.
    pub(super) fault: RefCell<String>,
    /// What the kernel said of a worker thread once everything was in force.
    pub(super) protections: Vec<Protection>,
}

/// Most ends of epochs that `STATUS` tells, the newest: a check finds a change at least within such a span.
const SHOWN: usize = 256;

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
    #[serde(skip_serializing_if = "Option::is_none")]
    keychain: Option<KeychainState>,
    vault: VaultState,
    policy: PolicyState,
    missing: Vec<&'static str>,
    protections: Vec<Protection>,
    memory: MemoryState,
    connections: usize,
    queue: QueueState,
    audit: AuditState,
}

/// The memory that secrets lie in.
#[derive(Serialize)]
struct MemoryState {
    kept: &'static str,
    /// Whether anything was at any time in memory that may be swapped, since the daemon started.
    spilled: bool,
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
    durability: &'static str,
}

/// The keychain where the secrets rest, as it was found when it was last asked.
#[derive(Serialize)]
struct KeychainState {
    state: &'static str,
    /// Records with a change that it does not have yet.
    waiting: usize,
    /// Records whose items it has lost, as was seen since the vault was opened.
    lost: usize,
}

/// The vault, without a word about what is in it.
#[derive(Serialize)]
struct VaultState {
    state: &'static str,
    key_source: &'static str,
    key_means: &'static str,
    /// How much of a vault is served for reading only.
    #[serde(skip_serializing_if = "Option::is_none")]
    salvage: Option<String>,
    /// Whether anything is wrong with that vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<bool>,
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum PolicyState {
    Ok { sealed: bool, entries: usize, warnings: Vec<String> },
    Error { sealed: bool, reason: &'static str, message: String },
}

impl House {
    /// Tells the operator of a fault that every request meets, once: clients must not be able to fill the log with it.
    pub(super) fn say_once(&self, fault: String) {
        let mut said = self.fault.borrow_mut();
        if *said != fault {
            tracing::error!("{fault}");
            *said = fault;
        }
    }

    /// Writes a record, and waits for the disk where that is asked for. Without its receipt nothing is said.
    ///
    /// Where nothing is waited for there is no pause in here.
    pub(super) async fn record(&self, event: Event) -> Result<Receipt, Refusal> {
        let receipt = self.append(&event)?;
        self.durable(receipt).await
    }

    async fn durable(&self, receipt: Receipt) -> Result<Receipt, Refusal> {
        match self.durability {
            Durability::Written => Ok(receipt),
            Durability::Synced if is_synced(self.synced.clone(), receipt.seq()).await => Ok(receipt),
            Durability::Synced => Err(self.unrecorded(&"the disk did not take the audit log's last records")),
        }
    }

    /// Looks whether the log was moved: somebody rotates it and says so.
    pub(super) fn reopen_log(&self) {
        if let Err(error) = self.log.borrow_mut().reopen() {
            tracing::error!("{error}");
        }
        self.unsynced.notify_one();
        self.note_chain();
    }

    /// The record of a refusal. Those of strangers are gathered where there are too many, whatever the reason; never those
    /// of a registered executable, nor of one that was verified on its connection before nobody could be any more.
    pub(super) async fn record_refusal(&self, event: Event, seen: Known) -> Result<Receipt, Refusal> {
        let registered = |hash| self.policy.borrow().last().knows(&event.binary_path, &hash);
        let told_apart = match seen {
            Known::Verified => true,
            Known::Peer => event.binary_hash.is_some_and(registered),
            Known::Writer => false,
        };
        if told_apart {
            return self.record(event).await;
        }
        let receipt = self.append_refusal(&event)?;
        self.durable(receipt).await
    }

    fn append_refusal(&self, event: &Event) -> Result<Receipt, Refusal> {
        let appended = self.log.borrow_mut().append_refusal(event, Instant::now());
        let receipt = appended.map_err(|error| self.unrecorded(&error))?;
        self.unsynced.notify_one();
        self.gathering.notify_one();
        self.note_chain();
        Ok(receipt)
    }

    /// Writes the records of refusals that were gathered. True if some are left.
    pub(super) fn write_gathered(&self, all: bool) -> bool {
        let left = self.log.borrow_mut().write_gathered(Instant::now(), all);
        self.unsynced.notify_one();
        self.note_chain();
        left.unwrap_or_else(|error| {
            tracing::error!("{error}; refusals of strangers wait for their record");
            true
        })
    }

    pub(super) fn append(&self, event: &Event) -> Result<Receipt, Refusal> {
        match event.outcome {
            Outcome::Granted => self.complete_log()?,
            // what was refused is said also while that is not known
            Outcome::Denied | Outcome::Error => self.log_committed(),
        }
        let receipt = self.log.borrow_mut().append(event).map_err(|error| self.unrecorded(&error))?;
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

    /// Says that another change may be committed: its record could follow it, and those of earlier ones are on their way.
    pub(super) fn ready_for_change(&self) -> Result<(), Refusal> {
        self.complete_log()?;
        self.log.borrow_mut().ready().map_err(|error| self.unrecorded(&error))
    }

    /// Brings to the log what was committed, also where the store could not tell at first whether it was. Nothing is granted
    /// before: a change that is in force would have no record, or its record come after what it allowed.
    pub(super) fn complete_log(&self) -> Result<(), Refusal> {
        self.log_committed();
        if !self.log.borrow().is_incomplete() {
            return Ok(());
        }
        let replayed = match self.store.outbox() {
            Ok(outbox) => self.replay(&outbox).map_err(|error| self.unrecorded(&error)),
            Err(error) => {
                self.say_once(format!(
                    "{error}; nothing is released until it is known which changes were made"
                ));
                Err(Refusal::unrecorded())
            }
        };
        let lines = replayed?;
        tracing::warn!("{lines} records that had not come to the audit log were in the store's outbox");
        // one of them may tell of another seal
        self.accept_sealed_policy();
        Ok(())
    }

    /// Writes those lines of the store's outbox that the log lacks, and returns how many.
    pub(super) fn replay(&self, outbox: &Outbox) -> Result<usize, AuditError> {
        let lines = self.log.borrow_mut().replay(outbox)?;
        self.unsynced.notify_one();
        self.note_chain();
        Ok(lines)
    }

    /// Brings the records that changes have made durable with themselves from the store's outbox to the log, in the order of
    /// the commits. What the log does not take now goes out before the next record: the change has happened, and saying
    /// otherwise would be a lie.
    pub(super) fn log_committed(&self) {
        while let Some(news) = self.writer.news() {
            let mut log = self.log.borrow_mut();
            match news {
                News::Unknown => log.doubt(),
                News::Line(line) => match log.append_rendered(&line) {
                    Ok(_) => self.unsynced.notify_one(),
                    Err(error) => tracing::error!("{error}; the record waits in the store's outbox"),
                },
            }
            drop(log);
            self.note_chain();
        }
    }

    /// A fault of ours: told to the operator, not to the client.
    pub(super) fn internal(&self, error: &dyn fmt::Display) -> Refusal {
        tracing::error!("{error}");
        Refusal::internal(error)
    }

    pub(super) fn store_failed(&self, error: &StoreError) -> Refusal {
        match error {
            // met by every request until somebody unlocks it
            StoreError::KeychainLocked => self.say_once(format!(
                "{error}: requests for secrets are answered with store_locked until it is unlocked"
            )),
            StoreError::Locked | StoreError::Unreachable(_) => self.say_once(error.to_string()),
            // met by every request that touches what is damaged
            StoreError::Damaged(_) | StoreError::Salvaged => self.say_once(error.to_string()),
            _ => tracing::error!("{error}"),
        }
        Refusal::store(error)
    }

    /// Refuses a connection that gets no place; nobody has looked who it is. The answer is for where no disk has to be
    /// waited for: whoever floods must not make the daemon keep what it refuses.
    pub(super) fn refuse_unseen(&self, peer: (Option<u32>, u32)) -> Option<Reply> {
        let shown = Shown { pid: peer.0.unwrap_or_default(), uid: peer.1, ..Shown::default() };
        let refusal = Refusal::overloaded(true);
        let reply = match self.append_refusal(&Note::default().refused(&shown, &refusal)) {
            Ok(receipt) => Reply::refusal(refusal.reason, &refusal.message, &receipt),
            Err(_) => Reply::unrecorded(),
        };
        (self.durability == Durability::Written).then_some(reply)
    }

    pub(super) fn unrecorded(&self, error: &dyn fmt::Display) -> Refusal {
        self.say_once(format!("{error}; nothing is released until the audit log can be written"));
        Refusal::unrecorded()
    }

    /// Returns when the broker has ended; never where there is none.
    pub(super) async fn broker_ended(&self) -> io::Error {
        match &self.keychain {
            Some(keychain) => keychain.life.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Answers `STATUS`.
    pub(super) fn status(&self) -> StatusFacts {
        let policy = match self.policy.borrow_mut().current(self.observer.uid) {
            Ok(policy) => PolicyState::Ok {
                sealed: self.is_policy_sealed(),
                entries: policy.entries().len(),
                warnings: policy.warnings().iter().map(ToString::to_string).collect(),
            },
            Err(error) => PolicyState::Error {
                sealed: self.is_policy_sealed(),
                reason: self.policy_refusal(&error).reason.as_str(),
                message: self.policy_fault(&error),
            },
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
            store: self.store.kind().as_str(),
            keychain: self.keychain.as_ref().map(|keychain| KeychainState {
                state: keychain.health.word(),
                waiting: self.store.waiting(),
                lost: self.store.lost(),
            }),
            vault: self.vault_state(),
            policy,
            missing: self.missing.clone(),
            protections: self.protections.iter().map(Protection::now).collect(),
            memory: MemoryState { kept: locked::prepare().as_str(), spilled: locked::spilled() },
            connections: self.admission.borrow().len(),
            queue: self.strangers.state(),
            audit: self.audit_state(),
        }
    }

    fn vault_state(&self) -> VaultState {
        let (salvage, source) = (self.vault.salvage(), self.vault.source());
        VaultState {
            state: match (&salvage, self.vault.serves()) {
                (Some(_), _) => "salvaged",
                (None, true) => "unlocked",
                (None, false) => "locked",
            },
            salvage: salvage.as_ref().map(|extent| extent.words()),
            damaged: salvage.as_ref().map(|extent| !extent.whole),
            key_source: source.as_str(),
            key_means: source.means(),
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
        let durability = self.durability.as_str();
        AuditState {
            path,
            chain: chain.to_string(),
            epoch,
            seq,
            mac,
            digest,
            checkpoints,
            changed,
            durability,
        }
    }
}
