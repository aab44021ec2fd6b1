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
    arrivals::await_arrivals,
    audit::follow,
    context::Context,
    failure::Failure,
    output::Output,
    text::word,
    unhashed::{Sighted, Unhashed},
    untold::Failures,
};
use crate::{audit::RecordLine, policy::PendingQueue, wire::Reason};

/// The refusal of those that the queue has.
const QUEUED: &str = Reason::UnregisteredBinary.as_str();
/// The refusals that a person should hear of.
const REASONS: [&str; 2] = [QUEUED, Reason::UntrustedCaller.as_str()];
/// Most strangers that are remembered; beyond it all are told again.
const REMEMBERED: usize = 10_000;
/// What shows notices on the desktop.
const NOTIFY_SEND: &str = "notify-send";
/// How often a stranger's hash is looked for, and how long between.
const TRIES: usize = 3;
const STEP: Duration = Duration::from_millis(100);
/// How long a command may run before it is ended: the next stranger is told of by another.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(super) struct Args {
    /// What is run for each, without a shell; it finds KEYCHAIN_AUTH_NOTICE_PATH, _HASH, _REASON, _SERVICE, _PID and _OTHERS
    /// (how many came after it) in its environment [default: notify-send]
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
    let mut failures = Failures::new(&cx.paths.data_dir, args.on_denied.as_deref().unwrap_or(NOTIFY_SEND));
    out.note("following the audit log for strangers; end it with Ctrl-C");
    follow(&cx.paths.audit_log(), out, |record, out| {
        if let Some(record) = record {
            teller.consider(record);
        }
        teller.learn(|| cx.pending_file().load(Timestamp::now()).ok().map(|(queue, _)| queue));
        match teller.tell_due(|record| sought(record, cx, out)) {
            Ok(true) => failures.given(),
            Ok(false) => {}
            Err(error) => failures.note(&error, out),
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

/// A stranger with its hash. The daemon refuses it before it has hashed it, so that the record has none: the queue has it a
/// moment later. None where nobody hashed it, as after a check, which is not queued.
fn sought(record: &RecordLine, cx: &Context, out: &mut Output) -> Option<Sighted> {
    // its record comes before its place in the queue
    for _ in 0..TRIES {
        await_arrivals(cx, out);
        if let Ok((queue, _)) = cx.pending_file().load(Timestamp::now())
            && let Some(found) = Sighted::own(&queue, record)
        {
            return Some(found);
        }
        thread::sleep(STEP);
    }
    None
}

struct Teller {
    program: Option<String>,
    every: Duration,
    patience: Duration,
    /// Path, hash and reason. The hash is empty until the queue tells it.
    seen: HashSet<(String, String, String)>,
    unhashed: Unhashed,
    last: Option<Instant>,
    /// The first stranger that came too soon after the last notice.
    waiting: Option<RecordLine>,
    /// How many others came after it.
    others: u64,
}

impl Teller {
    fn new(program: Option<String>, every: Duration) -> Self {
        Self {
            program,
            every,
            patience: PATIENCE,
            seen: HashSet::new(),
            unhashed: Unhashed::default(),
            last: None,
            waiting: None,
            others: 0,
        }
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
        let new = self.seen.insert(stranger);
        // a path that is known already may have other bytes by now
        if record.binary_hash.is_empty() && reason == QUEUED {
            self.unhashed.note(record, new);
        }
        if new {
            self.offer(record);
        }
    }

    /// Learns from the queue which bytes those had that came without a hash, and keeps those that were not told yet.
    fn learn(&mut self, queue: impl FnOnce() -> Option<PendingQueue>) {
        if self.unhashed.is_empty() {
            return;
        }
        let Some(queue) = queue() else { return };
        for (record, sighted) in self.unhashed.own(&queue) {
            self.know(&record, &sighted);
            if let Some(waiting) = self.waiting.as_mut().filter(|waiting| **waiting == record) {
                sighted.fill(waiting);
            }
        }
        for (mut record, sighted) in self.unhashed.others(&queue) {
            if self.know(&record, &sighted) {
                sighted.fill(&mut record);
                self.offer(&record);
            }
        }
        self.unhashed.expire();
    }

    /// Whether it was new.
    fn know(&mut self, record: &RecordLine, sighted: &Sighted) -> bool {
        let reason = record.reason.clone().unwrap_or_default();
        self.seen.insert((record.binary_path.clone(), sighted.hash.clone(), reason))
    }

    fn offer(&mut self, record: &RecordLine) {
        if self.waiting.is_some() {
            self.others += 1;
        } else {
            self.waiting = Some(record.clone());
        }
    }

    /// Tells of who waits, when the last notice is long enough ago. Whether a notice was given.
    fn tell_due(&mut self, sought: impl FnOnce(&RecordLine) -> Option<Sighted>) -> io::Result<bool> {
        if self.last.is_some_and(|last| last.elapsed() < self.every) {
            return Ok(false);
        }
        let Some(mut record) = self.waiting.take() else { return Ok(false) };
        self.last = Some(Instant::now());
        let others = std::mem::take(&mut self.others);
        if record.binary_hash.is_empty()
            && let Some(sighted) = sought(&record)
        {
            self.know(&record, &sighted);
            self.unhashed.settle(&record);
            sighted.fill(&mut record);
        }
        self.tell(&record, others).map(|()| true)
    }

    fn tell(&self, record: &RecordLine, others: u64) -> io::Result<()> {
        let more = match others {
            0 => String::new(),
            1 => ", and 1 other after it".to_owned(),
            others => format!(", and {others} others after it"),
        };
        let (hash, reason) = (&record.binary_hash, record.reason.as_deref().unwrap_or_default());
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
        while begun.elapsed() < self.patience {
            match child.try_wait()? {
                Some(ended) if ended.success() => return Ok(()),
                Some(ended) => return Err(io::Error::other(format!("it ended with {ended}"))),
                None => {}
            }
            thread::sleep(Duration::from_millis(50));
        }
        child.kill()?;
        child.wait()?;
        Err(io::Error::other(format!("what tells it ran for {} s, and was ended", self.patience.as_secs())))
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

    /// Tells by a script that begins in the folder.
    fn telling(dir: &Path, text: &str) -> Teller {
        let script = dir.join("tell");
        std::fs::write(&script, format!("#!/bin/sh\ncd {}\n{text}\n", dir.display())).unwrap();
        let mut permissions = std::fs::metadata(&script).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o700);
        std::fs::set_permissions(&script, permissions).unwrap();
        Teller::new(Some(script.to_str().unwrap().to_owned()), Duration::from_secs(3600))
    }

    #[test]
    fn a_program_for_notices_that_does_not_end_is_ended_and_leaves_no_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut teller = telling(dir.path(), "echo $$ > pid; exec sleep 60");
        // as long as it takes to write that
        teller.patience = Duration::from_secs(2);
        teller.consider(&record("/a"));
        let ended = teller.tell_due(|_| None).unwrap_err();
        assert!(ended.to_string().contains("was ended"), "{ended}");
        let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "neither running nor defunct");
    }

    #[test]
    fn other_bytes_at_a_known_path_are_told_with_the_hash_and_process_of_one_sighting() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");
        let mut teller =
            telling(dir.path(), "echo \"$KEYCHAIN_AUTH_NOTICE_PID $KEYCHAIN_AUTH_NOTICE_HASH\" >> told");
        teller.every = Duration::ZERO;
        let mut queue = PendingQueue::default();
        // long ago, from the same path
        let before: Timestamp = "2026-01-01T09:00:00Z".parse().unwrap();
        queue.record(sighting(1, 10), before);
        let comes = |teller: &mut Teller, queue: &mut PendingQueue, byte: u8, pid: u32, second: i64| {
            let at = before + jiff::SignedDuration::from_secs(second);
            let record = RecordLine { pid, timestamp: at.to_string(), ..record("/a") };
            teller.consider(&record);
            let empty = Sighted::own(queue, &record);
            assert!(empty.is_none(), "what came before it is not it");
            queue.record(sighting(byte, pid), at + jiff::SignedDuration::from_millis(900));
            teller.learn(|| Some(queue.clone()));
            teller.tell_due(|record| Sighted::own(queue, record)).unwrap();
        };
        for (byte, pid, second) in [(2, 20, 60), (2, 21, 70), (3, 30, 80), (2, 22, 90), (3, 31, 100)] {
            comes(&mut teller, &mut queue, byte, pid, second);
        }
        let hash = |byte: u8| crate::digest::Digest::new([byte; 32]);
        let expected = format!("20 {}\n30 {}\n", hash(2), hash(3));
        assert_eq!(std::fs::read_to_string(told).unwrap(), expected);
    }

    fn sighting(byte: u8, pid: u32) -> crate::policy::Sighting {
        crate::policy::Sighting {
            path: "/a".into(),
            digest: crate::digest::Digest::new([byte; 32]),
            pid,
            command_line: crate::policy::CommandLine::default(),
            action: None,
            service: None,
            targets: Vec::new(),
            times: 1,
        }
    }

    #[test]
    fn each_stranger_is_told_once_and_of_a_flood_the_first_with_the_number_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");
        let mut teller = telling(
            dir.path(),
            "echo \"$KEYCHAIN_AUTH_NOTICE_PATH $KEYCHAIN_AUTH_NOTICE_OTHERS $KEYCHAIN_AUTH_NOTICE_HASH\" >> told",
        );
        let look = |teller: &mut Teller| {
            let sought = |record: &RecordLine| {
                Some(Sighted { pid: record.pid, hash: format!("hash of {}", record.pid) })
            };
            teller.tell_due(sought).unwrap();
        };
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
