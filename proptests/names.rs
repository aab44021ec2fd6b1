//! Names, digests, nonces and values: parsed once, and only in the one form that their rule allows.

use keychain_auth::{
    caller::Check,
    digest::Digest,
    name::{
        Attributes, MAX_ATTRIBUTE_NAME, MAX_ATTRIBUTE_VALUE, MAX_ATTRIBUTES, MAX_SERVICE, MAX_TARGET,
        NameError, Service, Target, TargetPrefix,
    },
    secret::{Buffer, MAX_VALUE, SecretValue},
    wire::{Action, Nonce},
};
use proptest::{collection::vec, prelude::*};
use secrecy::ExposeSecret;

/// Texts at every edge: short, odd, with controls, and around each limit in bytes of one, two or four.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}",
        "(?s).{0,12}",
        (
            0..3_usize,
            prop_oneof![Just(64_usize), Just(256), Just(1024)],
            prop_oneof![Just("x"), Just("ü"), Just("🔑")]
        )
            .prop_map(|(over, limit, unit)| unit.repeat((limit + over - 1) / unit.len())),
    ]
}

/// The rule, said again.
fn expected(text: &str, limit: usize) -> Result<(), NameError> {
    let control = text.chars().any(|c| matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'));
    match text.len() {
        0 => Err(NameError::Empty),
        length if length > limit => Err(NameError::TooLong(limit)),
        _ if control => Err(NameError::Control),
        _ => Ok(()),
    }
}

proptest! {
    #![proptest_config(crate::config(512))]

    #[test]
    fn a_name_is_taken_as_it_is_or_refused_by_its_rule(text in any_text()) {
        let service = Service::parse(&text);
        let target = Target::parse(&text);
        let prefix = TargetPrefix::parse(&text);
        prop_assert_eq!(service.as_ref().map(|_| ()).map_err(|error| *error), expected(&text, MAX_SERVICE));
        prop_assert_eq!(target.as_ref().map(|_| ()).map_err(|error| *error), expected(&text, MAX_TARGET));
        prop_assert_eq!(prefix.as_ref().map(|_| ()).map_err(|error| *error), expected(&text, MAX_TARGET));
        for name in service.iter().map(Service::as_str).chain(target.iter().map(Target::as_str)) {
            prop_assert_eq!(name, text.as_str());
        }
    }

    #[test]
    fn names_differ_exactly_when_their_bytes_do(one in "[a-cA-Cäa\u{308}]{1,3}", other in "[a-cA-Cäa\u{308}]{1,3}") {
        let (first, second) = (Service::parse(&one).unwrap(), Service::parse(&other).unwrap());
        prop_assert_eq!(first == second, one.as_bytes() == other.as_bytes(), "no case and no accent is folded");
        prop_assert_eq!(first.cmp(&second), one.as_bytes().cmp(other.as_bytes()));
    }

    #[test]
    fn a_prefix_covers_exactly_what_begins_with_its_bytes(prefix in "[ab/]{1,3}", name in "[ab/]{0,5}") {
        let covers = TargetPrefix::parse(&prefix).unwrap().covers(&name);
        prop_assert_eq!(covers, name.len() >= prefix.len() && name.as_bytes()[..prefix.len()] == *prefix.as_bytes());
    }

    #[test]
    fn attributes_keep_their_limits_and_their_first_value(
        pairs in vec((prop_oneof!["[a-e]{1,2}", any_text()], any_text()), 0..24),
    ) {
        let mut attributes = Attributes::new();
        let mut model = std::collections::BTreeMap::new();
        for (name, value) in &pairs {
            let refused = expected(name, MAX_ATTRIBUTE_NAME).err()
                .or((value.len() > MAX_ATTRIBUTE_VALUE).then_some(NameError::TooLong(MAX_ATTRIBUTE_VALUE)))
                .or(model.contains_key(name.as_str()).then_some(NameError::DuplicateAttribute))
                .or((model.len() >= MAX_ATTRIBUTES).then_some(NameError::TooManyAttributes));
            prop_assert_eq!(attributes.insert(name, value).err(), refused);
            if refused.is_none() {
                model.insert(name.as_str(), value.as_str());
            }
        }
        prop_assert!(attributes.iter().eq(model.iter().map(|(name, value)| (*name, *value))));
        prop_assert_eq!((attributes.len(), attributes.is_empty()), (model.len(), model.is_empty()));
    }

    #[test]
    fn a_filter_is_satisfied_exactly_by_its_superset(
        stored in proptest::collection::btree_map("[ab]", "[xy]?", 0..3),
        filter in proptest::collection::btree_map("[ab]", "[xy]?", 0..3),
    ) {
        let build = |map: &std::collections::BTreeMap<String, String>| {
            let mut attributes = Attributes::new();
            map.iter().for_each(|(name, value)| attributes.insert(name, value).unwrap());
            attributes
        };
        let expected = filter.iter().all(|(name, value)| stored.get(name) == Some(value));
        prop_assert_eq!(build(&stored).satisfy(&build(&filter)), expected);
    }

    #[test]
    fn a_digest_has_64_digits_of_either_case_behind_its_scheme(
        bytes: [u8; 32], at in 0..71_usize, to in any::<char>(),
    ) {
        let digest = Digest::new(bytes);
        let text = digest.to_string();
        prop_assert_eq!(Digest::parse(&text), Some(digest));
        prop_assert_eq!(Digest::parse(&text.replacen(|c: char| c.is_ascii_lowercase(), "\u{e9}", 1)), None);
        prop_assert_eq!(Digest::parse(&format!("sha256:{}", text[7..].to_uppercase())), Some(digest));
        let mut other: Vec<char> = text.chars().collect();
        other[at] = to;
        let other: String = other.into_iter().collect();
        if let Some(parsed) = Digest::parse(&other) {
            prop_assert_eq!(parsed.to_string(), other.to_ascii_lowercase());
        }
        prop_assert_eq!(Digest::parse(&text[..at]), None);
        for more in ["0", "00", " "] {
            prop_assert_eq!(Digest::parse(&(text.clone() + more)), None);
        }
    }

    #[test]
    fn a_nonce_matches_itself_alone_and_has_one_spelling(bytes: [u8; 32], other: [u8; 32], bit in 0..256_usize) {
        let nonce = Nonce::new(bytes);
        let text = nonce.to_hex();
        prop_assert!(Nonce::parse(&text).is_some_and(|again| again.matches(&nonce)));
        prop_assert_eq!(Nonce::new(other).matches(&nonce), other == bytes);
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!Nonce::new(flipped).matches(&nonce));
        if text.contains(|c: char| c.is_ascii_lowercase()) {
            prop_assert!(Nonce::parse(&text.to_uppercase()).is_none());
        }
        let (cut, longer) = (Nonce::parse(&text[1..]), Nonce::parse(&format!("{text}0")));
        prop_assert!(cut.is_none() && longer.is_none());
    }

    #[test]
    fn a_value_is_any_text_within_its_limit(
        text in "(?s).{0,40}", over in 0..3_usize, bytes in vec(any::<u8>(), 0..40),
    ) {
        let value = |bytes: Vec<u8>| SecretValue::from_buffer(Buffer::from(bytes.as_slice()));
        let kept = value(text.clone().into_bytes());
        prop_assert_eq!(kept.as_ref().map(SecretValue::expose_secret), Some(text.as_str()));
        prop_assert_eq!(value(vec![b'x'; MAX_VALUE - 1 + over]).is_some(), over <= 1);
        prop_assert_eq!(value(bytes.clone()).is_some(), std::str::from_utf8(&bytes).is_ok());
    }

    #[test]
    fn a_check_has_one_name(text in "[a-zA-Z_]{0,20}|traced|Traced|injected_code") {
        let named: Vec<_> = Check::ALL.into_iter().filter(|check| check.as_str() == text).collect();
        prop_assert_eq!(Check::parse(&text), named.first().copied());
    }
}

#[test]
fn no_two_checks_and_no_two_actions_share_a_name() {
    for (index, check) in Check::ALL.into_iter().enumerate() {
        assert_eq!(Check::parse(check.as_str()), Some(check));
        assert!(Check::ALL[..index].iter().all(|other| other.as_str() != check.as_str()));
    }
    for (index, action) in Action::ALL.into_iter().enumerate() {
        assert!(Action::ALL[..index].iter().all(|other| other.as_str() != action.as_str()));
    }
}
