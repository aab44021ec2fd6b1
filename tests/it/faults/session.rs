//! One session of a daemon in which a system call fails, and what a daemon without faults finds after it.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::site::{Fault, How};
use crate::{
    client::{Caller, Got},
    reference::{MARK, Model},
    tools::{Link, compiled},
    world::{Entry, World, ordinary_uid},
};

/// How long a reply may take until the daemon counts as hung, in milliseconds.
const HUNG: u32 = 45_000;
/// How long a session waits for what a fault may have prevented.
const SLOW_THREADS: Duration = Duration::from_millis(1500);

/// What the daemon begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Begins {
    /// Without any file.
    Fresh,
    /// With the vault and the log of a daemon that was killed before it could bring its records to the log.
    Killed,
}

/// What a fault led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Every request was answered as without it.
    Unharmed,
    /// Requests that would have been served were refused; later ones were served.
    Refused,
    /// The daemon refused on, until it was started again.
    RefusedOn,
    /// The daemon ended with a sentence.
    Ended,
    /// The daemon did not start, and said why.
    NoStart,
    /// The daemon was ended by SIGABRT: no memory, or a runtime that can't go on.
    Aborted,
    /// That was the fault.
    Killed,
}

/// One run.
pub struct Run {
    /// None if the session did not come to the call.
    pub outcome: Option<Outcome>,
    pub problems: Vec<String>,
    pub trace: String,
    /// What the daemon said.
    pub log: String,
}

struct Session<'w> {
    world: &'w mut World,
    tool: PathBuf,
    model: Model,
    trace: PathBuf,
    /// It answers nobody any more; one wait for that is enough.
    hung: bool,
    /// It may be killed; nothing else may kill it.
    is_killed: bool,
}

/// Plays a session with a fault, or without one, and looks at what it leaves.
pub fn play(begins: Begins, template: &Path, fault: Option<&Fault>) -> Run {
    let mut world = World::new();
    let tool = world.tool("tool");
    let mut model = Model::default();
    if begins == Begins::Killed {
        model = lay_out(&world, template);
    }
    model.unsure_of_errors = fault.is_some_and(|fault| fault.kind.how == How::Onward);
    world.policy(&[Entry::all(&tool, &["s"])]);
    let trace = world.tmp("trace");
    let tracer = compiled("clients/fault.c", Link::Static);
    let [tracer, user, to] =
        [tracer.display().to_string(), ordinary_uid().to_string(), trace.display().to_string()];
    world.start_undropped = true;
    world.start_through = vec![tracer, user, to];
    world.start_through.extend(fault.iter().flat_map(|fault| fault.arguments()));
    world.start_through.push("--".to_owned());
    let is_killed = fault.is_some_and(|fault| fault.kind.how == How::Kill);
    let mut session = Session { world: &mut world, tool, model, trace, hung: false, is_killed };
    let outcome = session.run(begins, fault);
    session.aftermath();
    let Session { model, trace, .. } = session;
    let trace = fs::read_to_string(trace).unwrap_or_default();
    let reached = trace.lines().any(|line| line == "FAILED");
    let outcome = (reached || fault.is_none()).then_some(outcome);
    Run { outcome, problems: model.problems, trace, log: world.log() }
}

/// Files that a killed daemon has left, and what its clients were told. Made once, then copied.
pub fn template(world: &mut World) -> Model {
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let (trace, model) = (world.tmp("trace"), Model::default());
    let mut session = Session { trace, tool: tool.clone(), model, world, hung: false, is_killed: false };
    let mut client = Caller::new(session.world, &tool);
    for (name, value) in [("old/1", "1"), ("old/2", "2"), ("old/1", "3")] {
        session.write(&mut client, &[name], value);
    }
    session.world.kill();
    assert!(session.model.problems.is_empty() && session.model.refused.is_empty());
    session.model
}

/// Copies the template's data folder.
fn lay_out(world: &World, template: &Path) -> Model {
    let data = world.data();
    for file in fs::read_dir(template).unwrap() {
        let file = file.unwrap();
        world.write(&data.join(file.file_name()), &fs::read(file.path()).unwrap());
    }
    let mut model = Model::default();
    for (name, value) in [("old/1", "1"), ("old/2", "2"), ("old/1", "3")] {
        model.served(
            &write(&[name], value),
            Some(&json!({"type": "RESPONSE", "status": "success", "results": []})),
        );
    }
    model
}

fn write(targets: &[&str], value: &str) -> Value {
    let values: Vec<String> = targets.iter().map(|target| format!("{MARK}-{value}-{target}")).collect();
    json!({"type": "REQUEST", "action": "write", "service": "s", "targets": targets, "values": values})
}

fn request(action: &str, more: Value) -> Value {
    let mut request = json!({"type": "REQUEST", "action": action, "service": "s"});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

impl Session<'_> {
    fn run(&mut self, begins: Begins, fault: Option<&Fault>) -> Outcome {
        if let Err(status) = self.world.try_start() {
            return self.ended(status, Outcome::NoStart);
        }
        if self.world.log().contains("not in force") {
            self.model.problem("it listens without a protection");
        }
        match begins {
            Begins::Fresh => self.requests(),
            Begins::Killed => self.reads(),
        }
        // the fault is over
        let before = self.model.refused.len();
        let onward = fault.is_some_and(|fault| fault.kind.how == How::Onward);
        self.serves_on();
        // which may have been where it came to it
        let before = if self.model.refused.len() == before {
            before
        } else {
            let before = self.model.refused.len();
            self.serves_on();
            before
        };
        let outcome = match self.model.refused.len() == before {
            true if self.model.refused.is_empty() => Outcome::Unharmed,
            true => Outcome::Refused,
            false if onward => Outcome::Refused,
            false => Outcome::RefusedOn,
        };
        let status = self.world.end(Signal::TERM);
        if status.success() { outcome } else { self.ended(status, Outcome::Ended) }
    }

    /// An end that is no success has a sentence, or is an abort.
    fn ended(&mut self, status: ExitStatus, outcome: Outcome) -> Outcome {
        let log = self.world.log();
        match (status.code(), status.signal()) {
            (Some(1), _) if log.lines().any(|line| line.starts_with("error: ")) => outcome,
            (_, Some(signal)) if signal == Signal::ABORT.as_raw() => Outcome::Aborted,
            (_, Some(signal)) if self.is_killed && signal == Signal::KILL.as_raw() => Outcome::Killed,
            // a panic, in a build that does not abort at it
            (Some(101), _) => Outcome::Aborted,
            _ => {
                self.model.problem(format!("it ended with {status}: {log}"));
                outcome
            }
        }
    }

    /// Sends a line and takes its reply. None if none came.
    fn ask(&mut self, client: &mut Caller, lines: &[u8]) -> Option<Value> {
        if !self.hung {
            client.send(lines);
        }
        self.take(client)
    }

    fn take(&mut self, client: &mut Caller) -> Option<Value> {
        if self.hung || !client.connected {
            return None;
        }
        match client.client.recv_within(HUNG) {
            Got::Line(line) => match serde_json::from_slice(&line) {
                Ok(reply) => return Some(reply),
                Err(_) => self.model.problem(format!("no JSON: {}", String::from_utf8_lossy(&line))),
            },
            Got::Timeout => {
                self.hung = true;
                self.model.problem("no reply within 45 seconds");
            }
            Got::Eof | Got::Cut | Got::Errno(_) => {}
        }
        client.close();
        None
    }

    /// A request that is allowed.
    fn allowed(&mut self, client: &mut Caller, request: &Value) {
        let reply = self.ask(client, format!("{request}\n").as_bytes());
        self.model.served(request, reply.as_ref());
    }

    fn write(&mut self, client: &mut Caller, targets: &[&str], value: &str) {
        self.allowed(client, &write(targets, value));
    }

    fn read(&mut self, client: &mut Caller, targets: &[&str]) {
        self.allowed(client, &request("read", json!({"targets": targets})));
    }

    /// A request that nobody may be served.
    fn forbidden(&mut self, what: &str, client: &mut Caller, lines: &str) {
        let reply = self.ask(client, lines.as_bytes());
        self.model.denied(what, reply.as_ref());
    }

    /// Everything that a daemon does for its clients.
    fn requests(&mut self) {
        let tool = self.tool.clone();
        let mut client = Caller::new(self.world, &tool);
        self.allowed(&mut client, &json!({"type": "HELLO"}));
        self.write(&mut client, &["a/1", "a/2"], "first");
        let pipelined =
            [write(&["b"], "b"), write(&["c"], "c"), request("read", json!({"targets": ["a/1", "b"]}))];
        let lines: String = pipelined.iter().map(|request| format!("{request}\n")).collect();
        client.send(lines.as_bytes());
        for request in &pipelined {
            let reply = self.take(&mut client);
            self.model.served(request, reply.as_ref());
        }
        self.read(&mut client, &["a/2", "none", "a/1"]);
        self.allowed(&mut client, &request("read", json!({"targets": ["a/"], "match": "prefix"})));
        self.allowed(&mut client, &request("search", json!({})));
        self.allowed(&mut client, &request("check", json!({})));
        self.allowed(&mut client, &json!({"type": "STATUS"}));
        self.write(&mut client, &["a/1"], "second");
        self.allowed(&mut client, &request("delete", json!({"targets": ["c", "none"]})));
        let elsewhere = json!({"type": "REQUEST", "action": "read", "service": "other", "targets": ["a/1"]});
        self.forbidden("another service", &mut client, &format!("{elsewhere}\n"));
        self.forbidden("half a request", &mut client, "{\"type\":\"REQUEST\",\n");
        self.liars();
        self.policy(&mut client);
        self.log_moved(&mut client);
        self.large(&mut client);
        self.slow_threads();
        self.read(&mut client, &["a/1", "a/2", "b", "c"]);
    }

    /// Callers that no fault may let in: a stranger, and a tool whose descriptor could have crossed an exec.
    fn liars(&mut self) {
        let read = request("read", json!({"targets": ["a/1"]}));
        let mut careless = Caller::new(self.world, &self.tool);
        let inheritable = format!("connect plain {}", self.world.socket().display());
        careless.connected = careless.client.order(&inheritable, &[]) == "ok";
        self.forbidden("an inherited descriptor", &mut careless, &format!("{read}\n"));
        let stranger = self.world.tool("stranger");
        let mut stranger = Caller::new(self.world, &stranger);
        self.forbidden("a stranger", &mut stranger, &format!("{read}\n"));
    }

    /// A permission that is taken away, and given back.
    fn policy(&mut self, client: &mut Caller) {
        let mut entry = Entry::all(&self.tool, &["s"]);
        entry.write.clear();
        self.world.policy(&[entry]);
        self.forbidden("a revoked permission", client, &format!("{}\n", write(&["d"], "never")));
        self.world.policy(&[Entry::all(&self.tool, &["s"])]);
        self.read(client, &["b"]);
    }

    /// The log is moved away, and written by somebody else.
    fn log_moved(&mut self, client: &mut Caller) {
        let log = self.world.data().join("audit.log");
        let _ = fs::rename(&log, self.world.data().join("moved.log"));
        self.read(client, &["b"]);
        if let Ok(mut log) = OpenOptions::new().append(true).open(&log) {
            log.write_all(b"{\"half\":").unwrap();
        }
        self.read(client, &["a/1"]);
    }

    /// More than the memory for secrets and the socket's buffers hold at once, and a vault that grows.
    fn large(&mut self, client: &mut Caller) {
        let value = "v".repeat(60 << 10);
        let names: Vec<String> = (0..30).map(|number| format!("large/{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for some in names.chunks(15) {
            self.write(client, some, &value);
        }
        self.read(client, &names);
        self.allowed(client, &request("delete", json!({"targets": ["large/"], "match": "prefix"})));
    }

    /// Waits until the log is on the disk and the stranger is queued; not for long, since a fault may prevent it.
    fn slow_threads(&mut self) {
        let until = Instant::now() + SLOW_THREADS;
        let queue = self.world.data().join("pending.json");
        loop {
            let trace = fs::read_to_string(&self.trace).unwrap_or_default();
            let synced = trace.lines().any(|line| line == "log-sync fdatasync audit.log");
            let queued = fs::read_to_string(&queue).is_ok_and(|queue| queue.contains("stranger"));
            if synced && queued || Instant::now() > until {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What a daemon does with what a killed one left.
    fn reads(&mut self) {
        let tool = self.tool.clone();
        let mut client = Caller::new(self.world, &tool);
        self.read(&mut client, &["old/1", "old/2"]);
        self.write(&mut client, &["a/1", "a/2", "b"], "new");
    }

    /// A new connection is served.
    fn serves_on(&mut self) {
        let tool = self.tool.clone();
        let mut client = Caller::new(self.world, &tool);
        self.write(&mut client, &["last"], "last");
        self.read(&mut client, &["last", "b"]);
    }

    /// A daemon without faults starts on what is there, and finds what was said.
    fn aftermath(&mut self) {
        self.world.start_through.clear();
        self.world.start_undropped = false;
        self.hung = false;
        if let Err(status) = self.world.try_start() {
            let log = self.world.log();
            return self.model.problem(format!("it can't be started again: {status}: {log}"));
        }
        let tool = self.tool.clone();
        let mut client = Caller::new(self.world, &tool);
        let refused = self.model.refused.len();
        self.allowed(&mut client, &request("search", json!({})));
        let all: Vec<String> =
            self.model.stores.iter().flat_map(|store| store.keys().map(|(_, name)| name.clone())).collect();
        if !all.is_empty() {
            let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
            all.sort_unstable();
            all.dedup();
            self.read(&mut client, &all);
        }
        if self.model.refused.len() > refused {
            let refused = self.model.refused.split_off(refused);
            self.model.problem(format!("it does not serve after a new start: {refused:?}"));
        }
        if !self.world.stop().success() {
            self.model.problem("it does not end well after a new start");
        }
        let mut records = self.world.audit();
        let moved = fs::read_to_string(self.world.data().join("moved.log")).unwrap_or_default();
        records.extend(moved.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()));
        self.model.compare_records(&records);
        for (what, text) in [
            ("the operator's log", self.world.log()),
            ("the audit log", records.iter().map(Value::to_string).collect()),
            ("the queue", fs::read_to_string(self.world.data().join("pending.json")).unwrap_or_default()),
        ] {
            if text.contains(MARK) {
                self.model.problem(format!("{what} holds a value"));
            }
        }
    }
}
