//! What a store is asked, what it answers, and the one trait through which it is asked.

use secrecy::ExposeSecret;
use std::fmt;

use super::{keychain::StoreKind, source::KeySource};
use crate::{
    chain::{Checkpoint, Head},
    name::{Attributes, Service, Target, TargetPrefix},
    policy::Authorized,
    secret::SecretValue,
};

/// Most bytes of one answer, over all names, attributes and values: what the largest reply can carry. Collecting stops
/// here, so that one prefix read can't fill the memory with secrets.
pub const MAX_ANSWER: usize = 10 * 1024 * 1024;

/// Most records that one delete removes: the reply names them all, and must fit into 10 MiB however long the names are.
pub const MAX_REMOVED: usize = 4096;

/// Which names of a service are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// These, each at most once, in the order of the request.
    Exact(Vec<Target>),
    /// Every one that begins with one of these, sorted.
    Prefix(Vec<TargetPrefix>),
    /// Every one, sorted.
    All,
}

/// Which records of a service are meant: by name, and by attributes that must be equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The namespace.
    pub service: Service,
    /// The names.
    pub names: Names,
    /// Attributes that a record must have; empty matches all.
    pub filter: Attributes,
}

/// A batch that changes nothing. It is answered from one snapshot: it never mixes two writes.
#[derive(Debug, Clone)]
pub struct Query {
    /// The records.
    pub selection: Selection,
    /// Whether values are wanted (`read`) or names only (`search`).
    pub values: bool,
}

/// One secret of a `write`. No Debug: it holds the value.
pub struct WriteItem {
    /// The name.
    pub target: Target,
    /// The value.
    pub value: SecretValue,
}

/// A batch that changes the store, whole or not at all.
pub enum Change {
    /// Puts every item in place, over what is there.
    Write {
        /// The namespace.
        service: Service,
        /// The secrets, each name once.
        items: Vec<WriteItem>,
        /// The attributes of each of them; they replace those that were there.
        attributes: Attributes,
    },
    /// Removes what exists; a missing name is no error.
    Delete(Selection),
}

/// A record found, or the name of one removed.
pub struct Record {
    /// The name.
    pub target: Target,
    /// The value, for a `read` only.
    pub value: Option<SecretValue>,
    /// The attributes.
    pub attributes: Attributes,
}

/// An audit line, rendered by the audit room, that a change carries in its own transaction.
pub type RenderRecord = Box<dyn FnOnce(&[Target]) -> Vec<u8> + Send>;

/// An authorised change with the maker of its audit line. The maker is called inside the transaction with the names touched.
pub struct PendingChange {
    /// The change.
    pub change: Authorized<Change>,
    /// Makes the audit line from the names that the change touched.
    pub record: RenderRecord,
}

/// An audit line that became durable with its change and may not have reached the log yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Its number: growing, never used twice.
    pub id: u64,
    /// The line as the audit room rendered it.
    pub line: Vec<u8>,
}

/// What the log may lack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outbox {
    /// Audit lines that may not have reached the log, oldest first.
    pub lines: Vec<OutboxEntry>,
    /// The number of the last line that was ever committed; 0 before the first. The next one has the number after it.
    pub last: u64,
}

/// The outcome of a batch. Only a store makes one: after its transaction is durable, or from one snapshot.
///
/// Every reply of success needs it, so that success can't be said earlier.
#[must_use]
pub struct Committed {
    records: Vec<Record>,
    outbox: Option<OutboxEntry>,
}

impl Committed {
    pub(super) fn found(records: Vec<Record>) -> Self {
        Self { records, outbox: None }
    }

    pub(super) fn changed(records: Vec<Record>, outbox: OutboxEntry) -> Self {
        Self { records, outbox: Some(outbox) }
    }

    /// What was found, or the names that were removed. Empty after a `write`.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records, for the owner of the vault.
    pub(super) fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// The audit line that is durable with this change; none for a query.
    pub fn outbox(&self) -> Option<&OutboxEntry> {
        self.outbox.as_ref()
    }
}

/// The records of an answer, bounded by [`MAX_ANSWER`].
#[derive(Default)]
pub(super) struct Answer {
    records: Vec<Record>,
    bytes: usize,
}

impl Answer {
    pub(super) fn push(&mut self, record: Record) -> Result<(), StoreError> {
        let value = record.value.as_ref().map_or(0, |value| value.expose_secret().len());
        let attributes =
            record.attributes.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.bytes = self.bytes.saturating_add(record.target.as_str().len() + attributes + value);
        if self.bytes > MAX_ANSWER {
            return Err(StoreError::TooLarge);
        }
        self.records.push(record);
        Ok(())
    }

    pub(super) fn finish(self) -> Committed {
        Committed::found(self.records)
    }
}

/// Why a batch was not applied, or a store not opened. No text holds a name or a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store's key is not at hand.
    #[error("the store is locked")]
    Locked,
    /// The user's keychain, where the secrets rest, is locked. The store itself is open.
    #[error("the keychain is locked")]
    KeychainLocked,
    /// The user's keychain, where the secrets rest, can't be reached.
    #[error("the keychain can't be reached: {0}")]
    Unreachable(String),
    /// More changes wait for the keychain than may.
    #[error("too many changes wait for the keychain")]
    Backlog,
    /// The vault was made to keep its secrets elsewhere.
    #[error("the secrets of this vault rest in the store {pinned}, not in the store {asked}")]
    OtherStore {
        /// Where they rest.
        pinned: StoreKind,
        /// What was asked for.
        asked: StoreKind,
    },
    /// What is on the disk is not what was written there.
    #[error("the vault is damaged: {0}")]
    Damaged(&'static str),
    /// `vault.key` was cut or changed, or is another file.
    #[error("vault.key is broken: it holds neither a key nor a slot for one")]
    KeyFile,
    /// Only what is intact of a vault can be read.
    #[error("the vault is served for reading only, by start --salvage; nothing can be changed")]
    Salvaged,
    /// The key does not open this vault.
    #[error("the vault can't be decrypted with the key at hand")]
    WrongKey,
    /// The vault was made with a key from another source than the one that was given.
    #[error("the vault's key comes from the source {pinned}, not from {asked}")]
    OtherSource {
        /// Where its key comes from.
        pinned: KeySource,
        /// Where the key that was given comes from.
        asked: KeySource,
    },
    /// What the source gave does not open the slot.
    #[error("{} does not open vault.key", .0.gives())]
    WrongSecret(KeySource),
    /// There is a vault already.
    #[error("there is a vault already, with a key from the source {0}")]
    Exists(KeySource),
    /// There is no vault.
    #[error("there is no vault yet")]
    Absent,
    /// A file of the store is missing, although another that belongs to it is there where one is named.
    #[error("{file} is missing{}; put it back from a backup", beside(*.partner))]
    Missing {
        /// Its name.
        file: &'static str,
        /// The other's.
        partner: Option<&'static str>,
    },
    /// A file or folder of the store has the wrong owner, mode or kind: others could have read or changed it.
    #[error("{0}")]
    Exposed(String),
    /// The answer would hold more than [`MAX_ANSWER`] bytes, or the delete more than [`MAX_REMOVED`] records.
    #[error("the answer is larger than a reply may be")]
    TooLarge,
    /// Another process holds the vault.
    #[error("the vault is in use by another process")]
    InUse,
    /// The disk took the change or not: it failed at the end of a commit, and then could not be read either. What there is
    /// of it shows when the vault was opened again, and the line of the change is in the outbox if it was made.
    #[error(
        "the vault could not be written to the end, nor read again, so it is not known what it holds: {0}"
    )]
    Unknown(String),
    /// The disk said no. Nothing was changed.
    #[error("the vault could not be written or read: {0}")]
    Io(String),
}

fn beside(partner: Option<&str>) -> String {
    partner.map_or_else(String::new, |partner| format!(" although {partner} is there"))
}

impl From<getrandom::Error> for StoreError {
    fn from(error: getrandom::Error) -> Self {
        Self::Io(error.to_string())
    }
}

impl StoreError {
    /// What is [`Self::Damaged`] where a process that looked at the pages has ended over them.
    pub(crate) const PAGES_LOST: &str = "its pages are damaged so badly that no record can be reached";
}

/// What a store remembers of the audit log, so that a log that was cut or changed shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditMemory {
    /// How far the log had come at least. Default where nothing was ever noted.
    pub head: Head,
    /// Its hash at the ends of epochs, oldest first.
    pub checkpoints: Vec<Checkpoint>,
}

/// A place where secrets rest. Implemented by the vault and by the model in memory; both pass one behaviour suite.
pub trait Store: Send + Sync {
    /// Answers a query from one snapshot.
    fn read(&self, query: Authorized<Query>) -> Result<Committed, StoreError>;

    /// Applies changes in the order given, all in one durable transaction, each whole or not at all.
    ///
    /// Returns one result for each. When the transaction fails, every result is the error and nothing was changed, except
    /// for [`StoreError::Unknown`]: then all of it was changed or nothing, and [`Store::outbox`] tells. A
    /// delete of more than [`MAX_REMOVED`] records is [`StoreError::TooLarge`] and touches nothing; its record
    /// is not made, and the others of the group are applied.
    fn commit(&self, changes: Vec<PendingChange>) -> Vec<Result<Committed, StoreError>>;

    /// Audit lines that may not have reached the log; read at start, and when the log misses one.
    fn outbox(&self) -> Result<Outbox, StoreError>;

    /// Says that every line up to and with `id` is in the log; the next commit forgets them.
    fn settle(&self, id: u64);

    /// Where the values rest. Reads, commits and carrying of a store in the keychain wait for another process, less than 5 s.
    fn kind(&self) -> StoreKind;

    /// Carries some of the changes that wait to the keychain, and says whether more wait. An error leaves the rest waiting.
    fn carry(&self) -> Result<bool, StoreError>;

    /// How many records have a change that the keychain does not have yet.
    fn waiting(&self) -> usize;

    /// How many records have no value any more, since their items in the keychain are missing or were changed; as far as
    /// that was seen since the store was opened, and not mended.
    fn lost(&self) -> usize;

    /// Notes how far the audit log has come. It becomes durable with the next commit; cheap, called for every record.
    fn note_audit(&self, head: Head, ended: Option<Checkpoint>);

    /// Makes durable what was noted, if anything is new.
    fn keep_audit(&self) -> Result<(), StoreError>;

    /// What was kept of the audit log.
    fn audit_memory(&self) -> Result<AuditMemory, StoreError>;
}

impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committed").field("records", &self.records.len()).finish_non_exhaustive()
    }
}
