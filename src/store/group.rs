//! One group of changes within one write transaction: applied in order, each seeing those before it.

use redb::{ReadableTable, Table};

use super::{
    batch::{
        Change, MAX_REMOVED, OutboxEntry, PendingChange, Record, RenderRecord, Selection, StoreError,
        WriteItem,
    },
    disk::{Header, failed, nonce, nonces},
    names::{NameIndex, Overlay, Place, toggle},
    place::{TOGETHER, beside, together},
    seal::{Label, RecordKey, Sealer, nonce_of},
    transport::PolicySeal,
};
use crate::name::{Attributes, Service, Target};

/// The records removed and the audit line of one change, not yet durable.
pub(super) type Applied = (Vec<Record>, OutboxEntry);

/// One change of a group with the maker of its audit line; or a line alone, which says what is about to be read.
pub(super) struct Step {
    pub(super) change: Option<Change>,
    /// The seal of the policy from now on, if it changes.
    pub(super) policy: Option<PolicySeal>,
    pub(super) record: RenderRecord,
}

impl From<PendingChange> for Step {
    fn from(pending: PendingChange) -> Self {
        Self { change: Some(pending.change.into_inner()), policy: None, record: pending.record }
    }
}

/// The group so far.
pub(super) struct Group<'t, 'v> {
    pub(super) sealer: &'v Sealer,
    pub(super) base: &'v NameIndex,
    pub(super) records: Table<'t, &'static RecordKey, &'static [u8]>,
    pub(super) outbox: Table<'t, u64, &'static [u8]>,
    /// What was removed and may still have an item; none where values rest here.
    pub(super) gone: Option<Table<'t, &'static RecordKey, ()>>,
    /// Every record that was changed.
    pub(super) touched: Vec<RecordKey>,
    pub(super) overlay: Overlay,
    pub(super) header: Header,
}

impl Group<'_, '_> {
    /// Forgets the audit lines up to and with `settled`, which are in the log.
    pub(super) fn forget(&mut self, settled: u64) -> Result<(), StoreError> {
        while self.header.first_line <= settled && self.header.first_line < self.header.next_line {
            if self.outbox.remove(self.header.first_line).map_err(failed)?.is_none() {
                return Err(StoreError::Damaged("an outbox line is missing"));
            }
            self.header.first_line += 1;
        }
        Ok(())
    }

    /// Applies one change and keeps its audit line. None if its answer would be too large: nothing was touched then.
    pub(super) fn apply(&mut self, step: Step) -> Result<Option<Applied>, StoreError> {
        let (touched, removed) = match step.change {
            Some(Change::Write { service, items, attributes }) => {
                (self.write(&service, items, &attributes)?, false)
            }
            Some(Change::Delete(selection)) => match self.delete(selection)? {
                Some(touched) => (touched, true),
                None => return Ok(None),
            },
            None => (Vec::new(), false),
        };
        if let Some(policy) = step.policy {
            self.header.policy = policy;
        }
        let line = (step.record)(&touched);
        let id = self.header.next_line;
        let sealed = self.sealer.seal_line(id, &nonce()?, &line).map_err(|_| unsealable())?;
        self.outbox.insert(id, sealed.as_slice()).map_err(failed)?;
        self.header.next_line += 1;
        let records = if removed { touched.into_iter().map(named).collect() } else { Vec::new() };
        Ok(Some((records, OutboxEntry { id, line })))
    }

    fn write(
        &mut self,
        service: &Service,
        items: Vec<WriteItem>,
        attributes: &Attributes,
    ) -> Result<Vec<Target>, StoreError> {
        let mut touched = Vec::with_capacity(items.len());
        let nonces = nonces(items.len())?;
        let mut first = None;
        for (number, (WriteItem { target, value }, nonce)) in items.into_iter().zip(nonces).enumerate() {
            let label = Label { service: service.clone(), target, attributes: attributes.clone() };
            if number % TOGETHER == 0 {
                first = None;
            }
            let at = self.at(&label, first)?;
            first.get_or_insert(at);
            let place = Place { at, nonce, bare: attributes.is_empty() };
            let sealed = self.sealer.seal_record(&place.at, &place.nonce, &label, &value);
            let sealed = sealed.map_err(|_| unsealable())?;
            self.records.insert(&place.at, sealed.as_slice()).map_err(failed)?;
            if let Some(gone) = &mut self.gone {
                gone.remove(&place.at).map_err(failed)?;
                self.touched.push(place.at);
            }
            self.place(service, &label.target, Some(place));
            touched.push(label.target);
        }
        Ok(touched)
    }

    /// The place of a record that is about to be written: beside the `first` of its group, if there is one. What lay
    /// elsewhere is removed from there.
    fn at(&mut self, label: &Label, first: Option<RecordKey>) -> Result<RecordKey, StoreError> {
        let Label { service, target, .. } = label;
        let before = self.overlay.get(self.base, service, target).map(|place| place.at);
        let elsewhere = |first: &RecordKey| before.is_none_or(|before| !together(first, &before));
        // the items of a keychain are found by the places of their records, which therefore never change
        let Some(first) = first.filter(|first| self.gone.is_none() && elsewhere(first)) else {
            return Ok(before.unwrap_or_else(|| self.sealer.record_key(service, target)));
        };
        if let Some(before) = before
            && self.records.remove(&before).map_err(failed)?.is_none()
        {
            return Err(StoreError::Damaged("a record is missing"));
        }
        Ok(beside(&first, &self.sealer.record_key(service, target)))
    }

    fn delete(&mut self, selection: Selection) -> Result<Option<Vec<Target>>, StoreError> {
        let Selection { service, names, filter } = selection;
        let mut found = Vec::new();
        for (target, place) in self.overlay.select(self.base, &service, names) {
            if filter.is_empty() || self.label(&place)?.attributes.satisfy(&filter) {
                found.push((target, place));
            }
        }
        if found.len() > MAX_REMOVED {
            return Ok(None);
        }
        let mut touched = Vec::with_capacity(found.len());
        for (target, place) in found {
            if self.records.remove(&place.at).map_err(failed)?.is_none() {
                return Err(StoreError::Damaged("a record is missing"));
            }
            if let Some(gone) = &mut self.gone {
                gone.insert(&place.at, ()).map_err(failed)?;
                self.touched.push(place.at);
            }
            self.place(&service, &target, None);
            touched.push(target);
        }
        Ok(Some(touched))
    }

    fn label(&self, place: &Place) -> Result<Label, StoreError> {
        let sealed = self.records.get(&place.at).map_err(failed)?;
        let sealed = sealed.ok_or(StoreError::Damaged("a record is missing"))?;
        current(sealed.value(), place)?;
        let opened = self.sealer.open_label(&place.at, sealed.value());
        opened.map(|(label, _)| label).map_err(|_| StoreError::Damaged("a record was changed"))
    }

    /// Notes where a name rests from now on, in the index and in the header's sum.
    fn place(&mut self, service: &Service, target: &Target, place: Option<Place>) {
        let before = self.overlay.put(self.base, service, target, place);
        for one in [before, place].into_iter().flatten() {
            toggle(&mut self.header.sum, &self.sealer.fingerprint(&one.at, &one.nonce));
        }
        self.header.count = self.header.count + u64::from(place.is_some()) - u64::from(before.is_some());
    }
}

/// Refuses a record that is not the version the index names.
pub(super) fn current(sealed: &[u8], place: &Place) -> Result<(), StoreError> {
    if nonce_of(sealed) == Some(&place.nonce) {
        Ok(())
    } else {
        Err(StoreError::Damaged("a record was replaced by another version"))
    }
}

fn named(target: Target) -> Record {
    Record { target, value: None, attributes: Attributes::new() }
}

fn unsealable() -> StoreError {
    StoreError::Io("sealing failed".to_owned())
}
