//! One line to one request: exactly what the contract says, whoever reads it and however it is spelled.

use std::str;

use keychain_auth::{
    name::Attributes,
    store::{Change, Names, Selection},
    wire::{Batch, Carried, Malformed, Message, Request},
};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::{
    Seen,
    contract::{self, Asked, Meaning},
};

/// Everything that may stand in an error about a line. A new rule is added here after somebody has read its words.
pub const SENTENCES: [&str; 28] = [
    "the line is not a JSON object",
    "the JSON syntax is broken",
    "the line ends too early",
    "there are bytes after the object",
    "a control character must be escaped",
    "an escape is not one of JSON's",
    "a surrogate stands alone",
    "a member is not part of the protocol",
    "a member is given twice",
    "a member has the wrong type",
    "a required member is missing",
    "\"type\" must be \"REQUEST\", \"HELLO\", \"STATUS\", \"LOCK\", \"UNLOCK\" or \"SEAL\"",
    "\"action\" must be read, write, delete, search or check",
    "\"match\" must be exact or prefix",
    "a member does not belong to this action",
    "\"targets\" must name 1 to 1024 targets",
    "a target is named twice",
    "\"values\" must have as many members as \"targets\"",
    "a value is over 65536 bytes",
    "\"nonce\" must be 64 hexadecimal digits",
    "\"key\" must be 144 hexadecimal digits",
    "empty name",
    "name over 64 bytes",
    "name over 256 bytes",
    "name over 1024 bytes",
    "control character in a name",
    "more than 16 attributes",
    "attribute given twice",
];

/// The reader and the contract agree on every line; what is accepted means the same in every spelling; what is refused
/// is answered without a byte of it.
pub fn hold(bytes: &[u8]) -> Seen {
    // a frame is UTF-8 without a line end
    let Ok(text) = str::from_utf8(bytes) else { return Seen::Refused };
    let line = text.split('\n').next().unwrap_or_default();
    match (Message::parse(line), contract::read(line)) {
        (Ok(message), Some(meaning)) => {
            assert_eq!(meaning_of(message), meaning);
            for spelling in spellings(&meaning) {
                let again = Message::parse(&spelling).map(meaning_of);
                assert_eq!(again.as_ref(), Ok(&meaning), "{spelling}");
            }
            Seen::Accepted
        }
        (Err(error), None) => {
            says_no_more_than_the_rule(&error, line);
            Seen::Refused
        }
        (Ok(_), None) => panic!("accepted, and the contract refuses it"),
        (Err(error), Some(meaning)) => panic!("refused ({error}), and the contract says {meaning:?}"),
    }
}

/// The text is one of the fixed sentences and a place within the line.
pub fn says_no_more_than_the_rule(error: &Malformed, line: &str) {
    let text = error.to_string();
    let place = format!(" (byte {})", error.column);
    let sentence = text.strip_suffix(&place).expect("an error ends with its place");
    assert!(SENTENCES.contains(&sentence), "an error says something new: {sentence}");
    assert!((1..=line.len() + 1).contains(&error.column), "an error is outside of the line");
}

/// What the daemon understood, member by member, and that its batch is about the same.
pub fn meaning_of(message: Message) -> Meaning {
    match message {
        Message::Hello => Meaning::Hello,
        Message::Status => Meaning::Status,
        Message::Lock => Meaning::Lock,
        Message::Unlock(carried) => {
            Meaning::Unlock(carried.map(|Carried { nonce, key }| (nonce.to_hex(), hex(&key))))
        }
        Message::AskSeal(nonce) => Meaning::Seal(nonce.to_hex(), None),
        Message::Seal(Carried { nonce, key }) => Meaning::Seal(nonce.to_hex(), Some(hex(&key))),
        Message::Request(request) => Meaning::Request(asked_in(request)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn asked_in(request: Request) -> Asked {
    let nonce = request.nonce().map(|nonce| nonce.to_hex());
    let (told, batch) = request.into_parts();
    let mut asked = Asked {
        action: told.action.as_str().to_owned(),
        service: told.service.as_str().to_owned(),
        prefix: told.prefix,
        nonce,
        ..Asked::default()
    };
    let all_told: Vec<_> = told.targets.iter().map(|target| target.as_str().to_owned()).collect();
    match batch {
        Batch::Query(query) => {
            assert_eq!(query.values, asked.action == "read");
            assert!(asked.action == "read" || asked.action == "search");
            select(&mut asked, &query.selection);
        }
        Batch::Check(selection) => {
            assert_eq!(asked.action, "check");
            select(&mut asked, &selection);
        }
        Batch::Change(Change::Delete(selection)) => {
            assert_eq!(asked.action, "delete");
            select(&mut asked, &selection);
        }
        Batch::Change(Change::Write { service, items, attributes }) => {
            assert_eq!(asked.action, "write");
            assert_eq!(asked.service, service.as_str());
            asked.targets = Some(items.iter().map(|item| item.target.as_str().to_owned()).collect());
            asked.values = items.iter().map(|item| item.value.expose_secret().to_owned()).collect();
            asked.attributes = pairs(&attributes);
        }
    }
    assert_eq!(
        asked.targets.clone().unwrap_or_default(),
        all_told,
        "the record names what the batch touches"
    );
    asked
}

fn select(asked: &mut Asked, selection: &Selection) {
    assert_eq!(asked.service, selection.service.as_str());
    asked.attributes = pairs(&selection.filter);
    asked.targets = match &selection.names {
        Names::All => None,
        Names::Exact(targets) => Some(targets.iter().map(|target| target.as_str().to_owned()).collect()),
        Names::Prefix(prefixes) => Some(prefixes.iter().map(|prefix| prefix.as_str().to_owned()).collect()),
    };
    assert_eq!(asked.prefix && asked.targets.is_some(), matches!(selection.names, Names::Prefix(_)));
}

fn pairs(attributes: &Attributes) -> std::collections::BTreeMap<String, String> {
    attributes.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The same request as other clients would write it: compact, spread out and turned round, and all in escapes.
pub fn spellings(meaning: &Meaning) -> [String; 3] {
    let members = members(meaning);
    let compact = Value::Object(members.clone()).to_string();
    let turned: Vec<_> =
        members.iter().rev().map(|(name, value)| format!("{} :\t{value} ", json!(name))).collect();
    let spread = format!(" {{ {}\r}}\t", turned.join(" , "));
    let escaped: Vec<_> =
        members.iter().map(|(name, value)| format!("{}:{}", escape(name), all_escaped(value))).collect();
    [compact, spread, format!("{{{}}}", escaped.join(","))]
}

/// The members of a request as JSON.
pub fn members(meaning: &Meaning) -> Map<String, Value> {
    let mut members = Map::new();
    let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
    let asked = match meaning {
        Meaning::Hello => {
            add("type", json!("HELLO"));
            return members;
        }
        Meaning::Status => {
            add("type", json!("STATUS"));
            return members;
        }
        Meaning::Lock => {
            add("type", json!("LOCK"));
            return members;
        }
        Meaning::Unlock(carried) => {
            add("type", json!("UNLOCK"));
            if let Some((nonce, key)) = carried {
                add("nonce", json!(nonce));
                add("key", json!(key));
            }
            return members;
        }
        Meaning::Seal(nonce, key) => {
            add("type", json!("SEAL"));
            add("nonce", json!(nonce));
            if let Some(key) = key {
                add("key", json!(key));
            }
            return members;
        }
        Meaning::Request(asked) => asked,
    };
    add("type", json!("REQUEST"));
    add("action", json!(asked.action));
    add("service", json!(asked.service));
    if asked.prefix {
        add("match", json!("prefix"));
    }
    if let Some(targets) = &asked.targets {
        add("targets", json!(targets));
    }
    if asked.action == "write" {
        add("values", json!(asked.values));
    }
    if !asked.attributes.is_empty() {
        add("attributes", json!(asked.attributes));
    }
    if let Some(nonce) = &asked.nonce {
        add("nonce", json!(nonce));
    }
    members
}

fn all_escaped(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text),
        Value::Array(items) => format!("[{}]", items.iter().map(all_escaped).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let members =
                members.iter().map(|(name, value)| format!("{}:{}", escape(name), all_escaped(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

fn escape(text: &str) -> String {
    let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
    format!("\"{units}\"")
}
