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
    /// The program.
    pub path: String,
    /// What its entries say now and did not say.
    pub gains: Vec<String>,
    /// What they said and say no more.
    pub loses: Vec<String>,
}

/// What changed between two files, by program; members that we don't know included. What is no JSON says nothing.
pub fn differences(before: &[u8], after: &[u8]) -> Vec<Difference> {
    let (before, after) = (facts(before), facts(after));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let none = BTreeSet::new();
    let difference = |path: &String| {
        let (old, new) = (before.get(path).unwrap_or(&none), after.get(path).unwrap_or(&none));
        let gains: Vec<String> = new.difference(old).cloned().collect();
        let loses: Vec<String> = old.difference(new).cloned().collect();
        (!gains.is_empty() || !loses.is_empty()).then(|| Difference { path: path.clone(), gains, loses })
    };
    paths.into_iter().filter_map(difference).collect()
}

/// Everything that the entries of each program say, one fact a line.
fn facts(config: &[u8]) -> BTreeMap<String, BTreeSet<String>> {
    let mut facts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let config: Map<String, Value> = serde_json::from_slice(config).unwrap_or_default();
    let entries = config.get("registered_binaries").and_then(Value::as_array);
    for entry in entries.into_iter().flatten().filter_map(Value::as_object) {
        let path = entry.get("path").and_then(Value::as_str).unwrap_or("an entry without a path");
        let here = facts.entry(path.to_owned()).or_default();
        for (member, value) in entry.iter().filter(|(member, _)| *member != "path") {
            here.extend(said(member, value));
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
    fn a_difference_tells_who_gains_and_who_loses_what() {
        let before = br#"{"protocol_version":"1","registered_binaries":[
            {"path":"/a","hash":"sha256:00","allowed_read_services":["s","t"],"can_search":true},
            {"path":"/gone","hash":"sha256:11","allowed_write_services":["s"]}]}"#;
        let after = br#"{"protocol_version":"1","registered_binaries":[
            {"path":"/a","hash":"sha256:22","allowed_read_services":["t"],"can_search":false,"relax":["traced"]},
            {"path":"/new","hash":"sha256:33","allowed_read_services":["s"],"allowed_target_prefixes":[]}]}"#;
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
            ]
        );
        assert_eq!(differences(b"broken", before).len(), 3, "from nothing");
    }
}
