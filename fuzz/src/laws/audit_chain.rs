//! A chained log that somebody edits: with the key, and with what the daemon knows of its end, every edit is found.
//!
//! The input is edits of four bytes: what is done, to which line, and two numbers more.

use std::sync::LazyLock;

use keychain_auth::audit::Witnesses;

use super::{
    Seen,
    written::{KEY, Log, checked, key, written},
};

/// Most edits that one input makes.
const EDITS: usize = 64;

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let epoch = |records: usize| (0..records).map(|number| format!("target/{number}")).collect();
    written(&key(KEY), &[epoch(3), epoch(0), epoch(2), epoch(1), epoch(0), epoch(4)])
});

/// Whole exactly where the lines are those that were written, or all of them from the first line of an epoch on, as a
/// rotation leaves them. Accepted: nothing was changed in the end.
pub fn hold(edits: &[u8]) -> Seen {
    let log = &*LOG;
    let mut lines = log.lines.clone();
    for edit in edits.as_chunks::<4>().0.iter().take(EDITS) {
        change(&mut lines, *edit);
    }
    let text: Vec<u8> = lines.join(&b'\n');
    let seen: Vec<Vec<u8>> = if lines.is_empty() {
        Vec::new()
    } else {
        text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    };
    let whole = log.epochs.iter().any(|begin| log.lines[*begin..] == seen[..]);
    let witnesses = Witnesses { key: Some(key(KEY)), head: Some(log.head), checkpoints: Vec::new() };
    let keyed = checked(&lines, witnesses);
    assert_eq!(keyed.wrong == 0, whole, "with the key: {:?}", keyed.findings);
    let checkpoints = log.checkpoints.clone();
    let compared = checked(&lines, Witnesses { key: None, head: Some(log.head), checkpoints });
    assert_eq!(compared.wrong == 0, whole, "with what the daemon knows: {:?}", compared.findings);
    assert!(keyed.findings.iter().chain(&compared.findings).all(|it| it.line <= keyed.lines + 1));
    Seen::when(log.lines == seen)
}

fn change(lines: &mut Vec<Vec<u8>>, [how, line, one, two]: [u8; 4]) {
    let original = &LOG.lines;
    let other = original[usize::from(one) % original.len()].clone();
    if lines.is_empty() {
        return lines.push(other);
    }
    let at = usize::from(line) % lines.len();
    match how % 8 {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, other),
        2 => {
            let with = usize::from(one) % lines.len();
            lines.swap(at, with);
        }
        3 => lines.truncate(at),
        // back to what it was, so that edits can undo each other
        4 => lines[at] = original[at.min(original.len() - 1)].clone(),
        5 => {
            // the bytes of another line from some place on: numbers, hashes and words that are real elsewhere
            let from = usize::from(two) * 2;
            let tail = other.get(from..).unwrap_or_default().to_vec();
            lines[at].truncate(from);
            lines[at].extend(tail);
        }
        6 => {
            if let Some(byte) = lines[at].iter_mut().rev().nth(usize::from(one)) {
                *byte ^= two;
            }
        }
        _ => {
            if let Some(byte) = lines[at].get_mut(usize::from(one)) {
                *byte ^= two;
            }
        }
    }
}
