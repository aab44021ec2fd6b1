//! A log as the daemon writes it, with a key that is known, and the check of what became of it.

use jiff::Timestamp;
use keychain_auth::{
    audit::{Action, Because, Boundary, Event, Lines, Outcome, Verdict, Verifier, Witnesses},
    chain::{Checkpoint, Head, Ratchet, VerificationKey, link},
    name::{Service, Target},
    wire,
};

/// A log as the daemon writes it, and what it would know of it.
#[derive(Debug, Clone)]
pub struct Log {
    pub lines: Vec<Vec<u8>>,
    pub head: Head,
    pub checkpoints: Vec<Checkpoint>,
    /// The first line of each epoch.
    pub epochs: Vec<usize>,
}

/// The verification key of the log.
pub const KEY: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

/// A key from its digits.
pub fn key(text: &str) -> VerificationKey {
    VerificationKey::parse(text.as_bytes()).expect("a word of the log")
}

fn event(number: u32, target: &str) -> Event {
    Event {
        timestamp: Timestamp::from_second(i64::from(number)).expect("a word of the log"),
        action: Action::Request(wire::Action::Read),
        pid: number,
        binary_path: "/usr/bin/tool".into(),
        binary_hash: None,
        service: Some(Service::parse("s").expect("a word of the log")),
        targets: vec![Target::parse(target).expect("a word of the log")],
        outcome: Outcome::Granted,
        reason: None,
        detail: None,
        uid: 1000,
        count: None,
    }
}

/// Epochs with so many records each, beside the one with which each begins.
pub fn written(key: &VerificationKey, epochs: &[Vec<String>]) -> Log {
    written_behind(key, Head { chain: key.chain(), ..Head::default() }, epochs)
}

/// The same behind a log that ends with `head`.
pub fn written_behind(key: &VerificationKey, mut head: Head, epochs: &[Vec<String>]) -> Log {
    let mut ratchet: Ratchet = key.first();
    let mut log = Log { lines: Vec::new(), head, checkpoints: Vec::new(), epochs: Vec::new() };
    let mut before = head.seq;
    for (number, targets) in epochs.iter().enumerate() {
        let (first, because) = if number == 0 { (0, Because::NewChain) } else { (before + 1, Because::Full) };
        if number > 0 {
            log.checkpoints.push(Checkpoint { seq: head.seq, digest: head.digest });
            ratchet = ratchet.next();
            head.epoch += 1;
        }
        let boundary = Boundary {
            chain: head.chain,
            epoch: head.epoch,
            because,
            first,
            count: head.seq - before,
            previous: head.mac,
            digest: head.digest,
        };
        before = head.seq;
        log.epochs.push(log.lines.len());
        let begins =
            Event { action: Action::Policy, detail: Some(boundary.to_string().into()), ..event(7, "x") };
        let records = targets.iter().enumerate().map(|(at, target)| event(at as u32, target).render());
        for rendered in std::iter::once(begins.render()).chain(records) {
            let mut line = Vec::new();
            head = link(&ratchet, &head, &rendered, &mut line);
            line.pop();
            log.lines.push(line);
        }
    }
    log.head = head;
    log
}

/// What a check of these lines says.
pub fn checked(lines: &[Vec<u8>], witnesses: Witnesses) -> Verdict {
    let mut verifier = Verifier::new(witnesses);
    let text: Vec<u8> = lines.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect();
    for line in Lines::new(text.as_slice()) {
        verifier.line(0, &line.expect("memory can be read"));
    }
    verifier.finish()
}
