//! Secrets on their way into the vault: what other programs keep them in, read into one form, and the plan of what would
//! be written. Also the lines of our own export, in both directions.
//!
//! Bytes in, types out: knows no file, no vault and no clock. Every reader is strict: where two programs read the same
//! bytes as two different values, it refuses, since nobody sees the value that is imported. No error holds a byte of a
//! value: only a place and a rule.
#![forbid(unsafe_code)]

mod dotenv;
mod exported;
mod go_store;
mod pass;
mod plan;
mod service_items;

pub use dotenv::dotenv;
pub use exported::{ExportReader, MAX_EXPORT_LINE, export_header, export_line};
pub use go_store::{GO_KEY, GoStoreError, go_store, open_go_store};
pub use pass::{PassLines, pass_entry, pass_target};
pub use plan::{Batch, Plan, Refused, TooMuch};
pub use service_items::{Naming, ServiceItem, service_item};

use std::fmt;

use crate::{
    name::{Attributes, NameError, Service, Target, TargetPrefix},
    secret::{Buffer, MAX_VALUE, SecretValue},
    wire::Problem,
};

/// Most secrets of one import, and of one export, so that every export can be imported: they are written in one
/// transaction and are all in memory until then.
pub const MAX_SECRETS: usize = 100_000;
/// Most bytes of values of one import: they are all in memory until they are written.
pub const MAX_VALUES: usize = 256 * 1024 * 1024;
/// Largest file that is read as a whole, such as an `.env` file or the store of the earlier system.
pub const MAX_SOURCE: usize = 16 * 1024 * 1024;

/// One secret in the form of the vault. No Debug: it holds the value.
pub struct Incoming {
    /// The namespace.
    pub service: Service,
    /// The name in it.
    pub target: Target,
    /// The attributes.
    pub attributes: Attributes,
    /// The value.
    pub value: SecretValue,
}

/// Where in a source something stands; both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The byte in it.
    pub column: usize,
}

/// One entry of a source: the secret that it is, or why it can be none.
pub struct Found {
    /// What the source calls it. Not secret.
    pub name: String,
    /// Where it stands, in a source that has lines.
    pub place: Option<Place>,
    /// The secret.
    pub secret: Result<Incoming, Refusal>,
}

/// Why one entry of a source is not imported. The text names the rule and the way out, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The name that it would get breaks a rule for names.
    #[error("its name can't be used: {0}")]
    Name(NameError),
    /// An attribute breaks a rule.
    #[error("an attribute can't be kept: {0}")]
    Attribute(NameError),
    /// The value is longer than a value may be.
    #[error("its value is over {MAX_VALUE} bytes")]
    TooLong,
    /// The value is not UTF-8.
    #[error("its value is not text in UTF-8")]
    NotText,
    /// Programs that read `.env` files differ about this value.
    #[error(
        "programs that read .env files disagree about {0}; put the value in single quotes, or in double quotes where it has a single quote itself"
    )]
    Ambiguous(&'static str),
    /// Nobody can tell where the service ends and the target begins.
    #[error("it has {0} colons, so its service could end at any of them; name the service with --service")]
    Colons(usize),
    /// It has no colon, so it names no service.
    #[error("it has no colon between service and target")]
    NoColon,
    /// Two of the given services fit.
    #[error("more than one of the given services fits")]
    TwoServices,
    /// The same name was in the source before.
    #[error("the same name stands in the source before")]
    Twice,
    /// The attribute that shall name it is not there.
    #[error("it has no attribute of the name that --name-from gives")]
    Nameless,
    /// What this program keeps in the keychain itself.
    #[error("it is this program's own: the key of a vault, or a part of one")]
    Own,
    /// The keychain keeps it locked.
    #[error("it is locked; unlock the keychain first")]
    Locked,
    /// The program that decrypts it failed, with its own words.
    #[error("it can't be decrypted: {0}")]
    Undecryptable(String),
    /// Its file has a name that is no text.
    #[error("the name of its file is not UTF-8")]
    PathNotText,
    /// A folder behind a link.
    #[error("it is a symbolic link to a folder, which is not followed")]
    Link,
    /// A folder in too many others.
    #[error("it lies in too many folders within each other")]
    TooDeep,
    /// It has lines beyond the first one, which would stay behind.
    #[error("it has more than one line; choose --first-line or --whole")]
    FurtherLines,
}

/// Why a whole source can't be read. Holds a place and a rule, no byte of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceError {
    /// Where reading stopped.
    pub place: Place,
    /// The rule.
    pub rule: Rule,
}

/// The rules of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rule {
    /// Not UTF-8.
    #[error("the bytes are not UTF-8")]
    NotUtf8,
    /// A control character that text files don't have.
    #[error("a control character stands here")]
    Control,
    /// A name of an `.env` file.
    #[error("a name of letters, digits and underscores is expected")]
    EnvName,
    /// No equals sign behind the name.
    #[error("an equals sign is expected")]
    EnvEquals,
    /// A quote that is never closed.
    #[error("the quote that begins here is not closed")]
    Unclosed,
    /// Something behind a closing quote.
    #[error("only a comment may follow a closing quote")]
    AfterQuote,
    /// More entries than one import takes.
    #[error("there are more than {MAX_SECRETS} entries")]
    TooMany,
    /// JSON, or a member of it.
    #[error("{0}")]
    Json(Problem),
    /// A member that the format does not have.
    #[error("a member is not part of the format")]
    UnknownMember,
    /// The first line is not an export's.
    #[error("the first line is not the head of an export of this program")]
    NotAnExport,
    /// An export of a version that this program does not know.
    #[error("the export has a version that this program does not know")]
    Version,
    /// A line beyond the longest that an export has.
    #[error("the line is over {MAX_EXPORT_LINE} bytes")]
    LongLine,
    /// The export ends before its last record, or goes on behind it.
    #[error("the export does not have as many records as its first line says")]
    Count,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.place.line, self.place.column, self.rule)
    }
}

impl std::error::Error for SourceError {}

/// One value that stands alone, such as standard input, with the name that it gets. One line end, LF or CRLF, is not part of
/// it: programs that print a value end it so. None where nothing is left: what failed before a pipe prints nothing, or an
/// empty line, and must not become the value.
pub fn one_value(
    name: &str,
    mut bytes: Buffer,
    service: &Service,
    prefix: Option<&TargetPrefix>,
) -> Option<Found> {
    let text = bytes.as_slice();
    let text = text.strip_suffix(b"\n").map_or(text, |line| line.strip_suffix(b"\r").unwrap_or(line));
    bytes.truncate(text.len());
    if bytes.is_empty() {
        return None;
    }
    let secret = target(prefix, name).and_then(|target| {
        let value = value(bytes)?;
        Ok(Incoming { service: service.clone(), target, attributes: Attributes::new(), value })
    });
    Some(Found { name: name.to_owned(), place: None, secret })
}

/// The target of an entry: its name behind a prefix.
fn target(prefix: Option<&TargetPrefix>, name: &str) -> Result<Target, Refusal> {
    let prefix = prefix.map_or("", TargetPrefix::as_str);
    Target::parse(&format!("{prefix}{name}")).map_err(Refusal::Name)
}

/// The value, or the rule that it breaks.
fn value(bytes: Buffer) -> Result<SecretValue, Refusal> {
    let long = bytes.len() > MAX_VALUE;
    SecretValue::from_buffer(bytes).ok_or(if long { Refusal::TooLong } else { Refusal::NotText })
}

/// Where a byte stands in a text.
fn place_of(bytes: &[u8], at: usize) -> Place {
    let before = bytes.get(..at).unwrap_or(bytes);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    Place { line, column }
}

/// The text of a source.
fn text(bytes: &[u8]) -> Result<&str, SourceError> {
    std::str::from_utf8(bytes)
        .map_err(|error| SourceError { place: place_of(bytes, error.valid_up_to()), rule: Rule::NotUtf8 })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn piped(bytes: &[u8], prefix: &str) -> Option<Result<(String, String), Refusal>> {
        let service = Service::parse("s").unwrap();
        let prefix = TargetPrefix::parse(prefix).ok();
        let found = one_value("name", Buffer::from(bytes), &service, prefix.as_ref())?;
        assert_eq!((found.name.as_str(), found.place), ("name", None));
        let words = |secret: Incoming| {
            assert!(secret.service == service && secret.attributes.is_empty());
            (secret.target.to_string(), secret.value.expose_secret().to_owned())
        };
        Some(found.secret.map(words))
    }

    #[test]
    fn one_line_end_of_what_is_piped_in_is_not_part_of_the_value() {
        for (bytes, value) in [
            ("v", "v"),
            ("v\n", "v"),
            ("v\r\n", "v"),
            ("v\n\n", "v\n"),
            ("v\r", "v\r"),
            (" v \n", " v "),
            ("\n\n", "\n"),
        ] {
            assert_eq!(piped(bytes.as_bytes(), "").unwrap().unwrap().1, value, "{bytes:?}");
        }
    }

    #[test]
    fn what_failed_before_the_pipe_is_no_empty_value() {
        for bytes in ["", "\n", "\r\n"] {
            assert!(piped(bytes.as_bytes(), "").is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn a_piped_value_gets_its_prefix_and_keeps_to_the_rules_of_values() {
        assert_eq!(piped(b"v", "dev/").unwrap().unwrap().0, "dev/name");
        assert_eq!(piped(b"\xff", "").unwrap(), Err(Refusal::NotText));
        let most = "v".repeat(MAX_VALUE);
        assert!(piped(format!("{most}\n").as_bytes(), "").unwrap().is_ok(), "the line end does not count");
        assert_eq!(piped(format!("{most}v").as_bytes(), "").unwrap(), Err(Refusal::TooLong));
        let long = "p".repeat(crate::name::MAX_TARGET);
        assert!(matches!(piped(b"v", &long).unwrap(), Err(Refusal::Name(_))));
    }
}
