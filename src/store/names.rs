//! The names that the vault holds, in memory: where each record rests and which version of it is the current one.
//!
//! Built from the authenticated labels at open and checked against the sealed header, then changed only by commits.
//! It makes absence authentic: a name that is here and whose record is gone from the disk is damage, never a miss;
//! and a record of another version than the one named here is damage, never an answer.

use std::{collections::BTreeMap, ops::Bound};

use super::{
    batch::{Names, StoreError},
    seal::{Fingerprint, Label, Nonce, RecordKey},
};
use crate::name::{Service, Target, TargetPrefix};

/// Where a record rests, and which version of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: RecordKey,
    pub(super) nonce: Nonce,
    /// Whether its label holds the name alone, and no attributes.
    pub(super) bare: bool,
}

/// Names with their places, as they are read: in any order, and possibly twice.
#[derive(Debug, Default)]
pub(super) struct Gathered(BTreeMap<Service, Vec<(Target, Place)>>);

impl Gathered {
    /// Adds the name that a label holds, with where its record rests.
    pub(super) fn add(&mut self, label: Label, at: RecordKey, nonce: Nonce) {
        let named = (label.target, Place { at, nonce, bare: label.attributes.is_empty() });
        match self.0.get_mut(&label.service) {
            Some(targets) => targets.push(named),
            None => _ = self.0.insert(label.service, vec![named]),
        }
    }

    /// Sorts the names of each service: [`NameIndex::build`] merges quickly what is sorted.
    pub(super) fn sort(&mut self) {
        for targets in self.0.values_mut() {
            targets.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        }
    }

    /// Adds all of another.
    pub(super) fn append(&mut self, others: Self) {
        for (service, mut targets) in others.0 {
            self.0.entry(service).or_default().append(&mut targets);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.0.values().map(|targets| targets.len() as u64).sum()
    }
}

/// Names found, with their places.
pub(super) type Found = Vec<(Target, Place)>;

type Targets<T> = BTreeMap<Target, T>;

/// Names by service, both sorted.
pub type NamesByService = Vec<(Service, Vec<Target>)>;

/// Every name, by service.
#[derive(Debug, Default)]
pub(super) struct NameIndex(BTreeMap<Service, Targets<Place>>);

impl NameIndex {
    /// The index of these names. [`StoreError::Damaged`] if one is there twice.
    pub(super) fn build(all: Gathered) -> Result<Self, StoreError> {
        let index = |(service, targets): (_, Vec<_>)| {
            let count = targets.len();
            let targets: Targets<Place> = targets.into_iter().collect();
            // of two under one name the later has taken the place of the earlier
            (targets.len() == count).then_some((service, targets))
        };
        let all = all.0.into_iter().map(index).collect::<Option<_>>();
        all.map(Self).ok_or(StoreError::Damaged("two records have one name"))
    }

    pub(super) fn get(&self, service: &Service, target: &Target) -> Option<Place> {
        self.0.get(service)?.get(target).copied()
    }

    /// The places that `names` means: in the order asked for exact names, sorted otherwise. Missing names are left out.
    pub(super) fn select(&self, service: &Service, names: Names) -> Found {
        match (names, self.0.get(service)) {
            (_, None) => Vec::new(),
            (Names::Exact(wanted), Some(targets)) => wanted
                .into_iter()
                .filter_map(|target| targets.get(&target).copied().map(|place| (target, place)))
                .collect(),
            (Names::Prefix(prefixes), Some(targets)) => covered(targets, prefixes),
            (Names::All, Some(targets)) => {
                targets.iter().map(|(target, place)| (target.clone(), *place)).collect()
            }
        }
    }

    /// Every name, by service, sorted.
    pub(super) fn all(&self) -> NamesByService {
        self.0.iter().map(|(service, targets)| (service.clone(), targets.keys().cloned().collect())).collect()
    }

    /// Takes over what a commit changed.
    pub(super) fn apply(&mut self, changed: Overlay) {
        for (service, targets) in changed.0 {
            let here = self.0.entry(service.clone()).or_default();
            for (target, place) in targets {
                match place {
                    Some(place) => here.insert(target, place),
                    None => here.remove(&target),
                };
            }
            if here.is_empty() {
                self.0.remove(&service);
            }
        }
    }
}

/// What a group of changes does to the index, before it is committed. None is a name removed.
#[derive(Debug, Default)]
pub(super) struct Overlay(BTreeMap<Service, Targets<Option<Place>>>);

impl Overlay {
    /// Says where a name rests from now on. Returns where it rested before, seen through this overlay.
    pub(super) fn put(
        &mut self,
        base: &NameIndex,
        service: &Service,
        target: &Target,
        place: Option<Place>,
    ) -> Option<Place> {
        let targets = match self.0.get_mut(service) {
            Some(targets) => targets,
            None => self.0.entry(service.clone()).or_default(),
        };
        match targets.insert(target.clone(), place) {
            Some(before) => before,
            None => base.get(service, target),
        }
    }

    /// Where a name rests, seen through this overlay.
    pub(super) fn get(&self, base: &NameIndex, service: &Service, target: &Target) -> Option<Place> {
        match self.0.get(service).and_then(|targets| targets.get(target)) {
            Some(changed) => *changed,
            None => base.get(service, target),
        }
    }

    /// As [`NameIndex::select`], with the changes of this overlay.
    pub(super) fn select(&self, base: &NameIndex, service: &Service, names: Names) -> Found {
        let Some(changed) = self.0.get(service) else { return base.select(service, names) };
        if let Names::Exact(wanted) = names {
            let found = |target: Target| self.get(base, service, &target).map(|place| (target, place));
            return wanted.into_iter().filter_map(found).collect();
        }
        let added: Targets<Place> =
            changed.iter().filter_map(|(target, place)| Some((target.clone(), (*place)?))).collect();
        let mut found = base.select(service, names.clone());
        found.retain(|(target, _)| !changed.contains_key(target));
        found.extend(match names {
            Names::Prefix(prefixes) => covered(&added, prefixes),
            Names::Exact(_) | Names::All => added.into_iter().collect(),
        });
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found
    }
}

/// Every target that begins with one of the prefixes, once, sorted.
fn covered(targets: &Targets<Place>, mut prefixes: Vec<TargetPrefix>) -> Found {
    // a prefix within a shorter one adds nothing; after this the ranges are disjoint and in order
    prefixes.sort_unstable();
    prefixes.dedup_by(|later, earlier| earlier.covers(later.as_str()));
    let mut found = Vec::new();
    for prefix in &prefixes {
        // a prefix obeys the rules of a target, so this never fails
        let Ok(first) = Target::parse(prefix.as_str()) else { continue };
        let from = targets.range((Bound::Included(first), Bound::Unbounded));
        let within = from.take_while(|(target, _)| prefix.covers(target.as_str()));
        found.extend(within.map(|(target, place)| (target.clone(), *place)));
    }
    found
}

/// Adds or takes away one record from the sum of all: the order doesn't matter, and twice is never.
pub(super) fn toggle(sum: &mut Fingerprint, one: &Fingerprint) {
    for (to, from) in sum.iter_mut().zip(one) {
        *to ^= from;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::name::Attributes;

    fn service() -> Service {
        Service::parse("s").unwrap()
    }

    fn place(number: u8) -> Place {
        Place { at: [number; 32], nonce: [number; 24], bare: true }
    }

    fn gathered(names: &[&str]) -> Gathered {
        let mut all = Gathered::default();
        for name in names {
            let (target, attributes) = (Target::parse(name).unwrap(), Attributes::new());
            all.add(Label { service: service(), target, attributes }, [1; 32], [1; 24]);
        }
        all
    }

    fn index(names: &[&str]) -> NameIndex {
        NameIndex::build(gathered(names)).unwrap()
    }

    fn prefix(names: &[&str]) -> Names {
        Names::Prefix(names.iter().map(|name| TargetPrefix::parse(name).unwrap()).collect())
    }

    fn words(found: Found) -> Vec<String> {
        found.into_iter().map(|(target, _)| target.as_str().to_owned()).collect()
    }

    #[test]
    fn overlapping_prefixes_name_each_target_once_in_order() {
        let index = index(&["b", "a/2", "a/1", "a", "ab", "a/1/x", "c"]);
        let found = index.select(&service(), prefix(&["c", "a/", "a/1", "a/"]));
        assert_eq!(words(found), ["a/1", "a/1/x", "a/2", "c"]);
    }

    #[test]
    fn names_from_several_readers_are_one_index_and_none_may_be_there_twice() {
        let both = |one: &[&str], other: &[&str]| {
            let (mut one, mut other) = (gathered(one), gathered(other));
            one.sort();
            other.sort();
            one.append(other);
            assert_eq!(one.len(), 4);
            NameIndex::build(one)
        };
        let index = both(&["d", "a"], &["b", "c"]).unwrap();
        assert_eq!(words(index.select(&service(), Names::All)), ["a", "b", "c", "d"]);
        for (one, other) in [(["d", "a"], ["b", "d"]), (["a", "a"], ["b", "d"])] {
            assert_eq!(both(&one, &other).err(), Some(StoreError::Damaged("two records have one name")));
        }
    }

    #[test]
    fn an_overlay_is_seen_by_later_changes_of_its_group_and_by_the_index_after_it() {
        let mut index = index(&["a/1", "a/2"]);
        let mut overlay = Overlay::default();
        let target = |name: &str| Target::parse(name).unwrap();
        assert_eq!(overlay.put(&index, &service(), &target("a/1"), None), Some(place(1)));
        assert_eq!(overlay.put(&index, &service(), &target("a/0"), Some(place(2))), None);
        assert_eq!(words(overlay.select(&index, &service(), prefix(&["a/"]))), ["a/0", "a/2"]);
        assert_eq!(words(overlay.select(&index, &service(), Names::All)), ["a/0", "a/2"]);
        let exact = Names::Exact(vec![target("a/2"), target("a/1"), target("a/0")]);
        assert_eq!(words(overlay.select(&index, &service(), exact)), ["a/2", "a/0"]);
        assert_eq!(overlay.put(&index, &service(), &target("a/0"), Some(place(3))), Some(place(2)));
        index.apply(overlay);
        assert_eq!(words(index.select(&service(), Names::All)), ["a/0", "a/2"]);
        assert_eq!(index.get(&service(), &target("a/0")), Some(place(3)));
    }
}
