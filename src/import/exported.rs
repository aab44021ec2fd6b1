//! The lines of an export: JSON, one record a line behind a head that says how many there are.
//!
//! ```json
//! {"format":"keychain-auth export","version":"1","records":"2"}
//! {"service":"demo","target":"dev/API_KEY","value":"…","attributes":{"owner":"ci"}}
//! {"service":"demo","target":"dev/TOKEN","value":"…"}
//! ```
//!
//! Every line ends with a line feed. `attributes` is left out when there are none. The number is in the head so that an
//! export that was cut at a line's end is not taken for a smaller one.

use std::io::{self, Write};

use secrecy::ExposeSecret;

use super::{Found, Incoming, MAX_SECRETS, Place, Refusal, Rule, SourceError, value};
use crate::{
    name::{Attributes, NameError, Service, Target},
    secret::{MAX_VALUE, SecretValue},
    wire::{
        Malformed, Problem,
        json::{Reader, Text},
    },
};

/// What the head calls the format.
const FORMAT: &str = "keychain-auth export";
/// The version that is written, and the only one that is read.
const VERSION: &str = "1";
/// Longest line of an export, in bytes without its end: the longest value, names and attributes, every byte escaped as six.
pub const MAX_EXPORT_LINE: usize = 6 * (MAX_VALUE + 8 * 1024);

/// Writes the head of an export of so many records.
pub fn export_header(records: usize, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, r#"{{"format":"{FORMAT}","version":"{VERSION}","records":"{records}"}}"#)
}

/// Writes the line of one record, in pieces: nothing here keeps a copy of the value.
pub fn export_line(
    service: &Service,
    target: &Target,
    value: &SecretValue,
    attributes: &Attributes,
    out: &mut impl Write,
) -> io::Result<()> {
    out.write_all(br#"{"service":"#)?;
    string(out, service.as_str())?;
    out.write_all(br#","target":"#)?;
    string(out, target.as_str())?;
    out.write_all(br#","value":"#)?;
    string(out, value.expose_secret())?;
    if !attributes.is_empty() {
        out.write_all(br#","attributes":{"#)?;
        for (index, (name, value)) in attributes.iter().enumerate() {
            out.write_all(if index == 0 { b"" } else { b"," })?;
            string(out, name)?;
            out.write_all(b":")?;
            string(out, value)?;
        }
        out.write_all(b"}")?;
    }
    out.write_all(b"}\n")
}

fn string(out: &mut impl Write, text: &str) -> io::Result<()> {
    Ok(serde_json::to_writer(out, text)?)
}

/// Reads an export line by line: the head first, then each record, then [`finish`](Self::finish).
#[derive(Debug)]
pub struct ExportReader {
    line: usize,
    records: usize,
}

impl ExportReader {
    /// Begins with the head.
    pub fn new(head: &[u8]) -> Result<Self, SourceError> {
        let mut reader = Reader::new(line(head, 1)?);
        let (mut format, mut version, mut records) = (None, None, None);
        let read = reader.object(Problem::NotAnObject, |reader, name| match name.as_str() {
            "format" => once(reader, &mut format),
            "version" => once(reader, &mut version),
            "records" => once(reader, &mut records),
            _ => skip_string(reader),
        });
        let no_export = fail(1, 1, Rule::NotAnExport);
        read.and_then(|()| reader.end()).map_err(|_| no_export)?;
        if format.as_ref().is_none_or(|format| format.as_str() != FORMAT) {
            return Err(no_export);
        }
        if version.as_ref().is_none_or(|version| version.as_str() != VERSION) {
            return Err(fail(1, 1, Rule::Version));
        }
        let records =
            records.as_ref().map(Text::as_str).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let records = records.and_then(|text| text.parse().ok()).ok_or(no_export)?;
        if records > MAX_SECRETS {
            return Err(fail(1, 1, Rule::TooMany));
        }
        Ok(Self { line: 1, records })
    }

    /// How many records the head promises.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Reads the next record from its line, without the line's end.
    pub fn record(&mut self, bytes: &[u8]) -> Result<Found, SourceError> {
        if self.line > self.records {
            return Err(fail(self.line + 1, 1, Rule::Count));
        }
        self.line += 1;
        let number = self.line;
        let mut reader = Reader::new(line(bytes, number)?);
        let mut members = Members::default();
        let read = reader
            .object(Problem::NotAnObject, |reader, name| members.take(reader, &name))
            .and_then(|()| reader.end());
        let at = |Malformed { problem, column }| {
            let rule =
                if problem == Problem::UnknownMember { Rule::UnknownMember } else { Rule::Json(problem) };
            fail(number, column, rule)
        };
        read.map_err(at)?;
        let missing = |reader: &Reader<'_>| at(reader.fail(Problem::MissingMember));
        let (Some(service), Some(target), Some(bytes)) = (members.service, members.target, members.value)
        else {
            return Err(missing(&reader));
        };
        let name = format!("{} {}", service.as_str(), target.as_str());
        let secret = incoming(&service, &target, bytes, members.attributes);
        Ok(Found { name, place: Some(Place { line: number, column: 1 }), secret })
    }

    /// Whether every record of the head was there.
    pub fn finish(self) -> Result<(), SourceError> {
        if self.line == self.records + 1 { Ok(()) } else { Err(fail(self.line + 1, 1, Rule::Count)) }
    }
}

fn incoming(
    service: &Text<'_>,
    target: &Text<'_>,
    bytes: Text<'_>,
    attributes: Result<Attributes, NameError>,
) -> Result<Incoming, Refusal> {
    Ok(Incoming {
        service: Service::parse(service.as_str()).map_err(Refusal::Name)?,
        target: Target::parse(target.as_str()).map_err(Refusal::Name)?,
        attributes: attributes.map_err(Refusal::Attribute)?,
        value: value(bytes.into_buffer())?,
    })
}

/// The members of a record so far.
struct Members<'a> {
    service: Option<Text<'a>>,
    target: Option<Text<'a>>,
    value: Option<Text<'a>>,
    attributes: Result<Attributes, NameError>,
    attributes_seen: bool,
}

impl Default for Members<'_> {
    fn default() -> Self {
        let attributes = Ok(Attributes::new());
        Self { service: None, target: None, value: None, attributes, attributes_seen: false }
    }
}

impl<'a> Members<'a> {
    fn take(&mut self, reader: &mut Reader<'a>, name: &Text<'a>) -> Result<(), Malformed> {
        match name.as_str() {
            "service" => once(reader, &mut self.service),
            "target" => once(reader, &mut self.target),
            "value" => once(reader, &mut self.value),
            "attributes" if self.attributes_seen => Err(reader.fail(Problem::DuplicateMember)),
            "attributes" => {
                self.attributes_seen = true;
                reader.object(Problem::WrongType, |reader, name| {
                    let value = reader.string()?;
                    if let Ok(attributes) = &mut self.attributes
                        && let Err(error) = attributes.insert(name.as_str(), value.as_str())
                    {
                        self.attributes = Err(error);
                    }
                    Ok(())
                })
            }
            _ => Err(reader.fail(Problem::UnknownMember)),
        }
    }
}

/// A string that may stand once.
fn once<'a>(reader: &mut Reader<'a>, place: &mut Option<Text<'a>>) -> Result<(), Malformed> {
    if place.is_some() {
        return Err(reader.fail(Problem::DuplicateMember));
    }
    *place = Some(reader.string()?);
    Ok(())
}

/// A member of a later version's head: the version decides, not its members.
fn skip_string(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    reader.string().map(drop)
}

fn line(bytes: &[u8], number: usize) -> Result<&str, SourceError> {
    if bytes.len() > MAX_EXPORT_LINE {
        return Err(fail(number, MAX_EXPORT_LINE + 1, Rule::LongLine));
    }
    std::str::from_utf8(bytes).map_err(|error| fail(number, error.valid_up_to() + 1, Rule::NotUtf8))
}

fn fail(line: usize, column: usize, rule: Rule) -> SourceError {
    SourceError { place: Place { line, column }, rule }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::secret::Buffer;

    fn attributes(pairs: &[(&str, &str)]) -> Attributes {
        let mut attributes = Attributes::new();
        for (name, value) in pairs {
            attributes.insert(name, value).unwrap();
        }
        attributes
    }

    fn secret(text: &str) -> SecretValue {
        SecretValue::from_buffer(Buffer::from(text.as_bytes())).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back_exactly() {
        let nasty = "a\"\\\n\r\t\u{0}\u{1b}\u{7f}\u{85}\u{2028}\u{fffd}\u{1f511}é";
        let records =
            [("s", "t", "", attributes(&[])), ("s\"", "täg", nasty, attributes(&[("a", ""), ("b", nasty)]))];
        let mut out = Vec::new();
        export_header(records.len(), &mut out).unwrap();
        for (service, target, value, attributes) in &records {
            let (service, target) = (Service::parse(service).unwrap(), Target::parse(target).unwrap());
            export_line(&service, &target, &secret(value), attributes, &mut out).unwrap();
        }
        let mut lines = out.split(|byte| *byte == b'\n');
        let mut reader = ExportReader::new(lines.next().unwrap()).unwrap();
        for (line, (service, target, value, attributes)) in lines.by_ref().zip(records) {
            let found = reader.record(line).unwrap().secret.ok().unwrap();
            assert_eq!((found.service.as_str(), found.target.as_str()), (service, target));
            assert_eq!((found.value.expose_secret(), found.attributes), (value, attributes));
        }
        assert_eq!(lines.next(), None, "a line feed ends the last line");
        reader.finish().unwrap();
    }

    #[test]
    fn the_longest_record_fits_a_line() {
        let mut most = Attributes::new();
        for n in 0..16 {
            most.insert(&format!("{n:\u{3c0}<32}"), &"\u{1}".repeat(256)).unwrap();
        }
        let (service, target) = ("\u{200e}".repeat(85), "\u{200e}".repeat(341));
        let (service, target) = (Service::parse(&service).unwrap(), Target::parse(&target).unwrap());
        let mut out = Vec::new();
        export_line(&service, &target, &secret(&"\u{1}".repeat(MAX_VALUE)), &most, &mut out).unwrap();
        assert!(out.len() <= MAX_EXPORT_LINE && out.len() > 6 * MAX_VALUE, "{}", out.len());
    }

    #[test]
    fn an_export_that_was_cut_or_lengthened_is_refused() {
        let head = br#"{"format":"keychain-auth export","version":"1","records":"1"}"#;
        let record = br#"{"service":"s","target":"t","value":"v"}"#;
        let end = |line| fail(line, 1, Rule::Count);
        assert_eq!(ExportReader::new(head).unwrap().finish(), Err(end(2)));
        let mut reader = ExportReader::new(head).unwrap();
        reader.record(record).unwrap();
        assert_eq!(reader.record(record).err(), Some(end(3)));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_foreign_or_broken_line_is_refused_by_rule_and_place() {
        let head = |head: &str| ExportReader::new(head.as_bytes()).err();
        assert_eq!(head("SECRET=1"), Some(fail(1, 1, Rule::NotAnExport)));
        assert_eq!(head(r#"{"version":"1","records":"1"}"#), Some(fail(1, 1, Rule::NotAnExport)));
        let later = r#"{"format":"keychain-auth export","version":"2","records":"1","more":"x"}"#;
        assert_eq!(head(later), Some(fail(1, 1, Rule::Version)));
        let record = |line: &str| {
            let head = br#"{"format":"keychain-auth export","version":"1","records":"9"}"#;
            ExportReader::new(head).unwrap().record(line.as_bytes()).map(|found| found.secret.map(drop))
        };
        let json = |column, problem| Err(fail(2, column, Rule::Json(problem)));
        assert_eq!(record(r#"{"service":"s","target":"t"}"#), json(29, Problem::MissingMember));
        assert_eq!(record(r#"{"service":"s","service":"s"}"#), json(26, Problem::DuplicateMember));
        assert_eq!(record(r#"{"service":1}"#), json(12, Problem::WrongType));
        assert_eq!(record(r#"{"x":"y"}"#), Err(fail(2, 6, Rule::UnknownMember)));
        let long = format!(r#"{{"service":"s","target":"t","value":"{}"}}"#, "v".repeat(MAX_VALUE + 1));
        assert_eq!(record(&long), Ok(Err(Refusal::TooLong)));
        let endless = " ".repeat(MAX_EXPORT_LINE + 1);
        assert_eq!(record(&endless), Err(fail(2, MAX_EXPORT_LINE + 1, Rule::LongLine)));
        assert_eq!(record(&endless[1..]), json(MAX_EXPORT_LINE + 1, Problem::EndsEarly));
        let bad = r#"{"service":"","target":"t","value":"v"}"#;
        assert_eq!(record(bad), Ok(Err(Refusal::Name(NameError::Empty))));
        let twice = r#"{"service":"s","target":"t","value":"v","attributes":{"a":"1","a":"2"}}"#;
        assert_eq!(record(twice), Ok(Err(Refusal::Attribute(NameError::DuplicateAttribute))));
    }
}
