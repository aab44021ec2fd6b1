//! Another key for a vault, and another source for its key: both safe at any moment of a crash.
//!
//! A new key: the slot gets both keys; then one transaction seals every record, line and number anew; its commit decides
//! which key the vault has. Whoever opens the vault next lets slot, head and the audit chain's state follow it, and so does
//! the rest of this file. Another source: one file takes the place of another.

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};

use super::{
    batch::{RenderRecord, StoreError},
    disk::{self, CHECKPOINTS, Header, OUTBOX, RECORDS, VAULT_FILE, failed, nonce},
    files::Folder,
    group::Step,
    key::VaultKey,
    keychain::{Keychain, StoreKind},
    names::toggle,
    owned::OwnedVault,
    seal::{Fingerprint, Label, Sealer, VaultId},
    slot::{KEY_FILE, Slot, SlotKeys},
    source::KeyMaterial,
    vault::{Vault, missing},
};

/// How often progress is told, in records.
const TELL: u64 = 512;

/// Told while records are sealed anew: how many are done, and how many there are.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Gives the vault another key. Returns it open.
pub(super) fn rekey(
    folder: Folder,
    material: &KeyMaterial,
    record: RenderRecord,
    progress: Progress<'_>,
) -> Result<OwnedVault, StoreError> {
    let (slot, keychain) = settled(&folder, material)?;
    if keychain.is_some() {
        // the items there can't all be sealed anew in one transaction
        return Err(StoreError::OtherStore { pinned: StoreKind::Keychain, asked: StoreKind::Vault });
    }
    let (keys, wrapping) = slot.open(material)?;
    let next = VaultKey::generate().map_err(|error| StoreError::Io(error.to_string()))?;
    let both = SlotKeys { current: keys.current, next: Some(next) };
    let slot = slot.reseal(wrapping.as_ref(), &both)?;
    slot.replace(&folder)?;
    if let Some(next) = &both.next {
        reseal_all(&folder, &both.current, next, record, progress)?;
    }
    // every check of a start, under the new key; slot, head and audit state follow
    Vault::open_in(folder, &slot, material, None).map(OwnedVault::new)
}

/// Gives the vault's key another source. Returns the vault open.
pub(super) fn change_source(
    folder: Folder,
    old: &KeyMaterial,
    new: &KeyMaterial,
    record: RenderRecord,
) -> Result<OwnedVault, StoreError> {
    let (slot, keychain) = settled(&folder, old)?;
    let vault = Vault::open_in(folder.try_clone()?, &slot, old, keychain)?;
    let noted = vault.perform(vec![Step { change: None, policy: None, record }]);
    noted.into_iter().try_for_each(|done| done.map(drop))?;
    let (keys, _) = slot.open(old)?;
    let (slot, _) = Slot::seal(new, &keys)?;
    // opened before it counts: what can't be opened must not take the place of what can
    let _ = slot.open(new)?;
    slot.replace(&folder)?;
    Ok(OwnedVault::new(vault))
}

/// The slot, once no change of keys is left half done; with a keychain that nobody asks, where the values rest in one.
fn settled(folder: &Folder, material: &KeyMaterial) -> Result<(Slot, Option<Keychain>), StoreError> {
    let load = || Slot::load(folder)?.ok_or_else(|| missing(KEY_FILE, VAULT_FILE));
    let slot = load()?;
    let settle = |keychain| Vault::open_in(folder.try_clone()?, &slot, material, keychain)?.close();
    let keychain = match settle(None) {
        Err(StoreError::OtherStore { pinned: StoreKind::Keychain, .. }) => {
            settle(Some(Keychain::unasked()))?;
            Some(Keychain::unasked())
        }
        settled => settled.map(|()| None)?,
    };
    Ok((load()?, keychain))
}

fn reseal_all(
    folder: &Folder,
    old: &VaultKey,
    new: &VaultKey,
    record: RenderRecord,
    progress: Progress<'_>,
) -> Result<(), StoreError> {
    let db = disk::open(folder)?.ok_or_else(|| missing(VAULT_FILE, KEY_FILE))?;
    let vault = disk::identify(&db, old)?;
    let change = Change { from: Sealer::new(old, vault), to: Sealer::new(new, vault), progress };
    change.all(&db, new, vault, record)?;
    db.close().map_err(failed)
}

struct Change<'a> {
    from: Sealer,
    to: Sealer,
    progress: Progress<'a>,
}

impl Change<'_> {
    fn all(
        mut self,
        db: &Database,
        key: &VaultKey,
        vault: VaultId,
        record: RenderRecord,
    ) -> Result<(), StoreError> {
        let before = db.begin_read().map_err(failed)?;
        let header = disk::read_header(&before, &self.from)?;
        let transaction = disk::begin(db)?;
        let sum = self.records(&before, &transaction, &header)?;
        self.lines(&before, &transaction, &header)?;
        let line = self.to.seal_line(header.next_line, &nonce()?, &record(&[])).map_err(|_| unsealable())?;
        let mut outbox = transaction.open_table(OUTBOX).map_err(failed)?;
        outbox.insert(header.next_line, line.as_slice()).map_err(failed)?;
        drop(outbox);
        let checkpoints = disk::checkpoints(&before, &self.from)?;
        disk::forget(&transaction, CHECKPOINTS)?;
        disk::add_checkpoints(&transaction, &self.to, &checkpoints)?;
        let (generation, next_line) = (header.generation + 1, header.next_line + 1);
        disk::write_header(&transaction, &self.to, &Header { generation, next_line, sum, ..header })?;
        disk::write_identity(&transaction, key, &vault)?;
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
        let mut new = transaction.open_table(RECORDS).map_err(failed)?;
        let damaged = |_| StoreError::Damaged("a record was changed");
        let (mut sum, mut count) = (Fingerprint::default(), 0);
        for entry in old.iter().map_err(failed)? {
            let (at, sealed) = entry.map_err(failed)?;
            let (label, _) = self.from.open_label(at.value(), sealed.value()).map_err(damaged)?;
            let value = self.from.open_value(at.value(), sealed.value()).map_err(damaged)?;
            let Label { service, target, .. } = &label;
            let (place, nonce) = (self.to.record_key(service, target), nonce()?);
            let sealed = self.to.seal_record(&place, &nonce, &label, &value).map_err(|_| unsealable())?;
            new.insert(&place, sealed.as_slice()).map_err(failed)?;
            toggle(&mut sum, &self.to.fingerprint(&place, &nonce));
            count += 1;
            if count % TELL == 0 || count == header.count {
                (self.progress)(count, header.count);
            }
        }
        if count == header.count {
            Ok(sum)
        } else {
            Err(StoreError::Damaged("a record is missing, added or replaced by an older one"))
        }
    }

    fn lines(
        &self,
        before: &ReadTransaction,
        transaction: &WriteTransaction,
        header: &Header,
    ) -> Result<(), StoreError> {
        let mut outbox = transaction.open_table(OUTBOX).map_err(failed)?;
        for entry in disk::lines(before, &self.from, header)? {
            let sealed = self.to.seal_line(entry.id, &nonce()?, &entry.line).map_err(|_| unsealable())?;
            outbox.insert(entry.id, sealed.as_slice()).map_err(failed)?;
        }
        Ok(())
    }
}

fn unsealable() -> StoreError {
    StoreError::Io("sealing failed".to_owned())
}
