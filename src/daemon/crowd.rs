//! Whether several clients ask at once.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Answers to different connections that are no further apart come from one look of the event loop.
const AT_ONCE: Duration = Duration::from_micros(100);
/// Longest reply that waits for others: what hundreds of them hold is nothing beside what one request may ask for.
const SHORT: usize = 16 * 1024;

/// The connection that was answered last, and when.
#[derive(Default)]
pub(super) struct Crowd(Cell<Option<(u64, Instant)>>);

impl Crowd {
    /// Notes that a connection has an answer of so many bytes. True where it should leave together with those of other
    /// connections: a client that sleeps has to be woken for an answer, which takes longer than to make it, and one
    /// process often has many connections.
    pub(super) fn shares(&self, id: u64, length: usize) -> bool {
        let now = Instant::now();
        let before = self.0.replace(Some((id, now)));
        let crowded = before.is_some_and(|(other, at)| other != id && now.duration_since(at) < AT_ONCE);
        crowded && length <= SHORT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_answer_right_after_another_connections_waits_for_others() {
        let crowd = Crowd::default();
        assert!(!crowd.shares(1, 100), "the first");
        assert!(!crowd.shares(1, 100), "the same again");
        crowd.0.set(Some((1, Instant::now() + AT_ONCE)));
        assert!(!crowd.shares(2, SHORT + 1), "a long one");
        crowd.0.set(Some((1, Instant::now() + AT_ONCE)));
        assert!(crowd.shares(2, SHORT));
        let Some(before) = Instant::now().checked_sub(AT_ONCE * 2) else { return };
        crowd.0.set(Some((1, before)));
        assert!(!crowd.shares(2, 100), "long after");
    }
}
