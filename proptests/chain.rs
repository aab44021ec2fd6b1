//! A log that was changed in any way is found, at the right line.

use std::fmt::Write as _;

use keychain_auth::{
    audit::{Finding, Verdict, Witnesses, Wrong},
    chain::Head,
};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::laws::written::{KEY, Log, checked, key, written, written_behind};

fn keyed(log: &Log, lines: &[Vec<u8>]) -> Verdict {
    checked(lines, Witnesses { key: Some(key(KEY)), head: Some(log.head), checkpoints: Vec::new() })
}

/// With what the daemon tells, and no key.
fn compared(log: &Log, lines: &[Vec<u8>]) -> Verdict {
    let checkpoints = log.checkpoints.clone();
    checked(lines, Witnesses { key: None, head: Some(log.head), checkpoints })
}

fn first(verdict: &Verdict) -> Finding {
    *verdict.findings.first().expect("it is found")
}

prop_compose! {
    fn any_log()(epochs in vec(vec("[^\\p{Cc}]{1,12}", 0..6), 1..6)) -> Log {
        written(&key(KEY), &epochs)
    }
}

proptest! {
    #[test]
    fn a_log_as_it_was_written_is_whole(log in any_log(), from in any::<Index>()) {
        for verdict in [keyed(&log, &log.lines), compared(&log, &log.lines)] {
            prop_assert_eq!(&verdict.findings, &[]);
            prop_assert_eq!((verdict.lines, verdict.last), (log.lines.len() as u64, Some(log.head.seq)));
        }
        prop_assert_eq!(keyed(&log, &log.lines).keyed, log.lines.len() as u64);
        // what is left when the oldest files are gone
        let rest = &log.lines[log.epochs[from.index(log.epochs.len())]..];
        prop_assert_eq!(keyed(&log, rest).findings, &[]);
        prop_assert_eq!(compared(&log, rest).findings, &[]);
    }

    #[test]
    fn one_changed_byte_is_found_with_the_key_at_its_line_and_without_it_within_its_epoch(
        log in any_log(), line in any::<Index>(), byte in any::<Index>(), change in 1_u8..=255,
    ) {
        let line = line.index(log.lines.len());
        let mut lines = log.lines.clone();
        let at = byte.index(lines[line].len());
        lines[line][at] ^= change;
        let verdict = keyed(&log, &lines);
        // a first epoch without any other record can be made to look like a line without a chain: the rest is what is left
        // of a rotated log
        if verdict.wrong == 0 && line == 0 && log.epochs.get(1) == Some(&1) {
            return Ok(());
        }
        // a line that became two is found at its first half
        let found = first(&verdict);
        // but for the first line of all, which can be made to look like one of a version without a chain, or of the chain of
        // another key: then it is found where that chain seems to end
        let name = log.lines[line].windows(6).position(|part| part == b"chain=").unwrap_or(usize::MAX - 22);
        let next = log.epochs.iter().copied().find(|begin| *begin > line).unwrap_or(log.lines.len());
        let renamed = line == 0 && (name..name + 22).contains(&at) && found.line <= next as u64 + 1;
        prop_assert!(found.line == line as u64 + 1 || line == 0 && found.line == 2 || renamed, "{:?}", found);
        let found = first(&compared(&log, &lines));
        prop_assert!(found.line > line as u64 && found.line <= next as u64 + 2, "{:?} of line {}", found, line);
    }

    #[test]
    fn a_dropped_doubled_or_moved_line_is_found_where_it_happened(
        log in any_log(), one in any::<Index>(), other in any::<Index>(),
    ) {
        let (one, other) = (one.index(log.lines.len()), other.index(log.lines.len()));
        let mut dropped = log.lines.clone();
        dropped.remove(one);
        let mut doubled = log.lines.clone();
        doubled.insert(one, log.lines[one].clone());
        let mut swapped = log.lines.clone();
        swapped.swap(one, other);
        for check in [keyed, compared] {
            // but for the first epoch without any other record: the rest is what is left of a rotated log
            if one > 0 || log.epochs.get(1) != Some(&1) {
                prop_assert_eq!(first(&check(&log, &dropped)).line, one as u64 + 1);
            }
            prop_assert_eq!(first(&check(&log, &doubled)).line, one as u64 + 2);
            if one != other {
                let found = first(&check(&log, &swapped)).line;
                // a later epoch that comes first looks like what is left of a rotated log
                let begins = one.min(other) == 0 && log.epochs.contains(&one.max(other));
                prop_assert_eq!(found, one.min(other) as u64 + 1 + u64::from(begins));
            }
        }
    }

    #[test]
    fn a_cut_tail_an_older_copy_and_an_emptied_epoch_are_found(log in any_log(), at in any::<Index>()) {
        let keep = at.index(log.lines.len());
        for check in [keyed, compared] {
            let found = first(&check(&log, &log.lines[..keep]));
            prop_assert_eq!(found.wrong, Wrong::Cut { from: keep as u64 + 1, to: log.head.seq });
        }
        // the attacks on journald: an epoch without its records, and one that is gone with its beginning
        let epoch = at.index(log.epochs.len());
        let begin = log.epochs[epoch];
        let end = log.epochs.get(epoch + 1).copied().unwrap_or(log.lines.len());
        for from in [begin, begin + 1] {
            let lines = [&log.lines[..from], &log.lines[end..]].concat();
            if from < end && from > 0 && end < log.lines.len() {
                for check in [keyed, compared] {
                    let found = first(&check(&log, &lines));
                    prop_assert_eq!(found.line, from as u64 + 1);
                    prop_assert_eq!(found.wrong, Wrong::Missing { from: from as u64 + 1, to: end as u64 });
                }
            }
        }
    }

    #[test]
    fn a_log_that_is_written_anew_with_another_key_is_found(log in any_log(), cut in any::<Index>()) {
        // who has no key of the past makes a log of his own behind any line, numbers and hashes in order
        let cut = cut.index(log.lines.len());
        let foreign = written(&key(&KEY.replace('c', "d")), &vec![vec!["forged".to_owned(); 3]; 20]);
        let mut lines = log.lines[..cut].to_vec();
        lines.extend_from_slice(&foreign.lines[cut.min(foreign.lines.len())..]);
        let verdict = compared(&log, &lines);
        prop_assert!(verdict.wrong > 0);
        let verdict = checked(&lines, Witnesses { key: Some(key(KEY)), head: Some(log.head), checkpoints: Vec::new() });
        prop_assert!(verdict.wrong > 0);
        // a whole chain of his own behind records of ours, with nothing but the key to check it
        if cut > 0 {
            let mut lines = log.lines[..cut].to_vec();
            let before = keychain_auth::chain::Linked::of(&lines[cut - 1]).unwrap();
            let digest = lines.iter().fold([0; 32], |hash, line| keychain_auth::chain::running(&hash, line));
            let own = key(&KEY.replace('c', "d"));
            let head = Head { chain: own.chain(), epoch: 0, seq: before.seq, mac: before.mac, digest };
            lines.extend(written_behind(&own, head, &[vec!["forged".to_owned(); 3]]).lines);
            let verdict = checked(&lines, Witnesses { key: Some(key(KEY)), ..Witnesses::default() });
            prop_assert_eq!(first(&verdict).line, cut as u64 + 1);
            let rest = &lines[cut..];
            prop_assert!(compared(&log, rest).wrong > 0, "with nothing of ours left");
            let knows = |head| checked(rest, Witnesses { head: Some(head), ..Witnesses::default() }).findings;
            prop_assert_eq!(knows(head), []);
            let from = Wrong::Missing { from: head.seq, to: head.seq };
            prop_assert_eq!(knows(Head { mac: [9; 32], ..head })[0].wrong, from);
        }
    }

    #[test]
    fn whoever_takes_over_in_an_epoch_can_forge_from_there_and_not_before(
        log in any_log(), epoch in any::<Index>(), line in any::<Index>(),
    ) {
        let epoch = epoch.index(log.epochs.len());
        // the key of that epoch is what is stolen
        let stolen = (0..epoch).fold(key(KEY).first(), |key, _| key.next());
        let line = line.index(log.lines.len());
        let mut lines = log.lines.clone();
        let text = String::from_utf8(lines[line].clone()).unwrap();
        let forged = text.replace("\"uid\":1000", "\"uid\":1001");
        let linked = keychain_auth::chain::Linked::of(forged.as_bytes()).unwrap();
        let (mut mac, mut seq) = ([0; 32], 0);
        if line > 0 {
            let before = keychain_auth::chain::Linked::of(&log.lines[line - 1]).unwrap();
            (mac, seq) = (before.mac, before.seq);
        }
        let before = Head { chain: log.head.chain, epoch: epoch as u64, seq, mac, digest: [0; 32] };
        let made = stolen.mac(&before, linked.seq, linked.body);
        let mut hex = String::new();
        made.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
        let body = std::str::from_utf8(linked.body).unwrap();
        lines[line] = format!("{body},\"mac\":\"{hex}\"}}").into_bytes();
        let own = log.epochs.iter().rposition(|begin| *begin <= line).unwrap();
        let verdict = checked(&lines, Witnesses { key: Some(key(KEY)), ..Witnesses::default() });
        if own < epoch {
            prop_assert_eq!(first(&verdict).line, line as u64 + 1, "yesterday is out of reach");
        }
        // and what the daemon knows shows it in any case
        prop_assert!(compared(&log, &lines).wrong > 0);
    }
}
