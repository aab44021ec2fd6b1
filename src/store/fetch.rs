//! Reading from a vault whose values rest in the keychain.
//!
//! The vault's own file says which version of each record is the current one; the keychain is believed nothing. What was
//! committed and not yet carried there is read from the file.

use std::collections::HashMap;

use secrecy::ExposeSecret;

use super::{
    batch::{Answer, Committed, MAX_ANSWER, Query, Record, Selection, StoreError},
    carry::Carrier,
    group::current,
    names::Place,
    seal::{Label, RecordKey, has_value},
    vault::Vault,
};
use crate::secret::SecretValue;

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
        let mut slots = self.slots(query)?;
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
                // another version, or something that somebody else has put beside it
                if item.starts_with(&slot.kept)
                    && let Ok(value) = self.sealer.open_value(at, item)
                {
                    let length = value.expose_secret().len();
                    room = room.checked_sub(length).ok_or(StoreError::TooLarge)?;
                    slot.value = Value::Here(value);
                }
                Ok(())
            })?;
        }
        let mut answer = Answer::default();
        for Slot { place, label, value, .. } in slots {
            let value = match value {
                Value::Unasked => None,
                Value::Here(value) => Some(value),
                Value::There if self.place_of(&label) == Some(place) => {
                    return Err(StoreError::Damaged("an item of the keychain is missing or was changed"));
                }
                Value::There => return Ok(None),
            };
            answer.push(Record { target: label.target, value, attributes: label.attributes })?;
        }
        Ok(Some(answer))
    }

    /// What the vault's own file says of the records.
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
            let (label, _) = self.sealer.open_label(&place.at, sealed).map_err(damaged)?;
            if label.service != *service || label.target != target {
                return Err(StoreError::Damaged("a record has another name"));
            }
            if !label.attributes.satisfy(filter) {
                continue;
            }
            let value = match (query.values, has_value(sealed)) {
                (false, _) => Value::Unasked,
                (true, false) => Value::There,
                (true, true) => Value::Here(self.sealer.open_value(&place.at, sealed).map_err(damaged)?),
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
