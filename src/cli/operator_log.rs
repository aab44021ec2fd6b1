//! What the daemon tells its operator, on stderr: a reader that is slow or stopped costs lines, never a client's time.

use std::{
    env,
    io::{self, IsTerminal, Write},
    panic::{self, PanicHookInfo},
    sync::Mutex,
};

use tracing::level_filters::LevelFilter;

use super::{journal::Journal, words::counted};
use crate::sys::{process, stderr};

/// Says how much the daemon tells on stderr: `error`, `warn`, `info` (default) or `debug`.
const LOG_LEVEL: &str = "KEYCHAIN_AUTH_LOG";
/// Names the socket of journald, where stderr leads to it.
const JOURNAL: &str = "JOURNAL_STREAM";
/// Longest line. A pipe takes as much whole or not at all (`PIPE_BUF`).
const MAX_LINE: usize = 4096;

/// Lines on their way to stderr, and how many did not get there.
struct OperatorLog {
    journal: bool,
    lost: u64,
    /// Whether the last line is there without its end.
    torn: bool,
}

/// Sends everything that the daemon says to stderr from now on. Called while the process has one thread.
pub(super) fn begin() {
    process::forget_backtraces();
    stderr::prepare();
    panic::set_hook(Box::new(tell_fault));
    let asked = env::var_os(LOG_LEVEL).filter(|level| !level.is_empty());
    let level = asked.as_ref().map(|level| level.to_str().and_then(|level| level.parse().ok()));
    let unknown = level == Some(None);
    let level = level.flatten().unwrap_or(LevelFilter::INFO);
    let journal = env::var(JOURNAL).is_ok_and(|stream| Journal::is_stderr(&stream));
    let log = OperatorLog { journal, lost: 0, torn: false };
    let told = tracing_subscriber::fmt()
        .with_writer(Mutex::new(log))
        .with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none())
        .with_max_level(level)
        .with_target(false)
        // a line that stderr does not take, as on a full disk, would else be told to stderr: a panic, and the end of the daemon
        .log_internal_errors(false);
    if journal {
        told.event_format(Journal).init()
    } else {
        told.init()
    }
    if unknown {
        tracing::warn!("{LOG_LEVEL} is none of error, warn, info and debug; it counts as info");
    }
}

/// Where it happened, and not what: the text of a panic may hold what a request held.
fn tell_fault(fault: &PanicHookInfo<'_>) {
    let place = fault.location().map(|place| format!(" at {}:{}", place.file(), place.line()));
    let line = format!("keychain-auth: a fault of its own{}; please report it\n", place.unwrap_or_default());
    // it ends all the same, whether anybody hears why or not
    stderr::end_with(line.as_bytes());
}

/// Lets what the daemon said before it ended reach whoever reads it.
pub(super) fn finish() {
    stderr::finish();
}

/// What a daemon that ends by itself says of it: behind all lines of the log, and without a wait for ever.
pub(super) struct LastWords;

impl Write for LastWords {
    fn write(&mut self, words: &[u8]) -> io::Result<usize> {
        stderr::end_with(words);
        Ok(words.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl OperatorLog {
    /// Whether the line, or as much of it as is told of one, went to stderr.
    fn say(&mut self, line: &[u8]) -> bool {
        let mut told = Vec::with_capacity(line.len().min(MAX_LINE) + 1);
        if self.torn {
            told.push(b'\n');
        }
        told.extend_from_slice(line);
        if told.len() > MAX_LINE {
            told.truncate(MAX_LINE - 1);
            told.push(b'\n');
        }
        match stderr::write(&told) {
            Ok(0) | Err(_) => false,
            Ok(length) => {
                self.torn = length < told.len();
                !self.torn
            }
        }
    }

    fn loss(&self) -> String {
        let priority = if self.journal { "<4>" } else { "" };
        let lines = counted(self.lost, "line of this log is missing", "lines of this log are missing");
        format!("{priority}keychain-auth: {lines} here: nobody took them\n")
    }
}

impl Write for OperatorLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lost > 0 && self.say(self.loss().as_bytes()) {
            self.lost = 0;
        }
        if self.lost > 0 || !self.say(line) {
            self.lost += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
