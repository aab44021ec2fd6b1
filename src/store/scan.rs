//! Reading all labels of a vault, which is most of what a start takes.

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    ops::Bound,
    thread::{self, ScopedJoinHandle},
};

use super::{
    batch::StoreError,
    disk::{Records, failed},
    keychain::StoreKind,
    names::{Gathered, toggle},
    seal::{Fingerprint, RecordKey, Sealer, has_value},
};
use crate::secret::{Buffer, wipe_stack};

/// From how many records on other threads help.
const WORTH_SHARING: u64 = 2000;

/// How many threads read labels before the process is caged: as many as there are processors, within reason.
pub(super) fn readers() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get).min(8)
}

/// What the labels of a vault say.
#[derive(Default)]
pub(super) struct Scanned {
    pub(super) all: Gathered,
    pub(super) sum: Fingerprint,
    /// Records whose value the keychain does not have yet.
    pub(super) waiting: BTreeSet<RecordKey>,
}

/// Reads every label. `readers` share them, each a thread but the first, which is the caller's: a caged process can make no
/// threads. `count` says about how many there are.
pub(super) fn scan(
    records: &Records,
    count: u64,
    sealer: &Sealer,
    store: StoreKind,
    readers: usize,
) -> Result<Scanned, StoreError> {
    let readers = if count < WORTH_SHARING { 1 } else { readers };
    // places begin with hashes: equal shares of the places are equal shares of the work
    let bound = |share: usize| u8::try_from(share * 256 / readers).ok().map(first_at);
    let read = |share: usize| {
        let scanned = scan_share(records, bound(share), bound(share + 1), sealer, store);
        // once for all labels: beneath 100,000 of them it would cost as much as opening them
        wipe_stack();
        scanned
    };
    let read = &read;
    thread::scope(|scope| {
        let others: Vec<_> = (1..readers)
            .map(|share| (share, thread::Builder::new().spawn_scoped(scope, move || read(share))))
            .collect();
        let mut whole = read(0)?;
        for (share, other) in others {
            let part = match other.map(ScopedJoinHandle::join) {
                Ok(Ok(part)) => part?,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                // there was no room for another thread
                Err(_) => read(share)?,
            };
            whole.add(part);
        }
        Ok(whole)
    })
}

/// The labels of the records from one place up to before another, or to the end. Leaves the stack to be wiped.
#[inline(never)]
fn scan_share(
    records: &Records,
    from: Option<RecordKey>,
    to: Option<RecordKey>,
    sealer: &Sealer,
    store: StoreKind,
) -> Result<Scanned, StoreError> {
    let mut scanned = Scanned::default();
    let (mut plain, fingerprints) = (Buffer::default(), sealer.fingerprints());
    let from = from.as_ref().map_or(Bound::Unbounded, Bound::Included);
    let to = to.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    for entry in records.range::<&RecordKey>((from, to)).map_err(failed)? {
        let (at, sealed) = entry.map_err(failed)?;
        let at = *at.value();
        let read = sealer.read_label_in(&mut plain, &at, sealed.value());
        let (label, nonce) = read.map_err(|_| StoreError::Damaged("a record was changed"))?;
        toggle(&mut scanned.sum, &fingerprints.of(&at, &nonce));
        if store == StoreKind::Keychain && has_value(sealed.value()) {
            scanned.waiting.insert(at);
        }
        scanned.all.add(label, at, nonce);
    }
    scanned.all.sort();
    Ok(scanned)
}

/// The first place that begins with this byte.
fn first_at(byte: u8) -> RecordKey {
    let mut place = RecordKey::default();
    if let Some(first) = place.first_mut() {
        *first = byte;
    }
    place
}

impl Scanned {
    fn add(&mut self, mut part: Self) {
        self.all.append(part.all);
        toggle(&mut self.sum, &part.sum);
        self.waiting.append(&mut part.waiting);
    }
}
