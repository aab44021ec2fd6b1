//! Random transcripts against the real program and a reference: whatever clients ask, whoever they are, however often
//! their permissions change and the daemon is killed, each reply is the one that the contract gives.
//!
//! A transcript that fails is made small and printed, one action a line. Put into a file it is played again by
//! `KEYCHAIN_AUTH_TRANSCRIPT=FILE cargo test --test it model::`; those in `tests/it/model/` are always played.

mod action;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use action::{Action, CLIENTS, May, action, refusal};
use proptest::{
    collection::vec,
    test_runner::{Config, TestCaseError, TestError, TestRunner},
};
use serde_json::{Value, json};

use crate::{
    client::{Caller, Got},
    reference::{MARK, Model},
    world::{Entry, World},
};

/// Transcripts that the suite plays, if `KEYCHAIN_AUTH_TRANSCRIPTS` gives no other number.
const TRANSCRIPTS: u32 = 24;
/// Most actions of one.
const ACTIONS: usize = 60;
/// Attempts to make a failing transcript smaller; each plays it.
const SHRINKING: u32 = 150;
/// How long a reply may take, in milliseconds.
const HUNG: u32 = 30_000;

struct Play {
    world: World,
    /// The last one may do everything, always.
    paths: Vec<PathBuf>,
    callers: Vec<Caller>,
    may: Vec<Option<May>>,
    model: Model,
}

impl Play {
    fn begin() -> Self {
        let world = World::new();
        let paths: Vec<PathBuf> = (0..=CLIENTS).map(|number| world.tool(&format!("tool-{number}"))).collect();
        // one begins as a stranger
        let may = (0..=CLIENTS).map(|number| (number != 1).then(May::everything)).collect();
        let callers = paths.iter().map(|path| Caller::new(&world, path)).collect();
        let mut play = Self { callers, may, model: Model::default(), paths, world };
        play.policy();
        play.world.start();
        play
    }

    /// Writes the permissions of this moment.
    fn policy(&self) {
        let entry = |(path, may): (&PathBuf, &Option<May>)| {
            let May { read, write, search, prefixes } = may.clone()?;
            let more = prefixes.map(|begins| ("allowed_target_prefixes".to_owned(), json!(begins)));
            Some(Entry { path: path.clone(), read, write, search, more: more.into_iter().collect() })
        };
        self.world.policy(&self.paths.iter().zip(&self.may).filter_map(entry).collect::<Vec<_>>());
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Ask { who, request } => {
                self.callers[*who].send(format!("{request}\n").as_bytes());
                let reply = self.reply(*who);
                self.judge(*who, request, reply.as_ref());
            }
            Action::Raw { who, bytes } => {
                self.callers[*who].send(&[bytes, b"\n".as_slice()].concat());
                let reply = self.reply(*who);
                // what is no line is refused before anybody looks who sent it
                let framed = std::str::from_utf8(bytes).is_ok();
                let reason = if framed && self.may[*who].is_none() { STRANGER } else { "malformed_request" };
                self.model.denied_because("what is no request", reason, reply.as_ref());
                self.callers[*who].close();
            }
            Action::Policy { who, may } => {
                self.may[*who].clone_from(may);
                self.policy();
            }
            Action::Kill { who, request, after } => {
                self.callers[*who].send(format!("{request}\n").as_bytes());
                thread::sleep(Duration::from_micros(*after));
                self.world.kill();
                let reply = self.reply(*who);
                if reply.is_some() || refusal(self.may[*who].as_ref(), request).is_none() {
                    self.judge(*who, request, reply.as_ref());
                }
                // that it was not answered is no fault
                self.model.refused.clear();
                self.restart();
            }
            Action::Stop {} => {
                if !self.world.stop().success() {
                    self.model.problem("it does not end well");
                }
                self.restart();
            }
        }
        if let Some(refused) = self.model.refused.pop() {
            self.model.problem(format!("what is allowed was refused: {refused}"));
        }
    }

    /// Compares a reply with what the contract says.
    fn judge(&mut self, who: usize, request: &Value, reply: Option<&Value>) {
        match refusal(self.may[who].as_ref(), request) {
            Some(reason) => self.model.denied_because(&request.to_string(), reason, reply),
            None => self.model.served(request, reply),
        }
        if self.may[who].is_none() {
            self.callers[who].close();
        }
    }

    fn reply(&mut self, who: usize) -> Option<Value> {
        let caller = &mut self.callers[who];
        if !caller.connected {
            return None;
        }
        match caller.client.recv_within(HUNG) {
            Got::Line(line) => Some(serde_json::from_slice(&line).unwrap_or_default()),
            _ => {
                caller.close();
                None
            }
        }
    }

    fn restart(&mut self) {
        self.callers.iter_mut().for_each(Caller::close);
        self.world.start();
    }

    /// After the last action: a new daemon has what was said, and the log has a record of all of it.
    fn end(mut self) -> Vec<String> {
        self.act(&Action::Stop {});
        for service in ["s", "s:a"] {
            let all = json!({"type": "REQUEST", "action": "read", "service": service,
                "targets": ["a", "b", "c"], "match": "prefix"});
            self.act(&Action::Ask { who: CLIENTS, request: all });
        }
        self.world.stop();
        let records = self.world.audit();
        self.model.compare_records(&records);
        let told = records.iter().map(Value::to_string).collect::<String>() + &self.world.log();
        if told.contains(MARK) {
            self.model.problem("a value is in a log");
        }
        self.model.problems
    }
}

const STRANGER: &str = "unregistered_binary_pending_approval";

/// Plays a transcript; what went wrong.
fn play(actions: &[Action]) -> Vec<String> {
    let mut play = Play::begin();
    for action in actions {
        play.act(action);
        if !play.model.problems.is_empty() {
            return play.model.problems;
        }
    }
    play.end()
}

/// A transcript as a file has it.
fn lines(actions: &[Action]) -> String {
    actions.iter().map(|action| serde_json::to_string(action).unwrap() + "\n").collect()
}

fn play_file(path: &Path) {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let actions: Vec<Action> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let problems = play(&actions);
    assert!(problems.is_empty(), "{}: {problems:#?}", path.display());
}

#[test]
fn whatever_clients_do_each_reply_is_the_contracts_and_nothing_is_lost() {
    let number = std::env::var("KEYCHAIN_AUTH_TRANSCRIPTS").map(|number| number.parse().unwrap());
    let config = Config {
        cases: number.unwrap_or(TRANSCRIPTS),
        max_shrink_iters: SHRINKING,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&vec(action(), 1..=ACTIONS), |actions| {
        let problems = play(&actions);
        if problems.is_empty() { Ok(()) } else { Err(TestCaseError::fail(problems.join("; "))) }
    });
    if let Err(TestError::Fail(problems, actions)) = outcome {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("counterexample.jsonl");
        fs::write(&file, lines(&actions)).unwrap();
        panic!(
            "{problems}\n{}again: KEYCHAIN_AUTH_TRANSCRIPT={} cargo test --test it model::transcripts",
            lines(&actions),
            file.display()
        );
    } else {
        outcome.unwrap();
    }
}

#[test]
fn transcripts_that_once_failed_or_show_a_rule_are_played_again() {
    if let Some(file) = std::env::var_os("KEYCHAIN_AUTH_TRANSCRIPT") {
        return play_file(Path::new(&file));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/model");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let transcripts: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|it| it == "jsonl")).collect();
    assert!(!transcripts.is_empty());
    for path in transcripts {
        play_file(&path);
    }
}
