//! Reading from a vault whose values rest in the keychain.
//!
//! The vault's own file says which version of each record is the current one; the keychain is believed nothing. What was
//! committed and not yet carried there is read from the file.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use secrecy::ExposeSecret;

use super::{
    batch::{Answer, Committed, MAX_ANSWER, Query, Record, Selection, StoreError},
    carry::Carrier,
    group::current,
    keychain::Items,
    names::Place,
    seal::{Label, RecordKey, Sealer, VaultId, has_value},
    vault::Vault,
};
use crate::secret::{SecretValue, wipe_stack};

/// How often a read that met a change is begun anew.
const ATTEMPTS: usize = 8;

/// A record of an answer, on its way.
struct Slot {
    place: Place,
    label: Label,
    /// The part of the record that the vault's own file keeps: an item of the same version begins with it.
    kept: Vec<u8>,
    value: Value,
}

enum Value {
    /// Nobody asked for it.
    Unasked,
    Here(SecretValue),
    /// In the keychain.
    There,
}

/// What is said of a record whose item is not the one of its current version.
pub(super) const AMISS: &str = "an item of the keychain is missing or was changed";

/// A record whose value is in the keychain, as the vault's own file has it: where it rests, and its label part.
pub(super) type Row = (RecordKey, Vec<u8>);

/// What is wrong with the items of a record. Where there are several, the last of these that one of them is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// It has none.
    Missing,
    /// What is there was not sealed for it.
    Changed,
    /// It belongs to another version of the record.
    Earlier,
}

/// What becomes of a value that was fetched, beside the label part of its row.
pub(super) type TakeValue<'t> = &'t mut dyn FnMut(&RecordKey, &[u8], SecretValue) -> Result<(), StoreError>;

/// Fetches the items of at most [`HANDFUL`](super::keychain::HANDFUL) records, hands each value to `take` once, and says
/// for which records there was none. Items that are no use to anybody, beside the right one, are none of its business.
pub(super) fn each_value(
    items: &dyn Items,
    vault: &VaultId,
    sealer: &Sealer,
    rows: &[Row],
    take: TakeValue<'_>,
) -> Result<BTreeMap<RecordKey, Fault>, StoreError> {
    let keys: Vec<RecordKey> = rows.iter().map(|(at, _)| *at).collect();
    let kept: BTreeMap<&RecordKey, &[u8]> = rows.iter().map(|(at, kept)| (at, kept.as_slice())).collect();
    let mut faults: BTreeMap<RecordKey, Fault> = keys.iter().map(|at| (*at, Fault::Missing)).collect();
    items.get(vault, &keys, &mut |at, item| {
        let (Some(fault), Some(kept)) = (faults.get_mut(at), kept.get(at)) else { return Ok(()) };
        if let Some(value) = value_of(sealer, at, kept, item) {
            faults.remove(at);
            return take(at, kept, value);
        }
        let earlier = sealer.open_label(at, item).is_ok() && sealer.open_value(at, item).is_ok();
        *fault = (*fault).max(if earlier { Fault::Earlier } else { Fault::Changed });
        Ok(())
    })?;
    Ok(faults)
}

/// The value that an item holds, if it is the one of this version of the record.
fn value_of(sealer: &Sealer, at: &RecordKey, kept: &[u8], item: &[u8]) -> Option<SecretValue> {
    // another version, or something that somebody else has put beside it
    item.starts_with(kept).then(|| sealer.open_value(at, item).ok())?
}

impl Vault {
    /// Answers a query, if the keychain is there and unlocked.
    pub(super) fn answer_from(&self, carrier: &Carrier, query: &Query) -> Result<Committed, StoreError> {
        carrier.keychain.reading.ready()?;
        for _ in 0..ATTEMPTS {
            if let Some(answer) = self.attempt(carrier, query)? {
                return Ok(answer.finish());
            }
        }
        Err(StoreError::Unreachable("its items change faster than they can be read".to_owned()))
    }

    /// None if a record changed while its value was fetched.
    fn attempt(&self, carrier: &Carrier, query: &Query) -> Result<Option<Answer>, StoreError> {
        let slots = self.slots(query);
        // once for all of them, and before the keychain is waited for
        wipe_stack();
        let mut slots = slots?;
        let there: HashMap<RecordKey, usize> = (0..)
            .zip(&slots)
            .filter(|(_, slot)| matches!(slot.value, Value::There))
            .map(|(index, slot)| (slot.place.at, index))
            .collect();
        let keys: Vec<RecordKey> = there.keys().copied().collect();
        if !keys.is_empty() {
            let mut room = MAX_ANSWER;
            carrier.keychain.reading.get(&carrier.vault, &keys, &mut |at, item| {
                let slot = there.get(at).and_then(|index| slots.get_mut(*index));
                let Some(slot) = slot.filter(|slot| matches!(slot.value, Value::There)) else {
                    return Ok(());
                };
                if let Some(value) = value_of(&self.sealer, at, &slot.kept, item) {
                    let length = value.expose_secret().len();
                    room = room.checked_sub(length).ok_or(StoreError::TooLarge)?;
                    slot.value = Value::Here(value);
                }
                Ok(())
            })?;
            let mut lost = BTreeSet::new();
            for slot in slots.iter().filter(|slot| matches!(slot.value, Value::There)) {
                if self.place_of(&slot.label) != Some(slot.place) {
                    return Ok(None);
                }
                lost.insert(slot.place.at);
            }
            carrier.saw(&keys, &lost);
            if !lost.is_empty() {
                return Err(StoreError::Damaged(AMISS));
            }
        }
        let mut answer = Answer::default();
        for Slot { label, value, .. } in slots {
            let value = match value {
                Value::Unasked => None,
                Value::Here(value) => Some(value),
                Value::There => return Err(StoreError::Damaged(AMISS)),
            };
            answer.push(Record { target: label.target, value, attributes: label.attributes })?;
        }
        Ok(Some(answer))
    }

    /// What the vault's own file says of the records. Whoever has it calls [`wipe_stack`].
    #[inline(never)]
    fn slots(&self, query: &Query) -> Result<Vec<Slot>, StoreError> {
        let Selection { service, names, filter } = &query.selection;
        let (places, records) = self.look_up(service, names.clone())?;
        let mut slots = Vec::new();
        let mut room = MAX_ANSWER;
        for (target, place) in places {
            let sealed = redb::ReadableTable::get(&*records, &place.at).map_err(super::disk::failed)?;
            let sealed = sealed.ok_or(StoreError::Damaged("a record is missing"))?;
            let sealed = sealed.value();
            current(sealed, &place)?;
            let damaged = |_| StoreError::Damaged("a record was changed");
            let (label, _) = self.sealer.read_label(&place.at, sealed).map_err(damaged)?;
            if label.service != *service || label.target != target {
                return Err(StoreError::Damaged("a record has another name"));
            }
            if !label.attributes.satisfy(filter) {
                continue;
            }
            let value = match (query.values, has_value(sealed)) {
                (false, _) => Value::Unasked,
                (true, false) => Value::There,
                (true, true) => Value::Here(self.sealer.read_value(&place.at, sealed).map_err(damaged)?),
            };
            let kept = if matches!(value, Value::There) { sealed.to_vec() } else { Vec::new() };
            let long = match &value {
                Value::Here(value) => value.expose_secret().len(),
                Value::There | Value::Unasked => label.target.as_str().len(),
            };
            room = room.checked_sub(long).ok_or(StoreError::TooLarge)?;
            slots.push(Slot { place, label, kept, value });
        }
        Ok(slots)
    }

    fn place_of(&self, label: &Label) -> Option<Place> {
        let names = super::batch::Names::Exact(vec![label.target.clone()]);
        let (found, _) = self.look_up(&label.service, names).ok()?;
        found.first().map(|(_, place)| *place)
    }
}
