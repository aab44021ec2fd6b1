//! Whether a log is whole and unchanged: every line in its place, every epoch with the records it says it had, every
//! hash that can be checked.
//!
//! What can be checked depends on what one has. Without anything: the form of each line, the numbers, and the running
//! hash within the log, which says in which epoch something was changed. With the head that the daemon or its vault
//! knows: that the whole is what was written, and nothing is missing at the end. With the verification key of a chain:
//! each single line.
//!
//! After a finding the check goes on at the next epoch, whose first record repeats what it is chained to.

use std::{collections::BTreeMap, fmt, io};

use super::{
    archive::LogFile,
    boundary::{Boundary, announced},
    log::{REMOVED, TRUNCATED},
    query::{Line, Lines, RecordLine},
};
use crate::chain::{ChainId, Checkpoint, Hash, Head, Linked, Ratchet, VerificationKey, fits};

/// Most epochs of a chain that are gone through for a number in a line: more than a century of hours.
const MAX_EPOCHS: u64 = 1 << 20;
/// Most findings that are kept; the number of all is told.
const MAX_FINDINGS: usize = 1000;

/// What the log is compared with.
#[derive(Default)]
pub struct Witnesses {
    /// The verification key of a chain.
    pub key: Option<VerificationKey>,
    /// What the daemon or its vault knows.
    pub head: Option<Head>,
    /// The hashes at the ends of epochs that it knows.
    pub checkpoints: Vec<Checkpoint>,
}

/// What is wrong at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The line is no record: foreign, cut, or changed beyond reading.
    NoRecord,
    /// The record has no number and hash as the daemon writes them.
    Unchained,
    /// The log, or a chain that was announced, begins within an epoch: what was before this line is gone, or its first
    /// record was changed.
    Headless,
    /// Records that were before this line are missing.
    Missing {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// The record has a number that an earlier line had already: doubled, or moved.
    Repeated,
    /// The keyed hash does not fit: the record, or its place, was changed.
    Forged,
    /// Something in the epoch that ends before this line was changed.
    Changed {
        /// The first record of it.
        from: u64,
        /// The last record of it.
        to: u64,
    },
    /// The epoch that begins here does not follow the one before: epochs are missing, or from elsewhere.
    Epoch,
    /// Another chain begins, and the last record before it does not say so: its state was lost, or somebody without the
    /// key goes on with a chain of his own.
    Unannounced,
    /// The epoch that ended had another number of records than stand here.
    Count {
        /// How many there were.
        was: u64,
        /// How many stand here.
        is: u64,
    },
    /// The daemon found its file removed or emptied, and no earlier one is there.
    Removed {
        /// The last record that is missing.
        to: u64,
    },
    /// What the daemon or its vault knows of this record is something else.
    Known {
        /// The first record that may have been changed.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// The log ends before records that the daemon or its vault knows.
    Cut {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecord => f.write_str("this line is no record"),
            Self::Unchained => f.write_str("this record has no number and hash of the chain"),
            Self::Headless => f.write_str("the beginning of this epoch is missing before it, or was changed"),
            Self::Missing { from, to } if from == to => write!(f, "record {from} is missing before it"),
            Self::Missing { from, to } => write!(f, "records {from} to {to} are missing before it"),
            Self::Repeated => f.write_str("a record with this number was there already: doubled or moved"),
            Self::Forged => f.write_str("its hash does not fit: the record or its place was changed"),
            Self::Changed { from, to } => {
                write!(f, "a record between {from} and {to} was changed")
            }
            Self::Epoch => f.write_str("this epoch does not follow the one before it"),
            Self::Unannounced => f.write_str("a chain begins that the record before it does not announce"),
            Self::Count { was, is } => {
                write!(f, "the epoch that ended had {was} records, and {is} are there")
            }
            Self::Removed { to } => {
                write!(f, "what was here before was removed: records up to {to} are missing")
            }
            Self::Known { from, to } => {
                write!(
                    f,
                    "this is not the log that the daemon wrote: a record between {from} and {to} was changed"
                )
            }
            Self::Cut { from, to } if from == to => write!(f, "the log ends before record {from}"),
            Self::Cut { from, to } => write!(f, "the log ends before records {from} to {to}"),
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// Which of the files, from 0.
    pub file: usize,
    /// The line in it, from 1.
    pub line: u64,
    /// What.
    pub wrong: Wrong,
}

/// The result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Lines read.
    pub lines: u64,
    /// The number of the first chained record.
    pub first: Option<u64>,
    /// The number of the last one.
    pub last: Option<u64>,
    /// Lines before the chain began, written by a version without one. Nothing is known of them.
    pub unchained: u64,
    /// Records whose keyed hash was checked.
    pub keyed: u64,
    /// Whether the whole was compared with what the daemon or its vault knows.
    pub compared: bool,
    /// Records in which the daemon itself says that something was done to the log from outside.
    pub noticed: u64,
    /// What is wrong, in the order of the log.
    pub findings: Vec<Finding>,
    /// How much is wrong; more than the findings that are kept.
    pub wrong: u64,
}

/// Checks the files of a log, which must be in their order; `read` is told the bytes of each line. Of a log that is `live`,
/// which a daemon writes meanwhile, the last line may be half there.
pub fn verify(
    files: Vec<LogFile>,
    witnesses: Witnesses,
    live: bool,
    mut read: impl FnMut(u64),
) -> io::Result<Verdict> {
    let mut verifier = Verifier::new(witnesses);
    let last = files.len().saturating_sub(1);
    for (number, file) in files.into_iter().enumerate() {
        for line in Lines::new(file.reader) {
            let line = line?;
            // of one call that writes, a reader may see a part; what was known before is there
            if live && number == last && !line.whole && verifier.has_what_is_known() {
                break;
            }
            verifier.line(number, &line);
            read(line.bytes.len() as u64 + 1);
        }
    }
    Ok(verifier.finish())
}

/// A check, fed line by line.
pub struct Verifier {
    key: Option<(VerificationKey, Ratchet, u64)>,
    known: Option<Head>,
    checkpoints: BTreeMap<u64, Hash>,
    /// Behind the last line; none before the chain begins.
    head: Option<Head>,
    /// Whether there were chained records before the first boundary.
    headless: bool,
    /// The chain that the last record announces.
    announced: Option<ChainId>,
    /// The number before the epoch's first record.
    epoch_before: u64,
    /// Chained records of this epoch so far.
    epoch_count: u64,
    /// Whether something in this epoch is known to be wrong already.
    troubled: bool,
    /// Everything up to here is as the vault knows it, or is reported.
    settled: u64,
    place: (usize, u64),
    /// The last line before the chain.
    older: (usize, u64),
    verdict: Verdict,
}

impl Verifier {
    /// Begins a check.
    pub fn new(witnesses: Witnesses) -> Self {
        let key = witnesses.key.map(|key| {
            let first = key.first();
            (key, first, 0)
        });
        Self {
            key,
            known: witnesses.head.filter(|head| head.seq > 0),
            checkpoints: witnesses.checkpoints.iter().map(|one| (one.seq, one.digest)).collect(),
            head: None,
            headless: false,
            announced: None,
            epoch_before: 0,
            epoch_count: 0,
            troubled: false,
            settled: 0,
            place: (0, 0),
            older: (0, 0),
            verdict: Verdict::default(),
        }
    }

    fn has_what_is_known(&self) -> bool {
        self.known.is_none_or(|known| self.head.is_some_and(|head| head.seq >= known.seq))
    }

    /// Takes the next line of the file with this number.
    pub fn line(&mut self, file: usize, line: &Line) {
        self.place = (file, line.number);
        self.verdict.lines += 1;
        let Ok(record) = &line.record else { return self.wrong(Wrong::NoRecord) };
        let noticed = record.reason.as_deref() == Some("audit_log_changed");
        self.verdict.noticed += u64::from(noticed);
        let Some(linked) = Linked::of(&line.bytes) else {
            match self.head {
                None if record.mac.is_none() => {
                    self.verdict.unchained += 1;
                    self.older = self.place;
                }
                _ => self.wrong(Wrong::Unchained),
            }
            return;
        };
        // a file that was removed, or emptied, leaves no gap where it was the first
        let begins = self.verdict.first.filter(|first| first + 1 == linked.seq && *first > 1);
        if let Some(first) = begins
            && noticed
            && matches!(record.detail.as_deref(), Some(REMOVED | TRUNCATED))
        {
            self.wrong(Wrong::Removed { to: first - 1 });
        }
        self.record(record, &linked, &line.bytes);
    }

    /// The end of the last file.
    pub fn finish(mut self) -> Verdict {
        self.verdict.last = self.head.map(|head| head.seq);
        if let Some(known) = self.known {
            let last = self.head.map_or(0, |head| head.seq);
            self.place.1 += 1;
            if last < known.seq {
                self.wrong(Wrong::Cut { from: last + 1, to: known.seq });
            }
            self.verdict.compared = true;
        }
        self.verdict
    }

    fn record(&mut self, record: &RecordLine, linked: &Linked<'_>, bytes: &[u8]) {
        let boundary = Boundary::of(record);
        let Some(head) = self.head.or_else(|| boundary.map(|it| it.before(linked.seq))) else {
            // every file and every chain begins with a boundary
            if !self.headless {
                self.headless = true;
                self.wrong(Wrong::Headless);
            }
            return;
        };
        if self.head.is_none() {
            self.verdict.first = Some(linked.seq);
            self.settled = linked.seq.saturating_sub(1);
            self.epoch_before = self.settled;
            self.begins(&head);
            // a chain that goes on here has records before it, and none of a version without one
            if linked.seq > 1 && std::mem::take(&mut self.verdict.unchained) > 0 {
                self.wrong_at(self.older, Wrong::Unchained);
            }
        }
        if linked.seq <= head.seq {
            return self.wrong(Wrong::Repeated);
        }
        if linked.seq > head.seq + 1 {
            self.wrong(Wrong::Missing { from: head.seq + 1, to: linked.seq - 1 });
        }
        let before = match boundary {
            Some(boundary) => self.epoch(&boundary, &head, linked.seq),
            None => {
                // else whoever spoils the first record of a sealed chain makes it one of the chain before, without a key
                if self.announced.is_some() {
                    self.wrong(Wrong::Headless);
                }
                Head { seq: linked.seq - 1, ..head }
            }
        };
        self.announced = announced(record, before.chain);
        self.keyed(&before, linked);
        self.epoch_count += 1;
        let after = before.after(bytes, linked.seq, linked.mac);
        self.head = Some(after);
        self.compare(&after);
    }

    /// What is known must not lie before the beginning: the oldest files may be gone, and not the newest records.
    fn begins(&mut self, before: &Head) {
        let Some(known) = self.known.filter(|known| known.seq <= before.seq) else { return };
        if known.seq < before.seq || known.mac != before.mac || known.digest != before.digest {
            self.wrong(Wrong::Missing { from: known.seq, to: before.seq });
        }
    }

    /// A new epoch: compares what it says with what was read, and goes on from what it says.
    fn epoch(&mut self, boundary: &Boundary, head: &Head, seq: u64) -> Head {
        let says = boundary.before(seq);
        if self.head.is_some() {
            let follows = says.chain == head.chain && says.epoch == head.epoch + 1
                || says.chain != head.chain && says.epoch == 0;
            let (from, to) = (self.epoch_before + 1, head.seq);
            // whoever begins a chain without the state of the one before knows no more than its end
            let counts = boundary.first > 0 || says.epoch > 0;
            if !follows {
                self.wrong(Wrong::Epoch);
            } else if says.chain != head.chain && self.announced != Some(says.chain) {
                self.wrong(Wrong::Unannounced);
            } else if !self.troubled && counts && boundary.count != self.epoch_count {
                self.wrong(Wrong::Count { was: boundary.count, is: self.epoch_count });
            } else if !self.troubled && (says.digest != head.digest || says.mac != head.mac) {
                self.wrong(Wrong::Changed { from, to });
            }
        }
        self.epoch_before = says.seq;
        self.epoch_count = 0;
        self.troubled = false;
        says
    }

    fn keyed(&mut self, before: &Head, linked: &Linked<'_>) {
        let Some((key, ratchet, epoch)) = &mut self.key else { return };
        if key.chain() != before.chain {
            return;
        }
        if before.epoch >= MAX_EPOCHS {
            return self.wrong(Wrong::Epoch);
        }
        if *epoch > before.epoch {
            // back to the beginning: somebody put an earlier epoch behind a later one
            (*ratchet, *epoch) = (key.first(), 0);
        }
        while *epoch < before.epoch {
            *ratchet = ratchet.next();
            *epoch += 1;
        }
        let fit = fits(ratchet, before, linked);
        self.verdict.keyed += 1;
        if !fit {
            self.wrong(Wrong::Forged);
        }
    }

    /// Compares the log so far with what the vault knows of it.
    fn compare(&mut self, head: &Head) {
        let checkpoint = self.checkpoints.get(&head.seq).copied();
        let known = self.known.filter(|known| known.seq == head.seq);
        if checkpoint.is_none() && known.is_none() {
            return;
        }
        let mut told = checkpoint.into_iter().chain(known.map(|known| known.digest));
        let same = told.all(|digest| digest == head.digest);
        let whole = same && known.is_none_or(|known| known.mac == head.mac);
        if !whole {
            self.wrong(Wrong::Known { from: self.settled + 1, to: head.seq });
        }
        self.settled = head.seq;
    }

    fn wrong(&mut self, wrong: Wrong) {
        self.wrong_at(self.place, wrong);
    }

    fn wrong_at(&mut self, (file, line): (usize, u64), wrong: Wrong) {
        self.troubled = true;
        self.verdict.wrong += 1;
        if self.verdict.findings.len() < MAX_FINDINGS {
            self.verdict.findings.push(Finding { file, line, wrong });
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
