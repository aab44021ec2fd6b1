//! Secrets of other programs: what is read is what stands there, one entry changes no other, and what is exported is read
//! back exactly.

use std::{collections::BTreeMap, fmt};

use keychain_auth::{
    import::{
        ExportReader, Found, Naming, PassLines, Refusal, ServiceItem, dotenv, export_header, export_line,
        go_store, pass_entry, service_item,
    },
    name::{Attributes, Service},
    secret::{Buffer, MAX_VALUE},
};
use secrecy::ExposeSecret;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::Seen;

/// A secret in words that can be compared.
type Shown = (String, String, String, BTreeMap<String, String>);

fn shown(found: &Found) -> Result<Shown, Refusal> {
    let secret = found.secret.as_ref().map_err(Clone::clone)?;
    let attributes = secret.attributes.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok((
        secret.service.to_string(),
        secret.target.to_string(),
        secret.value.expose_secret().to_owned(),
        attributes.collect(),
    ))
}

fn service(name: &str) -> Service {
    Service::parse(name).expect("a name")
}

fn all_read(found: &[Found]) -> Seen {
    Seen::when(found.iter().all(|found| found.secret.is_ok()))
}

/// `.env` files: each entry stands where its place says, is read the same alone, and the same in single quotes.
pub fn env_file(bytes: &[u8]) -> Seen {
    let read = |bytes: &[u8]| dotenv(bytes, &service("s"), None);
    let found = match read(bytes) {
        Ok(found) => found,
        Err(error) => {
            let lines =
                bytes.split(|byte| *byte == b'\n').nth(error.place.line - 1).expect("a line of the file");
            assert!(error.place.column <= lines.len() + 1, "a column of the line");
            return Seen::Refused;
        }
    };
    let text = std::str::from_utf8(bytes).expect("only text is read");
    for entry in &found {
        let place = entry.place.expect("a file has lines");
        let line = text.split('\n').nth(place.line - 1).expect("a line of the file");
        assert!(line[place.column - 1..].starts_with(&entry.name), "another name stands there");
        let Ok((.., value, _)) = shown(entry) else { continue };
        if !value.contains(['\'', '\\', '\r']) {
            let alone = read(format!("{}='{value}'", entry.name).as_bytes()).expect("a quoted value is read");
            assert_eq!(shown(&alone[0]), shown(entry), "quotes change a value");
        }
    }
    let mut longer = bytes.to_vec();
    longer.extend_from_slice(b"\nlast='x'");
    let more = read(&longer).expect("a whole entry more is read");
    assert_eq!(more.len(), found.len() + 1);
    assert!(
        more.iter().zip(&found).all(|(now, before)| shown(now) == shown(before)),
        "an entry changes another"
    );
    all_read(&found)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    service: String,
    target: String,
    value: String,
    #[serde(default)]
    attributes: Pairs,
}

/// The members of an object of strings, in their order, also those that stand twice.
#[derive(Default)]
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The lines of an export behind its head: accepted exactly when serde_json accepts them, with the same content, and the
/// same again when it is exported.
pub fn export_lines(bytes: &[u8]) -> Seen {
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let mut head = Vec::new();
    export_header(lines.len(), &mut head).expect("memory");
    let mut reader = ExportReader::new(head.strip_suffix(b"\n").expect("a line")).expect("our own head");
    let mut seen = Seen::Accepted;
    for line in lines {
        let object = line.trim_ascii_start().starts_with(b"{");
        let expected = serde_json::from_slice::<Line>(line).ok().filter(|_| object);
        let read = reader.record(line);
        assert_eq!(read.is_ok(), expected.is_some(), "two readers differ");
        let (Ok(found), Some(expected)) = (read, expected) else { return Seen::Refused };
        match shown(&found) {
            Err(_) => {
                assert!(!plain(&expected), "what keeps every limit is refused");
                seen = Seen::Refused;
            }
            Ok(shown) => {
                let attributes = expected.attributes.0.into_iter().collect();
                assert_eq!(shown, (expected.service, expected.target, expected.value, attributes));
                exports_and_returns(&found);
            }
        }
    }
    reader.finish().expect("as many lines as were said");
    seen
}

/// Whether a record keeps every limit, by a count of its own.
fn plain(line: &Line) -> bool {
    let name =
        |name: &str, limit| !name.is_empty() && name.len() <= limit && !name.chars().any(char::is_control);
    let Pairs(pairs) = &line.attributes;
    let distinct: BTreeMap<_, _> = pairs.iter().cloned().collect();
    name(&line.service, 256)
        && name(&line.target, 1024)
        && line.value.len() <= MAX_VALUE
        && pairs.len() <= 16
        && distinct.len() == pairs.len()
        && pairs.iter().all(|(it, value)| name(it, 64) && value.len() <= 256)
}

fn exports_and_returns(found: &Found) {
    let secret = found.secret.as_ref().expect("it was read");
    let mut line = Vec::new();
    export_line(&secret.service, &secret.target, &secret.value, &secret.attributes, &mut line)
        .expect("memory");
    let line = line.strip_suffix(b"\n").expect("a line ends");
    assert!(!line.contains(&b'\n'), "a record is one line");
    let mut head = Vec::new();
    export_header(1, &mut head).expect("memory");
    let mut reader = ExportReader::new(head.trim_ascii_end()).expect("our own head");
    let again = reader.record(line).expect("what is written is read");
    assert_eq!(shown(&again), shown(found), "an export loses something");
}

/// The head of an export: what is taken promises a bounded number of records and no more lines than that.
pub fn export_head(bytes: &[u8]) -> Seen {
    let Ok(reader) = ExportReader::new(bytes) else { return Seen::Refused };
    assert!(reader.records() <= keychain_auth::import::MAX_SECRETS);
    let value: serde_json::Value = serde_json::from_slice(bytes).expect("a head is JSON");
    assert_eq!((&value["format"], &value["version"]), (&"keychain-auth export".into(), &"1".into()));
    assert_eq!(value["records"].as_str().and_then(|count| count.parse().ok()), Some(reader.records()));
    assert_eq!(reader.records() == 0, reader.finish().is_ok());
    Seen::Accepted
}

/// The JSON of the earlier system: the same pairs as serde_json reads, and a name that is split gives its key again.
pub fn go_json(bytes: &[u8]) -> Seen {
    let expected = serde_json::from_slice::<Pairs>(bytes).ok();
    let mut seen = Seen::Accepted;
    for services in [&[][..], &[service("a")], &[service("a"), service("a:b")]] {
        let read = go_store(bytes, services);
        // a line feed within the object is more than the earlier system writes
        let spaced = bytes.strip_suffix(b"\n").unwrap_or(bytes).contains(&b'\n');
        assert!(read.is_ok() == expected.is_some() || spaced && read.is_err(), "two readers differ");
        let (Ok(found), Some(Pairs(expected))) = (read, expected.as_ref()) else { return Seen::Refused };
        assert_eq!(found.len(), expected.len());
        for (found, (key, value)) in found.iter().zip(expected) {
            assert_eq!(found.name, *key);
            let Ok((service, target, read, _)) = shown(found) else { continue };
            assert_eq!((format!("{service}:{target}"), &read), (key.clone(), value));
            let sure = key.matches(':').count() == 1 || services.iter().any(|it| it.as_str() == service);
            assert!(sure, "a colon was guessed");
        }
        if services.is_empty() {
            seen = all_read(&found);
        }
    }
    seen
}

/// Entries of pass: the whole is the content, the first line begins it, and an only line is both.
pub fn pass_content(bytes: &[u8]) -> Seen {
    let service = service("s");
    let read =
        |lines| shown(&pass_entry("web/site", bytes, lines, &service, None)).map(|(.., value, _)| value);
    if let Ok(whole) = read(PassLines::Whole) {
        assert_eq!(bytes.strip_suffix(b"\n").unwrap_or(bytes), whole.as_bytes());
        let first = read(PassLines::First).expect("a part of text is text");
        assert_eq!(whole.split('\n').next(), Some(first.as_str()));
    }
    match read(PassLines::Only) {
        Ok(only) => {
            assert_eq!(
                (Ok(&only), Ok(&only)),
                (read(PassLines::Whole).as_ref(), read(PassLines::First).as_ref())
            );
            Seen::Accepted
        }
        Err(_) => Seen::Refused,
    }
}

/// Items of a keychain. The input is a label, a secret, and `name=value` for each attribute, divided by the unit
/// separator (0x1f).
pub fn keychain_item(bytes: &[u8]) -> Seen {
    let mut parts = bytes.split(|byte| *byte == 0x1f);
    let label = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let secret = parts.next();
    let pair = |part| {
        let text = String::from_utf8_lossy(part);
        text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let attributes: BTreeMap<String, String> = parts.filter_map(pair).collect();
    let read = |naming: &Naming| {
        let item = ServiceItem {
            label: label.clone(),
            attributes: attributes.clone().into_iter().collect(),
            secret: secret.map(Buffer::from),
        };
        shown(&service_item(item, naming, &service("s"), None))
    };
    for name in attributes.keys().take(3) {
        let naming = Naming::Attribute(name.clone());
        if let Ok((_, target, ..)) = read(&naming) {
            assert_eq!(target, attributes[name]);
        }
    }
    let Ok((_, target, value, mut kept)) = read(&Naming::Label) else { return Seen::Refused };
    assert_eq!((target, Some(value.as_bytes())), (label.clone(), secret));
    kept.extend(attributes.get_key_value("xdg:schema").map(|(name, value)| (name.clone(), value.clone())));
    assert_eq!(kept, attributes, "an attribute is lost");
    let mut within = Attributes::new();
    assert!(
        kept.iter()
            .filter(|(name, _)| *name != "xdg:schema")
            .all(|(name, value)| within.insert(name, value).is_ok())
    );
    Seen::Accepted
}
