//! `notify`: tells the user of new strangers, by a command of theirs or on the desktop. It only follows the log: the
//! caged daemon starts nothing, and who does not want notices does not run it.

use std::{
    collections::HashSet,
    env,
    ffi::OsStr,
    io,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::fs::{Access, access};

use super::{
    arrivals::await_arrivals, audit::follow, context::Context, failure::Failure, output::Output, text::word,
};
use crate::audit::RecordLine;

/// The refusals that a person should hear of.
const REASONS: [&str; 2] = ["unregistered_binary_pending_approval", "untrusted_caller"];
/// Most strangers that are remembered; beyond it all are told again.
const REMEMBERED: usize = 10_000;
/// What shows notices on the desktop.
const NOTIFY_SEND: &str = "notify-send";
/// How often a stranger's hash is looked for, and how long between.
const TRIES: usize = 3;
const STEP: Duration = Duration::from_millis(100);
/// How long a command may run before the next notice goes out beside it.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(super) struct Args {
    /// What is run for each, without a shell; it finds KEYCHAIN_AUTH_NOTICE_PATH, _HASH, _REASON, _SERVICE and _PID in its
    /// environment [default: notify-send]
    #[arg(long, value_name = "PROGRAM")]
    on_denied: Option<String>,
    /// Fewest seconds between two notices; of those that come meanwhile the next one names the first, and counts the others
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    every: u64,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    // said now, and not when the first stranger is there and nobody hears of it
    runnable(args.on_denied.as_deref(), env::var_os("PATH").as_deref())?;
    let mut teller = Teller::new(args.on_denied.clone(), Duration::from_secs(args.every));
    out.note("following the audit log for strangers; end it with Ctrl-C");
    follow(&cx.paths.audit_log(), out, |record, out| {
        if let Some(record) = record {
            teller.consider(record);
        }
        let told = teller.tell_due(|record| hash(record, cx, out));
        if let Err(error) = told {
            out.note(&format!("error: the notice could not be given: {error}"));
        }
    })
}

/// Whether the program can be run at all.
fn runnable(program: Option<&str>, path: Option<&OsStr>) -> Result<(), Failure> {
    let can_run = |file: &Path| file.is_file() && access(file, Access::EXEC_OK).is_ok();
    let name = program.unwrap_or(NOTIFY_SEND);
    if name.contains('/') {
        let file = Path::new(name);
        return match (file.exists(), can_run(file)) {
            (_, true) => Ok(()),
            (false, _) => Err(Failure::new(
                format!("--on-denied: there is no file {name}"),
                "name a program that is there; it is run without a shell, so no ~ is replaced",
            )),
            (true, false) => Err(Failure::new(
                format!("--on-denied: {name} can't be executed"),
                format!("chmod +x {}", word(file)),
            )),
        };
    }
    if env::split_paths(path.unwrap_or_default()).any(|folder| can_run(&folder.join(name))) {
        return Ok(());
    }
    Err(match program {
        Some(_) => {
            Failure::new(format!("--on-denied: no program {name} is in PATH"), "give the program's full path")
        }
        None => Failure::new(
            format!("no program {name} is in PATH, which shows notices on the desktop"),
            "install it (Debian: libnotify-bin), or name a program of yours: --on-denied PROGRAM",
        ),
    })
}

/// The stranger's hash. The daemon refuses it before it has hashed it, so that the record has none: the queue has it a moment
/// later. Empty where nobody hashed it, as after a check, which is not queued.
fn hash(record: &RecordLine, cx: &Context, out: &mut Output) -> String {
    if !record.binary_hash.is_empty() {
        return record.binary_hash.clone();
    }
    let latest = || {
        let (queue, _) = cx.pending_file().load(Timestamp::now()).ok()?;
        let same = queue.iter().filter(|one| one.sighting().path.to_str() == Some(&record.binary_path));
        same.max_by_key(|one| one.last_seen()).map(|one| one.sighting().digest.to_string())
    };
    // its record comes before its place in the queue
    for _ in 0..TRIES {
        await_arrivals(cx, out);
        if let Some(found) = latest() {
            return found;
        }
        thread::sleep(STEP);
    }
    String::new()
}

struct Teller {
    program: Option<String>,
    every: Duration,
    seen: HashSet<(String, String, String)>,
    last: Option<Instant>,
    /// The first stranger that came too soon after the last notice.
    waiting: Option<RecordLine>,
    /// How many others came after it.
    others: u64,
}

impl Teller {
    fn new(program: Option<String>, every: Duration) -> Self {
        Self { program, every, seen: HashSet::new(), last: None, waiting: None, others: 0 }
    }

    /// Keeps a stranger that was not told yet.
    fn consider(&mut self, record: &RecordLine) {
        let Some(reason) = record.reason.as_deref().filter(|reason| REASONS.contains(reason)) else {
            return;
        };
        if self.seen.len() >= REMEMBERED {
            self.seen.clear();
        }
        let stranger = (record.binary_path.clone(), record.binary_hash.clone(), reason.to_owned());
        if !self.seen.insert(stranger) {
            return;
        }
        if self.waiting.is_some() {
            self.others += 1;
        } else {
            self.waiting = Some(record.clone());
        }
    }

    /// Tells of who waits, when the last notice is long enough ago.
    fn tell_due(&mut self, hash: impl FnOnce(&RecordLine) -> String) -> io::Result<()> {
        if self.last.is_some_and(|last| last.elapsed() < self.every) {
            return Ok(());
        }
        let Some(record) = self.waiting.take() else { return Ok(()) };
        self.last = Some(Instant::now());
        let others = std::mem::take(&mut self.others);
        self.tell(&record, &hash(&record), others)
    }

    fn tell(&self, record: &RecordLine, hash: &str, others: u64) -> io::Result<()> {
        let more = match others {
            0 => String::new(),
            1 => ", and 1 other after it".to_owned(),
            others => format!(", and {others} others after it"),
        };
        let reason = record.reason.as_deref().unwrap_or_default();
        let mut command = match &self.program {
            Some(program) => Command::new(program),
            None => {
                let path = shown(&record.binary_path);
                let mut command = Command::new(NOTIFY_SEND);
                command.args([
                    "--app-name=keychain-auth",
                    "--",
                    "A program asked for a secret and was refused",
                ]);
                command.arg(format!("{path}{more}\n{hash}\nkeychain-auth list-pending"));
                command
            }
        };
        command
            .env("KEYCHAIN_AUTH_NOTICE_PATH", shown(&record.binary_path))
            .env("KEYCHAIN_AUTH_NOTICE_HASH", hash)
            .env("KEYCHAIN_AUTH_NOTICE_REASON", reason)
            .env("KEYCHAIN_AUTH_NOTICE_SERVICE", shown(&record.service))
            .env("KEYCHAIN_AUTH_NOTICE_PID", record.pid.to_string())
            .env("KEYCHAIN_AUTH_NOTICE_OTHERS", others.to_string())
            .stdin(Stdio::null());
        let mut child = command.spawn()?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        // it goes on beside us, and is waited for by whoever waits for orphans
        Ok(())
    }
}

/// A name from the log, which somebody else chose, without anything that acts.
fn shown(text: &str) -> String {
    crate::text::plain(text).replace('<', "‹").replace('&', "+").to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record(path: &str) -> RecordLine {
        RecordLine {
            binary_path: path.to_owned(),
            reason: Some("unregistered_binary_pending_approval".to_owned()),
            ..RecordLine::default()
        }
    }

    #[test]
    fn each_stranger_is_told_once_and_of_a_flood_the_first_with_the_number_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let (script, told) = (dir.path().join("tell"), dir.path().join("told"));
        let text = format!(
            "#!/bin/sh\necho \"$KEYCHAIN_AUTH_NOTICE_PATH $KEYCHAIN_AUTH_NOTICE_OTHERS $KEYCHAIN_AUTH_NOTICE_HASH\" >> {}\n",
            told.display()
        );
        std::fs::write(&script, text).unwrap();
        let mut permissions = std::fs::metadata(&script).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o700);
        std::fs::set_permissions(&script, permissions).unwrap();
        let mut teller = Teller::new(Some(script.to_str().unwrap().to_owned()), Duration::from_secs(3600));
        let look = |teller: &mut Teller| teller.tell_due(|record| format!("hash of {}", record.pid)).unwrap();
        teller.consider(&RecordLine::default());
        for number in 0..500 {
            teller.consider(&record(&format!("/copy{}", number % 250)));
            look(&mut teller);
        }
        for _ in 0..2 {
            teller.last = None;
            look(&mut teller);
        }
        teller.consider(&record("/a\u{1b}[2J<b>"));
        look(&mut teller);
        teller.last = None;
        look(&mut teller);
        let expected = "/copy0 0 hash of 0\n/copy1 248 hash of 0\n/a\\u{1b}[2J‹b> 0 hash of 0\n";
        assert_eq!(std::fs::read_to_string(told).unwrap(), expected);
    }
}
