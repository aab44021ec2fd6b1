//! `.env` files: `NAME=value`, one an entry, with quotes, comments and `export`.
//!
//! There is no standard, and the usual readers (for Node, Python, Ruby and Go) differ about escapes, `#` and `$`. What
//! they read alike is read here; an entry that they read differently is refused, with the way to write it: in single
//! quotes.

use super::{Found, Incoming, MAX_SECRETS, Place, Refusal, Rule, SourceError, target, text, value};
use crate::{
    name::{Attributes, Service, TargetPrefix},
    secret::Buffer,
};

/// Reads a whole file. Each entry becomes the target `prefix` + its name, in `service`.
pub fn dotenv(
    bytes: &[u8],
    service: &Service,
    prefix: Option<&TargetPrefix>,
) -> Result<Vec<Found>, SourceError> {
    let mut reader = Reader { text: text(bytes)?, at: 0, known: (0, Place { line: 1, column: 1 }) };
    reader.take("\u{feff}");
    let mut found = Vec::new();
    while let Some((name, place)) = reader.name()? {
        if found.len() == MAX_SECRETS {
            return Err(SourceError { place, rule: Rule::TooMany });
        }
        let read = reader.value()?;
        let secret = read.and_then(|bytes| {
            let target = target(prefix, name)?;
            let value = value(bytes)?;
            Ok(Incoming { service: service.clone(), target, attributes: Attributes::new(), value })
        });
        found.push(Found { name: name.to_owned(), place: Some(place), secret });
    }
    Ok(found)
}

/// A value, or what programs differ about.
type Read = Result<Buffer, Refusal>;

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The latest position whose place is known: lines are counted from there, each once.
    known: (usize, Place),
}

impl<'a> Reader<'a> {
    /// The next name, with its place; the reader then stands behind the equals sign. None at the end of the file.
    fn name(&mut self) -> Result<Option<(&'a str, Place)>, SourceError> {
        loop {
            self.skip(|byte| matches!(byte, b' ' | b'\t'));
            match self.peek() {
                None => return Ok(None),
                Some(b'#') => self.comment()?,
                Some(b'\n' | b'\r') => self.line_end()?,
                Some(_) => break,
            }
        }
        if self.rest().starts_with("export ") || self.rest().starts_with("export\t") {
            self.at += "export".len();
            self.skip(|byte| matches!(byte, b' ' | b'\t'));
        }
        let start = self.at;
        if !self.peek().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_') {
            return Err(self.fail(Rule::EnvName));
        }
        self.skip(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        let name = self.text.get(start..self.at).unwrap_or_default();
        let place = self.place(start);
        self.known = (start, place);
        self.skip(|byte| matches!(byte, b' ' | b'\t'));
        if !self.take("=") {
            return Err(self.fail(Rule::EnvEquals));
        }
        Ok(Some((name, place)))
    }

    /// The value behind the equals sign, up to the end of its last line.
    fn value(&mut self) -> Result<Read, SourceError> {
        self.skip(|byte| matches!(byte, b' ' | b'\t'));
        let read = match self.peek() {
            Some(b'\'') => self.single_quoted()?,
            Some(b'"') => self.double_quoted()?,
            _ => return self.unquoted(),
        };
        self.skip(|byte| matches!(byte, b' ' | b'\t'));
        match self.peek() {
            None => {}
            Some(b'#') => self.comment()?,
            Some(b'\n' | b'\r') => self.line_end()?,
            Some(_) => return Err(self.fail(Rule::AfterQuote)),
        }
        Ok(read)
    }

    fn unquoted(&mut self) -> Result<Read, SourceError> {
        let start = self.at;
        self.comment()?;
        let line = self.text.get(start..self.at).unwrap_or_default();
        let value = line.trim_matches([' ', '\t', '\r', '\n']);
        let differ = [
            ('#', "a # outside quotes"),
            ('$', "a $ outside single quotes"),
            ('\\', "a backslash outside quotes"),
            ('\'', "a quote within it"),
            ('"', "a quote within it"),
            ('`', "a backtick"),
        ];
        if let Some((_, what)) = differ.into_iter().find(|(character, _)| value.contains(*character)) {
            return Ok(Err(Refusal::Ambiguous(what)));
        }
        if value.trim() != value {
            return Ok(Err(Refusal::Ambiguous("white space at an end of it")));
        }
        Ok(Ok(Buffer::from(value.as_bytes())))
    }

    fn single_quoted(&mut self) -> Result<Read, SourceError> {
        let inner = self.quoted(b'\'')?;
        if inner.contains("\\'") || inner.contains("\\\\") {
            return Ok(Err(Refusal::Ambiguous("a backslash before a quote or a backslash")));
        }
        Ok(Ok(lines_joined(inner)))
    }

    fn double_quoted(&mut self) -> Result<Read, SourceError> {
        let inner = self.quoted(b'"')?;
        if inner.contains('$') {
            return Ok(Err(Refusal::Ambiguous("a $ outside single quotes")));
        }
        // what is read is never longer than what is written
        let mut bytes = Buffer::with_capacity(inner.len());
        let mut pieces = inner.split('\\');
        bytes.extend_from_slice(lines_joined(pieces.next().unwrap_or_default()).as_slice());
        for piece in pieces {
            let (byte, rest) = match (piece.strip_prefix('n'), piece.strip_prefix('r')) {
                (Some(rest), _) => (b"\n", rest),
                (_, Some(rest)) => (b"\r", rest),
                _ => return Ok(Err(Refusal::Ambiguous("an escape other than \\n and \\r"))),
            };
            bytes.extend_from_slice(byte);
            bytes.extend_from_slice(lines_joined(rest).as_slice());
        }
        Ok(Ok(bytes))
    }

    /// What stands between this quote and the next one without a backslash before it.
    fn quoted(&mut self, quote: u8) -> Result<&'a str, SourceError> {
        let open = self.at;
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek() {
                None => return Err(SourceError { place: self.place(open), rule: Rule::Unclosed }),
                Some(b'\\') => self.at += 1,
                Some(byte) if byte == quote => break,
                Some(_) => {}
            }
            self.step()?;
        }
        let inner = self.text.get(start..self.at).unwrap_or_default();
        self.at += 1;
        Ok(inner)
    }

    /// Steps behind the end of the line.
    fn comment(&mut self) -> Result<(), SourceError> {
        while !matches!(self.peek(), None | Some(b'\n')) {
            self.step()?;
        }
        self.at += usize::from(self.peek().is_some());
        Ok(())
    }

    fn line_end(&mut self) -> Result<(), SourceError> {
        if self.take("\n") || self.take("\r\n") { Ok(()) } else { Err(self.fail(Rule::Control)) }
    }

    /// Steps over one byte of text. A carriage return alone ends a line for some readers and not for others.
    fn step(&mut self) -> Result<(), SourceError> {
        match self.peek() {
            None | Some(b'\t' | b'\n' | b' '..=0x7e | 0x80..) => {}
            Some(b'\r') if self.rest().starts_with("\r\n") => {}
            Some(_) => return Err(self.fail(Rule::Control)),
        }
        self.at += usize::from(self.peek().is_some());
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Empty within a character, which no caller looks for.
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn fail(&self, rule: Rule) -> SourceError {
        SourceError { place: self.place(self.at), rule }
    }

    fn place(&self, at: usize) -> Place {
        let (from, Place { line, column }) = self.known;
        let between = self.text.as_bytes().get(from..at).unwrap_or_default();
        let lines = between.iter().filter(|byte| **byte == b'\n').count();
        let behind = between.iter().rev().take_while(|byte| **byte != b'\n').count();
        Place { line: line + lines, column: if lines == 0 { column + behind } else { behind + 1 } }
    }
}

/// The text with each line end as one line feed, whatever the file has.
fn lines_joined(text: &str) -> Buffer {
    let mut joined = Buffer::with_capacity(text.len());
    for (index, line) in text.split("\r\n").enumerate() {
        joined.extend_from_slice(if index == 0 { b"" } else { b"\n" });
        joined.extend_from_slice(line.as_bytes());
    }
    joined
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn read(file: &str) -> Vec<(String, Result<String, Refusal>)> {
        let found = dotenv(file.as_bytes(), &Service::parse("s").unwrap(), None).unwrap();
        let shown = |secret: Incoming| secret.value.expose_secret().to_owned();
        found.into_iter().map(|found| (found.name, found.secret.map(shown))).collect()
    }

    fn one(file: &str) -> Result<String, Refusal> {
        let mut all = read(file);
        assert_eq!(all.len(), 1, "{file}");
        all.remove(0).1
    }

    #[test]
    fn what_all_readers_read_alike_is_read() {
        let file = "\u{feff}# head\r\n\r\nA=1\r\nexport B = two words \n  C='a # $x \\n `'# end\n\
                    D=\"x\\ny\r\nz\" # end\nE=\n_f.g-1=\"\"\nG=ä\u{1f511}=";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "a # $x \\n `"),
            ("D", "x\ny\nz"),
            ("E", ""),
            ("_f.g-1", ""),
            ("G", "ä\u{1f511}="),
        ];
        let read: Vec<_> = read(file).into_iter().map(|(name, value)| (name, value.unwrap())).collect();
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn what_readers_read_differently_is_refused_entry_by_entry() {
        for file in [
            "A=x # comment",
            "A=x#y",
            "A=pa$$word",
            "A=\"${HOME}\"",
            "A=a\\b",
            "A=it's",
            "A=`x`",
            "A='it\\'s'",
            "A='a\\\\'",
            "A=\"say \\\"hi\\\"\"",
            "A=\"C:\\\\x\"",
            "A=\"\\t\"",
            "A=\u{a0}x",
        ] {
            assert!(matches!(one(file), Err(Refusal::Ambiguous(_))), "{file}");
        }
        let both = read("A=x#y\nB=2\n");
        assert!(both[0].1.is_err() && both[1].1 == Ok("2".to_owned()), "the others are read");
    }

    #[test]
    fn more_entries_than_one_import_takes_are_refused_where_the_first_of_them_stands() {
        let most = "A=1\n".repeat(MAX_SECRETS);
        assert_eq!(read(&most).len(), MAX_SECRETS);
        let service = Service::parse("s").unwrap();
        let error = dotenv(format!("{most}\n  B=1\n").as_bytes(), &service, None).err().unwrap();
        let place = Place { line: MAX_SECRETS + 2, column: 3 };
        assert_eq!(error, SourceError { place, rule: Rule::TooMany });
    }

    #[test]
    fn a_broken_file_is_refused_with_line_and_column() {
        let fails = |file: &[u8]| dotenv(file, &Service::parse("s").unwrap(), None).err().unwrap();
        let at = |line, column, rule| SourceError { place: Place { line, column }, rule };
        assert_eq!(fails(b"A=1\nB\n"), at(2, 2, Rule::EnvEquals));
        assert_eq!(fails(b"A=1\n 2B=3\n"), at(2, 2, Rule::EnvName));
        assert_eq!(fails(b"A=1\nB=\"x\ny"), at(2, 3, Rule::Unclosed));
        assert_eq!(fails(b"A='x'y"), at(1, 6, Rule::AfterQuote));
        assert_eq!(fails(b"A=x\0y"), at(1, 4, Rule::Control));
        assert_eq!(fails(b"A=x\ry"), at(1, 4, Rule::Control));
        assert_eq!(fails(b"A=1\nB=\xff"), at(2, 3, Rule::NotUtf8));
        assert_eq!(fails(b"A=x\ry").to_string(), "line 1, column 4: a control character stands here");
    }
}
