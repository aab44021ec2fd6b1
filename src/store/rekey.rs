//! Another key for a vault, and another source for its key: both safe at any moment of a crash.
//!
//! A new key: the slot gets both keys; then one transaction seals every record, line and number anew; its commit decides
//! which key the vault has. Whoever opens the vault next lets slot, head and the audit chain's state follow it, and so does
//! the rest of this file. Another source: one file takes the place of another.
//!
//! Where values rest in the keychain, that transaction holds them too, under the new key, and notes the items of the old
//! one as removed: to the keychain nothing has happened yet. They are then [carried](super::carry) there as after any
//! other change, beside the old items, whose places the old key gave.

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, WriteTransaction};

use super::{
    batch::{RenderRecord, StoreError},
    disk::{self, ASTRAY, CHECKPOINTS, GONE, Header, OUTBOX, RECORDS, VAULT_FILE, failed, nonce},
    fetch::{AMISS, Row, each_value},
    files::Folder,
    group::Step,
    key::VaultKey,
    keychain::{HANDFUL, Keychain, Way},
    names::toggle,
    owned::OwnedVault,
    place::{beside, together},
    seal::{Fingerprint, Label, RecordKey, Sealer, Unsealable, VaultId, has_value},
    slot::{KEY_FILE, Slot, SlotKeys},
    source::KeyMaterial,
    vault::{Vault, missing},
};
use crate::secret::SecretValue;

/// How often progress is told, in records.
pub(super) const TELL: u64 = 512;

/// Told while records are sealed anew: how many are done, and how many there are.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Gives the vault another key. Returns it open.
pub(super) fn rekey(
    folder: Folder,
    way: Way,
    material: &KeyMaterial,
    record: RenderRecord,
    progress: Progress<'_>,
) -> Result<OwnedVault, StoreError> {
    let (slot, vault) = settled(&folder, way.clone(), material)?;
    let keychain = vault.keychain();
    vault.close()?;
    // before anything is begun that could not be done
    keychain.as_ref().map_or(Ok(()), |keychain| keychain.asking.ready())?;
    let (keys, wrapping) = slot.open(material)?;
    let next = VaultKey::generate().map_err(|error| StoreError::Io(error.to_string()))?;
    let both = SlotKeys { current: keys.current, next: Some(next) };
    let slot = slot.reseal(wrapping.as_ref(), &both)?;
    slot.replace(&folder)?;
    if let Some(next) = &both.next {
        reseal_all(&folder, keychain.as_ref(), (&both.current, next), record, progress)?;
    }
    // every check of a start, under the new key; slot, head and audit state follow
    Vault::open_in(folder, &slot, material, way).map(OwnedVault::new)
}

/// Gives the vault's key another source. Returns the vault open.
pub(super) fn change_source(
    folder: Folder,
    way: Way,
    old: &KeyMaterial,
    new: &KeyMaterial,
    record: RenderRecord,
) -> Result<OwnedVault, StoreError> {
    let (slot, vault) = settled(&folder, way, old)?;
    let noted = vault.perform(vec![Step { change: None, policy: None, record }]);
    noted.into_iter().try_for_each(|done| done.map(drop))?;
    let (keys, _) = slot.open(old)?;
    let (slot, _) = Slot::seal(new, &keys)?;
    // opened before it counts: what can't be opened must not take the place of what can
    let _ = slot.open(new)?;
    slot.replace(&folder)?;
    Ok(OwnedVault::new(vault))
}

/// The vault, open, and its slot as it is once no change of keys is left half done.
fn settled(folder: &Folder, way: Way, material: &KeyMaterial) -> Result<(Slot, Vault), StoreError> {
    let load = || Slot::load(folder)?.ok_or_else(|| missing(KEY_FILE, VAULT_FILE));
    let vault = Vault::open_in(folder.try_clone()?, &load()?, material, way)?;
    Ok((load()?, vault))
}

fn reseal_all(
    folder: &Folder,
    keychain: Option<&Keychain>,
    (old, new): (&VaultKey, &VaultKey),
    record: RenderRecord,
    progress: Progress<'_>,
) -> Result<(), StoreError> {
    let db = disk::open(folder)?.ok_or_else(|| missing(VAULT_FILE, KEY_FILE))?;
    let vault = disk::identify(&db, old)?;
    let (from, to) = (Sealer::new(old, vault), Sealer::new(new, vault));
    let change = Change { from: &from, to: &to, vault, keychain, progress };
    change.all(&db, new, record)?;
    db.close().map_err(failed)
}

struct Change<'a> {
    from: &'a Sealer,
    to: &'a Sealer,
    vault: VaultId,
    keychain: Option<&'a Keychain>,
    progress: Progress<'a>,
}

impl Change<'_> {
    fn all(mut self, db: &Database, key: &VaultKey, record: RenderRecord) -> Result<(), StoreError> {
        let before = db.begin_read().map_err(failed)?;
        let header = disk::read_header(&before, self.from)?;
        let transaction = disk::begin(db)?;
        let sum = self.records(&before, &transaction, &header)?;
        self.lines(&before, &transaction, &header)?;
        let line = self.to.seal_line(header.next_line, &nonce()?, &record(&[])).map_err(|_| unsealable())?;
        let mut outbox = transaction.open_table(OUTBOX).map_err(failed)?;
        outbox.insert(header.next_line, line.as_slice()).map_err(failed)?;
        drop(outbox);
        let checkpoints = disk::checkpoints(&before, self.from)?;
        disk::forget(&transaction, CHECKPOINTS)?;
        disk::add_checkpoints(&transaction, self.to, &checkpoints)?;
        let (generation, next_line) = (header.generation + 1, header.next_line + 1);
        disk::write_header(&transaction, self.to, &Header { generation, next_line, sum, ..header })?;
        disk::write_identity(&transaction, key, &self.vault)?;
        transaction.commit().map_err(failed)
    }

    fn records(
        &mut self,
        before: &ReadTransaction,
        transaction: &WriteTransaction,
        header: &Header,
    ) -> Result<Fingerprint, StoreError> {
        let old = before.open_table(RECORDS).map_err(failed)?;
        transaction.delete_table(RECORDS).map_err(failed)?;
        let records = transaction.open_table(RECORDS).map_err(failed)?;
        let gone = self.keychain.map(|_| transaction.open_table(GONE).map_err(failed)).transpose()?;
        let (sum, count) = (Fingerprint::default(), 0);
        let mut anew = Anew { from: self.from, to: self.to, records, gone, group: None, sum, count };
        let mut elsewhere = Vec::new();
        let often = if self.keychain.is_some() { HANDFUL as u64 } else { TELL };
        let mut told = 0;
        for entry in old.iter().map_err(failed)? {
            let (at, sealed) = entry.map_err(failed)?;
            let (at, sealed) = (at.value(), sealed.value());
            if self.keychain.is_some() && !has_value(sealed) {
                elsewhere.push((*at, sealed.to_vec()));
                if elsewhere.len() == HANDFUL {
                    self.fetch(&mut elsewhere, &mut anew)?;
                }
            } else {
                let value = self.from.open_value(at, sealed).map_err(damaged)?;
                anew.seal(at, sealed, &value)?;
            }
            if anew.count / often > told / often {
                told = anew.count;
                (self.progress)(told, header.count);
            }
        }
        self.fetch(&mut elsewhere, &mut anew)?;
        if anew.count != header.count {
            return Err(StoreError::Damaged(ASTRAY));
        }
        (self.progress)(anew.count, header.count);
        Ok(anew.sum)
    }

    /// Brings values from the keychain, and seals them anew.
    fn fetch(&self, rows: &mut Vec<Row>, anew: &mut Anew<'_>) -> Result<(), StoreError> {
        let Some(keychain) = self.keychain.filter(|_| !rows.is_empty()) else { return Ok(()) };
        let faults = each_value(&*keychain.reading, &self.vault, self.from, rows, &mut |at, kept, value| {
            anew.seal(at, kept, &value)
        })?;
        if !faults.is_empty() {
            return Err(StoreError::Damaged(AMISS));
        }
        rows.clear();
        Ok(())
    }

    fn lines(
        &self,
        before: &ReadTransaction,
        transaction: &WriteTransaction,
        header: &Header,
    ) -> Result<(), StoreError> {
        let mut outbox = transaction.open_table(OUTBOX).map_err(failed)?;
        for entry in disk::lines(before, self.from, header)? {
            let sealed = self.to.seal_line(entry.id, &nonce()?, &entry.line).map_err(|_| unsealable())?;
            outbox.insert(entry.id, sealed.as_slice()).map_err(failed)?;
        }
        Ok(())
    }
}

/// The records as the new key seals them.
struct Anew<'t> {
    from: &'t Sealer,
    to: &'t Sealer,
    records: Table<'t, &'static RecordKey, &'static [u8]>,
    /// Where the items of the old ones are noted, until they are removed; none where values rest here.
    gone: Option<Table<'t, &'static RecordKey, ()>>,
    /// The first record of the group that is sealed anew: where it lay, and where it lies now.
    group: Option<(RecordKey, RecordKey)>,
    sum: Fingerprint,
    count: u64,
}

impl Anew<'_> {
    /// Seals a record with its value, whose name and attributes are in `sealed`.
    fn seal(&mut self, at: &RecordKey, sealed: &[u8], value: &SecretValue) -> Result<(), StoreError> {
        let (label, _) = self.from.open_label(at, sealed).map_err(damaged)?;
        let Label { service, target, .. } = &label;
        let (hash, nonce) = (self.to.record_key(service, target), nonce()?);
        // they come in the order of their places, so that those of a group follow each other
        let place = match self.group.filter(|(first, _)| together(first, at)) {
            Some((_, first)) => beside(&first, &hash),
            None => self.group.insert((*at, hash)).1,
        };
        let sealed = self.to.seal_record(&place, &nonce, &label, value).map_err(|_| unsealable())?;
        self.records.insert(&place, sealed.as_slice()).map_err(failed)?;
        if let Some(gone) = &mut self.gone {
            gone.insert(at, ()).map_err(failed)?;
        }
        toggle(&mut self.sum, &self.to.fingerprint(&place, &nonce));
        self.count += 1;
        Ok(())
    }
}

fn damaged(_: Unsealable) -> StoreError {
    StoreError::Damaged("a record was changed")
}

fn unsealable() -> StoreError {
    StoreError::Io("sealing failed".to_owned())
}
