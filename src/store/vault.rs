//! The vault: one redb file of sealed records, its key beside it, its names in memory.
//!
//! Readers share a view: the names and the table of one commit, swapped together under one lock that is held for as
//! long as a look-up takes, never while decrypting or writing. Writers queue; each group is one durable transaction.

use std::{
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use super::{
    batch::{Answer, AuditMemory, Committed, Names, Query, Record, Selection, Store, StoreError},
    carry::Carrier,
    disk::{self, Disk, EARLIER, GONE, Header, RECORDS, Records, VAULT_FILE, failed},
    files::Folder,
    group::{Applied, Group, Step, current},
    head::{HEAD_FILE, Head},
    key::VaultKey,
    keychain::{Keychain, StoreKind, Way},
    look,
    names::{Found, NameIndex, NamesByService, Overlay, Place},
    scan::readers,
    seal::{RecordKey, Sealer, VaultId},
    seat::Seat,
    slot::{KEY_FILE, Slot},
    source::{KeyMaterial, KeySource},
    sync::{AtomicU64, Mutex, MutexGuard, RwLock, RwLockWriteGuard},
    taken::Taken,
    transport::Transport,
};
use crate::{
    name::{Attributes, Service, Target},
    secret::wipe_stack,
};

mod about;
mod serving;

/// What readers see: the names and the records of the same commit.
struct View {
    names: NameIndex,
    /// None after a disk error, until the file was opened again.
    records: Option<Arc<Records>>,
}

pub(super) struct Writer {
    /// None after a disk error, until the file was opened again.
    pub(super) db: Option<Database>,
    pub(super) header: Header,
    head: Head,
}

/// One result for each change of a group.
type Outcomes = Vec<Result<Committed, StoreError>>;

/// One group, applied within a transaction that is not yet committed.
struct Staged {
    /// None for a change whose answer would be too large.
    applied: Vec<Option<Applied>>,
    overlay: Overlay,
    header: Header,
    /// Records whose change the keychain is yet to get.
    touched: Vec<RecordKey>,
}

/// The store of `keychain-auth`: `vault.redb`, `vault.key` and `vault.head` in the data folder, taken for this process.
pub struct Vault {
    source: KeySource,
    /// Under which its key travels when it was locked.
    transport: Transport,
    pub(super) sealer: Sealer,
    view: RwLock<View>,
    writer: Mutex<Writer>,
    /// Every outbox line up to this one is in the log.
    settled: AtomicU64,
    /// Where the values rest, if not in the vault's own file.
    pub(super) carrier: Option<Carrier>,
    /// How far the audit log has come, and the ends of epochs since the last commit.
    noted: Mutex<AuditMemory>,
    /// The place of the audit chain's key, until the log takes it.
    seat: Mutex<Option<Seat>>,
    /// Where that is told how many commits there were.
    reached: Arc<AtomicU64>,
    /// Dropped last: it holds the lock.
    folder: Folder,
}

impl Vault {
    /// Opens the vault of a data folder whose key lies in its key file, or makes folder, key and vault if none of them is
    /// there. Vaults with other sources are opened through [`Taken`].
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let taken = Taken::take(data_dir)?;
        match taken.slot() {
            Some(_) => taken.open(&KeyMaterial::File),
            None => taken.create(&KeyMaterial::File),
        }
    }

    /// Opens the vault with one of the keys of its slot.
    ///
    /// Every label is decrypted and the whole is compared with the sealed header: what was changed, removed, added or
    /// put back is an error. A vault is never replaced or emptied; a missing key, vault or head is an error that names
    /// it. Only a key without a vault and a head, which a crash while making them leaves, is taken up again.
    ///
    /// An older copy of all three files together can't be told from the current ones here; see [`Vault::generation`].
    pub(super) fn open_in(
        folder: Folder,
        slot: &Slot,
        material: &KeyMaterial,
        way: Way,
    ) -> Result<Self, StoreError> {
        let (keys, wrapping) = slot.open(material)?;
        if look::without_vault(&folder)? {
            disk::create(&folder, &keys.current, way.made())?;
        }
        keys.fit(&folder)?;
        let db = disk::open(&folder)?.ok_or_else(|| missing(VAULT_FILE, KEY_FILE))?;
        let keychain = way.to(disk::store_kind(&db)?)?;
        let (vault, key) = keys.settle(&db, &folder, slot, wrapping.as_ref())?;
        Self::load(folder, slot.source(), db, vault, &key, keychain, readers())
    }

    /// Opens the vault again in a folder whose slot was opened elsewhere: within the cage, without threads. Nothing is made,
    /// settled or repaired.
    pub(super) fn reopen_in(
        folder: Folder,
        source: KeySource,
        key: &VaultKey,
        keychain: Option<Keychain>,
    ) -> Result<Self, StoreError> {
        if folder.stat(HEAD_FILE)?.is_none() {
            return Err(missing(HEAD_FILE, VAULT_FILE));
        }
        look::head_fits(&folder, &[key])?;
        let db = disk::open(&folder)?.ok_or_else(|| missing(VAULT_FILE, HEAD_FILE))?;
        let vault = disk::identify(&db, key)?;
        let way = keychain.map_or(Way::OwnFile, Way::Items);
        let keychain = way.to(disk::store_kind(&db)?)?;
        Self::load(folder, source, db, vault, key, keychain, 1)
    }

    fn load(
        folder: Folder,
        source: KeySource,
        db: Database,
        vault: VaultId,
        key: &VaultKey,
        keychain: Option<Keychain>,
        readers: usize,
    ) -> Result<Self, StoreError> {
        let sealer = Sealer::new(key, vault);
        let disk = disk::load(db, &sealer, kind(keychain.as_ref()), readers)?;
        let head = match Head::find(&folder, key, vault)? {
            Some(head) => head,
            // a crash came between a new vault and its head
            None if disk.header.generation == 1 => Head::create(&folder, key, vault, 1)?,
            None => return Err(missing(HEAD_FILE, VAULT_FILE)),
        };
        not_behind(&disk.header, &head)?;
        let mut seat = Seat::open(&folder, key.derive("audit state", &vault), vault)?;
        // one that can't be read is the log's to tell
        if seat.load().is_ok() && disk.header.generation < seat.generation() {
            return Err(StoreError::Damaged(EARLIER));
        }
        let reached = seat.counter();
        reached.store(disk.header.generation, Ordering::Release);
        let noted = AuditMemory { head: disk.header.audit, checkpoints: Vec::new() };
        let view = View { names: disk.names, records: Some(disk.records) };
        let writer = Writer { db: Some(disk.db), header: disk.header, head };
        Ok(Self {
            source,
            transport: Transport::of(key),
            sealer,
            view: RwLock::new(view),
            writer: Mutex::new(writer),
            settled: AtomicU64::new(0),
            carrier: keychain.map(|keychain| Carrier::new(keychain, vault, disk.waiting)),
            noted: Mutex::new(noted),
            seat: Mutex::new(Some(seat)),
            reached,
            folder,
        })
    }

    /// Forgets the settled audit lines and closes the file cleanly. Dropping a vault is as safe, but the next start
    /// then compares more lines with the log.
    pub fn close(self) -> Result<(), StoreError> {
        let settled = self.settled.load(Ordering::Acquire);
        let mut writer = self.write_lock();
        let forgets =
            settled >= writer.header.first_line && writer.header.first_line < writer.header.next_line;
        if forgets || self.noted().head != writer.header.audit {
            self.transact(&mut writer, Vec::new())?;
        }
        self.write_view().records = None;
        match writer.db.take() {
            Some(db) => db.close().map_err(failed),
            None => Ok(()),
        }
    }

    /// Commits a group of changes, or of lines alone.
    pub(super) fn perform(&self, steps: Vec<Step>) -> Vec<Result<Committed, StoreError>> {
        let count = steps.len();
        if count == 0 {
            return Vec::new();
        }
        // a line alone, or another seal for the policy, never leaves the file
        let carried = steps.iter().any(|step| step.change.is_some());
        let done = match &self.carrier {
            Some(carrier) if carried => carrier.may_change(),
            _ => Ok(()),
        };
        match done.and_then(|()| self.transact(&mut self.write_lock(), steps)) {
            Ok(outcomes) => outcomes,
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
        }
    }

    /// Stages and commits one group. On error nothing has changed, in memory or on the disk; only after
    /// [`StoreError::Unknown`] the next look at the disk tells.
    fn transact(&self, writer: &mut Writer, changes: Vec<Step>) -> Result<Outcomes, StoreError> {
        if writer.db.is_none() {
            self.reopen(writer)?;
        }
        let transaction = match disk::begin(writer.db.as_ref().ok_or_else(closed)?) {
            Ok(transaction) => transaction,
            Err(error) => {
                self.recover(writer, &error);
                return Err(error);
            }
        };
        let noted = self.noted().clone();
        let staged = match self.stage(&transaction, writer.header, changes, &noted) {
            Ok(staged) => staged,
            Err(error) => {
                drop(transaction);
                self.recover(writer, &error);
                return Err(error);
            }
        };
        if let Err(error) = transaction.commit() {
            let error = failed(error);
            self.reopen_or_tell(writer);
            // whether the last flush reached the disk is known only from the disk
            if writer.db.is_none() {
                return Err(StoreError::Unknown(error.to_string()));
            }
            if writer.header != staged.header {
                return Err(error);
            }
        } else {
            // it is durable, whether or not it can be shown to the readers now
            if let Err(error) = self.publish(writer, staged.overlay, staged.header) {
                tracing::warn!("after a commit: {error}");
            }
            if let Some(carrier) = &self.carrier {
                carrier.add(staged.touched);
            }
        }
        self.noted().checkpoints.drain(..noted.checkpoints.len());
        let committed = |(records, line)| Committed::changed(records, line);
        Ok(staged.applied.into_iter().map(|one| one.map(committed).ok_or(StoreError::TooLarge)).collect())
    }

    fn stage(
        &self,
        transaction: &WriteTransaction,
        header: Header,
        changes: Vec<Step>,
        noted: &AuditMemory,
    ) -> Result<Staged, StoreError> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let gone = self.carrier.as_ref().map(|_| transaction.open_table(GONE).map_err(failed)).transpose()?;
        let mut group = Group {
            sealer: &self.sealer,
            base: &view.names,
            records: transaction.open_table(RECORDS).map_err(failed)?,
            outbox: transaction.open_table(disk::OUTBOX).map_err(failed)?,
            gone,
            touched: Vec::new(),
            overlay: Overlay::default(),
            header: Header { generation: header.generation + 1, audit: noted.head, ..header },
        };
        group.forget(self.settled.load(Ordering::Acquire))?;
        let applied = changes.into_iter().map(|change| group.apply(change)).collect::<Result<Vec<_>, _>>()?;
        let Group { overlay, header, touched, .. } = group;
        disk::add_checkpoints(transaction, &self.sealer, &noted.checkpoints)?;
        disk::write_header(transaction, &self.sealer, &header)?;
        Ok(Staged { applied, overlay, header, touched })
    }

    /// Shows a commit to the readers: its names and its table at once.
    pub(super) fn publish(
        &self,
        writer: &mut Writer,
        overlay: Overlay,
        header: Header,
    ) -> Result<(), StoreError> {
        let db = writer.db.as_ref().ok_or_else(closed)?;
        let opened =
            db.begin_read().map_err(failed).and_then(|read| read.open_table(RECORDS).map_err(failed));
        if let Err(error) = writer.head.record(header.generation) {
            tracing::warn!("{HEAD_FILE} could not be written: {error}");
        }
        self.reached.fetch_max(header.generation, Ordering::AcqRel);
        writer.header = header;
        let Ok(records) = opened else { return self.reopen(writer) };
        let mut view = self.write_view();
        view.names.apply(overlay);
        view.records = Some(Arc::new(records));
        Ok(())
    }

    /// After a disk error redb refuses everything; what the disk holds is then read anew. If even that fails, the next
    /// request tries again.
    pub(super) fn recover(&self, writer: &mut Writer, error: &StoreError) {
        if matches!(error, StoreError::Io(_)) {
            self.reopen_or_tell(writer);
        }
    }

    fn reopen_or_tell(&self, writer: &mut Writer) {
        if let Err(error) = self.reopen(writer) {
            tracing::warn!("after a disk error: {error}");
        }
    }

    /// Opens the file anew, with every check of a first open. Until that succeeds nothing is read.
    pub(super) fn reopen(&self, writer: &mut Writer) -> Result<(), StoreError> {
        self.write_view().records = None;
        // closes the file, which gives its lock back
        writer.db = None;
        let db = disk::open(&self.folder)?.ok_or_else(|| missing(VAULT_FILE, HEAD_FILE))?;
        let Disk { db, header, names, records, waiting } = disk::load(db, &self.sealer, self.kind(), 1)?;
        not_behind(&header, &writer.head)?;
        if let Some(carrier) = &self.carrier {
            carrier.set(waiting);
        }
        (writer.db, writer.header) = (Some(db), header);
        *self.write_view() = View { names, records: Some(records) };
        Ok(())
    }

    /// The records of the last commit.
    pub(super) fn records(&self) -> Result<Arc<Records>, StoreError> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        view.records.clone().ok_or_else(closed)
    }

    /// The places that the selection means and the records of the same commit.
    pub(super) fn look_up(
        &self,
        service: &Service,
        names: Names,
    ) -> Result<(Found, Arc<Records>), StoreError> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        match &view.records {
            Some(records) => Ok((view.names.select(service, names), Arc::clone(records))),
            None => Err(closed()),
        }
    }

    /// Answers a query from one snapshot.
    pub(super) fn find(&self, query: &Query) -> Result<Committed, StoreError> {
        let answer = |query| match &self.carrier {
            Some(carrier) => self.answer_from(carrier, query),
            None => self.answer(query),
        };
        match answer(query) {
            // redb refuses everything after one disk error; the disk may be well again
            Err(StoreError::Io(_)) => {
                self.reopen(&mut self.write_lock())?;
                answer(query)
            }
            done => done,
        }
    }

    /// Every name, by service.
    pub(super) fn names(&self) -> NamesByService {
        self.view.read().unwrap_or_else(PoisonError::into_inner).names.all()
    }

    fn answer(&self, query: &Query) -> Result<Committed, StoreError> {
        let answer = self.opened(query);
        // once for all of them: each left its last block where the one after it did
        wipe_stack();
        answer
    }

    #[inline(never)]
    fn opened(&self, query: &Query) -> Result<Committed, StoreError> {
        let Selection { service, names, filter } = &query.selection;
        let (places, records) = self.look_up(service, names.clone())?;
        let mut answer = Answer::default();
        for (target, place) in places {
            let sealed = ReadableTable::get(&*records, &place.at).map_err(failed)?;
            let sealed = sealed.ok_or(StoreError::Damaged("a record is missing"))?;
            current(sealed.value(), &place)?;
            let opened = self.open_record(service, target, &place, sealed.value(), filter, query.values)?;
            if let Some(record) = opened {
                answer.push(record)?;
            }
        }
        Ok(answer.finish())
    }

    /// One record, or None if it does not satisfy the filter; its value is then not decrypted.
    ///
    /// A value opens only at the place of its name, in the version that the index names, and beside the tag of the label
    /// that it was sealed with. Where that label holds nothing but the name, opening it as well tells nothing more.
    /// Whoever has opened them all calls [`wipe_stack`].
    fn open_record(
        &self,
        service: &Service,
        target: Target,
        place: &Place,
        sealed: &[u8],
        filter: &Attributes,
        values: bool,
    ) -> Result<Option<Record>, StoreError> {
        let damaged = |_| StoreError::Damaged("a record was changed");
        if values && place.bare && filter.is_empty() {
            let value = Some(self.sealer.read_value(&place.at, sealed).map_err(damaged)?);
            return Ok(Some(Record { target, value, attributes: Attributes::new() }));
        }
        let (label, _) = self.sealer.read_label(&place.at, sealed).map_err(damaged)?;
        if label.service != *service || label.target != target {
            return Err(StoreError::Damaged("a record has another name"));
        }
        if !label.attributes.satisfy(filter) {
            return Ok(None);
        }
        let value = values.then(|| self.sealer.read_value(&place.at, sealed).map_err(damaged)).transpose()?;
        Ok(Some(Record { target: label.target, value, attributes: label.attributes }))
    }

    fn noted(&self) -> MutexGuard<'_, AuditMemory> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write_lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_view(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where values rest, with such a keychain or without one.
pub(super) fn kind(keychain: Option<&Keychain>) -> StoreKind {
    if keychain.is_some() { StoreKind::Keychain } else { StoreKind::Vault }
}

fn not_behind(header: &Header, head: &Head) -> Result<(), StoreError> {
    if header.generation < head.generation()? {
        return Err(StoreError::Damaged(EARLIER));
    }
    Ok(())
}

pub(super) fn missing(file: &'static str, partner: &'static str) -> StoreError {
    StoreError::Missing { file, partner: Some(partner) }
}

pub(super) fn closed() -> StoreError {
    StoreError::Io("the vault is closed after a disk error".to_owned())
}
