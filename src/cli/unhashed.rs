//! Strangers whose record has no hash, since they were refused before anybody hashed them: the queue tells it a moment
//! later. Only what it noted after the record counts, and hash and process are always those of one sighting.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    audit::RecordLine,
    policy::{Pending, PendingQueue},
};

/// How long the queue is looked at for one: the daemon's second, and what hashing a large program takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most paths at one time: as many as the queue holds.
const MOST: usize = 128;

/// What the queue knows of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sighted {
    pub(super) pid: u32,
    pub(super) hash: String,
}

/// Records that wait for their hash, the first of each path.
#[derive(Default)]
pub(super) struct Unhashed(HashMap<String, Waiting>);

struct Waiting {
    record: RecordLine,
    /// Whether the record itself is told or counted already, and only its hash is wanted.
    told: bool,
    begun: Instant,
}

impl Sighted {
    /// What belongs to the record: its process, else the latest that came from its path since. The daemon keeps one
    /// sighting of a path in a second.
    pub(super) fn own(queue: &PendingQueue, record: &RecordLine) -> Option<Self> {
        let since = || since(queue, record);
        let own = since().find(|one| one.sighting().pid == record.pid);
        own.or_else(|| since().max_by_key(|one| one.last_seen())).map(Self::of)
    }

    fn of(one: &Pending) -> Self {
        Self { pid: one.sighting().pid, hash: one.sighting().digest.to_string() }
    }

    /// Lets the record speak of this sighting.
    pub(super) fn fill(self, record: &mut RecordLine) {
        record.pid = self.pid;
        record.binary_hash = self.hash;
    }
}

impl Unhashed {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for the hash of a record; `told` where the record itself needs no notice any more.
    pub(super) fn note(&mut self, record: &RecordLine, told: bool) {
        if self.0.len() < MOST {
            let waiting = || Waiting { record: record.clone(), told, begun: Instant::now() };
            self.0.entry(record.binary_path.clone()).or_insert_with(waiting);
        }
    }

    /// The hashes that were only wanted, as far as the queue has them now.
    pub(super) fn own(&mut self, queue: &PendingQueue) -> Vec<(RecordLine, Sighted)> {
        let own = |waiting: &mut Waiting| {
            let sighted = Sighted::own(queue, &waiting.record).filter(|_| waiting.told)?;
            waiting.told = false;
            Some((waiting.record.clone(), sighted))
        };
        self.0.values_mut().filter_map(own).collect()
    }

    /// The hash of the record is known.
    pub(super) fn settle(&mut self, record: &RecordLine) {
        if let Some(waiting) = self.0.get_mut(&record.binary_path) {
            waiting.told = false;
        }
    }

    /// All that came from the paths since, but where the record's own hash is not there yet.
    pub(super) fn others(&self, queue: &PendingQueue) -> Vec<(RecordLine, Sighted)> {
        let settled = self.0.values().filter(|waiting| !waiting.told);
        let all = settled.flat_map(|Waiting { record, .. }| {
            since(queue, record).map(|one| (record.clone(), Sighted::of(one)))
        });
        all.collect()
    }

    pub(super) fn expire(&mut self) {
        self.0.retain(|_, waiting| waiting.begun.elapsed() < PATIENCE);
    }
}

fn since<'q>(queue: &'q PendingQueue, record: &RecordLine) -> impl Iterator<Item = &'q Pending> {
    let (path, when) = (record.binary_path.clone(), record.when());
    let after = move |seen: Timestamp| when.is_some_and(|when| seen >= when);
    queue.iter().filter(move |one| one.sighting().path.to_str() == Some(&path) && after(one.last_seen()))
}
