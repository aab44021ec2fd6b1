//! The words that requests, policy and store share: services, targets, attributes.
//!
//! Each is parsed once and then carried by its type, so that no room checks a length twice and a service can
//! never be passed where a target is meant. None of them is secret.
#![forbid(unsafe_code)]

use std::{collections::BTreeMap, fmt};

/// Longest service, in bytes: a namespace is a word or a path of a few words.
pub const MAX_SERVICE: usize = 256;
/// Longest target, in bytes: room for `environment/workspace/project/NAME` with long parts.
pub const MAX_TARGET: usize = 1024;
/// Most attributes of one record: the Secret Service schemas in use have fewer than ten.
pub const MAX_ATTRIBUTES: usize = 16;
/// Longest attribute name, in bytes.
pub const MAX_ATTRIBUTE_NAME: usize = 64;
/// Longest attribute value, in bytes.
pub const MAX_ATTRIBUTE_VALUE: usize = 256;

/// Why a name was refused. The text names the rule, never the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no characters.
    #[error("empty name")]
    Empty,
    /// The name is longer than its limit.
    #[error("name over {0} bytes")]
    TooLong(usize),
    /// The name has a control character, which could forge lines in logs and terminals.
    #[error("control character in a name")]
    Control,
    /// More than [`MAX_ATTRIBUTES`] attributes.
    #[error("more than {MAX_ATTRIBUTES} attributes")]
    TooManyAttributes,
    /// The same attribute twice.
    #[error("attribute given twice")]
    DuplicateAttribute,
}

fn checked(text: &str, limit: usize) -> Result<Box<str>, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > limit {
        return Err(NameError::TooLong(limit));
    }
    if text.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    Ok(text.into())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $limit:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes `text` if it is not empty, within its limit and free of control characters.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                checked(text, $limit).map(Self)
            }

            /// The name as given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A service namespace, 1..=256 bytes, case-sensitive. The unit in which permissions are granted.
    Service, MAX_SERVICE
}
name! {
    /// The name of one secret within a service, 1..=1024 bytes.
    Target, MAX_TARGET
}
name! {
    /// The beginning of target names, for prefix actions and `allowed_target_prefixes`, 1..=1024 bytes.
    TargetPrefix, MAX_TARGET
}

impl TargetPrefix {
    /// Whether `name` begins with this prefix, byte by byte.
    pub fn covers(&self, name: &str) -> bool {
        name.as_bytes().starts_with(self.0.as_bytes())
    }
}

/// Labels of a record: at most 16 names of 64 bytes with values of 256 bytes, in name order.
///
/// Stored by `write`, returned by `read` and `search`, an equality filter for `search` and prefix actions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(BTreeMap<Box<str>, Box<str>>);

impl Attributes {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one attribute, within the limits and never over one that is there.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<(), NameError> {
        let name = checked(name, MAX_ATTRIBUTE_NAME)?;
        if value.len() > MAX_ATTRIBUTE_VALUE {
            return Err(NameError::TooLong(MAX_ATTRIBUTE_VALUE));
        }
        if self.0.contains_key(&name) {
            return Err(NameError::DuplicateAttribute);
        }
        if self.0.len() >= MAX_ATTRIBUTES {
            return Err(NameError::TooManyAttributes);
        }
        self.0.insert(name, value.into());
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Names and values in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether every attribute of `filter` is here with the same value. An empty filter matches all.
    pub fn satisfy(&self, filter: &Attributes) -> bool {
        filter.0.iter().all(|(name, value)| self.0.get(name) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_when_empty_too_long_or_with_a_control_character() {
        assert_eq!(Target::parse(""), Err(NameError::Empty));
        assert_eq!(Service::parse(&"s".repeat(257)), Err(NameError::TooLong(256)));
        assert_eq!(Service::parse("a\u{0}b"), Err(NameError::Control));
        assert_eq!(Target::parse("a\u{85}b"), Err(NameError::Control), "C1 controls move terminals too");
        assert!(Service::parse(&"s".repeat(256)).is_ok());
    }

    #[test]
    fn an_attribute_filter_matches_on_equality_of_every_member() {
        let mut stored = Attributes::new();
        assert!(stored.insert("env", "production").is_ok());
        assert!(stored.insert("team", "").is_ok(), "an empty value is a value");
        let mut filter = Attributes::new();
        assert!(stored.satisfy(&filter));
        assert!(filter.insert("env", "production").is_ok());
        assert!(stored.satisfy(&filter));
        assert!(filter.insert("region", "eu").is_ok());
        assert!(!stored.satisfy(&filter));
        assert_eq!(stored.insert("env", "x"), Err(NameError::DuplicateAttribute));
    }
}
