//! Where records lie beside each other.
//!
//! A record that is written alone lies under its keyed hash. Those that are written with one batch lie where the first of
//! them does, in groups of [`TOGETHER`]: a tool that writes or reads the same hundred names again changes or reads ten pages,
//! not a hundred. A place is a group and what follows in the record's own hash, so that two names never share one, and
//! nothing tells their order.

use super::seal::RecordKey;

/// How many records of a batch lie together: some five pages of small ones. More would gain little, and a later batch of some
/// of them would be as scattered as before.
pub(super) const TOGETHER: usize = 64;
/// Bytes of a place that all records of a group share: the first of the hash of the record that began it.
const GROUP: usize = 8;

/// What is left of a record's own hash in its place, wherever that is.
pub(super) type NamePart = [u8; 32 - GROUP];

/// Whether two records lie in one group.
pub(super) fn together(one: &RecordKey, other: &RecordKey) -> bool {
    one.first_chunk::<GROUP>() == other.first_chunk()
}

/// The place of a record with this hash in the group in which `first` lies.
pub(super) fn beside(first: &RecordKey, hash: &RecordKey) -> RecordKey {
    let mut at = *hash;
    for (to, from) in at.iter_mut().zip(first.iter().take(GROUP)) {
        *to = *from;
    }
    at
}

/// The part of the hash that a place has kept.
pub(super) fn name_part(at: &RecordKey) -> NamePart {
    at.last_chunk().copied().unwrap_or_default()
}
