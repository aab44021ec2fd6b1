//! A registered tool or a stranger: one process of `clients/client.c`, driven over pipes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use serde_json::{Value, json};

use crate::world::{World, spawn};

/// How long a client waits for a reply, in milliseconds.
const REPLY_MS: u32 = 30_000;

/// What came back on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    Line(Vec<u8>),
    /// The daemon closed, after whole lines only.
    Eof,
    /// The daemon closed in the middle of a line.
    Cut,
    /// Nothing within the time.
    Timeout,
    /// An error of the operating system.
    Errno(i32),
}

impl Got {
    /// The line as JSON; fails on anything else.
    #[track_caller]
    pub fn json(self) -> Value {
        match self {
            Self::Line(line) => serde_json::from_slice(&line)
                .unwrap_or_else(|_| panic!("a reply that is no JSON: {}", String::from_utf8_lossy(&line))),
            other => panic!("a reply was expected, not {other:?}"),
        }
    }
}

pub struct Client {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    socket: PathBuf,
}

impl Client {
    /// Starts the program at `path`, not connected.
    pub fn spawn(world: &World, path: &Path) -> Self {
        Self::from_command(world, &mut world.command(path))
    }

    /// Starts `command`, which becomes the client.
    pub fn from_command(world: &World, command: &mut std::process::Command) -> Self {
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output, socket: world.socket() }
    }

    /// Starts the program at `path` and connects it.
    pub fn connected(world: &World, path: &Path) -> Self {
        let mut client = Self::spawn(world, path);
        client.connect();
        client
    }

    /// The pid as the client sees it, which is the real one after any wrapper such as strace.
    pub fn pid(&mut self) -> u32 {
        self.order("pid", &[]).parse().unwrap()
    }

    /// One command with its payload; the first line of the answer.
    #[track_caller]
    pub fn order(&mut self, command: &str, payload: &[u8]) -> String {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{command}\n").as_bytes()).unwrap();
        input.write_all(payload).unwrap();
        input.flush().unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the client ended at {command:?}");
        line.trim_end().to_owned()
    }

    #[track_caller]
    fn must(&mut self, command: &str, payload: &[u8]) {
        assert_eq!(self.order(command, payload), "ok", "{command}");
    }

    #[track_caller]
    pub fn connect(&mut self) {
        assert_eq!(self.try_connect(), "ok");
    }

    /// "ok", or "error ERRNO".
    pub fn try_connect(&mut self) -> String {
        let command = format!("connect cloexec {}", self.socket.display());
        self.order(&command, &[])
    }

    /// Connects like a C program that forgot SOCK_CLOEXEC.
    #[track_caller]
    pub fn connect_inheritable(&mut self) {
        let command = format!("connect plain {}", self.socket.display());
        self.must(&command, &[]);
    }

    /// The connection that the following commands mean.
    #[track_caller]
    pub fn slot(&mut self, number: usize) {
        self.must(&format!("slot {number}"), &[]);
    }

    /// Sends bytes as they are. The daemon may have closed: that is seen when receiving.
    pub fn send(&mut self, bytes: &[u8]) {
        self.order(&format!("send {}", bytes.len()), bytes);
    }

    /// Sends bytes one by one.
    pub fn trickle(&mut self, bytes: &[u8]) {
        self.order(&format!("trickle {}", bytes.len()), bytes);
    }

    pub fn shut(&mut self) {
        self.order("shut", &[]);
    }

    pub fn close(&mut self) {
        self.order("close", &[]);
    }

    /// The next reply.
    pub fn recv(&mut self) -> Got {
        self.recv_within(REPLY_MS)
    }

    /// The next reply within some milliseconds.
    pub fn recv_within(&mut self, ms: u32) -> Got {
        let head = self.order(&format!("recv {ms}"), &[]);
        let (word, number) = head.split_once(' ').unwrap_or((&head, ""));
        match word {
            "line" => {
                let mut line = vec![0; number.parse().unwrap()];
                self.output.read_exact(&mut line).unwrap();
                Got::Line(line)
            }
            "eof" => Got::Eof,
            "cut" => Got::Cut,
            "timeout" => Got::Timeout,
            _ => Got::Errno(number.parse().unwrap()),
        }
    }

    /// One request, one reply.
    #[track_caller]
    pub fn request(&mut self, request: &Value) -> Value {
        self.send(format!("{request}\n").as_bytes());
        self.recv().json()
    }

    #[track_caller]
    pub fn write(&mut self, service: &str, pairs: &[(&str, &str)]) -> Value {
        let (targets, values): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        self.request(&json!({"type": "REQUEST", "action": "write", "service": service, "targets": targets, "values": values}))
    }

    #[track_caller]
    pub fn read(&mut self, service: &str, targets: &[&str]) -> Value {
        self.request(&json!({"type": "REQUEST", "action": "read", "service": service, "targets": targets}))
    }

    /// The reply to a read that has to come within some seconds: far more than it takes, and less than the wait that it must
    /// not be drawn into.
    #[track_caller]
    pub fn read_within(&mut self, seconds: u32, service: &str, targets: &[&str]) -> Value {
        let ask = json!({"type": "REQUEST", "action": "read", "service": service, "targets": targets});
        self.send(format!("{ask}\n").as_bytes());
        self.recv_within(seconds * 1000).json()
    }

    /// Ends the process and waits for it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.input.take());
        self.kill();
    }
}

/// A client that is connected again where the daemon has closed.
pub struct Caller {
    pub client: Client,
    pub connected: bool,
}

impl Caller {
    pub fn new(world: &World, path: &Path) -> Self {
        Self { client: Client::spawn(world, path), connected: false }
    }

    /// Whether lines can be sent.
    pub fn is_connected(&mut self) -> bool {
        self.connected = self.connected || self.client.try_connect() == "ok";
        self.connected
    }

    pub fn send(&mut self, lines: &[u8]) {
        if self.is_connected() {
            self.client.send(lines);
        }
    }

    pub fn close(&mut self) {
        if std::mem::take(&mut self.connected) {
            self.client.close();
        }
    }
}

/// The reply to a `write` that was done.
pub fn written() -> Value {
    json!({"type": "RESPONSE", "status": "success", "results": []})
}

/// The reply to a `read` that found `pairs`.
pub fn found(pairs: &[(&str, &str)]) -> Value {
    let results: Vec<Value> =
        pairs.iter().map(|(target, value)| json!({"target": target, "value": value})).collect();
    json!({"type": "RESPONSE", "status": "success", "results": results})
}

/// Fails unless `reply` is a refusal with this status and reason, a message, and no other member.
#[track_caller]
pub fn assert_refused(reply: &Value, status: &str, reason: &str) {
    let members: Vec<&str> = reply.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["type", "status", "reason", "message"], "{reply}");
    assert_eq!(
        (&reply["type"], &reply["status"], &reply["reason"]),
        (&json!("RESPONSE"), &json!(status), &json!(reason))
    );
    assert!(reply["message"].as_str().is_some_and(|message| !message.is_empty()), "{reply}");
}
