//! The policy: what is not said is denied, and what is said means the same in every order.

use std::{collections::BTreeSet, path::Path};

use jiff::Timestamp;
use keychain_auth::{
    digest::Digest,
    name::{Service, TargetPrefix},
    policy::{
        CommandLine, Draft, Grant, Lift, Pending, PendingQueue, Permissions, Policy, Sighting, Standing,
        Targets, Terms, mask_argument,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::FileFailurePersistence};
use serde_json::{Map, Value, json};

const PATHS: [&str; 4] = ["/bin/a", "/bin/b", "/opt/tool", "/opt/ünïcode tool"];
const SERVICES: [&str; 4] = ["aws", "github", "AWS", "a:b"];

fn digest(number: u8) -> Digest {
    Digest::new([number; 32])
}

fn service(name: &str) -> Service {
    Service::parse(name).expect("a service")
}

fn any_services() -> impl Strategy<Value = BTreeSet<&'static str>> {
    proptest::collection::btree_set(select(&SERVICES[..]), 0..4)
}

prop_compose! {
    fn any_entry()(
        path in select(&PATHS[..]),
        hash in 0..3_u8,
        read in any_services(),
        write in any_services(),
        search in any::<bool>(),
        prefixes in option::of(vec("[a-c]{0,3}/?", 0..3)),
        size in option::of(0..3_u64),
        expired in any::<bool>(),
        unknown in option::of("[a-z]{1,8}"),
    ) -> Value {
        let mut entry = json!({"path": path, "hash": digest(hash).to_string(), "allowed_read_services": read,
            "allowed_write_services": write, "can_search": search});
        let members = entry.as_object_mut().expect("an object");
        let mut add = |name: &str, value: Option<Value>| value.map(|value| members.insert(name.into(), value));
        add("allowed_target_prefixes", prefixes.map(|list| json!(list)));
        add("size", size.map(|size| json!(size)));
        add("expires_at", expired.then(|| json!("2020-01-01T00:00:00Z")));
        add("x_unknown", unknown.map(|text| json!({text: [1, null, {"deep": true}]})));
        entry
    }
}

fn document(entries: &[Value]) -> Vec<u8> {
    json!({"x_before": 1, "protocol_version": "1", "registered_binaries": entries, "x_after": "2"})
        .to_string()
        .into_bytes()
}

fn policy(entries: &[Value]) -> Policy {
    Policy::parse(&document(entries)).expect("a policy")
}

fn now() -> Timestamp {
    "2026-05-21T10:34:02Z".parse().expect("a time")
}

/// Everything that can be asked about a policy, in words.
fn answers(policy: &Policy) -> Vec<String> {
    let mut answers = Vec::new();
    for path in PATHS {
        for hash in 0..4 {
            answers.push(match policy.recognise(Path::new(path), &digest(hash), now()) {
                Standing::Registered(entry) => format!("{:?} {:?}", entry.permissions(), entry.size()),
                other => format!("{other:?}"),
            });
        }
        answers.extend((0..4).map(|size| policy.candidate(Path::new(path), size).to_string()));
    }
    answers
}

/// Whether everything that `less` allows, `more` allows too.
fn includes(more: &Permissions, less: &Permissions) -> bool {
    less.read_services().all(|service| more.reads(service))
        && less.write_services().all(|service| more.writes(service))
        && (more.can_search() || !less.can_search())
        && more.target_prefixes() == less.target_prefixes()
}

fn permissions(policy: &Policy, path: &str) -> Vec<Permissions> {
    policy.with_path(Path::new(path)).map(|entry| entry.permissions().clone()).collect()
}

fn any_grant() -> impl Strategy<Value = Grant> {
    (any_services(), any_services(), any::<bool>()).prop_map(|(read, write, search)| {
        let services = |names: BTreeSet<&str>| names.into_iter().map(service).collect();
        Grant { read: services(read), write: services(write), search }
    })
}

#[derive(Debug, Clone)]
enum Edit {
    Register(&'static str, u8),
    Unregister(&'static str),
    Grant(&'static str, Grant),
    Revoke(&'static str, Grant),
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let path = || select(&PATHS[..]);
    prop_oneof![
        (path(), 0..3_u8).prop_map(|(path, hash)| Edit::Register(path, hash)),
        path().prop_map(Edit::Unregister),
        (path(), any_grant()).prop_map(|(path, grant)| Edit::Grant(path, grant)),
        (path(), any_grant()).prop_map(|(path, grant)| Edit::Revoke(path, grant)),
    ]
}

/// Applies an edit; one that makes no sense is refused and changes nothing.
fn apply(draft: &mut Draft, edit: &Edit) {
    let before = draft.clone();
    let done = match edit {
        Edit::Register(path, hash) => draft.register(Path::new(path), &digest(*hash), 7, now()).is_ok(),
        Edit::Unregister(path) => draft.unregister(Path::new(path), None).is_ok(),
        Edit::Grant(path, grant) => draft.grant(Path::new(path), grant).is_ok(),
        Edit::Revoke(path, grant) => draft.revoke(Path::new(path), grant).is_ok(),
    };
    assert!(done || *draft == before, "a refused edit changes nothing");
}

/// What our commands don't know: every member but those that they write.
fn foreign_members(bytes: &[u8]) -> Vec<(String, String)> {
    let file: Map<String, Value> = serde_json::from_slice(bytes).expect("an object");
    let ours = [
        "registered_binaries",
        "hash",
        "size",
        "registered_at",
        "allowed_read_services",
        "allowed_write_services",
        "can_search",
    ];
    let entries = file.get("registered_binaries").and_then(Value::as_array).into_iter().flatten();
    let of_entries = entries.filter_map(Value::as_object).flatten();
    let all = file.iter().chain(of_entries);
    all.filter(|(name, _)| !ours.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.to_string()))
        .collect()
}

fn any_sighting() -> impl Strategy<Value = Sighting> {
    (select(&PATHS[..]), 0..200_u8, vec("\\PC{0,80}", 0..4)).prop_map(|(path, hash, arguments)| Sighting {
        times: 1,
        path: path.into(),
        digest: digest(hash),
        pid: 7,
        command_line: CommandLine::masked(arguments.iter().map(String::as_bytes)),
        action: None,
        service: None,
        targets: Vec::new(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_parse_or_are_an_error_with_a_place(bytes in vec(any::<u8>(), 0..300)) {
        if let Err(error) = Policy::parse(&bytes) {
            prop_assert!(error.line <= bytes.len() + 1 && error.column <= bytes.len() + 1);
        }
    }

    #[test]
    fn a_policy_with_one_byte_changed_never_panics_and_an_error_never_echoes(
        entries in vec(any_entry(), 0..3), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = document(&entries);
        let index = at.index(bytes.len());
        bytes[index] = byte;
        if let Err(error) = Policy::parse(&bytes) {
            prop_assert!(!error.to_string().contains("/bin/") && !error.to_string().contains("sha256:aa"));
        }
    }

    #[test]
    fn what_no_entry_names_is_denied(entries in vec(any_entry(), 0..6), path in select(&PATHS[..]), hash in 0..4_u8) {
        let policy = policy(&entries);
        let named = entries.iter().filter(|entry| {
            entry["path"] == path && entry["hash"] == digest(hash).to_string() && entry.get("expires_at").is_none()
        });
        let twice = entries.iter().filter(|entry| entry["path"] == path && entry["hash"] == digest(hash).to_string()).count() > 1;
        match policy.recognise(Path::new(path), &digest(hash), now()) {
            Standing::Registered(entry) => {
                prop_assert!(named.count() == 1 && !twice);
                prop_assert!(policy.candidate(Path::new(path), entry.size().unwrap_or(0)), "what matches is worth hashing");
            }
            _ => prop_assert!(twice || named.count() == 0),
        }
    }

    #[test]
    fn the_order_of_entries_does_not_matter(entries in vec(any_entry(), 0..6).prop_shuffle(), seed in any::<prop::sample::Index>()) {
        let mut turned = entries.clone();
        turned.rotate_left(seed.index(entries.len().max(1)));
        turned.reverse();
        prop_assert_eq!(answers(&policy(&entries)), answers(&policy(&turned)));
    }

    #[test]
    fn an_entry_more_never_widens_what_another_path_may_do(entries in vec(any_entry(), 0..5), more in any_entry()) {
        let before = policy(&entries);
        let after = policy(&[entries.as_slice(), std::slice::from_ref(&more)].concat());
        for path in PATHS.into_iter().filter(|path| more["path"] != *path) {
            prop_assert_eq!(permissions(&before, path), permissions(&after, path));
        }
    }

    #[test]
    fn a_grant_takes_nothing_away_and_a_revocation_gives_nothing(
        entries in vec(any_entry(), 1..5), path in select(&PATHS[..]), grant in any_grant(),
    ) {
        let draft = Draft::parse(&document(&entries)).expect("a draft");
        let before = policy(&entries);
        for granting in [true, false] {
            let mut draft = draft.clone();
            let done = if granting { draft.grant(Path::new(path), &grant) } else { draft.revoke(Path::new(path), &grant).map(drop) };
            prop_assert_eq!(done.is_ok(), before.knows_path(Path::new(path)));
            let after = Policy::parse(&draft.render()).expect("a policy");
            for path in PATHS {
                for (old, new) in permissions(&before, path).iter().zip(permissions(&after, path)) {
                    let (more, less) = if granting { (&new, old) } else { (old, &new) };
                    prop_assert!(includes(more, less));
                }
            }
            for changed in permissions(&after, path) {
                prop_assert!(grant.read.iter().all(|service| changed.reads(service) == granting));
                prop_assert!(grant.write.iter().all(|service| changed.writes(service) == granting));
                prop_assert!(!grant.search || changed.can_search() == granting);
            }
        }
    }

    #[test]
    fn a_prefix_more_allows_no_other_target_and_a_prefix_less_allows_no_target_more(
        entries in vec(any_entry(), 1..5), path in select(&PATHS[..]),
        names in proptest::collection::btree_set("[a-c]{1,3}/?", 1..3), targets in vec("[a-c]{1,4}", 1..6),
    ) {
        let prefixes: BTreeSet<_> = names.iter().map(|name| TargetPrefix::parse(name).expect("a prefix")).collect();
        let before = policy(&entries);
        let named = |target: &str| names.iter().any(|name| target.starts_with(name.as_str()));
        for setting in [true, false] {
            let mut draft = Draft::parse(&document(&entries)).expect("a draft");
            let untouched = draft.clone();
            let prefixes = prefixes.clone();
            let done = if setting {
                draft.set_terms(Path::new(path), &Terms { targets: Targets::Prefixes(prefixes), ..Terms::default() }).map(drop)
            } else {
                draft.lift_terms(Path::new(path), &Lift { prefixes, ..Lift::default() }).map(drop)
            };
            if done.is_err() {
                prop_assert_eq!(&draft, &untouched);
            }
            let after = Policy::parse(&draft.render()).expect("a policy");
            for (old, new) in permissions(&before, path).iter().zip(permissions(&after, path)) {
                for target in &targets {
                    prop_assert!(old.covers(target) || !new.covers(target) || setting && named(target));
                    prop_assert!(!setting || !named(target) || new.covers(target));
                }
            }
        }
    }

    #[test]
    fn edits_keep_what_they_do_not_know_and_leave_a_policy(entries in vec(any_entry(), 0..5), edits in vec(any_edit(), 1..8)) {
        let bytes = document(&entries);
        let mut draft = Draft::parse(&bytes).expect("a draft");
        let removed: BTreeSet<_> =
            edits.iter().filter_map(|edit| if let Edit::Unregister(path) = edit { Some(*path) } else { None }).collect();
        for edit in &edits {
            apply(&mut draft, edit);
            let rendered = draft.render();
            prop_assert!(Policy::parse(&rendered).is_ok());
            prop_assert_eq!(&Draft::parse(&rendered).expect("a draft"), &draft);
        }
        let kept: Vec<_> = entries.iter().filter(|entry| !removed.iter().any(|path| entry["path"] == *path)).cloned().collect();
        let after = foreign_members(&draft.render());
        let mut rest = after.iter();
        for member in foreign_members(&document(&kept)) {
            prop_assert!(rest.any(|found| *found == member), "{:?} is lost or moved", member);
        }
    }

    #[test]
    fn a_registration_keeps_every_permission_of_its_path(entries in vec(any_entry(), 0..4), path in select(&PATHS[..])) {
        let mut draft = Draft::parse(&document(&entries)).expect("a draft");
        let before = permissions(&policy(&entries), path);
        if draft.register(Path::new(path), &digest(9), 7, now()).is_ok() {
            let after = Policy::parse(&draft.render()).expect("a policy");
            let expected = if before.is_empty() { vec![Permissions::default()] } else { before };
            prop_assert_eq!(permissions(&after, path), expected);
        }
    }

    #[test]
    fn a_mask_is_short_without_control_characters_and_masks_no_further(
        previous in option::of("\\PC{0,12}|-p|--token"), argument in "\\PC{0,100}|[-a-zA-Z0-9=:/@. ]{0,100}|(?s).{0,40}",
    ) {
        let shown = mask_argument(previous.as_deref(), &argument);
        prop_assert!(shown.chars().count() <= 64 && !shown.chars().any(char::is_control));
        prop_assert_eq!(mask_argument(None, &shown), shown.clone(), "what is stored is read back as it is");
    }

    #[test]
    fn a_secret_is_masked_in_every_usual_place(secret in "[A-Za-z0-9]{12,40}") {
        for (previous, argument) in [
            (None, format!("--password={secret}")),
            (Some("--token"), secret.clone()),
            (Some("-p"), secret.clone()),
            (None, format!("https://user:{secret}@example.org/")),
            (None, format!("Authorization: Bearer {secret}")),
            (None, format!("ghp_{secret}")),
            (None, format!("run sk-{secret} now")),
        ] {
            prop_assert!(!mask_argument(previous, &argument).contains(&secret), "{}", argument);
        }
    }

    #[test]
    fn the_queue_is_bounded_and_survives_the_disk(sightings in vec((any_sighting(), 0..200_000_i64), 0..300)) {
        let mut queue = PendingQueue::default();
        let mut latest = 0;
        for (sighting, step) in sightings {
            latest += step % 900;
            queue.record(sighting, Timestamp::new(1_780_000_000 + latest, 0).expect("a time"));
            prop_assert!(queue.len() <= 128);
        }
        let end = 1_780_000_000 + latest;
        prop_assert!(queue.iter().map(Pending::last_seen).all(|seen| end - seen.as_second() <= 24 * 3600));
        prop_assert_eq!(PendingQueue::parse(&queue.render()), Some(queue));
    }
}
