//! The vault file: its tables, its header, and how it is made and opened.
//!
//! redb does not compare page checksums on ordinary reads, and trusts a file that was closed cleanly. So every open
//! walks the whole file and compares them, and every label, line and the header must open under the key; the header,
//! itself sealed, says how many records there are and sums up their versions. Commits are two-phase: redb then never
//! takes a damaged commit for a torn one and falls back to the one before it.

use secrecy::ExposeSecret;
use std::{collections::BTreeSet, fs::File, sync::Arc};

use redb::{
    Builder, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    TableError, WriteTransaction, backends::FileBackend,
};
use rustix::fs::OFlags;

use super::{
    batch::{OutboxEntry, StoreError},
    files::Folder,
    key::VaultKey,
    keychain::StoreKind,
    names::NameIndex,
    scan::{Scanned, scan},
    seal::{FORMAT, Fingerprint, NONCE, Nonce, RecordKey, Sealer, VaultId},
    shadow::Shadow,
    transport::PolicySeal,
};
use crate::chain::{Checkpoint, Head};

/// Name of the vault in the data folder.
pub(super) const VAULT_FILE: &str = "vault.redb";
/// Name under which it is made.
const DRAFT: &str = "vault.redb.new";
/// Pages kept in memory, sealed as on the disk: 100,000 records of usual size and their tree.
const CACHE: usize = 64 * 1024 * 1024;

/// Record key to sealed record.
pub(super) const RECORDS: TableDefinition<'_, &RecordKey, &[u8]> = TableDefinition::new("records");
/// Number to sealed audit line.
pub(super) const OUTBOX: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outbox");
/// Records that were removed and whose items the keychain may still have.
pub(super) const GONE: TableDefinition<'_, &RecordKey, ()> = TableDefinition::new("gone");
/// The vault about itself.
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");
/// In `ABOUT`: format, vault id, key check; in clear.
const IDENTITY: &str = "identity";
/// In `ABOUT`: where the values rest, in clear. Not there for a vault that keeps them itself.
const STORE: &str = "store";
/// In `ABOUT`: the sealed header.
const HEADER: &str = "header";
/// In `ABOUT`: the sealed checkpoints of the audit log. None in a vault that never had any.
pub(super) const CHECKPOINTS: &str = "audit checkpoints";
/// Most checkpoints kept: those of the newest four million records. Beyond it every second one goes, which makes the
/// place of a change less exact and hides none.
const MAX_CHECKPOINTS: usize = 1024;

/// What is said of records that are not those which the header counts and sums up.
pub(super) const ASTRAY: &str = "a record is missing, added or replaced by an older one";
/// What is said of a vault with fewer commits than head or audit state have seen, or of `vault.head` with it.
pub(super) const EARLIER: &str = "it was put back to an earlier state";

/// The records at one moment.
pub(super) type Records = ReadOnlyTable<&'static RecordKey, &'static [u8]>;

/// What the vault must hold to be whole. Sealed; written by every commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// How many commits there were. Never goes back.
    pub(super) generation: u64,
    /// How many records there are.
    pub(super) count: u64,
    /// The XOR of all records' fingerprints.
    pub(super) sum: Fingerprint,
    /// The oldest outbox line kept.
    pub(super) first_line: u64,
    /// The next outbox line's number.
    pub(super) next_line: u64,
    /// How far the audit log had come at least.
    pub(super) audit: Head,
    /// SHA-256 of the config.json that is accepted; zeros where any is.
    pub(super) policy: PolicySeal,
}

impl Header {
    const BYTES: usize = 96 + Head::BYTES;

    fn new() -> Self {
        let (audit, policy) = (Head::default(), PolicySeal::default());
        Self { generation: 1, count: 0, sum: [0; 32], first_line: 1, next_line: 1, audit, policy }
    }

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let numbers = [self.generation, self.count, self.first_line, self.next_line];
        let mut bytes = [0; Self::BYTES];
        let all = numbers.iter().flat_map(|number| number.to_le_bytes()).chain(self.sum);
        let all = all.chain(self.policy).chain(self.audit.to_bytes());
        for (to, from) in bytes.iter_mut().zip(all) {
            *to = from;
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (generation, rest) = bytes.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (first_line, rest) = rest.split_first_chunk()?;
        let (next_line, rest) = rest.split_first_chunk()?;
        let (sum, rest) = rest.split_first_chunk()?;
        let (policy, audit) = rest.split_first_chunk()?;
        let [generation, count, first_line, next_line] =
            [generation, count, first_line, next_line].map(|number| u64::from_le_bytes(*number));
        let audit = Head::from_bytes(audit)?;
        Some(Self { generation, count, sum: *sum, first_line, next_line, audit, policy: *policy })
    }
}

/// An open vault file whose every part was found whole.
pub(super) struct Disk {
    pub(super) db: Database,
    pub(super) header: Header,
    pub(super) names: NameIndex,
    pub(super) records: Arc<Records>,
    /// Records whose change the keychain does not have yet.
    pub(super) waiting: BTreeSet<RecordKey>,
}

/// Makes an empty vault. It has its real name only when it is complete and durable.
pub(super) fn create(folder: &Folder, key: &VaultKey, store: StoreKind) -> Result<(), StoreError> {
    folder.remove(DRAFT)?;
    let file = folder.create(DRAFT, OFlags::empty())?;
    let again = file.try_clone().map_err(|error| StoreError::Io(error.to_string()))?;
    let mut vault = VaultId::default();
    getrandom::fill(&mut vault)?;
    let sealer = Sealer::new(key, vault);
    let db = Builder::new().create_with_backend(FileBackend::new(file).map_err(failed)?).map_err(failed)?;
    let transaction = begin(&db)?;
    transaction.open_table(RECORDS).map_err(failed)?;
    transaction.open_table(OUTBOX).map_err(failed)?;
    write_identity(&transaction, key, &vault)?;
    if store == StoreKind::Keychain {
        transaction.open_table(GONE).map_err(failed)?;
        let mut about = transaction.open_table(ABOUT).map_err(failed)?;
        about.insert(STORE, store.as_str().as_bytes()).map_err(failed)?;
    }
    write_header(&transaction, &sealer, &Header::new())?;
    transaction.commit().map_err(failed)?;
    db.close().map_err(failed)?;
    again.sync_all().map_err(|error| StoreError::Io(error.to_string()))?;
    Ok(folder.publish(DRAFT, VAULT_FILE)?)
}

/// Says which vault it is, and lets its key be recognised.
pub(super) fn write_identity(
    transaction: &WriteTransaction,
    key: &VaultKey,
    vault: &VaultId,
) -> Result<(), StoreError> {
    let identity = [[FORMAT].as_slice(), vault, &key_check(key, vault)].concat();
    let mut about = transaction.open_table(ABOUT).map_err(failed)?;
    about.insert(IDENTITY, identity.as_slice()).map_err(failed)?;
    Ok(())
}

/// Removes what the vault says about itself under this name.
pub(super) fn forget(transaction: &WriteTransaction, row: &str) -> Result<(), StoreError> {
    let mut about = transaction.open_table(ABOUT).map_err(failed)?;
    about.remove(row).map_err(failed)?;
    Ok(())
}

/// Opens the file and compares all its checksums. None if there is no vault.
pub(super) fn open(folder: &Folder) -> Result<Option<Database>, StoreError> {
    let Some(file) = folder.find(VAULT_FILE, OFlags::empty())? else { return Ok(None) };
    // redb would make a new database of an empty file
    if length(&file)? == 0 {
        return Err(StoreError::Damaged("vault.redb is empty"));
    }
    let backend = FileBackend::new(file).map_err(failed)?;
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    Ok(Some(builder.create_with_backend(backend).map_err(failed)?))
}

/// Opens the file without writing to it. `checks` says whether all its checksums are compared; where they are not, a file
/// that is damaged badly enough ends the process.
pub(super) fn open_shadow(folder: &Folder, checks: bool) -> Result<Database, StoreError> {
    let missing = || StoreError::Missing { file: VAULT_FILE, partner: None };
    let file = folder.find(VAULT_FILE, OFlags::empty())?.ok_or_else(missing)?;
    if length(&file)? == 0 {
        return Err(StoreError::Damaged("vault.redb is empty"));
    }
    let shadow = Shadow::new(file).map_err(|error| StoreError::Io(error.to_string()))?;
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(checks);
    builder.create_with_backend(shadow).map_err(failed)
}

/// Which vault this is, if the key is its key.
pub(super) fn identify(db: &Database, key: &VaultKey) -> Result<VaultId, StoreError> {
    let bytes = about(&db.begin_read().map_err(failed)?, IDENTITY)?;
    let damaged = StoreError::Damaged("its identity is not readable");
    let Some((format, rest)) = bytes.split_first() else { return Err(damaged) };
    if *format != FORMAT {
        return Err(StoreError::Damaged("its format is unknown to this version"));
    }
    let Some((vault, check)) = rest.split_first_chunk::<16>() else { return Err(damaged) };
    if subtle::ConstantTimeEq::ct_eq(check, key_check(key, vault).as_slice()).into() {
        Ok(*vault)
    } else {
        Err(StoreError::WrongKey)
    }
}

/// Where the values of this vault rest.
pub(super) fn store_kind(db: &Database) -> Result<StoreKind, StoreError> {
    let snapshot = db.begin_read().map_err(failed)?;
    let table = snapshot.open_table(ABOUT).map_err(failed)?;
    match ReadableTable::get(&table, STORE).map_err(failed)? {
        None => Ok(StoreKind::Vault),
        Some(word) if word.value() == StoreKind::Keychain.as_str().as_bytes() => Ok(StoreKind::Keychain),
        Some(_) => Err(StoreError::Damaged("its kind of store is unknown to this version")),
    }
}

/// Reads every label, by so many `readers`, and every line, and compares them with the header.
pub(super) fn load(
    db: Database,
    sealer: &Sealer,
    store: StoreKind,
    readers: usize,
) -> Result<Disk, StoreError> {
    let snapshot = db.begin_read().map_err(failed)?;
    let header = read_header(&snapshot, sealer)?;
    let records = snapshot.open_table(RECORDS).map_err(failed)?;
    let Scanned { all, sum, mut waiting } = scan(&records, header.count, sealer, store, readers)?;
    if all.len() != header.count || sum != header.sum {
        return Err(StoreError::Damaged(ASTRAY));
    }
    let names = NameIndex::build(all)?;
    lines(&snapshot, sealer, &header)?;
    if store == StoreKind::Keychain {
        waiting.append(&mut removed(&snapshot, &records)?);
    }
    Ok(Disk { records: Arc::new(records), db, header, names, waiting })
}

/// The records that were removed and whose items the keychain may still have. The table is not sealed: a record that is
/// there and in it is an order of somebody else to remove its item.
pub(super) fn removed(
    snapshot: &ReadTransaction,
    records: &Records,
) -> Result<BTreeSet<RecordKey>, StoreError> {
    let mut removed = BTreeSet::new();
    for entry in snapshot.open_table(GONE).map_err(failed)?.iter().map_err(failed)? {
        let at = *entry.map_err(failed)?.0.value();
        if ReadableTable::get(records, &at).map_err(failed)?.is_some() {
            return Err(StoreError::Damaged("a record is there and removed at once"));
        }
        removed.insert(at);
    }
    Ok(removed)
}

/// The outbox of the snapshot; every number that the header speaks of must be there.
pub(super) fn lines(
    snapshot: &ReadTransaction,
    sealer: &Sealer,
    header: &Header,
) -> Result<Vec<OutboxEntry>, StoreError> {
    let table = snapshot.open_table(OUTBOX).map_err(failed)?;
    let mut lines = Vec::new();
    for (entry, expected) in table.iter().map_err(failed)?.zip(header.first_line..) {
        let (id, sealed) = entry.map_err(failed)?;
        let id = id.value();
        let line = sealer.open_line(id, sealed.value());
        match line {
            Ok(line) if id == expected => lines.push(OutboxEntry { id, line }),
            _ => return Err(StoreError::Damaged("an outbox line was changed")),
        }
    }
    if header.first_line.checked_add(lines.len() as u64) != Some(header.next_line) {
        return Err(StoreError::Damaged("an outbox line is missing"));
    }
    Ok(lines)
}

/// Begins a transaction that is durable, in two phases, when its commit returns.
pub(super) fn begin(db: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = db.begin_write().map_err(failed)?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

/// Puts the header in place, as part of the transaction whose effects it describes.
pub(super) fn write_header(
    transaction: &WriteTransaction,
    sealer: &Sealer,
    header: &Header,
) -> Result<(), StoreError> {
    let sealed = sealer
        .seal_header(&nonce()?, &header.to_bytes())
        .map_err(|_| StoreError::Io("sealing failed".into()))?;
    let mut about = transaction.open_table(ABOUT).map_err(failed)?;
    about.insert(HEADER, sealed.as_slice()).map_err(failed)?;
    Ok(())
}

/// The checkpoints of the audit log, oldest first.
pub(super) fn checkpoints(
    snapshot: &ReadTransaction,
    sealer: &Sealer,
) -> Result<Vec<Checkpoint>, StoreError> {
    let table = snapshot.open_table(ABOUT).map_err(failed)?;
    let row = ReadableTable::get(&table, CHECKPOINTS).map_err(failed)?;
    row.map_or(Ok(Vec::new()), |row| read_checkpoints(sealer, row.value()))
}

/// Adds checkpoints to those that are there.
pub(super) fn add_checkpoints(
    transaction: &WriteTransaction,
    sealer: &Sealer,
    new: &[Checkpoint],
) -> Result<(), StoreError> {
    if new.is_empty() {
        return Ok(());
    }
    let mut about = transaction.open_table(ABOUT).map_err(failed)?;
    let mut all = match about.get(CHECKPOINTS).map_err(failed)? {
        Some(row) => read_checkpoints(sealer, row.value())?,
        None => Vec::new(),
    };
    // those of a commit whose outcome was not known are there already
    for one in new {
        if !all.contains(one) {
            all.push(*one);
        }
    }
    if all.len() > MAX_CHECKPOINTS {
        let mut index = 0;
        all.retain(|_| {
            index += 1;
            index % 2 == 0
        });
    }
    let plain: Vec<u8> =
        all.iter().flat_map(|one| one.seq.to_le_bytes().into_iter().chain(one.digest)).collect();
    let sealed =
        sealer.seal_checkpoints(&nonce()?, &plain).map_err(|_| StoreError::Io("sealing failed".into()))?;
    about.insert(CHECKPOINTS, sealed.as_slice()).map_err(failed)?;
    Ok(())
}

fn read_checkpoints(sealer: &Sealer, sealed: &[u8]) -> Result<Vec<Checkpoint>, StoreError> {
    let damaged = StoreError::Damaged("the checkpoints of the audit log were changed");
    let Ok(plain) = sealer.open_checkpoints(sealed) else { return Err(damaged) };
    let (rows, []) = plain.as_slice().as_chunks::<40>() else { return Err(damaged) };
    let read = |row: &[u8; 40]| {
        let (seq, digest) = row.split_first_chunk()?;
        Some(Checkpoint { seq: u64::from_le_bytes(*seq), digest: digest.try_into().ok()? })
    };
    Ok(rows.iter().filter_map(read).collect())
}

/// A new nonce.
pub(super) fn nonce() -> Result<Nonce, StoreError> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce)?;
    Ok(nonce)
}

/// As many of them, in one call of the system.
pub(super) fn nonces(count: usize) -> Result<Vec<Nonce>, StoreError> {
    let mut nonces = vec![[0; NONCE]; count];
    getrandom::fill(nonces.as_flattened_mut())?;
    Ok(nonces)
}

/// redb's errors in our words. Its own texts speak of pages and tables only.
pub(super) fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse,
        redb::Error::Corrupted(_) => StoreError::Damaged("its pages don't match their checksums"),
        redb::Error::UpgradeRequired(_) => StoreError::Damaged("its format is unknown to this version"),
        redb::Error::TableDoesNotExist(_) => StoreError::Damaged("a table is missing"),
        redb::Error::TableTypeMismatch { .. } | redb::Error::TypeDefinitionChanged { .. } => {
            StoreError::Damaged("a table has another form")
        }
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::Damaged("vault.redb is not a vault file")
        }
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            StoreError::Damaged("vault.redb is cut short, or a length in it was changed")
        }
        redb::Error::Io(error) => StoreError::Io(error.to_string()),
        other => StoreError::Io(other.to_string()),
    }
}

pub(super) fn read_header(snapshot: &ReadTransaction, sealer: &Sealer) -> Result<Header, StoreError> {
    let sealed = about(snapshot, HEADER)?;
    let plain = sealer.open_header(&sealed).map_err(|_| StoreError::Damaged("its header was changed"))?;
    Header::from_bytes(plain.as_slice()).ok_or(StoreError::Damaged("its header was changed"))
}

fn about(snapshot: &ReadTransaction, row: &str) -> Result<Vec<u8>, StoreError> {
    let table = match snapshot.open_table(ABOUT) {
        Err(TableError::TableDoesNotExist(_)) => return Err(StoreError::Damaged("its header is missing")),
        table => table.map_err(failed)?,
    };
    let value = ReadableTable::get(&table, row).map_err(failed)?;
    value.map(|value| value.value().to_vec()).ok_or(StoreError::Damaged("its header is missing"))
}

/// Known only with the key; tells a wrong key from a damaged vault.
fn key_check(key: &VaultKey, vault: &VaultId) -> [u8; 32] {
    *key.derive("key check", vault).expose_secret()
}

fn length(file: &File) -> Result<u64, StoreError> {
    Ok(file.metadata().map_err(|error| StoreError::Io(error.to_string()))?.len())
}
