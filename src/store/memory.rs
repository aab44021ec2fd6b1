//! The store in memory: what a store does, in its plainest form. The vault is tested against it.

use secrecy::ExposeSecret;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    batch::{
        Answer, AuditMemory, Change, Committed, MAX_REMOVED, Names, Outbox, OutboxEntry, PendingChange,
        Query, Record, Selection, Store, StoreError, WriteItem,
    },
    keychain::StoreKind,
};
use crate::{
    chain::{Checkpoint, Head},
    name::{Attributes, Service, Target},
    policy::Authorized,
    secret::{Buffer, SecretValue},
};

struct Stored {
    attributes: Attributes,
    value: SecretValue,
}

struct State {
    records: BTreeMap<Service, BTreeMap<Target, Stored>>,
    outbox: BTreeMap<u64, Vec<u8>>,
    next_line: u64,
    settled: u64,
    audit: AuditMemory,
}

/// A store that is gone with its process. Wiped on drop.
pub struct Memory(Mutex<State>);

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self(Mutex::new(State {
            records: BTreeMap::new(),
            outbox: BTreeMap::new(),
            next_line: 1,
            settled: 0,
            audit: AuditMemory::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn names(&self, selection: &Selection) -> Vec<Target> {
        let Some(all) = self.records.get(&selection.service) else { return Vec::new() };
        let satisfies = |target: &&Target| {
            all.get(*target).is_some_and(|stored| stored.attributes.satisfy(&selection.filter))
        };
        match &selection.names {
            Names::Exact(targets) => targets.iter().filter(satisfies).cloned().collect(),
            Names::All => all.keys().filter(satisfies).cloned().collect(),
            Names::Prefix(prefixes) => {
                let covered = |target: &&Target| prefixes.iter().any(|prefix| prefix.covers(target.as_str()));
                all.keys().filter(covered).filter(satisfies).cloned().collect()
            }
        }
    }

    fn apply(&mut self, pending: PendingChange) -> Result<Committed, StoreError> {
        let (touched, removed) = match pending.change.into_inner() {
            Change::Write { service, items, attributes } => {
                let targets = self.records.entry(service).or_default();
                let mut touched = Vec::with_capacity(items.len());
                for WriteItem { target, value } in items {
                    touched.push(target.clone());
                    targets.insert(target, Stored { attributes: attributes.clone(), value });
                }
                (touched, false)
            }
            Change::Delete(selection) => {
                let touched = self.names(&selection);
                if touched.len() > MAX_REMOVED {
                    return Err(StoreError::TooLarge);
                }
                if let Some(targets) = self.records.get_mut(&selection.service) {
                    for target in &touched {
                        targets.remove(target);
                    }
                }
                (touched, true)
            }
        };
        let entry = OutboxEntry { id: self.next_line, line: (pending.record)(&touched) };
        self.next_line += 1;
        self.outbox.insert(entry.id, entry.line.clone());
        let named = |target| Record { target, value: None, attributes: Attributes::new() };
        let records = if removed { touched.into_iter().map(named).collect() } else { Vec::new() };
        Ok(Committed::changed(records, entry))
    }
}

impl Store for Memory {
    fn read(&self, query: Authorized<Query>) -> Result<Committed, StoreError> {
        let Query { selection, values } = query.into_inner();
        let state = self.state();
        let mut answer = Answer::default();
        for target in state.names(&selection) {
            let stored = state.records.get(&selection.service).and_then(|targets| targets.get(&target));
            let Some(stored) = stored else { continue };
            let copy = || SecretValue::from_buffer(Buffer::from(stored.value.expose_secret().as_bytes()));
            let value = if values { copy() } else { None };
            answer.push(Record { target, value, attributes: stored.attributes.clone() })?;
        }
        Ok(answer.finish())
    }

    fn commit(&self, changes: Vec<PendingChange>) -> Vec<Result<Committed, StoreError>> {
        let mut state = self.state();
        if !changes.is_empty() {
            let settled = state.settled;
            state.outbox.retain(|id, _| *id > settled);
        }
        changes.into_iter().map(|change| state.apply(change)).collect()
    }

    fn outbox(&self) -> Result<Outbox, StoreError> {
        let state = self.state();
        let waiting = state.outbox.iter().filter(|(id, _)| **id > state.settled);
        let lines = waiting.map(|(id, line)| OutboxEntry { id: *id, line: line.clone() }).collect();
        Ok(Outbox { lines, last: state.next_line - 1 })
    }

    fn settle(&self, id: u64) {
        let mut state = self.state();
        state.settled = state.settled.max(id);
    }

    fn kind(&self) -> StoreKind {
        StoreKind::Vault
    }

    fn carry(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn waiting(&self) -> usize {
        0
    }

    fn note_audit(&self, head: Head, ended: Option<Checkpoint>) {
        let audit = &mut self.state().audit;
        audit.head = head;
        audit.checkpoints.extend(ended);
    }

    fn keep_audit(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn audit_memory(&self) -> Result<AuditMemory, StoreError> {
        Ok(self.state().audit.clone())
    }
}
