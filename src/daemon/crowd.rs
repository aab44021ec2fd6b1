//! Short answers that are ready together and leave together: a client that sleeps has to be woken for an answer, which takes
//! longer than to make it, and one process often has many connections.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Answers to different connections that are no further apart come from one look of the event loop.
const AT_ONCE: Duration = Duration::from_micros(100);
/// Longest answer that waits for others.
const SHORT: usize = 16 * 1024;
/// Most bytes that wait, over all connections: a small part of the locked memory, which they lie in.
const MOST: usize = 256 * 1024;

/// The connection that was answered last and when, and what waits.
#[derive(Default)]
pub(super) struct Crowd {
    last: Cell<Option<(u64, Instant)>>,
    waiting: Cell<usize>,
}

/// An answer that waits for those of others.
pub(super) struct Waiting<'a> {
    crowd: &'a Crowd,
    length: usize,
}

impl Crowd {
    /// Notes that a connection has an answer of so many bytes now. None where it should leave at once.
    pub(super) fn join(&self, id: u64, length: usize, now: Instant) -> Option<Waiting<'_>> {
        let before = self.last.replace(Some((id, now)));
        let crowded =
            before.is_some_and(|(other, at)| other != id && now.saturating_duration_since(at) < AT_ONCE);
        let together = self.waiting.get() + length;
        if !crowded || length > SHORT || together > MOST {
            return None;
        }
        self.waiting.set(together);
        Some(Waiting { crowd: self, length })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.crowd.waiting.set(self.crowd.waiting.get() - self.length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_answer_right_after_another_connections_waits_for_others() {
        let crowd = Crowd::default();
        let now = Instant::now();
        assert!(crowd.join(1, 100, now).is_none(), "the first");
        assert!(crowd.join(1, 100, now).is_none(), "the same again");
        assert!(crowd.join(2, SHORT + 1, now).is_none(), "a long one");
        assert!(crowd.join(1, SHORT, now).is_some());
        assert!(crowd.join(2, 100, now + AT_ONCE).is_none(), "long after");
    }

    #[test]
    fn what_waits_is_bounded_over_all_connections() {
        let crowd = Crowd::default();
        let now = Instant::now();
        let waiting: Vec<_> = (0..200).filter_map(|id| crowd.join(id, SHORT, now)).collect();
        assert_eq!(waiting.len(), MOST / SHORT);
        drop(waiting);
        assert!(crowd.join(1, SHORT, now).is_some());
    }
}
