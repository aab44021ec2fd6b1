//! config.json while a command edits it: unknown members and the order of all members stay.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, Unit};
use serde_json::{Map, Value, json};

use super::{
    document::Policy,
    parse::{self, ConfigError},
};
use crate::{digest::Digest, name::Service};

const ENTRIES: &str = "registered_binaries";
const READ: &str = "allowed_read_services";
const WRITE: &str = "allowed_write_services";
const SEARCH: &str = "can_search";

/// A config.json that is being edited. Starts from a file that parses as a policy, and ends as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft(Map<String, Value>);

/// Permissions to add to an entry or to take from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Services to read and search.
    pub read: BTreeSet<Service>,
    /// Services to write and delete in.
    pub write: BTreeSet<Service>,
    /// Search and prefix actions.
    pub search: bool,
}

/// What a registration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// A new entry, which allows nothing yet.
    Added,
    /// The entry of this path has the new hash; its permissions are as before.
    Rehashed,
    /// An entry had this path and hash already.
    Unchanged,
}

/// Why an edit makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// No entry speaks about this path.
    #[error("{} is not registered", .0.display())]
    UnknownPath(PathBuf),
    /// Entries speak about this path, and none has the hash that was asked for.
    #[error("{} is registered, but not with this hash", .0.display())]
    OtherHash(PathBuf),
    /// Several entries have this path, so it is not clear which one the new hash is for.
    #[error("config.json has several entries for {}", .0.display())]
    Ambiguous(PathBuf),
    /// JSON can't hold the path.
    #[error("the path is not UTF-8, so config.json can't name it")]
    NotUtf8,
    /// A prefix should be taken from an entry that has no list of them.
    #[error("{} may use every target, so no prefix can be taken from it", .0.display())]
    Unrestricted(PathBuf),
    /// The entry does not name this library.
    #[error("{} is not registered with the library {}", path.display(), library.display())]
    UnknownLibrary {
        /// The program.
        path: PathBuf,
        /// The library.
        library: PathBuf,
    },
}

impl Default for Draft {
    fn default() -> Self {
        let mut members = Map::new();
        members.insert("protocol_version".into(), json!("1"));
        members.insert(ENTRIES.into(), json!([]));
        Self(members)
    }
}

impl Draft {
    /// Reads config.json for editing. Errors where [`Policy::parse`] does: what is broken is never edited.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        Policy::parse(bytes)?;
        serde_json::from_slice(bytes).map(Self).map_err(|error| parse::plain(&error, bytes))
    }

    /// The file's bytes.
    pub fn render(&self) -> Vec<u8> {
        format!("{:#}\n", Value::Object(self.0.clone())).into_bytes()
    }

    /// Registers the executable: a known path keeps everything but its hash, an unknown one gets an entry that allows
    /// nothing.
    pub fn register(
        &mut self,
        path: &Path,
        digest: &Digest,
        size: u64,
        now: Timestamp,
    ) -> Result<Registration, DraftError> {
        match self.upgrade(path, digest, size, now) {
            Err(DraftError::UnknownPath(_)) => {}
            done => return done,
        }
        let entry = json!({
            "path": path.to_str().ok_or(DraftError::NotUtf8)?,
            "hash": digest.to_string(),
            "size": size,
            "registered_at": seconds(now),
            READ: [],
            WRITE: [],
            SEARCH: false,
        });
        if let Some(entries) = self.0.entry(ENTRIES).or_insert_with(|| json!([])).as_array_mut() {
            entries.push(entry);
        }
        Ok(Registration::Added)
    }

    /// Gives the entry of a known path a new hash; everything else stays. `registered_at` says when this hash came.
    pub fn upgrade(
        &mut self,
        path: &Path,
        digest: &Digest,
        size: u64,
        now: Timestamp,
    ) -> Result<Registration, DraftError> {
        // the daemon compares the size first: an entry with a wrong one matches nothing
        let sized = |entry: &Map<String, Value>| entry.get("size").is_none_or(|known| *known == json!(size));
        let known = |entry: &Map<String, Value>| hash_of(entry) == Some(*digest) && sized(entry);
        let mut found: Vec<_> = self.with_path(path).collect();
        if found.iter().filter(|entry| known(entry)).count() == 1 {
            return Ok(Registration::Unchanged);
        }
        match found.as_mut_slice() {
            [] => Err(DraftError::UnknownPath(path.into())),
            [entry] => {
                entry.insert("hash".into(), json!(digest.to_string()));
                entry.insert("size".into(), json!(size));
                entry.insert("registered_at".into(), json!(seconds(now)));
                Ok(Registration::Rehashed)
            }
            _ => Err(DraftError::Ambiguous(path.into())),
        }
    }

    /// Removes the entries of this path, or only the one with this hash. Returns how many.
    pub fn unregister(&mut self, path: &Path, only: Option<&Digest>) -> Result<usize, DraftError> {
        let meant = |entry: &Value| {
            entry.as_object().is_some_and(|entry| {
                has_path(entry, path) && only.is_none_or(|digest| hash_of(entry).as_ref() == Some(digest))
            })
        };
        let entries = self.0.get_mut(ENTRIES).and_then(Value::as_array_mut);
        let removed = entries.map_or(0, |entries| {
            let before = entries.len();
            entries.retain(|entry| !meant(entry));
            before - entries.len()
        });
        match removed {
            0 if self.with_path(path).next().is_some() => Err(DraftError::OtherHash(path.into())),
            0 => Err(DraftError::UnknownPath(path.into())),
            _ => Ok(removed),
        }
    }

    /// Adds permissions to every entry of this path. Takes none away.
    pub fn grant(&mut self, path: &Path, grant: &Grant) -> Result<(), DraftError> {
        self.each(path, |entry| {
            add(entry, READ, grant.read.iter().map(Service::as_str));
            add(entry, WRITE, grant.write.iter().map(Service::as_str));
            if grant.search {
                entry.insert(SEARCH.into(), json!(true));
            }
        })
    }

    /// Takes permissions from every entry of this path. Adds none. Returns those that none of them had: most likely they
    /// are not spelled as the user believes, and what should be gone is still there.
    pub fn revoke(&mut self, path: &Path, grant: &Grant) -> Result<Grant, DraftError> {
        let mut absent = grant.clone();
        self.each(path, |entry| {
            remove_each(entry, READ, &grant.read, Service::as_str, &mut absent.read);
            remove_each(entry, WRITE, &grant.write, Service::as_str, &mut absent.write);
            if grant.search {
                absent.search &= entry.insert(SEARCH.into(), json!(false)) != Some(json!(true));
            }
        })?;
        Ok(absent)
    }

    /// Edits every entry of this path.
    pub(super) fn each(
        &mut self,
        path: &Path,
        mut edit: impl FnMut(&mut Map<String, Value>),
    ) -> Result<(), DraftError> {
        let mut known = false;
        for entry in self.with_path(path) {
            edit(entry);
            known = true;
        }
        if known { Ok(()) } else { Err(DraftError::UnknownPath(path.into())) }
    }

    fn with_path<'d>(&'d mut self, path: &'d Path) -> impl Iterator<Item = &'d mut Map<String, Value>> {
        let entries = self.0.get_mut(ENTRIES).and_then(Value::as_array_mut).into_iter().flatten();
        entries.filter_map(Value::as_object_mut).filter(move |entry| has_path(entry, path))
    }
}

fn has_path(entry: &Map<String, Value>, path: &Path) -> bool {
    entry.get("path").and_then(Value::as_str).is_some_and(|text| Path::new(text) == path)
}

fn hash_of(entry: &Map<String, Value>) -> Option<Digest> {
    entry.get("hash").and_then(Value::as_str).and_then(Digest::parse)
}

/// Adds texts to a list, none twice.
pub(super) fn add<'t>(
    entry: &mut Map<String, Value>,
    member: &str,
    texts: impl IntoIterator<Item = &'t str>,
) {
    let mut texts = texts.into_iter().peekable();
    if texts.peek().is_none() {
        return;
    }
    if let Some(list) = entry.entry(member).or_insert_with(|| json!([])).as_array_mut() {
        for text in texts {
            if !list.iter().any(|known| known.as_str() == Some(text)) {
                list.push(json!(text));
            }
        }
    }
}

/// Removes items from a list; those that were there leave `absent`.
pub(super) fn remove_each<T: Ord>(
    entry: &mut Map<String, Value>,
    member: &str,
    items: &BTreeSet<T>,
    text: impl Fn(&T) -> &str,
    absent: &mut BTreeSet<T>,
) {
    let Some(list) = entry.get_mut(member).and_then(Value::as_array_mut) else { return };
    for item in items {
        let before = list.len();
        list.retain(|known| known.as_str() != Some(text(item)));
        if list.len() < before {
            absent.remove(item);
        }
    }
}

/// A moment as config.json has it.
pub(super) fn seconds(now: Timestamp) -> String {
    now.round(Unit::Second).unwrap_or(now).to_string()
}
