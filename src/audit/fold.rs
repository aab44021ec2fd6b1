//! Folding of floods: beyond so many a minute, refusals of one stranger for one reason share a record, so that they can
//! neither bury what else happens nor fill the disk. Nothing that was granted, and nothing of a registered program, ever
//! comes here.
//!
//! Pure: the time is an argument.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::record::Event;

/// So many refusals of one stranger for one reason have a record of their own within [`SPAN`].
pub const FOLD_BEYOND: u64 = 100;
/// So many of all strangers together have.
const ALL_BEYOND: u64 = 1000;
/// The span over which is counted.
const SPAN: Duration = Duration::from_secs(60);
/// How long refusals are gathered in one record.
pub const FOLD_PERIOD: Duration = Duration::from_secs(10);
/// Most strangers and reasons that are told apart at one time: whoever copies himself under a thousand names is one.
const MOST: usize = 64;

/// Who was refused, and why. Callers that nobody has looked at have an empty path, and are one stranger.
type Key = (String, &'static str);

/// The refusals of strangers that were counted or gathered lately.
#[derive(Debug, Default)]
pub(super) struct Fold {
    counts: BTreeMap<Key, Count>,
    all: Count,
}

#[derive(Debug, Default)]
struct Count {
    since: Option<Instant>,
    count: u64,
    gathered: Option<Gathered>,
}

#[derive(Debug)]
struct Gathered {
    since: Instant,
    last: Event,
    count: u64,
}

impl Fold {
    /// Whether this refusal is gathered with others; otherwise it is to be written now.
    pub(super) fn gathers(&mut self, event: &Event, now: Instant) -> bool {
        let crowded = self.all.counted(now) > ALL_BEYOND;
        let path = event.binary_path.to_string_lossy().into_owned();
        let mut key = (path, event.reason.unwrap_or_default());
        if self.counts.len() >= MOST && !self.counts.contains_key(&key) {
            self.counts.retain(|_, count| count.gathered.is_some() || !count.is_over(now));
            if self.counts.len() >= MOST {
                key.0.clear();
            }
        }
        let count = self.counts.entry(key).or_default();
        if count.counted(now) <= FOLD_BEYOND && !crowded && count.gathered.is_none() {
            return false;
        }
        let gathered =
            count.gathered.get_or_insert_with(|| Gathered { since: now, last: event.clone(), count: 0 });
        gathered.count += 1;
        gathered.last = event.clone();
        true
    }

    /// The records of what was gathered long enough, or of everything.
    pub(super) fn due(&mut self, now: Instant, all: bool) -> Vec<Event> {
        let mut due = Vec::new();
        for count in self.counts.values_mut() {
            let over = |one: &mut Gathered| all || now.saturating_duration_since(one.since) >= FOLD_PERIOD;
            if let Some(Gathered { last, count, .. }) = count.gathered.take_if(over) {
                due.push(Event { count: Some(count), ..last });
            }
        }
        due
    }

    /// Whether something waits for its record.
    pub(super) fn is_gathering(&self) -> bool {
        self.counts.values().any(|count| count.gathered.is_some())
    }
}

impl Count {
    /// Counts one more, and tells how many there were in this span.
    fn counted(&mut self, now: Instant) -> u64 {
        if self.is_over(now) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count = self.count.saturating_add(1);
        self.count
    }

    fn is_over(&self, now: Instant) -> bool {
        self.since.is_none_or(|since| now.saturating_duration_since(since) >= SPAN)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::audit::{Action, Outcome};

    fn refusal(path: &str, reason: &'static str, pid: u32) -> Event {
        Event {
            timestamp: jiff::Timestamp::UNIX_EPOCH,
            action: Action::Connect,
            pid,
            binary_path: path.into(),
            binary_hash: None,
            service: None,
            targets: Vec::new(),
            outcome: Outcome::Denied,
            reason: Some(reason),
            detail: None,
            uid: 1,
            count: None,
        }
    }

    #[test]
    fn beyond_a_hundred_a_minute_the_same_are_one_record_in_ten_seconds_and_none_is_lost() {
        let begin = Instant::now();
        let mut fold = Fold::default();
        let mut written = 0;
        let mut folded = Vec::new();
        // ten a second for two minutes
        for tenth in 0..1200_u32 {
            let now = begin + Duration::from_millis(u64::from(tenth) * 100);
            written += u64::from(!fold.gathers(&refusal("/x", "r", tenth), now));
            folded.extend(fold.due(now, false));
        }
        folded.extend(fold.due(begin, true));
        let counted: u64 = folded.iter().map(|event| event.count.unwrap()).sum();
        assert_eq!(written + counted, 1200);
        assert!(written <= 2 * FOLD_BEYOND && folded.len() <= 12, "{written}, {}", folded.len());
        assert_eq!(folded[0].pid, 200, "the record is that of the last");
        assert!(!fold.is_gathering());
    }

    #[test]
    fn another_stranger_or_another_reason_is_told_apart_until_there_are_too_many() {
        let now = Instant::now();
        let mut fold = Fold::default();
        for _ in 0..150 {
            fold.gathers(&refusal("/x", "r", 1), now);
        }
        assert!(!fold.gathers(&refusal("/y", "r", 1), now) && !fold.gathers(&refusal("/x", "s", 1), now));
        let mut written = 0;
        for number in 0..5000 {
            written += u64::from(!fold.gathers(&refusal(&format!("/copy{number}"), "r", 1), now));
        }
        assert!(written < 1000, "{written}");
        assert!(fold.due(now, true).len() <= MOST + 1);
        let later = now + SPAN;
        assert!(!fold.gathers(&refusal("/x", "r", 1), later), "a minute later it counts anew");
    }
}
