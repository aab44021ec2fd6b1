//! The way of changes into the keychain.
//!
//! A change of a vault whose values rest in the keychain is committed in the vault's own file first, values and all, in
//! one transaction with its header and its audit line: that is the moment from which it counts. What was committed is
//! then carried to the keychain, record by record, by a thread of its own, and only when the keychain has it is its value
//! taken out of the file. Readers find a value that was not carried yet in the file. So a batch is whole at every moment,
//! whatever the keychain does, and a crash loses nothing: what the file still holds is carried after the next start.
//! Carrying twice does no harm.

use std::{
    collections::BTreeSet,
    sync::{PoisonError, atomic::Ordering},
};

use redb::ReadableTable;

use super::{
    batch::StoreError,
    disk::{self, GONE, RECORDS, failed},
    keychain::Keychain,
    names::Overlay,
    seal::{Nonce, RecordKey, VaultId, has_value, label_part, nonce_of},
    sync::{AtomicBool, Mutex, MutexGuard},
    vault::{Vault, Writer, closed},
};

/// Most records whose change waits for the keychain. Beyond it changes are refused until some have arrived, so that the
/// file does not become the store.
pub const MAX_WAITING: usize = 16 * 1024;
/// Most records that are carried before the file is told: their values are in both places until then.
const LOAD: usize = 16;

/// The keychain of a vault, and what is on its way there.
pub(super) struct Carrier {
    pub(super) keychain: Keychain,
    pub(super) vault: VaultId,
    waiting: Mutex<BTreeSet<RecordKey>>,
    /// Records whose value was found in neither place.
    lost: Mutex<BTreeSet<RecordKey>>,
    /// Whether the keychain was compared with the file since the vault was opened.
    compared: AtomicBool,
}

impl Carrier {
    pub(super) fn new(keychain: Keychain, vault: VaultId, waiting: BTreeSet<RecordKey>) -> Self {
        Self {
            keychain,
            vault,
            waiting: Mutex::new(waiting),
            lost: Mutex::default(),
            compared: AtomicBool::new(false),
        }
    }

    /// Whether a change can be taken that the keychain will have soon.
    pub(super) fn may_change(&self) -> Result<(), StoreError> {
        self.keychain.asking.ready()?;
        if self.count() > MAX_WAITING { Err(StoreError::Backlog) } else { Ok(()) }
    }

    /// How many records wait.
    pub(super) fn count(&self) -> usize {
        self.waiting().len()
    }

    /// Notes records that were changed.
    pub(super) fn add(&self, changed: Vec<RecordKey>) {
        self.waiting().extend(changed);
    }

    /// Notes what the file says.
    pub(super) fn set(&self, waiting: BTreeSet<RecordKey>) {
        *self.waiting() = waiting;
    }

    /// Notes of which of these records, that have no value in the file, there was no item of use.
    pub(super) fn saw(&self, asked: &[RecordKey], amiss: &BTreeSet<RecordKey>) {
        let mut lost = self.lost();
        for at in asked {
            if lost.is_empty() {
                break;
            }
            lost.remove(at);
        }
        lost.extend(amiss);
    }

    /// The records whose value was found in neither place, until it is seen there or changed.
    pub(super) fn lost(&self) -> MutexGuard<'_, BTreeSet<RecordKey>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<RecordKey>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the items of a vault in the keychain differ from what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// Records whose value is in neither place.
    pub(super) missing: BTreeSet<RecordKey>,
    /// Items that claim to be of this vault, and no record of it.
    pub(super) foreign: usize,
}

impl Difference {
    fn say(&self) {
        match self.missing.len() {
            0 => {}
            1 => tracing::error!(
                "1 secret has lost its item in the keychain; write it anew, or put the item back"
            ),
            lost => tracing::error!(
                "{lost} secrets have lost their items in the keychain; write them anew, or put the items back"
            ),
        }
        match self.foreign {
            0 => {}
            1 => tracing::warn!(
                "1 item in the keychain claims to be of this vault and is not; it has no effect"
            ),
            foreign => tracing::warn!(
                "{foreign} items in the keychain claim to be of this vault and are not; they have no effect"
            ),
        }
    }
}

/// What the keychain has got: this version of the record, or its removal.
type Carried = (RecordKey, Option<Nonce>);

impl Vault {
    /// Carries some of what waits to the keychain, and says whether there is more. An error leaves the rest waiting.
    ///
    /// The first time it also says what the keychain has lost, or has and should not.
    pub(super) fn carry_some(&self, carrier: &Carrier) -> Result<bool, StoreError> {
        if !carrier.compared.load(Ordering::Relaxed) {
            let difference = self.compare(carrier)?;
            difference.say();
            *carrier.lost() = difference.missing;
            carrier.compared.store(true, Ordering::Relaxed);
        }
        let load: Vec<RecordKey> = carrier.waiting().iter().take(LOAD).copied().collect();
        if load.is_empty() {
            return Ok(false);
        }
        let mut carried = Vec::with_capacity(load.len());
        let outcome = self.bring(carrier, load, &mut carried);
        if !carried.is_empty() {
            self.arrived(carrier, &carried)?;
        }
        outcome.map(|()| !carrier.waiting().is_empty())
    }

    /// How the items that are there differ from those that should be. What an item holds is seen when it is read.
    pub(super) fn compare(&self, carrier: &Carrier) -> Result<Difference, StoreError> {
        let mut items: BTreeSet<RecordKey> =
            carrier.keychain.carrying.list(&carrier.vault)?.into_iter().collect();
        let mut missing = BTreeSet::new();
        for row in self.records()?.iter().map_err(failed)? {
            let (at, sealed) = row.map_err(failed)?;
            if !items.remove(at.value()) && !has_value(sealed.value()) {
                missing.insert(*at.value());
            }
        }
        // what was removed and has its item still
        for at in carrier.waiting().iter() {
            items.remove(at);
        }
        Ok(Difference { missing, foreign: items.len() })
    }

    /// Brings the newest committed version of each record, until the keychain fails.
    fn bring(
        &self,
        carrier: &Carrier,
        load: Vec<RecordKey>,
        carried: &mut Vec<Carried>,
    ) -> Result<(), StoreError> {
        let records = self.records()?;
        let keychain = &carrier.keychain.carrying;
        for at in load {
            match records.get(&at).map_err(failed)? {
                Some(sealed) => {
                    let sealed = sealed.value();
                    if has_value(sealed) {
                        keychain.put(&carrier.vault, &at, sealed)?;
                    }
                    carried.push((at, nonce_of(sealed).copied()));
                }
                None => {
                    keychain.delete(&carrier.vault, &at)?;
                    carried.push((at, None));
                }
            }
        }
        Ok(())
    }

    /// Takes out of the file what the keychain has got, unless it was changed again meanwhile.
    fn arrived(&self, carrier: &Carrier, carried: &[Carried]) -> Result<(), StoreError> {
        let mut writer = self.write_lock();
        if let Err(error) = self.take_out(&mut writer, carried) {
            self.recover(&mut writer, &error);
            return Err(error);
        }
        let records = self.records()?;
        let mut waiting = carrier.waiting();
        for (at, version) in carried {
            let now = records.get(at).map_err(failed)?;
            if now.and_then(|sealed| nonce_of(sealed.value()).copied()) == *version {
                waiting.remove(at);
                carrier.lost().remove(at);
            }
        }
        Ok(())
    }

    /// One durable transaction. It changes no record's version, so that header and generation stay as they are.
    fn take_out(&self, writer: &mut Writer, carried: &[Carried]) -> Result<(), StoreError> {
        if writer.db.is_none() {
            self.reopen(writer)?;
        }
        let transaction = disk::begin(writer.db.as_ref().ok_or_else(closed)?)?;
        let mut records = transaction.open_table(RECORDS).map_err(failed)?;
        let mut gone = transaction.open_table(GONE).map_err(failed)?;
        for (at, version) in carried {
            let kept = {
                let row = records.get(at).map_err(failed)?;
                let current = row.as_ref().and_then(|sealed| nonce_of(sealed.value()));
                if current != version.as_ref() {
                    continue;
                }
                row.and_then(|sealed| label_part(sealed.value()).map(<[u8]>::to_vec))
            };
            match kept {
                Some(label) => drop(records.insert(at, label.as_slice()).map_err(failed)?),
                None => drop(gone.remove(at).map_err(failed)?),
            }
        }
        drop((records, gone));
        transaction.commit().map_err(failed)?;
        let header = writer.header;
        self.publish(writer, Overlay::default(), header)
    }
}
