//! A reader for the JSON that requests, and secrets on their way in, are made of: one flat object whose members are
//! strings, lists of strings or flat objects of strings.
//!
//! Our own, since a general reader keeps secrets in buffers that nobody wipes and quotes the input in its errors. It
//! never recurses, so nesting has no depth to bound, and it refuses where the grammar allows two readings. A property
//! holds it against `serde_json`.

use super::malformed::{Malformed, Problem};
use crate::secret::Buffer;

/// A string as it stands in the line, or with its escapes resolved in a buffer that is wiped.
pub(crate) enum Text<'a> {
    Plain(&'a str),
    Resolved(Buffer),
}

impl Text<'_> {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            // made of whole characters only
            Self::Resolved(bytes) => std::str::from_utf8(bytes.as_slice()).unwrap_or_default(),
        }
    }

    /// The bytes in a buffer of their own.
    pub(crate) fn into_buffer(self) -> Buffer {
        match self {
            Self::Plain(text) => Buffer::from(text.as_bytes()),
            Self::Resolved(bytes) => bytes,
        }
    }
}

/// A position in a line.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The error at the present position.
    pub(crate) fn fail(&self, problem: impl Into<Problem>) -> Malformed {
        Malformed { problem: problem.into(), column: self.at + 1 }
    }

    /// `{"name": …, …}`: calls `member` with each name, at its value. What is no object is `otherwise`.
    pub(crate) fn object(
        &mut self,
        otherwise: Problem,
        mut member: impl FnMut(&mut Self, Text<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.expect(b'{', otherwise)?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected());
            }
            let name = self.string()?;
            self.expect(b':', Problem::Syntax)?;
            member(self, name)?;
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',', Problem::Syntax)?;
        }
    }

    /// `["…", …]`: calls `item` with each string.
    pub(crate) fn strings(
        &mut self,
        mut item: impl FnMut(&mut Self, Text<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.expect(b'[', Problem::WrongType)?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            let text = self.string()?;
            item(self, text)?;
            if self.take(b']') {
                return Ok(());
            }
            self.expect(b',', Problem::Syntax)?;
        }
    }

    /// `"…"`.
    pub(crate) fn string(&mut self) -> Result<Text<'a>, Malformed> {
        self.expect(b'"', Problem::WrongType)?;
        let start = self.at;
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    // the escaped character can't end the string; which one it is, is looked at below
                    self.at += 1;
                    if self.peek().is_none() {
                        return Err(self.unexpected());
                    }
                }
                Some(..0x20) => return Err(self.fail(Problem::RawControl)),
                Some(_) => {}
                None => return Err(self.unexpected()),
            }
            self.at += 1;
        }
        // both ends are ASCII, so the slice is whole characters
        let raw = self.text.get(start..self.at).unwrap_or_default();
        self.at += 1;
        if !escaped {
            return Ok(Text::Plain(raw));
        }
        resolve(raw)
            .map(Text::Resolved)
            .map_err(|(problem, at)| Malformed { problem, column: start + at + 1 })
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        self.skip_space();
        if self.peek().is_some() { Err(self.fail(Problem::TrailingBytes)) } else { Ok(()) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Steps over white space and `byte`, if it is next.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, otherwise: Problem) -> Result<(), Malformed> {
        if self.take(byte) {
            return Ok(());
        }
        Err(if self.peek().is_some() { self.fail(otherwise) } else { self.fail(Problem::EndsEarly) })
    }

    fn unexpected(&self) -> Malformed {
        self.fail(if self.peek().is_some() { Problem::Syntax } else { Problem::EndsEarly })
    }
}

/// Resolves the escapes of a string's inside. Resolved text is never longer than raw, so the buffer never grows.
fn resolve(raw: &str) -> Result<Buffer, (Problem, usize)> {
    let mut out = Buffer::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.extend_from_slice(plain.as_bytes());
        let at = raw.len() - escape.len();
        let (character, after) = unescape(escape).map_err(|problem| (problem, at))?;
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = after;
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// What stands after a backslash: the character, and the text behind it.
fn unescape(escape: &str) -> Result<(char, &str), Problem> {
    let mut characters = escape.chars();
    let character = match characters.next() {
        Some('"') => '"',
        Some('\\') => '\\',
        Some('/') => '/',
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('u') => return unescape_unit(characters.as_str()),
        _ => return Err(Problem::Escape),
    };
    Ok((character, characters.as_str()))
}

fn unescape_unit(digits: &str) -> Result<(char, &str), Problem> {
    let (unit, rest) = hex4(digits)?;
    match unit {
        0xd800..=0xdbff => {
            let low = rest.strip_prefix("\\u").ok_or(Problem::LoneSurrogate)?;
            let (low, rest) = hex4(low)?;
            let 0xdc00..=0xdfff = low else { return Err(Problem::LoneSurrogate) };
            let scalar = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            Ok((char::from_u32(scalar).ok_or(Problem::LoneSurrogate)?, rest))
        }
        _ => Ok((char::from_u32(unit).ok_or(Problem::LoneSurrogate)?, rest)),
    }
}

fn hex4(text: &str) -> Result<(u32, &str), Problem> {
    let (digits, rest) = text.split_at_checked(4).ok_or(Problem::Escape)?;
    // from_str_radix alone would take a sign
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Problem::Escape);
    }
    Ok((u32::from_str_radix(digits, 16).map_err(|_| Problem::Escape)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_that_json_does_not_have_is_found_at_its_column() {
        for (text, column) in [(r#""\q""#, 3), (r#""ab\q""#, 5), (r#""\n\nab\q""#, 9)] {
            let refused = Reader::new(text).string().err();
            assert_eq!(refused, Some(Malformed { problem: Problem::Escape, column }), "{text}");
        }
    }
}
