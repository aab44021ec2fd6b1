//! The config.json that was sealed last, kept for people: so that a change can be shown. Not what decides: that is in the
//! vault.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{
    lock::{private_folder, replace},
    source::{PolicyError, load},
};

/// The copy of the policy that was sealed last.
pub struct SealedCopy(PathBuf);

impl SealedCopy {
    /// The file at `path`. Nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its content; None if there is none that can be read.
    pub fn read(&self, uid: u32) -> Option<Vec<u8>> {
        load(&self.0, uid).ok().flatten().map(|loaded| loaded.bytes)
    }

    /// Whether there is one.
    pub fn exists(&self) -> bool {
        fs::symlink_metadata(&self.0).is_ok()
    }

    /// Puts another in its place.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if let Some(folder) = self.0.parent() {
            private_folder(folder)?;
        }
        replace(&self.0, bytes)
    }

    /// Removes it.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The bytes of config.json as the daemon would read them; None if there is no file.
pub fn read_config(config: &Path, uid: u32) -> Result<Option<Vec<u8>>, PolicyError> {
    Ok(load(config, uid)?.map(|loaded| loaded.bytes))
}

/// What one program gains and loses between two policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The program; where a path has several entries, with the hash of the one that is meant.
    pub path: String,
    /// What its entry says now and did not say.
    pub gains: Vec<String>,
    /// What it said and says no more.
    pub loses: Vec<String>,
}

/// What changed between two files, by program; members that we don't know included. What is no JSON says nothing.
pub fn differences(before: &[u8], after: &[u8]) -> Vec<Difference> {
    let read = |config| serde_json::from_slice::<Map<String, Value>>(config).unwrap_or_default();
    let (before, after) = (read(before), read(after));
    let several = several(&before).union(&several(&after)).copied().collect();
    let (before, after) = (facts(&before, &several), facts(&after, &several));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let none = BTreeSet::new();
    let difference = |name: &String| {
        let (old, new) = (before.get(name).unwrap_or(&none), after.get(name).unwrap_or(&none));
        let gains: Vec<String> = new.difference(old).cloned().collect();
        let loses: Vec<String> = old.difference(new).cloned().collect();
        (!gains.is_empty() || !loses.is_empty()).then(|| Difference { path: name.clone(), gains, loses })
    };
    names.into_iter().filter_map(difference).collect()
}

fn entries(config: &Map<String, Value>) -> impl Iterator<Item = &Map<String, Value>> {
    let entries = config.get("registered_binaries").and_then(Value::as_array);
    entries.into_iter().flatten().filter_map(Value::as_object)
}

fn path_of(entry: &Map<String, Value>) -> &str {
    entry.get("path").and_then(Value::as_str).unwrap_or("an entry without a path")
}

/// The paths that have more than one entry.
fn several(config: &Map<String, Value>) -> BTreeSet<&str> {
    let mut seen = BTreeSet::new();
    entries(config).map(path_of).filter(|path| !seen.insert(*path)).collect()
}

/// Everything that the entry of each program says, one fact a line. Entries of one path are told apart by their hash: what
/// one of them hands to the other would else be no difference.
fn facts(config: &Map<String, Value>, several: &BTreeSet<&str>) -> BTreeMap<String, BTreeSet<String>> {
    let mut facts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in entries(config) {
        let path = path_of(entry);
        let name = match entry.get("hash").and_then(Value::as_str) {
            _ if !several.contains(path) => path.to_owned(),
            Some(hash) => format!("{path} with {hash}"),
            None => format!("{path} without a hash"),
        };
        let mut here: BTreeSet<String> = entry
            .iter()
            .filter(|(member, _)| *member != "path")
            .flat_map(|(member, value)| said(member, value))
            .collect();
        if let Some(twin) = facts.get_mut(&name) {
            here.insert("given twice, so that it matches nothing".to_owned());
            twin.append(&mut here);
        } else {
            facts.insert(name, here);
        }
    }
    let around = config.iter().filter(|(member, _)| *member != "registered_binaries");
    let around: BTreeSet<String> = around.flat_map(|(member, value)| said(member, value)).collect();
    if !around.is_empty() {
        facts.insert("config.json".to_owned(), around);
    }
    facts
}

fn said(member: &str, value: &Value) -> Vec<String> {
    let word = match member {
        "allowed_read_services" => "read",
        "allowed_write_services" => "write",
        "allowed_target_prefixes" => "only targets that begin with",
        "can_search" => "search",
        "relax" => "relaxed check",
        "libraries" => "library",
        other => other,
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Array(items) if items.is_empty() && member == "allowed_target_prefixes" => {
            vec!["no target at all".to_owned()]
        }
        Value::Array(items) => items.iter().map(|item| format!("{word} {}", text(item))).collect(),
        Value::Bool(true) => vec![word.to_owned()],
        Value::Bool(false) => Vec::new(),
        other => vec![format!("{word} {}", text(other))],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_read_as_the_daemon_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let (config, uid) = (folder.path().join("config.json"), rustix::process::geteuid().as_raw());
        assert_eq!(read_config(&config, uid).unwrap(), None);
        replace(&config, b"{}").unwrap();
        assert_eq!(read_config(&config, uid).unwrap(), Some(b"{}".to_vec()));
    }

    #[test]
    fn a_difference_tells_who_gains_and_who_loses_what() {
        let before = br#"{"protocol_version":"1","registered_binaries":[
            {"path":"/a","hash":"sha256:00","allowed_read_services":["s","t"],"can_search":true},
            {"path":"/gone","hash":"sha256:11","allowed_write_services":["s"]}]}"#;
        let after = br#"{"protocol_version":"1","registered_binaries":[
            {"path":"/a","hash":"sha256:22","allowed_read_services":["t"],"can_search":false,"relax":["traced"]},
            {"path":"/new","hash":"sha256:33","allowed_read_services":["s"],"allowed_target_prefixes":[]},
            {"path":"/some","hash":"sha256:44","relax":[],"allowed_target_prefixes":["x/"]}]}"#;
        assert_eq!(differences(before, before), []);
        let words = |difference: &Difference| {
            format!("{}: +{:?} -{:?}", difference.path, difference.gains, difference.loses)
        };
        let told: Vec<String> = differences(before, after).iter().map(words).collect();
        assert_eq!(
            told,
            [
                r#"/a: +["hash sha256:22", "relaxed check traced"] -["hash sha256:00", "read s", "search"]"#,
                r#"/gone: +[] -["hash sha256:11", "write s"]"#,
                r#"/new: +["hash sha256:33", "no target at all", "read s"] -[]"#,
                r#"/some: +["hash sha256:44", "only targets that begin with x/"] -[]"#,
            ]
        );
        assert_eq!(differences(b"broken", before).len(), 3, "from nothing");
    }

    /// What differs, for a program at `/a` and one at `/b`: each entry by its hash and what it may read.
    fn told(before: &[(&str, &str)], after: &[(&str, &str)]) -> Vec<String> {
        let config = |entries: &[(&str, &str)]| {
            let entry = |(hash, service): &(&str, &str)| {
                format!(r#"{{"path":"/a","hash":"{hash}","allowed_read_services":["{service}"]}}"#)
            };
            let mut entries: Vec<String> = entries.iter().map(entry).collect();
            entries.push(r#"{"path":"/b","hash":"9"}"#.to_owned());
            format!(r#"{{"protocol_version":"1","registered_binaries":[{}]}}"#, entries.join(","))
        };
        let words = |one: Difference| format!("{}: +{:?} -{:?}", one.path, one.gains, one.loses);
        let differences = differences(config(before).as_bytes(), config(after).as_bytes());
        differences.into_iter().map(words).collect()
    }

    #[test]
    fn what_one_entry_of_a_path_hands_to_another_is_a_difference() {
        let swapped = told(&[("1", "s"), ("2", "t")], &[("1", "t"), ("2", "s")]);
        assert_eq!(
            swapped,
            [r#"/a with 1: +["read t"] -["read s"]"#, r#"/a with 2: +["read s"] -["read t"]"#]
        );
        assert_eq!(told(&[("1", "s"), ("2", "t")], &[("2", "t"), ("1", "s")]), [""; 0]);
    }

    #[test]
    fn a_second_entry_of_a_path_says_nothing_of_the_first() {
        let added = told(&[("1", "s")], &[("1", "s"), ("2", "s")]);
        assert_eq!(added, [r#"/a with 2: +["hash 2", "read s"] -[]"#]);
        let removed = told(&[("1", "s"), ("2", "s")], &[("1", "s")]);
        assert_eq!(removed, [r#"/a with 2: +[] -["hash 2", "read s"]"#]);
    }

    #[test]
    fn an_entry_that_is_given_once_again_gets_back_its_effect_and_that_is_a_difference() {
        let once = told(&[("1", "s"), ("1", "s")], &[("1", "s")]);
        assert_eq!(once, [r#"/a with 1: +[] -["given twice, so that it matches nothing"]"#]);
    }

    #[test]
    fn a_second_entry_that_has_no_hash_yet_is_told_too() {
        let before = br#"{"registered_binaries":[{"path":"/a","hash":"1"}]}"#;
        let after = br#"{"registered_binaries":[{"path":"/a","hash":"1"},{"path":"/a","can_search":true}]}"#;
        let gains = vec!["search".to_owned()];
        let told = Difference { path: "/a without a hash".to_owned(), gains, loses: vec![] };
        assert_eq!(differences(before, after), [told]);
    }

    #[test]
    fn the_copy_is_private_whole_and_can_be_removed_twice() {
        use std::os::unix::fs::PermissionsExt;
        let uid = rustix::process::geteuid().as_raw();
        let folder = tempfile::tempdir().unwrap();
        let copy = SealedCopy::new(folder.path().join("data/policy.sealed"));
        assert!(!copy.exists() && copy.read(uid).is_none());
        for bytes in [&b"a longer one"[..], b"short"] {
            copy.write(bytes).unwrap();
            assert_eq!(copy.read(uid).as_deref(), Some(bytes));
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(copy.path()), mode(copy.path().parent().unwrap())), (0o600, 0o700));
        fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(copy.exists() && copy.read(uid).is_none(), "what others can write is no copy");
        copy.remove().unwrap();
        assert!(!copy.exists());
        copy.remove().unwrap();
        fs::create_dir(copy.path()).unwrap();
        assert!(copy.remove().is_err(), "what can't be removed is not said to be gone");
    }
}
