//! config.json: what it does not say is denied, and what it says is what is decided.

use std::path::Path;

use jiff::Timestamp;
use keychain_auth::{
    caller::{Executable, Facts, Terms, VerifiedCaller, verify},
    digest::Digest,
    name::{Attributes, Service, Target, TargetPrefix},
    policy::{Admitted, Draft, Policy, decide_change, decide_check, decide_query},
    secret::{Buffer, SecretValue},
    store::{Change, Names, Query, Selection, WriteItem},
};
use serde_json::Value;

use super::Seen;
use crate::admitted::{honest_facts, observer};

/// Entries that are asked about; more cost time and show nothing new.
const ASKED: usize = 6;

/// A caller is admitted exactly where one usable entry has its path and hash, and may do exactly what that entry says;
/// a file that can't be read is refused with a place in it; our own editor leaves the same policy.
pub fn hold(bytes: &[u8]) -> Seen {
    let policy = match Policy::parse(bytes) {
        Ok(policy) => policy,
        Err(error) => {
            let lines = bytes.split(|byte| *byte == b'\n');
            assert!((1..=lines.clone().count() + 1).contains(&error.line), "a fault outside of the file");
            assert!(
                error.column <= lines.map(<[u8]>::len).max().unwrap_or(0) + 1,
                "a fault outside of its line"
            );
            return Seen::Refused;
        }
    };
    if let Ok(draft) = Draft::parse(bytes) {
        let edited = Policy::parse(&draft.render()).expect("what the editor writes is a policy");
        assert_eq!(edited, policy, "an edit that changes nothing changes nothing");
    }
    // a number or a depth that `Value` can't hold, within a member that nobody knows, is not the policy's fault
    if let Ok(file) = serde_json::from_slice::<Value>(bytes) {
        let now = Timestamp::UNIX_EPOCH;
        for (path, digest) in callers(&file) {
            decides_as_said(&policy, &file, &path, digest, now);
        }
    }
    Seen::Accepted
}

/// Callers that the file may speak about, and some that it does not.
fn callers(file: &Value) -> Vec<(String, Digest)> {
    let mut paths = vec!["/nowhere".to_owned(), String::new()];
    let mut digests = vec![Digest::new([0; 32])];
    for entry in entries(file).take(ASKED) {
        paths.extend(entry["path"].as_str().map(str::to_owned));
        digests.extend(entry["hash"].as_str().and_then(digest_said));
    }
    paths.iter().flat_map(|path| digests.iter().map(|digest| (path.clone(), *digest))).collect()
}

fn entries(file: &Value) -> impl Iterator<Item = &Value> {
    file["registered_binaries"].as_array().into_iter().flatten()
}

/// 64 hexadecimal digits behind `sha256:`, read by hand.
fn digest_said(text: &str) -> Option<Digest> {
    let digits: Vec<u8> = text
        .strip_prefix("sha256:")?
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte * 16 + digit)).collect();
    if digits.len() == 64 { Some(Digest::new(bytes.try_into().ok()?)) } else { None }
}

/// A process in whose facts nothing is wrong, with this executable.
pub(super) fn caller(path: &str, digest: Digest) -> VerifiedCaller {
    let honest = honest_facts();
    let executable = Executable { path: path.to_owned(), ..honest.executable };
    let facts = Facts { executable, digest, ..honest };
    let terms = Terms { relax: &std::collections::BTreeSet::new(), libraries: &[] };
    verify(&facts, &observer(), terms).expect("nothing is wrong with these facts")
}

fn decides_as_said(policy: &Policy, file: &Value, path: &str, digest: Digest, now: Timestamp) {
    // paths are compared by their parts, so that `/bin//a` is `/bin/a`
    let same = |entry: &&Value| {
        entry["path"].as_str().is_some_and(|said| Path::new(said) == Path::new(path))
            && entry["hash"].as_str().and_then(digest_said) == Some(digest)
    };
    let said: Vec<&Value> = entries(file).filter(same).collect();
    let lives = |entry: &Value| match entry.get("expires_at").map(Value::as_str) {
        None => true,
        Some(end) => end.and_then(|end| end.parse::<Timestamp>().ok()).is_some_and(|end| end > now),
    };
    let caller = caller(path, digest);
    match (policy.admit(&caller, now), said.as_slice()) {
        (Ok(admitted), [entry]) => {
            assert!(Path::new(path).is_absolute() && lives(entry), "admitted by an entry that says nothing");
            says_the_same(&admitted, entry);
        }
        (Ok(_), _) => panic!("admitted without one entry that says so"),
        (Err(_), [entry]) => {
            assert!(!Path::new(path).is_absolute() || !lives(entry), "an entry that says so does not admit");
        }
        (Err(_), _) => {}
    }
}

fn says_the_same(admitted: &Admitted<'_>, entry: &Value) {
    let list = |member: &str| -> Vec<String> {
        let items = entry[member].as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let (read, write) = (list("allowed_read_services"), list("allowed_write_services"));
    let searches = entry["can_search"] == Value::Bool(true);
    let prefixes = entry.get("allowed_target_prefixes").map(|_| list("allowed_target_prefixes"));
    let is_name = |text: &str| !text.is_empty() && text.len() <= 1024 && !text.chars().any(char::is_control);
    let covered = |name: &str| {
        prefixes
            .as_ref()
            .is_none_or(|prefixes| prefixes.iter().any(|prefix| is_name(prefix) && name.starts_with(prefix)))
    };
    // what allows no name at all allows nothing of its services
    let some_name = prefixes.as_ref().is_none_or(|prefixes| prefixes.iter().any(|prefix| is_name(prefix)));
    let services = read.iter().chain(&write).take(ASKED).map(String::as_str).chain(["nothing says this"]);
    let names = prefixes.iter().flatten().take(2).map(String::as_str).chain(["a", "production/x"]);
    let names: Vec<&str> = names.filter(|name| is_name(name)).collect();
    for service in services.filter_map(|text| Service::parse(text).ok()) {
        let (reads, writes) = (
            read.iter().any(|said| said == service.as_str()),
            write.iter().any(|said| said == service.as_str()),
        );
        for &name in &names {
            for selected in selections(&service, name) {
                let exact = matches!(selected.names, Names::Exact(_));
                let inside = covered(if selected.names == Names::All { "" } else { name });
                for values in [true, false] {
                    let allowed = reads && (searches || (values && exact)) && inside;
                    let query = Query { selection: selected.clone(), values };
                    assert_eq!(decide_query(admitted, query).is_ok(), allowed);
                }
                let checked = (reads || writes)
                    && match &selected.names {
                        Names::All => some_name,
                        Names::Prefix(_) => searches && inside,
                        Names::Exact(_) => inside,
                    };
                assert_eq!(decide_check(admitted.entry().permissions(), &selected).is_ok(), checked);
                let deleted = writes && (searches || exact) && inside;
                assert_eq!(decide_change(admitted, Change::Delete(selected)).is_ok(), deleted);
            }
            let allowed = writes && covered(name);
            assert_eq!(decide_change(admitted, one_write(&service, name)).is_ok(), allowed);
        }
    }
}

fn selections(service: &Service, name: &str) -> [Selection; 3] {
    let exact = Names::Exact(vec![Target::parse(name).expect("a name")]);
    let prefix = Names::Prefix(vec![TargetPrefix::parse(name).expect("a name")]);
    [exact, prefix, Names::All].map(|names| Selection {
        service: service.clone(),
        names,
        filter: Attributes::new(),
    })
}

fn one_write(service: &Service, name: &str) -> Change {
    let value = SecretValue::from_buffer(Buffer::default()).expect("an empty value is a value");
    let items = vec![WriteItem { target: Target::parse(name).expect("a name"), value }];
    Change::Write { service: service.clone(), items, attributes: Attributes::new() }
}
