//! Transcripts for [`corridor`](super::corridor) that are mostly requests: what random bytes alone would seldom be.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Result, Unstructured};

use super::{
    contract::{Asked, Meaning},
    corridor::SPEAKERS,
    request::spellings,
};

const SERVICES: [&str; 5] = ["one", "two", "a", "a:b", "other"];
const TARGETS: [&str; 9] = ["a", "b", "b:c", "c", "app/", "app/x", "app/y", "ap", "ü"];
const VALUES: [&str; 5] = ["", "v", "hunter2", "\"\\\n", "\u{1F511}"];

/// One line of a transcript.
#[derive(Debug, Clone)]
pub struct Line(Vec<u8>);

/// A whole transcript.
#[derive(Debug, Clone)]
pub struct Script(Vec<Line>);

impl Script {
    /// The transcript as bytes.
    pub fn render(&self) -> Vec<u8> {
        self.0.iter().flat_map(|line| line.0.clone()).collect()
    }
}

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(choices: &mut Unstructured<'a>) -> Result<Self> {
        let mut lines = Vec::new();
        // bytes that have run out would repeat one choice for ever
        while !choices.is_empty() && lines.len() < 64 {
            lines.push(Line::arbitrary(choices)?);
        }
        Ok(Self(lines))
    }
}

impl<'a> Arbitrary<'a> for Line {
    fn arbitrary(choices: &mut Unstructured<'a>) -> Result<Self> {
        // half of the lines come from the speaker who may do everything, or nothing would be there to be refused
        let speaker = if choices.ratio(1, 2)? { &SPEAKERS[0] } else { choices.choose(&SPEAKERS)? };
        let meaning = match choices.int_in_range(0..=31)? {
            0 => Meaning::Hello,
            1 => Meaning::Status,
            _ => Meaning::Request(asked(choices)?),
        };
        let mut sent = choices.choose(&spellings(&meaning))?.clone().into_bytes();
        if choices.ratio(1, 16)? && !sent.is_empty() {
            let at = choices.choose_index(sent.len())?;
            sent[at] = choices.arbitrary()?;
        }
        Ok(Self([&[speaker.letter], sent.as_slice(), b"\n"].concat()))
    }
}

fn asked(choices: &mut Unstructured<'_>) -> Result<Asked> {
    let action = (*choices.choose(&["read", "write", "write", "delete", "search", "check"])?).to_owned();
    let (writes, searches) = (action == "write", action == "search");
    let prefix = !writes && choices.ratio(1, 3)?;
    let all_names = !writes && !prefix && (searches || action == "check") && choices.ratio(1, 2)?;
    let mut asked =
        Asked { service: (*choices.choose(&SERVICES)?).to_owned(), prefix, action, ..Asked::default() };
    if !all_names {
        let mut targets: Vec<String> = Vec::new();
        for _ in 0..choices.int_in_range(1..=4)? {
            let name = *choices.choose(&TARGETS)?;
            if !targets.iter().any(|known| known == name) {
                targets.push(name.to_owned());
            }
        }
        if writes {
            for _ in &targets {
                asked.values.push((*choices.choose(&VALUES)?).to_owned());
            }
        }
        asked.targets = Some(targets);
    }
    if (writes || searches || (prefix && asked.action != "check")) && choices.ratio(1, 3)? {
        asked.attributes =
            BTreeMap::from([("env".to_owned(), (*choices.choose(&["", "x", "y"])?).to_owned())]);
    }
    Ok(asked)
}

/// Changes a transcript line by line: a new line, one line less, one twice, two exchanged. The bytes of `noise` make the
/// choices.
pub fn mutate(transcript: &[u8], noise: &[u8]) -> Result<Vec<u8>> {
    let choices = &mut Unstructured::new(noise);
    let mut lines: Vec<Vec<u8>> =
        transcript.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let at = if lines.is_empty() { 0 } else { choices.choose_index(lines.len())? };
    let other = if lines.is_empty() { 0 } else { choices.choose_index(lines.len())? };
    match choices.int_in_range(0..=7)? {
        0 if !lines.is_empty() => drop(lines.remove(at)),
        1 if !lines.is_empty() => lines.insert(other, lines[at].clone()),
        2 if !lines.is_empty() => lines.swap(at, other),
        3 if !lines.is_empty() => lines[at] = Line::arbitrary(choices)?.0,
        4 if !lines.is_empty() && !lines[at].is_empty() => lines[at][0] = choices.choose(&SPEAKERS)?.letter,
        _ => {
            let line = Line::arbitrary(choices)?.0;
            if lines.last().is_some_and(|last| !last.ends_with(b"\n")) {
                lines.push(b"\n".to_vec());
            }
            let place = other.min(lines.len());
            lines.insert(place, line);
        }
    }
    Ok(lines.concat())
}
