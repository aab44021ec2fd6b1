//! The request members of the contract, read a second time: with `serde_json` and without a word of `wire`. What
//! the daemon accepts and what this accepts is the same, with the same content.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// One line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// `HELLO`.
    Hello,
    /// `STATUS`.
    Status,
    /// `LOCK`.
    Lock,
    /// `UNLOCK`, with nonce and key or without.
    Unlock(Option<(String, String)>),
    /// `SEAL`, with the nonce of whoever asks, or the daemon's with a key.
    Seal(String, Option<String>),
    /// `REQUEST`.
    Request(Asked),
}

/// The members of a request, defaults filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// `action`.
    pub action: String,
    /// `service`.
    pub service: String,
    /// Whether `match` is `prefix`.
    pub prefix: bool,
    /// `targets`; none stands for all names.
    pub targets: Option<Vec<String>>,
    /// `values`; empty where there are none.
    pub values: Vec<String>,
    /// `attributes`.
    pub attributes: BTreeMap<String, String>,
    /// `nonce`.
    pub nonce: Option<String>,
}

/// What the contract says a line means; none where it says `malformed_request`.
pub fn read(line: &str) -> Option<Meaning> {
    let Json::Object(mut members) = serde_json::from_str(line).ok()? else { return None };
    let kind = members.remove("type")?.text()?;
    if kind != "REQUEST" {
        let meaning = match kind.as_str() {
            "HELLO" => Meaning::Hello,
            "STATUS" => Meaning::Status,
            "LOCK" => Meaning::Lock,
            "UNLOCK" | "SEAL" => {
                let mut digits = |name: &str, count: usize| match members.remove(name) {
                    None => Some(None),
                    Some(text) => text.text().filter(|text| is_hex(text, count)).map(Some),
                };
                match (digits("nonce", 64)?, digits("key", 144)?) {
                    (Some(nonce), key) if kind == "SEAL" => Meaning::Seal(nonce, key),
                    (Some(nonce), Some(key)) => Meaning::Unlock(Some((nonce, key))),
                    (None, None) if kind == "UNLOCK" => Meaning::Unlock(None),
                    _ => return None,
                }
            }
            _ => return None,
        };
        return members.is_empty().then_some(meaning);
    }
    let mut asked = Asked {
        action: members.remove("action")?.text()?,
        service: members.remove("service")?.text().filter(|text| is_name(text, 256))?,
        ..Asked::default()
    };
    let writes = match asked.action.as_str() {
        "write" => true,
        "read" | "delete" | "search" | "check" => false,
        _ => return None,
    };
    if let Some(word) = members.remove("match") {
        asked.prefix = match word.text()?.as_str() {
            "exact" => false,
            "prefix" => true,
            _ => return None,
        };
        if writes {
            return None;
        }
    }
    if let Some(list) = members.remove("targets") {
        let targets = list.texts()?;
        let unique = targets.iter().collect::<std::collections::HashSet<_>>().len() == targets.len();
        let named = targets.iter().all(|text| is_name(text, 1024));
        if !(1..=1024).contains(&targets.len()) || !unique || !named {
            return None;
        }
        asked.targets = Some(targets);
    }
    let may_have_none = matches!(asked.action.as_str(), "search" | "check") && !asked.prefix;
    if asked.targets.is_none() && !may_have_none {
        return None;
    }
    if let Some(list) = members.remove("values") {
        asked.values = list.texts()?;
        if !writes {
            return None;
        }
    }
    if asked.values.iter().any(|value| value.len() > 65_536)
        || (writes && Some(asked.values.len()) != asked.targets.as_ref().map(Vec::len))
    {
        return None;
    }
    if let Some(map) = members.remove("attributes") {
        asked.attributes = attributes(map)?;
        let filters = asked.action == "search" || (asked.prefix && asked.action != "check");
        if !asked.attributes.is_empty() && !writes && !filters {
            return None;
        }
    }
    if let Some(nonce) = members.remove("nonce") {
        asked.nonce = Some(nonce.text().filter(|text| is_hex(text, 64))?);
    }
    members.is_empty().then_some(Meaning::Request(asked))
}

fn attributes(map: Json) -> Option<BTreeMap<String, String>> {
    let Json::Object(members) = map else { return None };
    if members.len() > 16 {
        return None;
    }
    let checked = |(name, value): (String, Json)| {
        let value = value.text()?;
        (is_name(&name, 64) && value.len() <= 256).then_some((name, value))
    };
    members.into_iter().map(checked).collect()
}

fn is_hex(text: &str, count: usize) -> bool {
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == count && text.as_bytes().iter().all(digit)
}

fn is_name(text: &str, limit: usize) -> bool {
    !text.is_empty() && text.len() <= limit && !text.chars().any(char::is_control)
}

/// JSON in which a member given twice is an error.
enum Json {
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
    Other,
}

impl Json {
    fn text(self) -> Option<String> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    fn texts(self) -> Option<Vec<String>> {
        if let Self::List(list) = self { list.into_iter().map(Self::text).collect() } else { None }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((name, value)) = members.next_entry()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("twice"));
            }
        }
        Ok(Json::Object(object))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }
}
