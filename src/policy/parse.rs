//! config.json, byte by byte: known members with exactly one type and at most once, unknown members passed over.
//!
//! serde_json's own error texts echo what they read, so none of them leaves this file: a fault is one of our sentences,
//! at a line and a column.

use std::cell::Cell;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::error::Category;

/// Why config.json can't be read as a policy. Holds no byte of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at line {line}, column {column}")]
pub struct ConfigError {
    /// The line, from 1.
    pub line: usize,
    /// The column in bytes, from 1.
    pub column: usize,
    /// What is wrong there, one clause.
    pub what: &'static str,
}

/// Most unknown members of one entry that are named, and how many characters of each: enough to find them by.
const MAX_UNKNOWN: usize = 4;
const MAX_UNKNOWN_NAME: usize = 64;

/// An entry as written: types checked, meanings not yet.
#[derive(Default)]
pub(super) struct RawEntry {
    pub(super) path: Option<String>,
    pub(super) hash: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) registered_at: Option<String>,
    pub(super) read: Option<Vec<String>>,
    pub(super) write: Option<Vec<String>>,
    pub(super) can_search: Option<bool>,
    pub(super) target_prefixes: Option<Vec<String>>,
    pub(super) expires_at: Option<String>,
    pub(super) comment: Option<String>,
    pub(super) challenge: Option<bool>,
    pub(super) relax: Option<Vec<String>>,
    pub(super) libraries: Option<Vec<RawLibrary>>,
    /// Members that are none that we know, the first of them: perhaps a misspelt restriction that the user believes to be
    /// there.
    pub(super) unknown: Vec<String>,
}

/// A pinned library as written.
#[derive(Default)]
pub(super) struct RawLibrary {
    pub(super) path: Option<String>,
    pub(super) hash: Option<String>,
}

/// Reads the whole of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<RawEntry>, ConfigError> {
    if let Err(error) = std::str::from_utf8(bytes) {
        let (line, column) = position(bytes, error.valid_up_to());
        return Err(ConfigError { line, column, what: "the file is not UTF-8" });
    }
    let fault = Fault(Cell::new(None));
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Document(&fault).deserialize(&mut reader);
    read.and_then(|entries| reader.end().map(|()| entries)).map_err(|error| locate(&error, &fault, bytes))
}

/// The place and the kind of a serde_json error, without its text. A line feed that should not be there stands at the end of
/// its line, as editors count, and not in column 0 of the next.
pub(super) fn plain(error: &serde_json::Error, bytes: &[u8]) -> ConfigError {
    let what = match error.classify() {
        Category::Eof => "the JSON ends too early",
        Category::Syntax => "this is not valid JSON",
        Category::Data | Category::Io => "a member has the wrong type",
    };
    let (line, column) = match (error.line(), error.column()) {
        (line @ 2.., 0) => {
            let before = bytes.split(|&byte| byte == b'\n').nth(line - 2);
            (line - 1, before.map_or(1, |before| before.len() + 1))
        }
        (line, column) => (line, column.max(1)),
    };
    ConfigError { line, column, what }
}

fn locate(error: &serde_json::Error, fault: &Fault, bytes: &[u8]) -> ConfigError {
    let plain = plain(error, bytes);
    match error.classify() {
        Category::Data => ConfigError { what: fault.0.get().unwrap_or(plain.what), ..plain },
        _ => plain,
    }
}

fn position(bytes: &[u8], offset: usize) -> (usize, usize) {
    let before = bytes.get(..offset).unwrap_or(bytes);
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    (1 + before.iter().filter(|&&byte| byte == b'\n').count(), 1 + offset - line_start)
}

/// The first fault met, kept beside serde's error because that one can carry text only, and its text echoes.
struct Fault(Cell<Option<&'static str>>);

impl Fault {
    fn refuse<E: serde::de::Error>(&self, what: &'static str) -> E {
        self.note(what);
        E::custom("refused")
    }

    fn note(&self, what: &'static str) {
        if self.0.get().is_none() {
            self.0.set(Some(what));
        }
    }
}

/// What is said about a member that is given twice, or has another shape.
struct Member {
    twice: &'static str,
    shape: &'static str,
}

macro_rules! member {
    ($name:literal, $shape:literal) => {
        &Member { twice: concat!($name, " is given twice"), shape: concat!($name, " must be ", $shape) }
    };
}

fn fill<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    slot: &mut Option<T>,
    map: &mut A,
    fault: &Fault,
    member: &Member,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(fault.refuse(member.twice));
    }
    *slot = Some(map.next_value().inspect_err(|_| fault.note(member.shape))?);
    Ok(())
}

/// Like [`fill`], for a list of objects.
fn fill_list<'de, A: MapAccess<'de>, I: Item>(
    slot: &mut Option<Vec<I>>,
    map: &mut A,
    fault: &Fault,
    member: &Member,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(fault.refuse(member.twice));
    }
    let list = List(fault, std::marker::PhantomData);
    *slot = Some(map.next_value_seed(list).inspect_err(|_| fault.note(member.shape))?);
    Ok(())
}

struct Document<'f>(&'f Fault);

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = Vec<RawEntry>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        let fault = self.0;
        reader.deserialize_map(self).inspect_err(|_| fault.note("the file must hold one JSON object"))
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = Vec<RawEntry>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut version: Option<String> = None;
        let mut entries: Option<Vec<RawEntry>> = None;
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "protocol_version" => {
                    fill(&mut version, &mut map, self.0, member!("protocol_version", "the string \"1\""))?;
                    if version.as_deref() != Some("1") {
                        return Err(self.0.refuse("protocol_version must be the string \"1\""));
                    }
                }
                "registered_binaries" => {
                    fill_list(
                        &mut entries,
                        &mut map,
                        self.0,
                        member!("registered_binaries", "a list of objects"),
                    )?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if version.is_none() {
            return Err(self.0.refuse("protocol_version is missing"));
        }
        Ok(entries.unwrap_or_default())
    }
}

/// An object within a list.
trait Item: Default {
    /// What is said when it is not an object.
    const SHAPE: &'static str;

    /// Takes the value of the member `name`.
    fn member<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
        fault: &Fault,
    ) -> Result<(), A::Error>;

    /// What is missing, once all members are read.
    fn missing(&self) -> Option<&'static str>;
}

impl Item for RawEntry {
    const SHAPE: &'static str = "an entry must be an object";

    fn member<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
        fault: &Fault,
    ) -> Result<(), A::Error> {
        match name {
            "path" => fill(&mut self.path, map, fault, member!("path", "a string")),
            "hash" => fill(&mut self.hash, map, fault, member!("hash", "a string")),
            "size" => fill(&mut self.size, map, fault, member!("size", "a whole number of bytes")),
            "registered_at" => {
                fill(&mut self.registered_at, map, fault, member!("registered_at", "a string"))
            }
            "allowed_read_services" => {
                fill(&mut self.read, map, fault, member!("allowed_read_services", "a list of strings"))
            }
            "allowed_write_services" => {
                fill(&mut self.write, map, fault, member!("allowed_write_services", "a list of strings"))
            }
            "can_search" => fill(&mut self.can_search, map, fault, member!("can_search", "true or false")),
            "allowed_target_prefixes" => fill(
                &mut self.target_prefixes,
                map,
                fault,
                member!("allowed_target_prefixes", "a list of strings"),
            ),
            "expires_at" => fill(&mut self.expires_at, map, fault, member!("expires_at", "a string")),
            "comment" => fill(&mut self.comment, map, fault, member!("comment", "a string")),
            "challenge" => fill(&mut self.challenge, map, fault, member!("challenge", "true or false")),
            "relax" => fill(&mut self.relax, map, fault, member!("relax", "a list of strings")),
            "libraries" => {
                fill_list(&mut self.libraries, map, fault, member!("libraries", "a list of objects"))
            }
            _ => {
                let shown: String = name.chars().take(MAX_UNKNOWN_NAME).collect();
                // one that is given twice is one
                if self.unknown.len() < MAX_UNKNOWN && !self.unknown.contains(&shown) {
                    self.unknown.push(shown);
                }
                map.next_value::<IgnoredAny>().map(drop)
            }
        }
    }

    fn missing(&self) -> Option<&'static str> {
        self.path.is_none().then_some("an entry has no path")
    }
}

impl Item for RawLibrary {
    const SHAPE: &'static str = "a library must be an object";

    fn member<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
        fault: &Fault,
    ) -> Result<(), A::Error> {
        match name {
            "path" => fill(&mut self.path, map, fault, member!("path", "a string")),
            "hash" => fill(&mut self.hash, map, fault, member!("hash", "a string")),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }

    fn missing(&self) -> Option<&'static str> {
        (self.path.is_none() || self.hash.is_none()).then_some("a library needs a path and a hash")
    }
}

struct List<'f, I>(&'f Fault, std::marker::PhantomData<I>);

impl<'de, I: Item> DeserializeSeed<'de> for List<'_, I> {
    type Value = Vec<I>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de, I: Item> Visitor<'de> for List<'_, I> {
    type Value = Vec<I>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(Object(self.0, std::marker::PhantomData))? {
            items.push(item);
        }
        Ok(items)
    }
}

struct Object<'f, I>(&'f Fault, std::marker::PhantomData<I>);

impl<'de, I: Item> DeserializeSeed<'de> for Object<'_, I> {
    type Value = I;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<I, D::Error> {
        let fault = self.0;
        reader.deserialize_map(self).inspect_err(|_| fault.note(I::SHAPE))
    }
}

impl<'de, I: Item> Visitor<'de> for Object<'_, I> {
    type Value = I;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<I, A::Error> {
        let mut item = I::default();
        while let Some(name) = map.next_key::<String>()? {
            item.member(&name, &mut map, self.0)?;
        }
        match item.missing() {
            Some(what) => Err(self.0.refuse(what)),
            None => Ok(item),
        }
    }
}
