//! What is different between two policies, entry by entry, in words for the audit log.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::document::{Entry, Policy};
use crate::digest::Digest;

/// One entry that was added, removed or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyChange {
    /// Its path.
    pub path: PathBuf,
    /// Its hash: the one that it has now, or had, where it was removed.
    pub digest: Option<Digest>,
    /// What happened, such as `added; gained: read demo, search`.
    pub what: String,
}

/// Every entry that differs, in the order of paths.
pub fn changes(before: &Policy, after: &Policy) -> Vec<PolicyChange> {
    let (old, new) = (by_path(before), by_path(after));
    let paths: BTreeSet<&Path> = old.keys().chain(new.keys()).copied().collect();
    let mut all = Vec::new();
    for path in paths {
        let mut gone: Vec<&Entry> = old.get(path).cloned().unwrap_or_default();
        let mut come: Vec<&Entry> = new.get(path).cloned().unwrap_or_default();
        // entries that keep their hash are the same ones
        come.retain(|entry| {
            let Some(at) = gone.iter().position(|other| other.digest() == entry.digest()) else {
                return true;
            };
            let same = gone.remove(at);
            all.extend(changed(None, Some(same), Some(entry)));
            false
        });
        // of the rest, the first with another hash is its successor
        let mut gone = gone.into_iter();
        for entry in come {
            let predecessor = gone.next();
            let what = match predecessor {
                Some(other) => {
                    let old = other.digest().map_or("no hash".to_owned(), Digest::to_string);
                    format!("hash changed from {old}")
                }
                None => "added".to_owned(),
            };
            all.extend(changed(Some(what), predecessor, Some(entry)));
        }
        for entry in gone {
            all.extend(changed(Some("removed".to_owned()), Some(entry), None));
        }
    }
    all
}

fn by_path(policy: &Policy) -> BTreeMap<&Path, Vec<&Entry>> {
    let mut all: BTreeMap<&Path, Vec<&Entry>> = BTreeMap::new();
    for entry in policy.entries() {
        all.entry(entry.path()).or_default().push(entry);
    }
    all
}

fn changed(what: Option<String>, before: Option<&Entry>, after: Option<&Entry>) -> Option<PolicyChange> {
    let (old, new) = (before.map(terms).unwrap_or_default(), after.map(terms).unwrap_or_default());
    let list = |words: Vec<&String>| words.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let (gained, lost) = (list(new.difference(&old).collect()), list(old.difference(&new).collect()));
    let mut words: Vec<String> = what.into_iter().collect();
    words.extend((!gained.is_empty()).then(|| format!("gained: {gained}")));
    words.extend((!lost.is_empty()).then(|| format!("lost: {lost}")));
    let entry = after.or(before)?;
    (!words.is_empty()).then(|| PolicyChange {
        path: entry.path().to_owned(),
        digest: entry.digest().copied(),
        what: words.join("; "),
    })
}

/// Everything that an entry says, one word or two each.
fn terms(entry: &Entry) -> BTreeSet<String> {
    let permissions = entry.permissions();
    let mut terms = BTreeSet::new();
    terms.extend(permissions.read_services().map(|service| format!("read {}", service.as_str())));
    terms.extend(permissions.write_services().map(|service| format!("write {}", service.as_str())));
    terms.extend(permissions.can_search().then(|| "search".to_owned()));
    match permissions.target_prefixes() {
        Some(prefixes) => {
            terms.extend(prefixes.iter().map(|prefix| format!("targets {}…", prefix.as_str())));
            terms.extend(prefixes.is_empty().then(|| "no target".to_owned()));
        }
        None => terms.extend(["all targets".to_owned()]),
    }
    terms.extend(entry.challenge().then(|| "challenge".to_owned()));
    terms.extend(entry.relaxed().map(|check| format!("relax {check}")));
    let library =
        |one: &super::document::Library| format!("library {} {}", one.path().display(), one.digest());
    terms.extend(entry.libraries().iter().map(library));
    terms.extend(entry.expires_at().map(|end| format!("expires {end}")));
    terms.extend(entry.unusable().map(|fault| format!("no effect: {fault}")));
    terms
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn policy(entries: &[(&str, char, &str)]) -> Policy {
        let entry = |(path, hash, terms): &(&str, char, &str)| {
            format!(r#"{{"path":"{path}","hash":"sha256:{}"{terms}}}"#, hash.to_string().repeat(64))
        };
        let entries: Vec<String> = entries.iter().map(entry).collect();
        let text = format!(r#"{{"protocol_version":"1","registered_binaries":[{}]}}"#, entries.join(","));
        Policy::parse(text.as_bytes()).unwrap()
    }

    fn said(before: &Policy, after: &Policy) -> Vec<String> {
        let word = |change: &PolicyChange| format!("{}: {}", change.path.display(), change.what);
        changes(before, after).iter().map(word).collect()
    }

    #[test]
    fn what_came_went_and_changed_is_named_and_what_stayed_is_not() {
        let read = r#","allowed_read_services":["s"]"#;
        let both = r#","allowed_read_services":["s","t"],"can_search":true,"allowed_target_prefixes":["a/"]"#;
        let before = policy(&[("/a", '1', read), ("/b", '2', ""), ("/c", '3', read), ("/d", '4', read)]);
        let after = policy(&[("/a", '1', both), ("/b", '2', ""), ("/c", '9', read), ("/e", '5', read)]);
        let old = "3".repeat(64);
        assert_eq!(
            said(&before, &after),
            [
                "/a: gained: read t, search, targets a/…; lost: all targets".to_owned(),
                format!("/c: hash changed from sha256:{old}"),
                "/d: removed; lost: all targets, read s".to_owned(),
                "/e: added; gained: all targets, read s".to_owned(),
            ]
        );
        assert_eq!(said(&after, &after), [""; 0]);
        assert_eq!(said(&Policy::empty(), &before).len(), 4);
    }

    #[test]
    fn every_term_of_an_entry_is_told_when_it_comes_and_when_it_goes() {
        let pin = "7".repeat(64);
        let terms = format!(
            r#","challenge":true,"relax":["traced"],"expires_at":"2030-01-01T00:00:00Z","allowed_target_prefixes":[],
            "allowed_write_services":["w"],"libraries":[{{"path":"/l.so","hash":"sha256:{pin}"}}]"#
        );
        let (plain, full) = (policy(&[("/a", '1', "")]), policy(&[("/a", '1', &terms)]));
        let words = format!(
            "challenge, expires 2030-01-01T00:00:00Z, library /l.so sha256:{pin}, no target, relax traced, write w"
        );
        assert_eq!(said(&plain, &full), [format!("/a: gained: {words}; lost: all targets")]);
        assert_eq!(said(&full, &plain), [format!("/a: gained: all targets; lost: {words}")]);
    }

    #[test]
    fn an_entry_that_loses_its_effect_is_told_with_the_reason() {
        let before = policy(&[("/a", '1', "")]);
        let after = policy(&[("/a", '1', r#","expires_at":"next week""#)]);
        let fault = after.entries()[0].unusable().unwrap();
        assert_eq!(said(&before, &after), [format!("/a: gained: no effect: {fault}")]);
    }

    #[test]
    fn two_entries_of_one_path_are_told_apart_by_their_hash() {
        let read = r#","allowed_read_services":["s"]"#;
        let before = policy(&[("/a", '1', ""), ("/a", '2', "")]);
        let after = policy(&[("/a", '2', read), ("/a", '1', "")]);
        assert_eq!(said(&before, &after), ["/a: gained: read s"]);
    }
}
