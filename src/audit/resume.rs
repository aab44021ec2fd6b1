//! Where the chain stands in a log that is opened: the end of what fits the saved key, and what speaks against the rest.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufReader},
};

use super::{
    boundary::Boundary,
    query::{Lines, RecordLine},
    tail::{Backward, ReadFrom},
};
use crate::chain::{Epoch, Head, Linked, Ratchet, VerificationKey, fits};

/// Most records of an epoch: so many are looked back at when a log is opened, and so exact is a check without a key.
pub const EPOCH_RECORDS: u64 = 4096;
/// How far the beginning of the last epoch is searched, in lines, some of which others may have added.
const REACH: u64 = 2 * EPOCH_RECORDS;
/// Most epochs between the saved key and the log. Beyond it, somebody wrote a number.
const MAX_AHEAD: u64 = 1 << 16;

/// Where the chain goes on.
pub(super) struct Resumed {
    pub(super) epoch: Epoch,
    pub(super) head: Head,
    /// Whether the first record of the epoch is in the log.
    pub(super) begun: bool,
    /// What is to be recorded before anything else.
    pub(super) findings: Vec<Cow<'static, str>>,
}

/// A chain of its own, behind the records of another one if there are any; the last epoch of that began with the record
/// `previous`.
pub(super) fn begin(key: &VerificationKey, before: Head, previous: u64, now: i64) -> Resumed {
    let before = Head { chain: key.chain(), epoch: 0, ..before };
    let epoch = Epoch { ratchet: key.first(), before, previous, began: now };
    Resumed { epoch, head: before, begun: false, findings: Vec::new() }
}

/// Finds the end of the chain in the first `whole` bytes of the file.
///
/// `earlier` finds the head's hash in the file before this one, if it ends with a record: asked only where this one has none,
/// since a packed file has to be unpacked for it. `known` is what the vault knows.
pub(super) fn resume(
    file: &File,
    whole: u64,
    earlier: impl FnOnce() -> Option<[u8; 32]>,
    saved: Epoch,
    known: &Head,
) -> io::Result<Resumed> {
    let mut resumed = match last_epoch(file, whole, &saved)? {
        Some((start, epoch)) => walk(file, start, whole, epoch, &saved, known)?,
        None => unbegun(file, whole, earlier, saved)?,
    };
    if known.seq > resumed.head.seq {
        let from = resumed.head.seq + 1;
        resumed.findings.push(format!("records {from} to {} are missing", known.seq).into());
        resumed.jump(known);
    }
    Ok(resumed)
}

impl Resumed {
    /// Goes on behind records that are gone, as they were when the vault knew them.
    fn jump(&mut self, known: &Head) {
        let ahead = known.epoch.saturating_sub(self.epoch.before.epoch);
        if known.chain == self.head.chain && ahead > 0 && ahead < MAX_AHEAD {
            self.epoch.ratchet = advanced(&self.epoch.ratchet, ahead);
            self.epoch.before = Head { epoch: known.epoch, ..self.head };
        }
        self.head = Head { chain: self.head.chain, epoch: self.epoch.before.epoch, ..*known };
        // an epoch whose beginning is gone is not begun a second time
        self.begun = true;
    }
}

/// The beginning of the last epoch in the file that the saved key, or one that follows from it, has written.
fn last_epoch(file: &File, whole: u64, saved: &Epoch) -> io::Result<Option<(u64, Epoch)>> {
    let mut lines = Backward::new(file, whole);
    for _ in 0..REACH {
        let Some((start, line)) = lines.next()? else { break };
        let Some((boundary, linked)) = boundary(&line) else { continue };
        let ahead = boundary.epoch.checked_sub(saved.before.epoch).filter(|ahead| *ahead < MAX_AHEAD);
        let Some(ahead) = ahead.filter(|_| boundary.chain == saved.before.chain) else { continue };
        let ratchet = advanced(&saved.ratchet, ahead);
        let before = boundary.before(linked.seq);
        if fits(&ratchet, &before, &linked) {
            let epoch = Epoch { ratchet, before, previous: boundary.first, began: saved.began };
            return Ok(Some((start, epoch)));
        }
    }
    Ok(None)
}

fn boundary(line: &[u8]) -> Option<(Boundary, Linked<'_>)> {
    let linked = Linked::of(line)?;
    Some((Boundary::of(&RecordLine::parse(line).ok()?)?, linked))
}

/// Goes along the records of the epoch from its first one.
fn walk(
    file: &File,
    start: u64,
    whole: u64,
    epoch: Epoch,
    saved: &Epoch,
    known: &Head,
) -> io::Result<Resumed> {
    let mut findings = Vec::new();
    if epoch.before.epoch == saved.before.epoch && epoch.before != saved.before {
        findings.push("the epoch began elsewhere than the saved state says".into());
    }
    let mut head = epoch.before;
    let reader = BufReader::new(ReadFrom { file, at: start });
    for line in Lines::new(io::Read::take(reader, whole - start)) {
        let line = line?;
        let linked = Linked::of(&line.bytes);
        match linked.filter(|it| it.seq == head.seq + 1 && fits(&epoch.ratchet, &head, it)) {
            Some(linked) => head = head.after(&line.bytes, linked.seq, linked.mac),
            None => {
                let from = head.seq + 1;
                findings.push(format!("what stands behind record {} was written by others", from - 1).into());
                break;
            }
        }
        if head.seq == known.seq && head.mac != known.mac {
            findings.push(format!("record {} is not the one that the vault knows", head.seq).into());
        }
    }
    Ok(Resumed { epoch, head, begun: true, findings })
}

/// An epoch that was saved and has no record here: the crash came between the two, or its records are gone.
fn unbegun(
    file: &File,
    whole: u64,
    earlier: impl FnOnce() -> Option<[u8; 32]>,
    saved: Epoch,
) -> io::Result<Resumed> {
    let last = Backward::new(file, whole).next()?;
    let last = match &last {
        Some((_, line)) => Linked::of(line).map(|linked| linked.mac),
        None => earlier(),
    };
    let head = saved.before;
    let whole = last.unwrap_or_default() == head.mac;
    let findings = match whole {
        true => Vec::new(),
        false => vec![format!("the records from {} on are not there", head.seq + 1).into()],
    };
    Ok(Resumed { epoch: saved, head, begun: !whole, findings })
}

fn advanced(ratchet: &Ratchet, steps: u64) -> Ratchet {
    let mut key = Ratchet::from_sealed(ratchet.expose());
    for _ in 0..steps {
        key = key.map(|key| key.next());
    }
    // a key has its length
    key.unwrap_or_else(|| ratchet.next())
}
