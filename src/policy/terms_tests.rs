#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::{
    name::Service,
    policy::{Entry, Grant, Policy},
};

const HASHES: [&str; 2] = ["aa", "bb"];

/// Two entries of one path, as after an upgrade by hand; `members` of each.
fn draft(members: [&str; 2]) -> Draft {
    let entry = |at: usize| {
        format!(r#"{{"path":"/bin/a","hash":"sha256:{}"{}}}"#, HASHES[at].repeat(32), members[at])
    };
    let text = format!(r#"{{"protocol_version":"1","registered_binaries":[{},{}]}}"#, entry(0), entry(1));
    Draft::parse(text.as_bytes()).unwrap()
}

fn entries(draft: &Draft) -> Vec<Entry> {
    Policy::parse(&draft.render()).unwrap().entries().to_vec()
}

fn prefixes(names: &[&str]) -> BTreeSet<TargetPrefix> {
    names.iter().map(|name| TargetPrefix::parse(name).unwrap()).collect()
}

fn path() -> &'static Path {
    Path::new("/bin/a")
}

const LISTS: [&str; 2] =
    [r#","allowed_target_prefixes":["a/","b/"]"#, r#","allowed_target_prefixes":["a/"]"#];

#[test]
fn the_first_prefix_takes_all_other_targets_away_and_that_is_said() {
    let mut draft = draft(["", ""]);
    let terms = Terms { targets: Targets::Prefixes(prefixes(&["prod/"])), ..Terms::default() };
    assert_eq!(draft.set_terms(path(), &terms), Ok(Narrowed(true)));
    for entry in entries(&draft) {
        assert!(entry.permissions().covers("prod/KEY") && !entry.permissions().covers("KEY"));
    }
    assert_eq!(draft.set_terms(path(), &terms), Ok(Narrowed(false)), "the second time nothing changes");
    let all = Terms { targets: Targets::Every, ..Terms::default() };
    assert_eq!(draft.set_terms(path(), &all), Ok(Narrowed(false)));
    assert!(entries(&draft).iter().all(|entry| entry.permissions().covers("KEY")));
}

#[test]
fn a_prefix_is_taken_from_every_entry_of_the_path_and_the_last_one_leaves_nothing() {
    let mut draft = draft(LISTS);
    let lift = Lift { prefixes: prefixes(&["a/"]), ..Lift::default() };
    let lifted = draft.lift_terms(path(), &lift).unwrap();
    assert!(lifted.no_target_left && lifted.absent == Lift::default() && lifted.still_covered.is_empty());
    let entries = entries(&draft);
    assert_eq!(
        entries[0].permissions().target_prefixes(),
        Some(&*prefixes(&["b/"]).into_iter().collect::<Vec<_>>())
    );
    assert_eq!(entries[1].permissions().target_prefixes(), Some(&[][..]));
    assert!(!entries[1].permissions().covers("x"), "an empty list is not every target");
}

#[test]
fn a_prefix_can_not_be_taken_from_an_entry_that_may_use_every_target() {
    let mut draft = draft([LISTS[0], ""]);
    let lift = Lift { prefixes: prefixes(&["a/"]), ..Lift::default() };
    assert_eq!(draft.lift_terms(path(), &lift), Err(DraftError::Unrestricted(path().into())));
}

#[test]
fn what_was_not_there_or_stays_covered_is_told() {
    let list = r#","allowed_target_prefixes":["a/","a/b"]"#;
    let mut draft = draft([list, list]);
    let lift = Lift {
        prefixes: prefixes(&["a/b", "A/"]),
        challenge: true,
        relax: [Check::Traced].into(),
        expiry: true,
    };
    let lifted = draft.lift_terms(path(), &lift).unwrap();
    assert_eq!(lifted.absent, Lift { prefixes: prefixes(&["A/"]), ..lift });
    assert_eq!(lifted.still_covered, prefixes(&["a/b"]));
    let revoked = Grant { read: [Service::parse("AWS").unwrap()].into(), search: true, ..Grant::default() };
    assert_eq!(draft.revoke(path(), &revoked), Ok(revoked));
}

#[test]
fn terms_are_set_and_lifted_again_without_a_trace() {
    let mut draft = draft(["", ""]);
    let before = draft.clone();
    let end: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let terms = Terms {
        challenge: true,
        relax: [Relaxable::new(Check::InjectedCode).unwrap()].into(),
        expires: Some(end),
        ..Terms::default()
    };
    let _ = draft.set_terms(path(), &terms).unwrap();
    for entry in entries(&draft) {
        assert!(entry.challenge() && entry.relaxes(Check::InjectedCode));
        assert_eq!(entry.expires_at(), Some(end));
    }
    let lift = Lift { challenge: true, relax: [Check::InjectedCode].into(), expiry: true, ..Lift::default() };
    assert_eq!(draft.lift_terms(path(), &lift), Ok(Lifted::default()));
    let lifted: Vec<Entry> = entries(&draft);
    assert_eq!(lifted, entries(&before));
}

#[test]
fn what_no_entry_can_turn_off_is_never_written_and_never_counts() {
    let mut reasons = std::collections::BTreeSet::new();
    for check in Check::ALL {
        let relaxable = Relaxable::new(check).is_ok();
        assert_eq!(relaxable, !UNRELAXABLE.contains(&check) && check != Check::ChallengeMissing);
        let member = format!(r#","relax":["{check}"]"#);
        let entries = entries(&draft([&member, ""]));
        assert_eq!(entries[0].relaxes(check), relaxable, "{check}");
        if let Err(never) = Relaxable::new(check) {
            assert_eq!(never.check(), check);
            let said = never.to_string();
            let reason = said.strip_prefix(&format!("{check} can't be relaxed: ")).unwrap();
            assert!(reason.split(' ').count() > 5 && reasons.insert(reason.to_owned()), "{check}: {reason}");
            assert!(!reason.contains("prove nothing"), "{check} has a reason of its own");
        }
    }
}

#[test]
fn an_end_that_was_no_time_is_replaced() {
    let mut draft = draft([r#","expires_at":"next week""#, ""]);
    assert!(entries(&draft)[0].unusable().is_some());
    let end: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let _ = draft.set_terms(path(), &Terms { expires: Some(end), ..Terms::default() }).unwrap();
    assert!(
        entries(&draft).iter().all(|entry| entry.unusable().is_none() && entry.expires_at() == Some(end))
    );
}
