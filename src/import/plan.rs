//! What an import would do, before it does anything: which names are written, which of them are there already, which are
//! refused and why.

use std::collections::{BTreeMap, btree_map::Entry};

use secrecy::ExposeSecret;

use super::{Found, Incoming, MAX_SECRETS, MAX_VALUES, Place, Refusal};
use crate::{
    name::{Attributes, Service, Target},
    secret::SecretValue,
    store::WriteItem,
    wire::limits::MAX_TARGETS,
};

/// One entry that is not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What the source calls it.
    pub name: String,
    /// Where it stands, in a source that has lines.
    pub place: Option<Place>,
    /// Why.
    pub why: Refusal,
}

struct Planned {
    attributes: Attributes,
    value: SecretValue,
    exists: bool,
}

/// What would be written, and what is refused. No Debug: it holds the values.
#[derive(Default)]
pub struct Plan {
    planned: BTreeMap<(Service, Target), Planned>,
    refused: Vec<Refused>,
    bytes: usize,
}

/// More than one import holds at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one import takes at most {MAX_SECRETS} entries and {MAX_VALUES} bytes of values")]
pub struct TooMuch;

/// One batch for the vault: secrets of one service that have the same attributes.
pub type Batch = (Service, Vec<WriteItem>, Attributes);

impl Plan {
    /// A plan that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one entry of the source.
    pub fn add(&mut self, found: Found) -> Result<(), TooMuch> {
        if self.planned.len() + self.refused.len() >= MAX_SECRETS {
            return Err(TooMuch);
        }
        let Found { name, place, secret } = found;
        let why = match secret {
            Err(why) => why,
            Ok(incoming) => {
                self.bytes = self.bytes.saturating_add(incoming.value.expose_secret().len());
                if self.bytes > MAX_VALUES {
                    return Err(TooMuch);
                }
                let Incoming { service, target, attributes, value } = incoming;
                match self.planned.entry((service, target)) {
                    // which of the two is meant is not ours to say
                    Entry::Occupied(_) => Refusal::Twice,
                    Entry::Vacant(free) => {
                        free.insert(Planned { attributes, value, exists: false });
                        return Ok(());
                    }
                }
            }
        };
        self.refused.push(Refused { name, place, why });
        Ok(())
    }

    /// Notes which names the vault has already. The source is read before the vault is open, so that nobody is asked for
    /// its key in vain.
    pub fn compare(&mut self, exists: impl Fn(&Service, &Target) -> bool) {
        for ((service, target), planned) in &mut self.planned {
            planned.exists = exists(service, target);
        }
    }

    /// Leaves out what the vault has already.
    pub fn keep_existing(&mut self) {
        self.planned.retain(|_, planned| !planned.exists);
    }

    /// The names that are written, sorted, and whether the vault has each already.
    pub fn names(&self) -> impl Iterator<Item = (&Service, &Target, bool)> {
        self.planned.iter().map(|((service, target), planned)| (service, target, planned.exists))
    }

    /// How many secrets are written.
    pub fn len(&self) -> usize {
        self.planned.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.planned.is_empty()
    }

    /// How many of them the vault has already.
    pub fn existing(&self) -> usize {
        self.planned.values().filter(|planned| planned.exists).count()
    }

    /// The entries that are not imported, in the order of the source.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// The batches that write it all. Each has at most [`MAX_TARGETS`] secrets, as a request has.
    pub fn into_batches(self) -> Vec<Batch> {
        let mut open: BTreeMap<(Service, Vec<(String, String)>), Batch> = BTreeMap::new();
        let mut batches = Vec::new();
        for ((service, target), Planned { attributes, value, .. }) in self.planned {
            let alike = attributes.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let key = (service.clone(), alike);
            let batch = open.entry(key).or_insert_with(|| (service, Vec::new(), attributes));
            batch.1.push(WriteItem { target, value });
            if batch.1.len() == MAX_TARGETS {
                let full = std::mem::take(&mut batch.1);
                batches.push((batch.0.clone(), full, batch.2.clone()));
            }
        }
        batches.extend(open.into_values().filter(|batch| !batch.1.is_empty()));
        batches
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::secret::Buffer;

    fn found(service: &str, target: &str, value: &str, attribute: Option<&str>) -> Found {
        let mut attributes = Attributes::new();
        if let Some(value) = attribute {
            attributes.insert("a", value).unwrap();
        }
        let incoming = Incoming {
            service: Service::parse(service).unwrap(),
            target: Target::parse(target).unwrap(),
            attributes,
            value: SecretValue::from_buffer(Buffer::from(value.as_bytes())).unwrap(),
        };
        Found { name: target.to_owned(), place: None, secret: Ok(incoming) }
    }

    #[test]
    fn the_second_of_two_equal_names_is_refused_and_the_first_is_kept() {
        let mut plan = Plan::new();
        for value in ["1", "2"] {
            plan.add(found("s", "t", value, None)).unwrap();
        }
        plan.add(found("t", "t", "3", None)).unwrap();
        assert_eq!((plan.len(), plan.refused().len()), (2, 1));
        assert_eq!(plan.refused()[0].why, Refusal::Twice);
        let batches = plan.into_batches();
        assert_eq!(batches[0].1[0].value.expose_secret(), "1");
    }

    #[test]
    fn an_entry_that_can_be_no_secret_is_kept_with_its_name_place_and_reason() {
        let mut plan = Plan::new();
        let place = Some(Place { line: 3, column: 1 });
        plan.add(Found { name: "bad".into(), place, secret: Err(Refusal::NotText) }).unwrap();
        assert_eq!(plan.refused(), [Refused { name: "bad".into(), place, why: Refusal::NotText }]);
        assert!(plan.is_empty(), "a refusal is nothing to write");
        plan.add(found("s", "good", "v", None)).unwrap();
        assert!(!plan.is_empty());
    }

    #[test]
    fn more_entries_than_one_import_takes_are_refused_whether_they_are_secrets_or_not() {
        let mut plan = Plan::new();
        plan.add(found("s", "t", "v", None)).unwrap();
        let refused = || Found { name: String::new(), place: None, secret: Err(Refusal::NoColon) };
        for _ in 1..MAX_SECRETS {
            plan.add(refused()).unwrap();
        }
        assert_eq!(plan.add(refused()), Err(TooMuch));
        assert_eq!(plan.add(found("s", "last", "v", None)), Err(TooMuch));
    }

    #[test]
    fn existing_names_are_told_and_can_be_left_out() {
        let mut plan = Plan::new();
        for target in ["new", "old"] {
            plan.add(found("s", target, "v", None)).unwrap();
        }
        plan.compare(|_, target| target.as_str() == "old");
        let told: Vec<_> = plan.names().map(|(_, target, exists)| (target.as_str(), exists)).collect();
        assert_eq!(told, [("new", false), ("old", true)]);
        plan.keep_existing();
        assert_eq!((plan.len(), plan.existing()), (1, 0));
    }

    #[test]
    fn batches_have_one_service_and_one_set_of_attributes_and_a_bounded_size() {
        let mut plan = Plan::new();
        for n in 0..MAX_TARGETS + 1 {
            plan.add(found("s", &format!("t{n}"), "v", None)).unwrap();
        }
        plan.add(found("s", "with", "v", Some("x"))).unwrap();
        plan.add(found("u", "t0", "v", None)).unwrap();
        let batches = plan.into_batches();
        let mut sizes: Vec<_> = batches.iter().map(|batch| (batch.0.as_str(), batch.1.len())).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [("s", 1), ("s", 1), ("s", MAX_TARGETS), ("u", 1)]);
        let with = batches.iter().find(|batch| !batch.2.is_empty()).unwrap();
        assert_eq!(with.1[0].target.as_str(), "with");
    }

    #[test]
    fn more_values_than_are_held_at_once_are_refused() {
        let mut plan = Plan::new();
        let value = "v".repeat(crate::secret::MAX_VALUE);
        let full = MAX_VALUES / value.len();
        plan.bytes = (full - 1) * value.len();
        plan.add(found("s", "last", &value, None)).unwrap();
        assert_eq!(plan.add(found("s", "beyond", "v", None)), Err(TooMuch));
    }
}
