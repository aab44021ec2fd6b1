//! config.json as types: which executables are registered, and what each may do.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    parse::{self, ConfigError, RawEntry, RawLibrary},
    permissions::Permissions,
    terms::Relaxable,
};
use crate::{
    caller::Check,
    digest::Digest,
    name::{Service, TargetPrefix},
};

const BAD_HASH: &str = "its hash is not sha256: and 64 hexadecimal digits, so it matches nothing";
const BAD_PATH: &str = "its path is not absolute, so it matches nothing";
const BAD_EXPIRY: &str = "its expires_at is not an RFC 3339 time, so it matches nothing";
const TWICE: &str = "another entry has the same path and hash, so both match nothing";
const BAD_SERVICE: &str = "a service name is empty, too long or has control characters; it allows nothing";
const BAD_PREFIX: &str = "a target prefix is empty, too long or has control characters; it allows nothing";
const BAD_CHECK: &str = "relax names a check that is unknown or can't be turned off; it relaxes nothing";
const BAD_LIBRARY: &str = "a library has no absolute path or no valid hash; it admits nothing";

/// The whole policy. What it does not name is denied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    entries: Vec<Entry>,
    by_path: BTreeMap<PathBuf, Vec<usize>>,
    warnings: Vec<Warning>,
}

/// One registered executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    path: PathBuf,
    digest: Option<Digest>,
    size: Option<u64>,
    registered_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    permissions: Permissions,
    challenge: bool,
    relax: BTreeSet<Check>,
    libraries: Vec<Library>,
    comment: Option<String>,
    unusable: Option<&'static str>,
}

/// A library that an entry's executable may map although its user can write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    path: PathBuf,
    digest: Digest,
}

/// Something in config.json that has no effect, or not the one that its writer may expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    entry: usize,
    path: PathBuf,
    what: Cow<'static, str>,
}

/// What the policy knows about an executable.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'p> {
    /// Path and hash match this entry.
    Registered(&'p Entry),
    /// Path and hash match an entry whose time is over.
    Expired,
    /// Path and hash match an entry that a fault keeps from matching; the fault, one clause.
    Unusable(&'static str),
    /// The path is registered with another hash.
    HashDiffers,
    /// No entry speaks about it.
    Unknown,
}

impl Policy {
    /// The policy that allows nothing: what a missing config.json means.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads config.json. A known member of a wrong type or given twice, or another `protocol_version` than `"1"`,
    /// breaks the whole file; what is well-formed but means nothing becomes a warning and matches nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let mut policy = Self::empty();
        for (index, raw) in parse::parse(bytes)?.into_iter().enumerate() {
            let mut remarks = BTreeSet::new();
            let unknown = unknown_members(&raw.unknown);
            let entry = Entry::from_raw(raw, &mut remarks);
            policy.by_path.entry(entry.path.clone()).or_default().push(index);
            let path = &entry.path;
            let remarks = remarks.into_iter().map(Cow::Borrowed).chain(unknown.map(Cow::Owned));
            policy.warnings.extend(remarks.map(|what| Warning::new(index, path, what)));
            policy.entries.push(entry);
        }
        policy.disable_doubles();
        Ok(policy)
    }

    /// What the policy knows about the executable at the canonical `path` with this hash, at this time.
    pub fn recognise(&self, path: &Path, digest: &Digest, now: Timestamp) -> Standing<'_> {
        let mut standing = Standing::Unknown;
        for entry in self.with_path(path) {
            if entry.digest != Some(*digest) {
                if standing == Standing::Unknown {
                    standing = Standing::HashDiffers;
                }
            } else if let Some(fault) = entry.unusable {
                standing = Standing::Unusable(fault);
            } else {
                // at most one usable entry has this path and hash
                return if entry.expired(now) { Standing::Expired } else { Standing::Registered(entry) };
            }
        }
        standing
    }

    /// Whether the executable at `path` with `size` bytes can match an entry at all, so that it is worth hashing.
    pub fn candidate(&self, path: &Path, size: u64) -> bool {
        self.with_path(path)
            .any(|entry| entry.unusable.is_none() && entry.size.is_none_or(|known| known == size))
    }

    /// What is wrong with the entries of this path that a new hash does not mend, where none of them is in order.
    pub fn fault(&self, path: &Path) -> Option<&'static str> {
        let hashed = || self.with_path(path).filter(|entry| entry.digest.is_some());
        if hashed().any(|entry| entry.unusable.is_none()) { None } else { hashed().find_map(Entry::unusable) }
    }

    /// Whether some entry has this path, whatever its hash.
    pub fn knows_path(&self, path: &Path) -> bool {
        self.by_path.contains_key(path)
    }

    /// Whether some entry has this path and this hash, in order or not.
    pub fn knows(&self, path: &Path, digest: &Digest) -> bool {
        self.with_path(path).any(|entry| entry.digest == Some(*digest))
    }

    /// All entries, in the order of the file.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries with this path, in the order of the file.
    pub fn with_path(&self, path: &Path) -> impl Iterator<Item = &Entry> {
        self.by_path.get(path).into_iter().flatten().filter_map(|&index| self.entries.get(index))
    }

    /// What has no effect, in the order of the file.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Two entries for one path and hash would make the order of the file, or the union of their permissions, a
    /// decision nobody took: neither counts.
    fn disable_doubles(&mut self) {
        let mut seen: BTreeMap<(&Path, Digest), usize> = BTreeMap::new();
        for entry in &self.entries {
            if let Some(digest) = entry.digest {
                *seen.entry((&entry.path, digest)).or_default() += 1;
            }
        }
        let double = |entry: &Entry| {
            entry
                .digest
                .and_then(|digest| seen.get(&(entry.path.as_path(), digest)))
                .is_some_and(|&count| count > 1)
        };
        let doubles: Vec<bool> = self.entries.iter().map(double).collect();
        for (index, (entry, double)) in self.entries.iter_mut().zip(doubles).enumerate() {
            if double {
                entry.unusable.get_or_insert(TWICE);
                self.warnings.push(Warning::new(index, &entry.path, TWICE.into()));
            }
        }
        self.warnings.sort_by_key(|warning| warning.entry);
    }
}

impl Entry {
    /// Where the executable is; canonical when our commands wrote it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The hash of its bytes; none when config.json has no valid one, and then the entry matches nothing.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Its length in bytes, where known. It only spares hashing; the hash decides.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// When it was registered, where known.
    pub fn registered_at(&self) -> Option<Timestamp> {
        self.registered_at
    }

    /// From when on the entry matches nothing any more.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Whether its time is over.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }

    /// What it allows.
    pub fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// Whether every request must carry the nonce of a HELLO.
    pub fn challenge(&self) -> bool {
        self.challenge
    }

    /// Whether this identity check is turned off for the executable.
    pub fn relaxes(&self, check: Check) -> bool {
        self.relax.contains(&check)
    }

    /// The identity checks that are turned off, in order.
    pub fn relaxed(&self) -> impl Iterator<Item = Check> {
        self.relax.iter().copied()
    }

    /// The libraries that it may map although the user can write them.
    pub fn libraries(&self) -> &[Library] {
        &self.libraries
    }

    /// The user's own words about it.
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// Why the entry matches nothing, where that is so.
    pub fn unusable(&self) -> Option<&'static str> {
        self.unusable
    }

    fn from_raw(raw: RawEntry, remarks: &mut BTreeSet<&'static str>) -> Self {
        let path = PathBuf::from(raw.path.unwrap_or_default());
        let digest = raw.hash.as_deref().and_then(Digest::parse);
        let expires_at = raw.expires_at.as_deref().map(str::parse::<Timestamp>);
        let unusable = if !path.is_absolute() {
            Some(BAD_PATH)
        } else if digest.is_none() {
            Some(BAD_HASH)
        } else if matches!(expires_at, Some(Err(_))) {
            Some(BAD_EXPIRY)
        } else {
            None
        };
        remarks.extend(unusable);
        let mut services = |list: Option<Vec<String>>| -> BTreeSet<Service> {
            valid(list.unwrap_or_default(), |text| Service::parse(text).ok(), BAD_SERVICE, remarks)
        };
        let (read, write) = (services(raw.read), services(raw.write));
        let prefixes = raw
            .target_prefixes
            .map(|list| valid(list, |text| TargetPrefix::parse(text).ok(), BAD_PREFIX, remarks));
        Self {
            path,
            digest,
            size: raw.size,
            registered_at: raw.registered_at.and_then(|text| text.parse().ok()),
            expires_at: expires_at.and_then(Result::ok),
            permissions: Permissions::new(read, write, raw.can_search.unwrap_or(false), prefixes),
            challenge: raw.challenge.unwrap_or(false),
            relax: valid(raw.relax.unwrap_or_default(), |name| relaxable(name), BAD_CHECK, remarks),
            libraries: valid(raw.libraries.unwrap_or_default(), Library::from_raw, BAD_LIBRARY, remarks),
            comment: raw.comment,
            unusable,
        }
    }
}

/// What is said of members that we don't know, by their names: a person has to find them in the file.
fn unknown_members(names: &[String]) -> Option<String> {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{}\"", name.escape_debug())).collect();
    match quoted.as_slice() {
        [] => None,
        [one] => Some(format!("this version does not know its member {one}, which restricts nothing")),
        some => Some(format!(
            "this version does not know its members {}, which restrict nothing",
            some.join(", ")
        )),
    }
}

fn relaxable(name: &str) -> Option<Check> {
    Some(Relaxable::new(Check::parse(name)?).ok()?.check())
}

/// The items that mean something; a remark if one does not.
fn valid<T, U, C: FromIterator<U>>(
    items: Vec<T>,
    read: impl Fn(&T) -> Option<U>,
    what: &'static str,
    remarks: &mut BTreeSet<&'static str>,
) -> C {
    let found = items.iter().map(read).inspect(|item| {
        if item.is_none() {
            remarks.insert(what);
        }
    });
    found.flatten().collect()
}

impl Library {
    /// Where it is mapped from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The hash of its bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    fn from_raw(raw: &RawLibrary) -> Option<Self> {
        let path = PathBuf::from(raw.path.as_deref()?);
        let digest = Digest::parse(raw.hash.as_deref()?)?;
        path.is_absolute().then_some(Self { path, digest })
    }
}

impl Warning {
    fn new(index: usize, path: &Path, what: Cow<'static, str>) -> Self {
        Self { entry: index + 1, path: path.to_owned(), what }
    }

    /// Which entry, from 1.
    pub fn entry(&self) -> usize {
        self.entry
    }

    /// What has no effect, one clause.
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} ({}): {}", self.entry, self.path.to_string_lossy().escape_debug(), self.what)
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
