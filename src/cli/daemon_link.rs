//! A conversation with the daemon about itself: one line, one answer.

use std::{
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{context::Context, failure::Failure, status_query::exchange, status_query::open};

/// How long the daemon may take: opening a vault of a million secrets takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the daemon answers. Members that we don't know are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) key: String,
    pub(super) reason: String,
    pub(super) message: String,
}

/// A connection to the daemon.
pub(super) struct DaemonLink(UnixStream);

impl DaemonLink {
    /// Connects. None if no daemon listens.
    pub(super) fn open(cx: &Context) -> Result<Option<Self>, Failure> {
        match open(&cx.paths.socket, cx.uid) {
            Ok(stream) => Ok(stream.map(Self)),
            Err(why) => Err(Failure::new(
                format!("something listens at {}, but {why}", cx.paths.socket.display()),
                "restart the daemon, or choose another socket with --socket",
            )),
        }
    }

    /// Sends one line, and reads the answer to it. A refusal is a failure in the daemon's own words.
    pub(super) fn ask(&mut self, line: &str) -> Result<Told, Failure> {
        let failed = |what: &str| {
            Failure::new(format!("the daemon {what}"), "see its own messages, and keychain-auth status")
        };
        let answer = exchange(&mut self.0, line.as_bytes(), Instant::now() + PATIENCE)
            .map_err(|error| failed(&format!("did not answer: {}", error.kind())))?;
        let told: Told = serde_json::from_slice(answer.trim_ascii())
            .map_err(|_| failed("gave an answer that can't be understood"))?;
        if told.kind == "RESPONSE" {
            let (sentence, advice) =
                told.message.split_once("; ").unwrap_or((&told.message, "see its own messages"));
            return Err(Failure::new(format!("the daemon refuses ({}): {sentence}", told.reason), advice));
        }
        Ok(told)
    }
}
