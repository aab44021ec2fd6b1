//! One question to the daemon: how it is.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use serde::{Deserialize, Serialize};

/// How long the daemon may take for the whole exchange: it answers within milliseconds.
const DEADLINE: Duration = Duration::from_secs(2);
/// Longest answer, in bytes: the longest reply that the daemon sends at all. A large policy full of mistakes has many
/// warnings, and that is when its status matters most.
const MAX_ANSWER: usize = 10 * 1024 * 1024;

/// What the daemon says about itself. Members that we don't know are passed over, so that an older command understands
/// a newer daemon.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct DaemonStatus {
    pub(super) version: Option<String>,
    pub(super) pid: Option<u32>,
    pub(super) mode: Option<String>,
    pub(super) config_path: Option<String>,
    pub(super) socket_path: Option<String>,
    pub(super) data_path: Option<String>,
    pub(super) requires_sudo: bool,
    pub(super) store: Option<serde_json::Value>,
    pub(super) keychain: Option<KeychainState>,
    pub(super) vault: Option<VaultState>,
    pub(super) policy: Option<PolicyState>,
    pub(super) missing: Vec<String>,
    pub(super) protections: Vec<Protection>,
    pub(super) memory: Option<SecretMemory>,
    pub(super) connections: Option<u64>,
    pub(super) audit: Option<AuditStatus>,
    pub(super) queue: Option<QueueState>,
}

/// How far pending.json is behind the strangers that the daemon saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct QueueState {
    /// How many were noted since its start.
    pub(super) seen: u64,
    /// Up to which of them the file was written.
    pub(super) written: u64,
}

/// Where the daemon's audit log stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct AuditStatus {
    pub(super) path: String,
    pub(super) chain: String,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) mac: String,
    pub(super) digest: String,
    /// Ends of epochs, for `audit verify`.
    #[serde(skip_serializing)]
    pub(super) checkpoints: Vec<(u64, String)>,
    /// What was done to the log from outside, last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) changed: Option<String>,
}

/// The vault as the daemon has it, or as its files say where no daemon runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct VaultState {
    /// `unlocked`, `locked`, `salvaged`; `closed` where no daemon has it, `unknown` where none listens at a socket that was
    /// named.
    pub(super) state: String,
    /// Where its key comes from: `credential`, `keychain`, `passphrase`, `file`.
    pub(super) key_source: String,
    /// What that means, one clause.
    pub(super) key_means: String,
    /// How much of a vault is served for reading only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) salvage: Option<String>,
    /// Whether anything is wrong with that vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) damaged: Option<bool>,
}

/// One protection of the daemon, as the kernel told one of its workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Protection {
    /// Its name, such as `seccomp`.
    pub(super) name: String,
    /// Whether it holds.
    pub(super) enforced: bool,
    /// What it means, one clause.
    pub(super) means: String,
}

/// The memory that the daemon has for secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SecretMemory {
    /// `secret` (`memfd_secret`), `locked` or `swappable`.
    pub(super) kept: String,
    /// Whether requests or replies were in memory that may be swapped, since the daemon started.
    pub(super) spilled: bool,
}

impl SecretMemory {
    /// What may have been swapped, in words; none where nothing was.
    pub(super) fn swappable(&self) -> Option<&'static str> {
        match self.kept.as_str() {
            "swappable" => Some("all secrets lie in memory that may be swapped"),
            _ if self.spilled => {
                Some("requests or replies were in memory that may be swapped, since the daemon started")
            }
            _ => None,
        }
    }
}

/// What to do about it.
pub(super) const RAISE_LOCKED: &str =
    "let it lock more: ulimit -l 65536 before it starts, or LimitMEMLOCK=64M in its unit";

/// The keychain where the secrets rest, as the daemon found it last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct KeychainState {
    /// `unlocked`, `locked`, `unreachable` or `unknown`.
    pub(super) state: String,
    /// Records with a change that it does not have yet.
    pub(super) waiting: u64,
    /// Secrets whose items it has lost, as far as the daemon has seen it.
    pub(super) lost: u64,
}

impl KeychainState {
    /// Why it answers no request for a secret, in words; None where it does, as far as is known.
    pub(super) fn refuses(&self) -> Option<&'static str> {
        match self.state.as_str() {
            "locked" => Some("your keychain, where the secrets rest, was locked when it was asked last"),
            "unreachable" => {
                Some("your keychain, where the secrets rest, did not answer when it was asked last")
            }
            _ => None,
        }
    }
}

/// The policy as one of the two sides sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PolicyState {
    /// `ok` or `error`.
    pub(super) state: String,
    /// Whether only a config.json that was sealed is accepted.
    pub(super) sealed: bool,
    /// With `error`, what every request is refused with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    pub(super) entries: u64,
    pub(super) warnings: Vec<String>,
}

/// What stands behind the socket.
pub(super) enum Found {
    /// The daemon.
    Running(Box<DaemonStatus>),
    /// Nobody.
    Nobody,
    /// Somebody, but no daemon that can be talked to; a clause that says why.
    Unwell(&'static str),
}

/// Asks whoever listens at `socket`, as the user `uid`.
pub(super) fn ask(socket: &Path, uid: u32) -> Found {
    let mut stream = match open(socket, uid) {
        Ok(Some(stream)) => stream,
        Ok(None) => return Found::Nobody,
        Err(why) => return Found::Unwell(why),
    };
    match exchange(&mut stream, b"{\"type\":\"STATUS\"}\n", Instant::now() + DEADLINE) {
        Ok(line) => answer(&line),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Found::Unwell("it did not answer within 2 seconds")
        }
        Err(_) => Found::Unwell("it closed the connection without an answer"),
    }
}

/// Connects to whoever listens at `socket` as the user `uid`. None if nobody does; a clause if it is nobody to talk to.
pub(super) fn open(socket: &Path, uid: u32) -> Result<Option<UnixStream>, &'static str> {
    let stream = match reach(socket) {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                io::ErrorKind::WouldBlock => Err("it accepts no further connections"),
                io::ErrorKind::PermissionDenied => Err("its socket may not be used by this user"),
                _ => Err("its socket can't be used"),
            };
        }
    };
    // the answer of another user's process is a claim about nothing
    match sockopt::socket_peercred(&stream) {
        Ok(peer) if peer.uid.as_raw() == uid || peer.uid.is_root() => Ok(Some(stream)),
        _ => Err("its socket belongs to another user"),
    }
}

/// Connects without waiting for a place in the queue of connections.
fn reach(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Sends one line and reads one line, by the deadline.
pub(super) fn exchange(stream: &mut UnixStream, request: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.write_all(request)?;
    let mut line = Vec::new();
    let mut block = vec![0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = match stream.read(&mut block) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if count == 0 || line.len() + count > MAX_ANSWER {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let bytes = block.get(..count).unwrap_or_default();
        line.extend_from_slice(bytes);
        if bytes.contains(&b'\n') {
            return Ok(line);
        }
    }
}

fn answer(line: &[u8]) -> Found {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "type")]
        kind: String,
        #[serde(flatten)]
        status: DaemonStatus,
    }
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    match serde_json::from_slice::<Typed>(line) {
        Ok(Typed { kind, status }) if kind == "STATUS" => Found::Running(Box::new(status)),
        _ => Found::Unwell("it does not answer like a keychain-auth daemon"),
    }
}

#[cfg(test)]
#[path = "status_query_tests.rs"]
mod tests;
