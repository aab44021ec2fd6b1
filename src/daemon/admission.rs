//! Who may stay connected: bounded in all, per registered executable and per stranger, and when there is no room the
//! oldest connection that has said nothing valid goes first, so that idle strangers lock nobody out.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use crate::wire::limits::{MAX_PER_REGISTERED, MAX_PER_STRANGER};

/// The open connections. `C` closes one of them.
pub(super) struct Admission<C> {
    capacity: usize,
    last: u64,
    open: BTreeMap<u64, Slot<C>>,
    by_executable: HashMap<Rc<str>, usize>,
}

struct Slot<C> {
    close: Option<C>,
    proven: bool,
    executable: Option<Rc<str>>,
}

/// One executable has as many connections as it may have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl<C> Admission<C> {
    /// Room for `capacity` connections.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), last: 0, open: BTreeMap::new(), by_executable: HashMap::new() }
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// The connection that must go before another can come; None while there is room.
    ///
    /// `Err` when every connection has proven itself.
    pub(super) fn displaced(&mut self) -> Result<Option<C>, TooMany> {
        if self.open.len() < self.capacity {
            return Ok(None);
        }
        self.oldest_unproven().map(Some).ok_or(TooMany)
    }

    /// Takes the oldest connection that has said nothing valid out of the table.
    pub(super) fn oldest_unproven(&mut self) -> Option<C> {
        let oldest = self.open.iter().find(|(_, slot)| !slot.proven).map(|(id, _)| *id)?;
        self.remove(oldest)
    }

    /// Admits a connection and names it.
    pub(super) fn admit(&mut self) -> u64 {
        self.last += 1;
        self.open.insert(self.last, Slot { close: None, proven: false, executable: None });
        self.last
    }

    /// Says how an admitted connection is closed.
    pub(super) fn closed_by(&mut self, id: u64, close: C) {
        if let Some(slot) = self.open.get_mut(&id) {
            slot.close = Some(close);
        }
    }

    /// Counts a connection to its executable, once.
    pub(super) fn identify(&mut self, id: u64, executable: &str, registered: bool) -> Result<(), TooMany> {
        let Some(slot) = self.open.get_mut(&id) else { return Ok(()) };
        if slot.executable.as_deref() == Some(executable) {
            return Ok(());
        }
        let limit = if registered { MAX_PER_REGISTERED } else { MAX_PER_STRANGER };
        if self.by_executable.get(executable).is_some_and(|count| *count >= limit) {
            return Err(TooMany);
        }
        let executable: Rc<str> = executable.into();
        *self.by_executable.entry(Rc::clone(&executable)).or_default() += 1;
        if let Some(earlier) = slot.executable.replace(executable) {
            self.forget(&earlier);
        }
        Ok(())
    }

    /// Says that a connection has sent a valid request of a registered caller: it is not displaced any more.
    pub(super) fn prove(&mut self, id: u64) {
        if let Some(slot) = self.open.get_mut(&id) {
            slot.proven = true;
        }
    }

    /// Forgets a connection that has ended.
    pub(super) fn remove(&mut self, id: u64) -> Option<C> {
        let slot = self.open.remove(&id)?;
        if let Some(executable) = slot.executable {
            self.forget(&executable);
        }
        slot.close
    }

    fn forget(&mut self, executable: &str) {
        if let Some(count) = self.by_executable.get_mut(executable) {
            *count -= 1;
            if *count == 0 {
                self.by_executable.remove(executable);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oldest_connection_that_has_said_nothing_valid_is_displaced_and_proven_ones_never() {
        let mut admission = Admission::new(3);
        for name in ["first", "second", "third"] {
            assert_eq!(admission.displaced(), Ok(None));
            let id = admission.admit();
            admission.closed_by(id, name);
        }
        admission.prove(1);
        assert_eq!(admission.displaced(), Ok(Some("second")));
        assert_eq!(admission.len(), 2);
        admission.prove(3);
        assert_eq!(admission.displaced(), Ok(None), "there is room again");
        let id = admission.admit();
        admission.prove(id);
        assert_eq!(admission.displaced(), Err(TooMany));
    }

    #[test]
    fn one_stranger_has_64_connections_and_another_is_not_hindered() {
        let mut admission: Admission<()> = Admission::new(2048);
        let ids: Vec<u64> = (0..=MAX_PER_STRANGER).map(|_| admission.admit()).collect();
        for id in &ids[..MAX_PER_STRANGER] {
            assert_eq!(admission.identify(*id, "/a", false), Ok(()));
            assert_eq!(admission.identify(*id, "/a", false), Ok(()), "counted once");
        }
        assert_eq!(admission.identify(ids[MAX_PER_STRANGER], "/a", false), Err(TooMany));
        assert_eq!(admission.identify(ids[MAX_PER_STRANGER], "/b", false), Ok(()));
        admission.remove(ids[0]);
        assert_eq!(admission.identify(admission.last, "/a", false), Ok(()));
        for id in ids {
            admission.remove(id);
        }
        assert!(admission.by_executable.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Come,
        Identify(usize, u8, bool),
        Prove(usize),
        Leave(usize),
    }

    /// A connection as the model has it.
    struct Known {
        id: u64,
        executable: Option<String>,
        proven: bool,
    }

    fn step() -> impl Strategy<Value = Step> {
        let which = 0..400_usize;
        prop_oneof![
            4 => Just(Step::Come),
            4 => (which.clone(), 0..3_u8, any::<bool>()).prop_map(|(at, who, known)| Step::Identify(at, who, known)),
            1 => which.clone().prop_map(Step::Prove),
            1 => which.prop_map(Step::Leave),
        ]
    }

    proptest! {
        #[test]
        fn no_order_of_events_exceeds_a_limit_or_displaces_who_has_proven_himself(
            capacity in 1..200_usize, steps in proptest::collection::vec(step(), 1..600),
        ) {
            let mut admission = Admission::new(capacity);
            // oldest first
            let mut open: Vec<Known> = Vec::new();
            for step in steps {
                let count = open.len();
                match step {
                    Step::Come => {
                        let expected = match open.iter().position(|one| !one.proven) {
                            _ if count < capacity => Ok(None),
                            Some(oldest) => Ok(Some(open.remove(oldest).id)),
                            None => Err(TooMany),
                        };
                        let comes = expected.is_ok();
                        prop_assert_eq!(admission.displaced(), expected);
                        if comes {
                            let id = admission.admit();
                            admission.closed_by(id, id);
                            open.push(Known { id, executable: None, proven: false });
                        }
                    }
                    Step::Identify(at, who, registered) if count > 0 => {
                        let name = format!("/{who}");
                        let same = |one: &Known| one.executable.as_deref() == Some(&*name);
                        let limit = if registered { MAX_PER_REGISTERED } else { MAX_PER_STRANGER };
                        let fits = same(&open[at % count]) || open.iter().filter(|one| same(one)).count() < limit;
                        prop_assert_eq!(admission.identify(open[at % count].id, &name, registered).is_ok(), fits);
                        if fits {
                            open[at % count].executable = Some(name);
                        }
                    }
                    Step::Prove(at) if count > 0 => {
                        admission.prove(open[at % count].id);
                        open[at % count].proven = true;
                    }
                    Step::Leave(at) if count > 0 => {
                        let gone = open.remove(at % count).id;
                        prop_assert_eq!(admission.remove(gone), Some(gone));
                    }
                    _ => {}
                }
                prop_assert_eq!(admission.len(), open.len());
                prop_assert!(admission.len() <= capacity);
            }
        }
    }
}
