//! What is intact of a damaged vault, to be read and nothing else.
//!
//! Every row is taken out of `vault.redb` through a [`Shadow`](super::shadow::Shadow), and the file is closed before the
//! first request: there is no way from here to a byte of it. The header must open, and the places and versions of all rows must add up to the sum
//! in it. Then no row is missing, added or an older one, and whatever opens is what was written last. A row that does not
//! open stands for itself in the sum, by the place and the nonce that lie beside its sealed parts; where a single bit of
//! those was flipped, the label tells which one.
//!
//! So a name is one of four: intact; damaged; not there, which is told only where it is certain; or not to be told. The
//! last is so for every name that is not found in a vault that was put back, or of which nobody can tell, and for every list of names while a record
//! has lost its own. Such answers are errors, never fewer records.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, atomic::Ordering},
};

use redb::{ReadTransaction, ReadableDatabase, ReadableTable};

use super::{
    batch::{
        Answer, AuditMemory, Committed, Names, Outbox, OutboxEntry, PendingChange, Query, Record, Selection,
        Store, StoreError,
    },
    disk::{self, ASTRAY, Header, RECORDS, failed},
    files::Folder,
    head::Head,
    keychain::StoreKind,
    names::{Gathered, NameIndex, NamesByService, toggle},
    place::{NamePart, name_part},
    seal::{Fingerprint, Label, Nonce, RecordKey, Sealer, nonce_of},
    seat::Seat,
    slot::Slot,
    source::{KeyMaterial, KeySource},
    sync::Mutex,
    taken::both,
    transport::PolicySeal,
    verify::Copied,
};
use crate::{
    chain::{self, Checkpoint},
    name::{Attributes, Service, Target},
    policy::Authorized,
    secret::wipe_stack,
    text::counted,
};

/// Whether a vault has the changes that were committed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It has them all, as far as `vault.head` and `audit.state` know.
    Current,
    /// Changes were committed that are not in it.
    Earlier,
    /// `vault.head` is missing or damaged, and `audit.state` knows of no later change.
    Untold,
}

impl Age {
    /// Why a name that is not there may be missing.
    fn doubt(self) -> Option<StoreError> {
        match self {
            Self::Current => None,
            Self::Earlier => {
                Some(StoreError::Damaged("names may be missing: it was put back to an earlier state"))
            }
            Self::Untold => Some(StoreError::Damaged(
                "names may be missing: without an intact vault.head nobody can tell whether it was put back",
            )),
        }
    }
}

/// How much of a vault is intact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Records that can be read.
    pub intact: u64,
    /// Records that can't.
    pub damaged: u64,
    /// Whether it has every change that was committed.
    pub age: Age,
    /// Whether nothing at all is wrong with it.
    pub whole: bool,
}

impl Extent {
    /// One clause for people.
    pub fn words(&self) -> String {
        let Self { intact, damaged, age, whole } = self;
        let records = counted(*intact, "record", "records");
        let state = match age {
            Age::Earlier => "; it was put back to an earlier state, and later changes are not in it",
            Age::Untold => "; without an intact vault.head nobody can tell whether later changes are missing",
            Age::Current if *whole => "; no damage was found",
            Age::Current => "",
        };
        format!("{records} can be read, {damaged} can't{state}")
    }

    /// What the audit log says before any of it is served or handed out.
    pub fn opened(&self) -> String {
        format!("vault opened for salvage: {}", self.words())
    }
}

/// A damaged vault, open for reading. It holds the data folder; the vault's file is closed.
pub struct Salvage {
    source: KeySource,
    sealer: Sealer,
    header: Header,
    extent: Extent,
    /// Names whose label is readable, with their places.
    names: NameIndex,
    /// Sealed rows of readable labels. One whose place or nonce was changed is not among them.
    rows: BTreeMap<RecordKey, Vec<u8>>,
    /// What the places of the records that have lost their names tell of them.
    unnamed: BTreeSet<NamePart>,
    outbox: Vec<OutboxEntry>,
    checkpoints: Vec<Checkpoint>,
    seat: Mutex<Option<Seat>>,
    /// Dropped last: it holds the lock.
    folder: Folder,
}

impl Salvage {
    /// Reads what there is. Nothing of the vault is written, settled or made.
    ///
    /// [`StoreError::Damaged`] where it can't be told which records are the current ones: the header does not open, rows
    /// can't be reached, or they don't add up.
    pub(super) fn open(folder: Folder, slot: &Slot, material: &KeyMaterial) -> Result<Self, StoreError> {
        let (keys, _) = slot.open(material)?;
        let Copied { db, vault, key, other, problem } = Copied::of(&folder, keys)?;
        let mut whole = problem.is_none();
        if disk::store_kind(&db)? == StoreKind::Keychain {
            return Err(StoreError::OtherStore { pinned: StoreKind::Keychain, asked: StoreKind::Vault });
        }
        let sealer = Sealer::new(&key, vault);
        let snapshot = db.begin_read().map_err(failed)?;
        let header = disk::read_header(&snapshot, &sealer)?;
        let found = Sorted::of(rows(&snapshot, &header)?, &sealer);
        wipe_stack();
        let Sorted { named, rows, unnamed, sum, damaged, count } = found;
        if count != header.count || sum != header.sum {
            return Err(StoreError::Damaged(ASTRAY));
        }
        let names = NameIndex::build(named)?;
        let mut seat = Seat::open(&folder, key.derive("audit state", &vault), vault)?;
        let keys = both(&key, other.as_ref());
        let reached = match Head::told(&folder, &keys, vault)? {
            Some(Ok(reached)) => Some(reached),
            None if header.generation == 1 => Some(1),
            _ => None,
        };
        // an audit state that can't be read is the log's to tell
        let logged = seat.load().map_or(0, |_| seat.generation());
        let age = match reached.unwrap_or_default().max(logged) {
            seen if header.generation < seen => Age::Earlier,
            _ if reached.is_none() => Age::Untold,
            _ => Age::Current,
        };
        // what the log saves with its next epoch is never fewer than the vault itself has seen
        seat.counter().fetch_max(header.generation, Ordering::AcqRel);
        let mut unread = |what: &str| {
            whole = false;
            tracing::warn!("the vault's {what} can't be read");
        };
        let outbox = disk::lines(&snapshot, &sealer, &header).unwrap_or_else(|_| {
            unread("outbox of audit lines");
            Vec::new()
        });
        let checkpoints = disk::checkpoints(&snapshot, &sealer).unwrap_or_else(|_| {
            unread("memory of the audit log");
            Vec::new()
        });
        Ok(Self {
            source: slot.source(),
            extent: Extent {
                intact: count - damaged,
                damaged,
                age,
                whole: whole && damaged == 0 && age == Age::Current,
            },
            sealer,
            header,
            names,
            rows,
            unnamed,
            outbox,
            checkpoints,
            seat: Mutex::new(Some(seat)),
            folder,
        })
    }

    /// Where the vault's key comes from.
    pub fn source(&self) -> KeySource {
        self.source
    }

    /// How much is intact.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Another hand on the folder that the vault is in.
    pub(super) fn folder(&self) -> Result<Folder, StoreError> {
        Ok(self.folder.try_clone()?)
    }

    /// SHA-256 of the config.json that is accepted; zeros where any is.
    pub(super) fn policy_seal(&self) -> PolicySeal {
        self.header.policy
    }

    /// The place of the audit chain's key, once.
    pub(super) fn take_seat(&self) -> Option<Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The names of what can be read, and of what can't, as far as those are left.
    pub(super) fn names_by_state(&self) -> (NamesByService, NamesByService) {
        let (mut intact, mut damaged) = (Vec::new(), Vec::new());
        for (service, targets) in self.names.all() {
            let opens = |target: &Target| {
                let names = Names::Exact(vec![target.clone()]);
                let selection = Selection { service: service.clone(), names, filter: Attributes::new() };
                self.find(&Query { selection, values: true }).is_ok()
            };
            let (here, lost): (Vec<_>, Vec<_>) = targets.into_iter().partition(opens);
            for (names, all) in [(here, &mut intact), (lost, &mut damaged)] {
                if !names.is_empty() {
                    all.push((service.clone(), names));
                }
            }
        }
        (intact, damaged)
    }

    pub(super) fn find(&self, query: &Query) -> Result<Committed, StoreError> {
        let Selection { service, names, filter } = &query.selection;
        self.certain(service, names)?;
        let mut answer = Answer::default();
        for (_, place) in self.names.select(service, names.clone()) {
            let damaged = || StoreError::Damaged("a record was changed");
            let sealed = self.rows.get(&place.at).ok_or_else(damaged)?;
            let (label, _) = self.sealer.open_label(&place.at, sealed).map_err(|_| damaged())?;
            if !label.attributes.satisfy(filter) {
                continue;
            }
            let value = query.values.then(|| self.sealer.open_value(&place.at, sealed));
            let value = value.transpose().map_err(|_| damaged())?;
            answer.push(Record { target: label.target, value, attributes: label.attributes })?;
        }
        Ok(answer.finish())
    }

    /// Whether the index tells all that these names mean.
    fn certain(&self, service: &Service, names: &Names) -> Result<(), StoreError> {
        let Names::Exact(targets) = names else {
            return match self.extent.age.doubt() {
                Some(doubt) => Err(doubt),
                None if self.unnamed.is_empty() => Ok(()),
                None => Err(StoreError::Damaged("names may be missing: a record has lost its own")),
            };
        };
        for target in targets {
            if self.names.get(service, target).is_some() {
                continue;
            }
            if self.unnamed.contains(&name_part(&self.sealer.record_key(service, target))) {
                return Err(StoreError::Damaged("a record was changed"));
            }
            if let Some(doubt) = self.extent.age.doubt() {
                return Err(doubt);
            }
        }
        Ok(())
    }
}

impl Store for Salvage {
    fn read(&self, query: Authorized<Query>) -> Result<Committed, StoreError> {
        self.find(&query.into_inner())
    }

    fn commit(&self, changes: Vec<PendingChange>) -> Vec<Result<Committed, StoreError>> {
        changes.iter().map(|_| Err(StoreError::Salvaged)).collect()
    }

    fn outbox(&self) -> Result<Outbox, StoreError> {
        // no other line will ever follow these
        let last = self.outbox.last().map_or(0, |entry| entry.id);
        Ok(Outbox { lines: self.outbox.clone(), last })
    }

    fn settle(&self, _id: u64) {}

    fn kind(&self) -> StoreKind {
        StoreKind::Vault
    }

    fn carry(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn waiting(&self) -> usize {
        0
    }

    fn lost(&self) -> usize {
        0
    }

    fn note_audit(&self, _head: chain::Head, _ended: Option<Checkpoint>) {}

    fn keep_audit(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn audit_memory(&self) -> Result<AuditMemory, StoreError> {
        Ok(AuditMemory { head: self.header.audit, checkpoints: self.checkpoints.clone() })
    }
}

/// Every row, as long as there are no more than there should be.
fn rows(snapshot: &ReadTransaction, header: &Header) -> Result<BTreeMap<RecordKey, Vec<u8>>, StoreError> {
    let mut rows = BTreeMap::new();
    for entry in snapshot.open_table(RECORDS).map_err(failed)?.iter().map_err(failed)? {
        let (at, sealed) = entry.map_err(failed)?;
        let twice = rows.insert(*at.value(), sealed.value().to_vec()).is_some();
        // pages that lead in a circle have no end
        if twice || rows.len() as u64 > header.count {
            return Err(StoreError::Damaged("its pages lead to a record twice"));
        }
    }
    Ok(rows)
}

/// The rows, by what can be told of them.
#[derive(Default)]
struct Sorted {
    named: Gathered,
    rows: BTreeMap<RecordKey, Vec<u8>>,
    unnamed: BTreeSet<NamePart>,
    sum: Fingerprint,
    damaged: u64,
    count: u64,
}

impl Sorted {
    /// Leaves the stack to be wiped.
    #[inline(never)]
    fn of(all: BTreeMap<RecordKey, Vec<u8>>, sealer: &Sealer) -> Self {
        let mut sorted = Self::default();
        for (at, sealed) in all {
            sorted.count += 1;
            if let Ok((label, nonce)) = sealer.read_label(&at, &sealed) {
                sorted.name(sealer, label, at, nonce);
                sorted.damaged += u64::from(sealer.open_value(&at, &sealed).is_err());
                sorted.rows.insert(at, sealed);
                continue;
            }
            sorted.damaged += 1;
            match with_one_bit_back(sealer, &at, &sealed) {
                Some((label, at, nonce)) => sorted.name(sealer, label, at, nonce),
                None => {
                    let nonce = nonce_of(&sealed).copied().unwrap_or_default();
                    toggle(&mut sorted.sum, &sealer.fingerprint(&at, &nonce));
                    sorted.unnamed.insert(name_part(&at));
                }
            }
        }
        sorted
    }

    fn name(&mut self, sealer: &Sealer, label: Label, at: RecordKey, nonce: Nonce) {
        toggle(&mut self.sum, &sealer.fingerprint(&at, &nonce));
        self.named.add(label, at, nonce);
    }
}

/// The label, place and nonce of a row, if putting one bit of its place or nonce back lets the label open. Such a label is
/// as authentic as any: nothing opens that was not sealed.
fn with_one_bit_back(sealer: &Sealer, at: &RecordKey, sealed: &[u8]) -> Option<(Label, RecordKey, Nonce)> {
    let mut at = *at;
    for bit in 0..at.len() * 8 {
        flip(&mut at, bit);
        if let Ok((label, nonce)) = sealer.read_label(&at, sealed) {
            return Some((label, at, nonce));
        }
        flip(&mut at, bit);
    }
    let mut sealed = sealed.to_vec();
    for bit in 0..nonce_of(&sealed)?.len() * 8 {
        flip(&mut sealed, bit);
        if let Ok((label, nonce)) = sealer.read_label(&at, &sealed) {
            return Some((label, at, nonce));
        }
        flip(&mut sealed, bit);
    }
    None
}

fn flip(bytes: &mut [u8], bit: usize) {
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}
