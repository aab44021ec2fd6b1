//! Where records lie beside each other.
//!
//! A record that is written alone lies under its keyed hash. Those that are written with one batch lie where the first of
//! them does, one behind the other, in groups of [`TOGETHER`]: a tool that writes or reads the same hundred names again
//! changes or reads ten pages, not a hundred. A place is a group, a position within it, and a part of the record's own hash, so that two names never share
//! one.

use super::seal::RecordKey;

/// How many records of a batch lie together: some five pages of small ones. More would gain little, and a later batch of some
/// of them would be as scattered as before.
pub(super) const TOGETHER: u32 = 64;
/// Bytes of a place that all records of a group share: the first of the hash of the record that began it.
const GROUP: usize = 8;
/// Bytes of the position.
const POSITION: usize = size_of::<u32>();

/// What is left of a record's own hash in its place, wherever that is.
pub(super) type NamePart = [u8; 32 - GROUP - POSITION];

/// Whether two records lie in one group.
pub(super) fn together(one: &RecordKey, other: &RecordKey) -> bool {
    one.first_chunk::<GROUP>() == other.first_chunk()
}

/// The place of a record with this hash at the position `position` of the group in which `first` lies.
pub(super) fn beside(first: &RecordKey, position: u32, hash: &RecordKey) -> RecordKey {
    let mut at = *hash;
    let position = position.to_be_bytes();
    let head = first.iter().take(GROUP).chain(&position);
    for (to, from) in at.iter_mut().zip(head) {
        *to = *from;
    }
    at
}

/// The position of a place within its group.
pub(super) fn position(at: &RecordKey) -> u32 {
    let rest = at.last_chunk::<{ 32 - GROUP }>();
    rest.and_then(|rest| rest.first_chunk().copied()).map_or(0, u32::from_be_bytes)
}

/// The part of the hash that a place has kept.
pub(super) fn name_part(at: &RecordKey) -> NamePart {
    at.last_chunk().copied().unwrap_or_default()
}
