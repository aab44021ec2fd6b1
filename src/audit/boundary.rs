//! The record with which an epoch begins. It binds the epoch that ended: where it began and how many records it had, so
//! that one that was emptied or cut shows, and it repeats what it is chained to, so that a check can begin at it.

use std::fmt;

use data_encoding::HEXLOWER;

use super::query::RecordLine;
use crate::chain::{ChainId, Hash, Head, Mac, hex};

/// Why an epoch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// A chain of its own begins: the first ever, or after `audit seal-key`, or since the key of the one before is gone.
    NewChain,
    /// The daemon started.
    Start,
    /// The one before had its number of records.
    Full,
    /// The one before had its time.
    Age,
    /// A new file begins.
    Rotation,
    /// Something was done to the file from outside.
    Changed,
}

impl Because {
    const ALL: [Self; 6] =
        [Self::NewChain, Self::Start, Self::Full, Self::Age, Self::Rotation, Self::Changed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::NewChain => "new_chain",
            Self::Start => "start",
            Self::Full => "full",
            Self::Age => "age",
            Self::Rotation => "rotation",
            Self::Changed => "changed",
        }
    }
}

/// What the record says, in its `detail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// The chain of this epoch.
    pub chain: ChainId,
    /// Its number, from 0.
    pub epoch: u64,
    /// Why it began.
    pub because: Because,
    /// The number of the first record of the epoch that ended; 0 where none did.
    pub first: u64,
    /// How many records that epoch had.
    pub count: u64,
    /// The keyed hash of the record before.
    pub previous: Mac,
    /// The running hash before this record.
    pub digest: Hash,
}

impl Boundary {
    /// What a record says, if it is one.
    pub fn of(record: &RecordLine) -> Option<Self> {
        if record.action != "policy" || record.result != "GRANTED" {
            return None;
        }
        Self::parse(record.detail.as_deref()?)
    }

    /// The head that the record itself, with its number, is bound to.
    pub fn before(&self, seq: u64) -> Head {
        Head {
            chain: self.chain,
            epoch: self.epoch,
            seq: seq.saturating_sub(1),
            mac: self.previous,
            digest: self.digest,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut next = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        let boundary = Self {
            chain: ChainId::parse(next("chain")?)?,
            epoch: next("epoch")?.parse().ok()?,
            because: next("because")
                .and_then(|word| Because::ALL.into_iter().find(|it| it.as_str() == word))?,
            first: next("first")?.parse().ok()?,
            count: next("count")?.parse().ok()?,
            previous: hex(next("previous")?)?,
            digest: hex(next("digest")?)?,
        };
        (boundary.to_string() == text).then_some(boundary)
    }
}

/// What the last record of a chain says of the one that follows it. Without such a record, whoever has no key could end a
/// chain anywhere and go on with one of his own.
pub(super) fn announcement(ends: ChainId, next: ChainId) -> String {
    format!("chain={ends} ends, chain={next} follows")
}

/// The chain that a record announces, where it is the last one of `ends`.
pub(super) fn announced(record: &RecordLine, ends: ChainId) -> Option<ChainId> {
    if record.action != "policy" || record.result != "GRANTED" {
        return None;
    }
    let detail = record.detail.as_deref()?;
    let next =
        detail.strip_suffix(" follows")?.rsplit_once("chain=").and_then(|(_, id)| ChainId::parse(id))?;
    (announcement(ends, next) == detail).then_some(next)
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, epoch, because, first, count, previous, digest } = self;
        let (because, previous, digest) =
            (because.as_str(), HEXLOWER.encode(previous), HEXLOWER.encode(digest));
        write!(
            f,
            "chain={chain} epoch={epoch} because={because} first={first} count={count} previous={previous} digest={digest}"
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_is_read_back_and_no_other_spelling_is_one() {
        let boundary = Boundary {
            chain: ChainId::parse("0123456789abcdef").unwrap(),
            epoch: 7,
            because: Because::Full,
            first: 12,
            count: 4096,
            previous: [1; 32],
            digest: [2; 32],
        };
        let text = boundary.to_string();
        assert_eq!(Boundary::parse(&text), Some(boundary));
        for wrong in
            [format!("{text} "), format!(" {text}"), text.replace("=7", "=07"), text.replace("full", "x")]
        {
            assert_eq!(Boundary::parse(&wrong), None, "{wrong}");
        }
    }
}
