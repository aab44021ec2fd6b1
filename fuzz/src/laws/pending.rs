//! pending.json: what is read is bounded and masked, and stays the same on its next way over the disk.

use jiff::Timestamp;
use keychain_auth::policy::{MAX_PENDING, Pending, PendingQueue, Sighting};

use super::Seen;

/// What is read is within every limit, and what is written of it is read back equal.
pub fn hold(bytes: &[u8]) -> Seen {
    let Some(mut queue) = PendingQueue::parse(bytes) else { return Seen::Refused };
    assert!(queue.len() <= MAX_PENDING);
    for pending in queue.iter() {
        let sighting = pending.sighting();
        assert!(sighting.path.as_os_str().len() <= 4096 && sighting.targets.len() <= 8);
        let arguments = sighting.command_line.arguments();
        assert!(arguments.len() <= 32);
        for argument in arguments {
            assert!(argument.chars().count() <= 64, "an argument is longer than is shown");
            assert!(!argument.chars().any(char::is_control), "an argument moves a cursor");
        }
        let twins = queue.iter().filter(|other| {
            other.sighting().path == sighting.path && other.sighting().digest == sighting.digest
        });
        assert_eq!(twins.count(), 1, "one entry for a path and hash");
    }
    survives_the_disk(&queue);
    if let Some(last) = queue.iter().last().cloned() {
        let sighting = last.sighting().clone();
        queue.record(sighting.clone(), last.last_seen());
        let known = queue.with_digest(&sighting.digest).find(|known| known.sighting().path == sighting.path);
        assert_eq!(known.map(|known| known.count()), Some(last.count().saturating_add(1)));
        assert!(queue.len() <= MAX_PENDING);
        assert!(queue.remove(&sighting.digest, Some(&sighting.path)) == 1);
    }
    queue.expire(Timestamp::MAX);
    Seen::Accepted
}

/// What is written is read back. An argument may be masked further, since its cut end is looked at anew.
fn survives_the_disk(queue: &PendingQueue) {
    let again = PendingQueue::parse(&queue.render()).expect("what is written can be read");
    assert_eq!(again.len(), queue.len());
    for (before, after) in queue.iter().zip(again.iter()) {
        let (was, is) = (before.sighting(), after.sighting());
        let arguments = was.command_line.arguments().iter().zip(is.command_line.arguments());
        for (was, is) in arguments {
            assert!(was == is || is.contains("***"), "an argument changes on its way over the disk");
        }
        assert_eq!(Sighting { command_line: was.command_line.clone(), ..is.clone() }, *was);
        let counts = |pending: &Pending| {
            (pending.targets_omitted(), pending.count(), pending.first_seen(), pending.last_seen())
        };
        assert_eq!(counts(before), counts(after));
    }
}
