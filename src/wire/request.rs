//! One line to one message, strictly: every member known, once, of its type, and where it belongs.

use std::collections::HashSet;

use data_encoding::HEXLOWER;

use super::{
    json::{Reader, Text},
    limits::MAX_TARGETS,
    malformed::{Malformed, Problem},
    nonce::Nonce,
};
use crate::{
    name::{Attributes, Service, Target, TargetPrefix},
    secret::SecretValue,
    store::{CARRIED, Change, Names, Query, Selection, WriteItem},
};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Values of named or prefixed targets.
    Read,
    /// Puts values in place.
    Write,
    /// Removes targets.
    Delete,
    /// Names, never values.
    Search,
    /// Whether the service is allowed at all.
    Check,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 5] = [Self::Read, Self::Write, Self::Delete, Self::Search, Self::Check];

    /// The word on the wire and in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Search => "search",
            Self::Check => "check",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

/// One line, understood.
pub enum Message {
    /// Asks for version and nonce.
    Hello,
    /// Asks how the daemon is; answered to any process of the user, releases nothing.
    Status,
    /// Asks the daemon to forget the vault's key.
    Lock,
    /// Asks for a nonce, or brings the vault's key, sealed for the one that was given.
    Unlock(Option<Carried>),
    /// Asks for a nonce, and which seal the policy has, sealed for the nonce of the one who asks.
    AskSeal(Nonce),
    /// Brings another seal for the policy, sealed for the nonce that was given.
    Seal(Carried),
    /// Asks for secrets.
    Request(Request),
}

/// What whoever has the vault's key sends to the daemon: sealed for one nonce.
pub struct Carried {
    /// The nonce that it was sealed for.
    pub nonce: Nonce,
    /// The sealed bytes.
    pub key: [u8; CARRIED],
}

/// A well-formed request. Nothing is decided about it yet.
pub struct Request {
    asked: Asked,
    nonce: Option<Nonce>,
    batch: Batch,
}

/// What a request asks, for records and the pending queue: it holds no value, and it outlives the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The action.
    pub action: Action,
    /// The namespace.
    pub service: Service,
    /// The targets or prefixes as given.
    pub targets: Vec<Target>,
    /// Whether `targets` are prefixes.
    pub prefix: bool,
}

/// What a decision is made on.
pub enum Batch {
    /// `read` and `search`.
    Query(Query),
    /// `write` and `delete`.
    Change(Change),
    /// `check`.
    Check(Selection),
}

impl Message {
    /// Reads one line.
    pub fn parse(line: &str) -> Result<Self, Malformed> {
        let (members, end) = Members::read(line)?;
        members.into_message().map_err(|problem| Malformed { problem, column: end })
    }
}

impl Request {
    /// What it asks.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The challenge it carries.
    pub fn nonce(&self) -> Option<&Nonce> {
        self.nonce.as_ref()
    }

    /// The record of what was asked, and the batch to decide on.
    pub fn into_parts(self) -> (Asked, Batch) {
        (self.asked, self.batch)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Hello,
    Status,
    Lock,
    Unlock,
    Seal,
}

/// The members of the object, each parsed by its own rule; which of them belong together is decided afterwards.
#[derive(Default)]
struct Members {
    kind: Option<Kind>,
    action: Option<Action>,
    service: Option<Service>,
    prefix: Option<bool>,
    targets: Option<Vec<Target>>,
    values: Option<Vec<SecretValue>>,
    attributes: Option<Attributes>,
    nonce: Option<Nonce>,
    key: Option<[u8; CARRIED]>,
}

impl Members {
    /// The members and the column after the last of them.
    fn read(line: &str) -> Result<(Self, usize), Malformed> {
        let mut reader = Reader::new(line);
        let mut members = Self::default();
        reader.object(Problem::NotAnObject, |reader, name| members.member(reader, &name))?;
        reader.end()?;
        Ok((members, line.len() + 1))
    }

    fn member(&mut self, reader: &mut Reader<'_>, name: &Text<'_>) -> Result<(), Malformed> {
        match name.as_str() {
            "type" => word(&mut self.kind, reader, Problem::UnknownType, |text| match text {
                "REQUEST" => Some(Kind::Request),
                "HELLO" => Some(Kind::Hello),
                "STATUS" => Some(Kind::Status),
                "LOCK" => Some(Kind::Lock),
                "UNLOCK" => Some(Kind::Unlock),
                "SEAL" => Some(Kind::Seal),
                _ => None,
            }),
            "action" => word(&mut self.action, reader, Problem::UnknownAction, Action::parse),
            "match" => word(&mut self.prefix, reader, Problem::UnknownMatch, |text| match text {
                "exact" => Some(false),
                "prefix" => Some(true),
                _ => None,
            }),
            "nonce" => word(&mut self.nonce, reader, Problem::Nonce, Nonce::parse),
            "key" => word(&mut self.key, reader, Problem::SealedKey, |text| {
                HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
            }),
            "service" => once(&mut self.service, reader, |reader| {
                let text = reader.string()?;
                Service::parse(text.as_str()).map_err(|error| reader.fail(error))
            }),
            "targets" => once(&mut self.targets, reader, targets),
            "values" => once(&mut self.values, reader, values),
            "attributes" => once(&mut self.attributes, reader, attributes),
            _ => Err(reader.fail(Problem::UnknownMember)),
        }
    }

    fn into_message(self) -> Result<Message, Problem> {
        match self.kind.ok_or(Problem::MissingMember)? {
            Kind::Hello => self.alone().map(|()| Message::Hello),
            Kind::Status => self.alone().map(|()| Message::Status),
            Kind::Lock => self.alone().map(|()| Message::Lock),
            Kind::Unlock => self.into_unlock().map(Message::Unlock),
            Kind::Seal => self.into_seal(),
            Kind::Request => self.into_request().map(Message::Request),
        }
    }

    /// The nonce and the key come together.
    fn into_unlock(mut self) -> Result<Option<Carried>, Problem> {
        let carried = match (self.nonce.take(), self.key.take()) {
            (Some(nonce), Some(key)) => Some(Carried { nonce, key }),
            (None, None) => None,
            _ => return Err(Problem::MissingMember),
        };
        self.alone().map(|()| carried)
    }

    /// The nonce of whoever asks; with a key, the daemon's.
    fn into_seal(mut self) -> Result<Message, Problem> {
        let nonce = self.nonce.take().ok_or(Problem::MissingMember)?;
        let message = match self.key.take() {
            Some(key) => Message::Seal(Carried { nonce, key }),
            None => Message::AskSeal(nonce),
        };
        self.alone().map(|()| message)
    }

    /// `HELLO`, `STATUS` and `LOCK` take no other member.
    fn alone(self) -> Result<(), Problem> {
        let others = self.action.is_some()
            || self.service.is_some()
            || self.prefix.is_some()
            || self.targets.is_some()
            || self.values.is_some()
            || self.attributes.is_some()
            || self.nonce.is_some()
            || self.key.is_some();
        if others { Err(Problem::MisplacedMember) } else { Ok(()) }
    }

    fn into_request(self) -> Result<Request, Problem> {
        if self.key.is_some() {
            return Err(Problem::MisplacedMember);
        }
        let action = self.action.ok_or(Problem::MissingMember)?;
        let service = self.service.ok_or(Problem::MissingMember)?;
        let attributes = self.attributes.unwrap_or_default();
        let prefix = self.prefix == Some(true);
        let writes = action == Action::Write;
        if (writes && self.prefix.is_some()) || (!writes && self.values.is_some()) {
            return Err(Problem::MisplacedMember);
        }
        // attributes are stored by write and filter search and prefix actions; elsewhere they would be silently ignored
        let filters = action == Action::Search || (prefix && action != Action::Check);
        if !attributes.is_empty() && !writes && !filters {
            return Err(Problem::MisplacedMember);
        }
        let asked = Asked {
            action,
            service: service.clone(),
            targets: self.targets.iter().flatten().cloned().collect(),
            prefix,
        };
        let batch = match (action, self.targets) {
            (Action::Write, Some(targets)) => {
                let items = pair(targets, self.values.ok_or(Problem::MissingMember)?)?;
                Batch::Change(Change::Write { service, items, attributes })
            }
            (Action::Read | Action::Write | Action::Delete, None) => return Err(Problem::MissingMember),
            (_, None) if prefix => return Err(Problem::MissingMember),
            (_, targets) => {
                let selection = Selection { service, names: names(targets, prefix)?, filter: attributes };
                match action {
                    Action::Delete => Batch::Change(Change::Delete(selection)),
                    Action::Check => Batch::Check(selection),
                    _ => Batch::Query(Query { selection, values: action == Action::Read }),
                }
            }
        };
        Ok(Request { asked, nonce: self.nonce, batch })
    }
}

/// A member that is given once, by its own rule.
fn once<'a, T>(
    place: &mut Option<T>,
    reader: &mut Reader<'a>,
    parse: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<(), Malformed> {
    if place.is_some() {
        return Err(reader.fail(Problem::DuplicateMember));
    }
    *place = Some(parse(reader)?);
    Ok(())
}

/// A member that is one of a few words.
fn word<T>(
    place: &mut Option<T>,
    reader: &mut Reader<'_>,
    otherwise: Problem,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<(), Malformed> {
    once(place, reader, |reader| {
        let text = reader.string()?;
        parse(text.as_str()).ok_or_else(|| reader.fail(otherwise))
    })
}

fn targets(reader: &mut Reader<'_>) -> Result<Vec<Target>, Malformed> {
    let mut targets = Vec::new();
    reader.strings(|reader, text| {
        if targets.len() >= MAX_TARGETS {
            return Err(reader.fail(Problem::TargetCount));
        }
        targets.push(Target::parse(text.as_str()).map_err(|error| reader.fail(error))?);
        Ok(())
    })?;
    if targets.is_empty() {
        return Err(reader.fail(Problem::TargetCount));
    }
    let mut seen = HashSet::with_capacity(targets.len());
    if !targets.iter().all(|target| seen.insert(target.as_str())) {
        return Err(reader.fail(Problem::DuplicateTarget));
    }
    Ok(targets)
}

fn values(reader: &mut Reader<'_>) -> Result<Vec<SecretValue>, Malformed> {
    let mut values = Vec::new();
    reader.strings(|reader, text| {
        if values.len() >= MAX_TARGETS {
            return Err(reader.fail(Problem::ValueCount));
        }
        values.push(
            SecretValue::from_buffer(text.into_buffer()).ok_or_else(|| reader.fail(Problem::ValueTooLong))?,
        );
        Ok(())
    })?;
    Ok(values)
}

fn attributes(reader: &mut Reader<'_>) -> Result<Attributes, Malformed> {
    let mut attributes = Attributes::new();
    reader.object(Problem::WrongType, |reader, name| {
        let value = reader.string()?;
        attributes.insert(name.as_str(), value.as_str()).map_err(|error| reader.fail(error))
    })?;
    Ok(attributes)
}

fn names(targets: Option<Vec<Target>>, prefix: bool) -> Result<Names, Problem> {
    let Some(targets) = targets else { return Ok(Names::All) };
    if !prefix {
        return Ok(Names::Exact(targets));
    }
    let prefixes: Result<_, _> = targets.iter().map(|target| TargetPrefix::parse(target.as_str())).collect();
    Ok(Names::Prefix(prefixes?))
}

fn pair(targets: Vec<Target>, values: Vec<SecretValue>) -> Result<Vec<WriteItem>, Problem> {
    if targets.len() != values.len() {
        return Err(Problem::ValueCount);
    }
    Ok(targets.into_iter().zip(values).map(|(target, value)| WriteItem { target, value }).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_object_is_told_from_a_member_of_the_wrong_type() {
        for (line, problem, column) in [
            ("[]", Problem::NotAnObject, 1),
            (" 1", Problem::NotAnObject, 2),
            (r#"{"type":1}"#, Problem::WrongType, 9),
            (r#"{"type":"REQUEST"} "#, Problem::MissingMember, 20),
        ] {
            let refused = Message::parse(line).err().unwrap();
            assert_eq!((refused.problem, refused.column), (problem, column), "{line}");
        }
    }

    #[test]
    fn hello_status_and_lock_take_no_other_member() {
        let key = "0".repeat(2 * CARRIED);
        let nonce = "0".repeat(64);
        let others = [
            r#""action":"read""#.to_owned(),
            r#""service":"s""#.to_owned(),
            r#""match":"exact""#.to_owned(),
            r#""targets":["t"]"#.to_owned(),
            r#""values":["v"]"#.to_owned(),
            r#""attributes":{}"#.to_owned(),
            format!(r#""nonce":"{nonce}""#),
            format!(r#""key":"{key}""#),
        ];
        for kind in ["HELLO", "STATUS", "LOCK"] {
            assert!(Message::parse(&format!(r#"{{"type":"{kind}"}}"#)).is_ok());
            for other in &others {
                let refused = Message::parse(&format!(r#"{{"type":"{kind}",{other}}}"#)).err().unwrap();
                assert_eq!(refused.problem, Problem::MisplacedMember, "{kind} {other}");
            }
        }
    }

    #[test]
    fn values_beyond_the_most_targets_are_refused_at_the_first_of_them() {
        let values = vec![r#""v""#; MAX_TARGETS + 1].join(",");
        let upto = format!(r#"{{"type":"REQUEST","action":"write","service":"s","values":[{values}"#);
        let rest = r#","more"],"targets":["t"]}"#;
        let refused = Message::parse(&format!("{upto}{rest}")).err().unwrap();
        assert_eq!((refused.problem, refused.column), (Problem::ValueCount, upto.len() + 1));
    }
}
