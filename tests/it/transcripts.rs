//! Replays `cases/*.jsonl`: every shape of request and reply in the contract, as data.
//!
//! The first line of a file names the registered clients, `{"entries":{NAME:{"read":[…],"write":[…],"search":bool,"more":{…}}}}`;
//! every other name is a stranger. Then each line is a step:
//!
//! - `client` and what it sends: `send` (an object), `line` (text) or `hex` (raw bytes, with their line end);
//! - `expect`: the reply, member by member and in order. `"$text"` is any non-empty string, `"$nonce"` 64 hex digits
//!   (kept, so that a later `send` can say `"$nonce"`), `"$version"` the version of the package;
//! - `closes`: whether the connection ends after the reply. The next step of that client connects again;
//! - `audit`: members of the record that the step leaves; `"$absent"` for one that must not be there. Path, hash, pid
//!   and uid are compared always;
//! - or `{"entries":…}` again: config.json is replaced, connections stay.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Map, Value, json};

use crate::{
    client::{Client, Got},
    tools,
    world::{Entry, World, await_that, ordinary_uid},
};

struct Actor {
    client: Client,
    open: bool,
    nonce: String,
}

struct Play {
    world: World,
    actors: BTreeMap<String, Actor>,
    /// Which step is played, for messages.
    at: String,
}

#[test]
fn every_transcript_is_answered_word_for_word() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cases");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let failed: Vec<_> =
        files.iter().filter(|file| std::panic::catch_unwind(|| replay(file)).is_err()).collect();
    assert!(failed.is_empty(), "failed: {failed:?}");
    assert!(files.len() >= 6, "the cases are there");
}

fn replay(file: &Path) {
    let mut play = Play { world: World::new(), actors: BTreeMap::new(), at: String::new() };
    let text = fs::read_to_string(file).unwrap();
    for (number, line) in text.lines().enumerate() {
        play.at = format!("{}:{}", file.file_name().unwrap().to_string_lossy(), number + 1);
        let step: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}", play.at));
        match step.get("entries") {
            Some(entries) => play.entries(entries.as_object().unwrap()),
            None => play.step(&step),
        }
        if number == 0 {
            play.world.start();
        }
    }
}

impl Play {
    fn tool(&self, name: &str) -> std::path::PathBuf {
        let path = self.world.root().join("bin").join(name);
        if !path.exists() {
            self.world.tool(name);
            if name == "stranger" {
                // other bytes than the registered tools have
                let mut bytes = fs::read(&path).unwrap();
                bytes.push(0);
                fs::write(&path, bytes).unwrap();
            }
        }
        path
    }

    fn entries(&self, entries: &Map<String, Value>) {
        let list = |value: &Value| {
            value
                .as_array()
                .map(|all| all.iter().map(|s| s.as_str().unwrap().to_owned()).collect())
                .unwrap_or_default()
        };
        let entries: Vec<Entry> = entries
            .iter()
            .map(|(name, entry)| Entry {
                path: self.tool(name),
                read: list(&entry["read"]),
                write: list(&entry["write"]),
                search: entry["search"] == json!(true),
                more: entry["more"].as_object().map(|m| m.clone().into_iter().collect()).unwrap_or_default(),
            })
            .collect();
        self.world.policy(&entries);
    }

    fn step(&mut self, step: &Value) {
        let name = step["client"].as_str().unwrap();
        let path = self.tool(name);
        if !self.actors.contains_key(name) {
            let client = Client::spawn(&self.world, &path);
            self.actors.insert(name.to_owned(), Actor { client, open: false, nonce: String::new() });
        }
        let actor = self.actors.get_mut(name).unwrap();
        let pid = actor.client.pid();
        let before = self.world.audit_of(pid).len();
        if !actor.open {
            actor.client.connect();
            actor.open = true;
        }
        actor.client.send(&bytes_of(step, &actor.nonce));
        let reply = actor.client.recv();
        let reply = match reply {
            Got::Line(line) => String::from_utf8(line).unwrap(),
            other => panic!("{}: {other:?} instead of a reply", self.at),
        };
        let expected = fill(&step["expect"], &serde_json::from_str(&reply).unwrap(), &mut actor.nonce);
        assert_eq!(reply, expected.to_string(), "{}", self.at);
        if step["closes"] == json!(true) {
            assert_eq!(actor.client.recv(), Got::Eof, "{}: the connection closes", self.at);
            actor.client.close();
            actor.open = false;
        }
        if let Some(wanted) = step.get("audit") {
            let record =
                await_that("the step is in the audit log", || self.world.audit_of(pid).get(before).cloned());
            compare(&record, wanted.as_object().unwrap(), &self.at);
            assert_eq!(record["binary_path"], json!(path), "{}: {record}", self.at);
            // an executable whose path no entry has is not worth a hash before its refusal
            if record["reason"] != "unregistered_binary_pending_approval" || record["binary_hash"] != "" {
                assert_eq!(record["binary_hash"], json!(tools::hash_of(&path)), "{}: {record}", self.at);
            }
            assert_eq!(record["uid"], json!(ordinary_uid()), "{}: {record}", self.at);
        }
    }
}

fn bytes_of(step: &Value, nonce: &str) -> Vec<u8> {
    if let Some(hex) = step["hex"].as_str() {
        return data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
    }
    let line = match step["line"].as_str() {
        Some(line) => line.to_owned(),
        None => step["send"].to_string().replace("$nonce", nonce),
    };
    format!("{line}\n").into_bytes()
}

/// The expected reply with its placeholders replaced by what came, where that is of the right form.
fn fill(expected: &Value, got: &Value, nonce: &mut String) -> Value {
    match expected {
        Value::String(word) => {
            let text = got.as_str().unwrap_or_default();
            let hex =
                text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            match word.as_str() {
                "$text" if !text.is_empty() => got.clone(),
                "$version" => json!(env!("CARGO_PKG_VERSION")),
                "$nonce" if hex => {
                    text.clone_into(nonce);
                    got.clone()
                }
                _ => expected.clone(),
            }
        }
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), fill(value, &got[name], nonce)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn compare(record: &Value, wanted: &Map<String, Value>, at: &str) {
    for (name, value) in wanted {
        match value.as_str() {
            Some("$absent") => assert!(record.get(name).is_none(), "{at}: {name} in {record}"),
            _ => assert_eq!(record.get(name), Some(value), "{at}: {name} in {record}"),
        }
    }
}
