//! Entries of `pass`, the standard Unix password manager: a tree of files, each decrypted by the user's own GnuPG.
//!
//! By its convention the first line of an entry is the password, and what follows are notes about it.

use super::{Found, Incoming, Refusal, target, value};
use crate::{
    name::{Attributes, Service, TargetPrefix},
    secret::Buffer,
};

/// What of an entry becomes the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassLines {
    /// The only line; an entry with more of them is refused.
    Only,
    /// The first line; the others stay behind.
    First,
    /// Everything, without the line feed at the end.
    Whole,
}

/// The name of an entry from the path of its file within the store, `folder/name.gpg`. None for any other file.
pub fn pass_target(path: &str) -> Option<&str> {
    path.strip_suffix(".gpg").filter(|name| !name.is_empty() && !name.ends_with('/'))
}

/// One entry from its decrypted content.
pub fn pass_entry(
    name: &str,
    content: &[u8],
    lines: PassLines,
    service: &Service,
    prefix: Option<&TargetPrefix>,
) -> Found {
    let secret = chosen(content, lines).and_then(|bytes| {
        let target = target(prefix, name)?;
        let value = value(Buffer::from(bytes))?;
        Ok(Incoming { service: service.clone(), target, attributes: Attributes::new(), value })
    });
    Found { name: name.to_owned(), place: None, secret }
}

fn chosen(content: &[u8], lines: PassLines) -> Result<&[u8], Refusal> {
    // pass ends what it is given with a line feed, which belongs to no value
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    let first = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match lines {
        PassLines::Whole => Ok(content),
        PassLines::First => Ok(first),
        PassLines::Only if first.len() == content.len() => Ok(content),
        PassLines::Only => Err(Refusal::FurtherLines),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn an_entry_is_its_only_line_unless_the_user_chose() {
        let service = Service::parse("s").unwrap();
        let read = |content: &str, lines| {
            let found = pass_entry("web/site", content.as_bytes(), lines, &service, None);
            found.secret.map(|secret| secret.value.expose_secret().to_owned())
        };
        assert_eq!(read("secret\n", PassLines::Only), Ok("secret".into()));
        assert_eq!(read("", PassLines::Only), Ok(String::new()));
        assert_eq!(read("secret\nuser: me\n", PassLines::Only), Err(Refusal::FurtherLines));
        assert_eq!(read("secret\n\n", PassLines::Only), Err(Refusal::FurtherLines));
        assert_eq!(read("secret\nuser: me\n", PassLines::First), Ok("secret".into()));
        assert_eq!(read("secret\nuser: me\n", PassLines::Whole), Ok("secret\nuser: me".into()));
    }

    #[test]
    fn only_encrypted_files_are_entries() {
        assert_eq!(pass_target("web/site.example.gpg"), Some("web/site.example"));
        for other in [".gpg-id", "web/.gpg", ".gpg", "web/site", "web/site.gpg.bak"] {
            assert_eq!(pass_target(other), None, "{other}");
        }
    }
}
