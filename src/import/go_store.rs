//! The file store of the earlier system, the Go program of the same name: `keychain.enc` holds a nonce of 12 bytes and
//! AES-256-GCM over JSON `{"service:target":"value"}`, its key the 32 bytes of `keychain.key` beside it.
//!
//! The colon is ambiguous: services and targets may hold colons themselves. A key with one colon has one reading; any
//! other needs the service to be named.

use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag, aead::AeadInOut};

use super::{Found, Incoming, MAX_SECRETS, Place, Refusal, Rule, SourceError, text, value};
use crate::{
    name::{Attributes, Service, Target},
    secret::Buffer,
    wire::{Malformed, Problem, json::Reader},
};

/// Length of the key, in bytes.
pub const GO_KEY: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;

/// Why the file can't be decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GoStoreError {
    /// The key file has another length.
    #[error("keychain.key does not have {GO_KEY} bytes")]
    KeyLength,
    /// The file is shorter than a nonce and a tag.
    #[error("keychain.enc is cut short")]
    Short,
    /// Another key, or a changed file.
    #[error("keychain.enc can't be decrypted with keychain.key: it was changed, or the key is another one's")]
    Sealed,
}

/// Decrypts the file in place, and gives the JSON in it.
pub fn open_go_store<'b>(key: &[u8], sealed: &'b mut Buffer) -> Result<&'b [u8], GoStoreError> {
    let cipher = Aes256Gcm::new_from_slice(key).map_err(|_| GoStoreError::KeyLength)?;
    let bytes = sealed.as_mut_slice();
    let (nonce, rest) = bytes.split_at_mut_checked(NONCE).ok_or(GoStoreError::Short)?;
    let end = rest.len().checked_sub(TAG).ok_or(GoStoreError::Short)?;
    let (content, tag) = rest.split_at_mut_checked(end).ok_or(GoStoreError::Short)?;
    let nonce = Nonce::try_from(&*nonce).map_err(|_| GoStoreError::Short)?;
    let tag = Tag::try_from(&*tag).map_err(|_| GoStoreError::Short)?;
    cipher
        .decrypt_inout_detached(&nonce, b"", (&mut *content).into(), &tag)
        .map_err(|_| GoStoreError::Sealed)?;
    Ok(content)
}

/// Reads the JSON of the store. `services` decide what is ambiguous; without them only keys with one colon are read.
pub fn go_store(json: &[u8], services: &[Service]) -> Result<Vec<Found>, SourceError> {
    let mut reader = Reader::new(text(json.strip_suffix(b"\n").unwrap_or(json))?);
    let mut found = Vec::new();
    let mut rule = None;
    let read = reader.object(Problem::WrongType, |reader, key| {
        if found.len() == MAX_SECRETS {
            rule = Some(Rule::TooMany);
            return Err(reader.fail(Problem::TrailingBytes));
        }
        let bytes = reader.string()?;
        let secret = split(key.as_str(), services).and_then(|(service, target)| {
            let value = value(bytes.into_buffer())?;
            Ok(Incoming { service, target, attributes: Attributes::new(), value })
        });
        found.push(Found { name: key.as_str().to_owned(), place: None, secret });
        Ok(())
    });
    let at = |Malformed { problem, column }| SourceError {
        place: Place { line: 1, column },
        rule: rule.unwrap_or(Rule::Json(problem)),
    };
    read.and_then(|()| reader.end()).map_err(at)?;
    Ok(found)
}

/// The service and the target of a key.
fn split(key: &str, services: &[Service]) -> Result<(Service, Target), Refusal> {
    let mut fitting = services.iter().filter_map(|service| {
        let target = key.strip_prefix(service.as_str())?.strip_prefix(':')?;
        Some((service.clone(), target))
    });
    let (service, target) = match (fitting.next(), fitting.next()) {
        (Some(only), None) => only,
        (Some(_), Some(_)) => return Err(Refusal::TwoServices),
        (None, _) => {
            let colons = key.matches(':').count();
            let (service, target) = key.split_once(':').ok_or(Refusal::NoColon)?;
            if colons > 1 {
                return Err(Refusal::Colons(colons));
            }
            (Service::parse(service).map_err(Refusal::Name)?, target)
        }
    };
    Ok((service, Target::parse(target).map_err(Refusal::Name)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::name::NameError;

    fn service(name: &str) -> Service {
        Service::parse(name).unwrap()
    }

    fn names(json: &str, services: &[&str]) -> Vec<Result<(String, String), Refusal>> {
        let services: Vec<Service> = services.iter().map(|name| service(name)).collect();
        let names = |secret: Incoming| (secret.service.to_string(), secret.target.to_string());
        let found = go_store(json.as_bytes(), &services).unwrap();
        found.into_iter().map(|found| found.secret.map(names)).collect()
    }

    #[test]
    fn a_colon_is_resolved_where_one_reading_is_left_and_never_guessed() {
        let json = r#"{"a:b":"1","a:b:c":"2","plain":"3","a:":"4"}"#;
        let pair = |service: &str, target: &str| Ok((service.to_owned(), target.to_owned()));
        let (empty, none) = (Err(Refusal::Name(NameError::Empty)), Err(Refusal::NoColon));
        assert_eq!(names(json, &[]), [pair("a", "b"), Err(Refusal::Colons(2)), none.clone(), empty.clone()]);
        assert_eq!(names(json, &["a"]), [pair("a", "b"), pair("a", "b:c"), none.clone(), empty.clone()]);
        assert_eq!(names(json, &["a:b"]), [pair("a", "b"), pair("a:b", "c"), none.clone(), empty.clone()]);
        assert_eq!(names(json, &["a", "a:b"]), [pair("a", "b"), Err(Refusal::TwoServices), none, empty]);
    }

    #[test]
    fn what_the_earlier_system_sealed_is_opened_and_what_was_changed_is_not() {
        let key: Vec<u8> = (0..32).collect();
        // from Python's cryptography: AESGCM(bytes(range(32))).encrypt(bytes(12), b'{"s:t":"v"}', None)
        let mut sealed = vec![0; NONCE];
        let made = b"759ec6e4c10eb99f7e8ad44c42ca5dd1700dc3449058437de420d9";
        sealed.extend(data_encoding::HEXLOWER.decode(made).unwrap());
        let open =
            |key: &[u8], sealed: &[u8]| open_go_store(key, &mut Buffer::from(sealed)).map(<[u8]>::to_vec);
        assert_eq!(open(&key, &sealed).unwrap(), br#"{"s:t":"v"}"#);
        assert_eq!(open(&key[1..], &sealed), Err(GoStoreError::KeyLength));
        assert_eq!(open(&key, &sealed[..27]), Err(GoStoreError::Short));
        for at in [0, 12, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&key, &changed), Err(GoStoreError::Sealed), "byte {at}");
        }
    }

    #[test]
    fn more_entries_than_one_import_takes_are_refused() {
        let json = |count: usize| {
            let entries: Vec<String> = (0..count).map(|n| format!(r#""s:{n:06}":"v""#)).collect();
            format!("{{{}}}", entries.join(","))
        };
        assert_eq!(go_store(json(MAX_SECRETS).as_bytes(), &[]).unwrap().len(), MAX_SECRETS);
        let error = go_store(json(MAX_SECRETS + 1).as_bytes(), &[]).err().unwrap();
        assert_eq!(error.rule, Rule::TooMany);
        assert_eq!(error.place.line, 1);
    }

    #[test]
    fn broken_json_is_refused_by_rule_and_column() {
        let fails = |json: &str| go_store(json.as_bytes(), &[]).err().unwrap();
        let at =
            |column, problem| SourceError { place: Place { line: 1, column }, rule: Rule::Json(problem) };
        assert_eq!(fails(r#"{"s:t":1}"#), at(8, Problem::WrongType));
        assert_eq!(fails(r#"{"s:t":"v""#), at(11, Problem::EndsEarly));
        assert_eq!(fails(r#"{"s:t":"v"} x"#), at(13, Problem::TrailingBytes));
        assert!(go_store(b"{\"s:t\":\"v\"}\n", &[]).is_ok());
    }
}
