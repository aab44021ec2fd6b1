//! `notify`: tells the user of new strangers, by a command of theirs or on the desktop. It only follows the log: the
//! caged daemon starts nothing, and who does not want notices does not run it.

use std::{
    collections::HashSet,
    io,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{audit::follow, context::Context, failure::Failure, output::Output};
use crate::audit::RecordLine;

/// The refusals that a person should hear of.
const REASONS: [&str; 2] = ["unregistered_binary_pending_approval", "untrusted_caller"];
/// Most strangers that are remembered; beyond it all are told again.
const REMEMBERED: usize = 10_000;
/// How long a command may run before the next notice goes out beside it.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(super) struct Args {
    /// What is run for each, without a shell; it finds KEYCHAIN_AUTH_NOTICE_PATH, _HASH, _REASON, _SERVICE and _PID in its
    /// environment [default: notify-send]
    #[arg(long, value_name = "PROGRAM")]
    on_denied: Option<String>,
    /// Fewest seconds between two notices; what comes meanwhile is counted in the next one
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    every: u64,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let mut teller = Teller {
        program: args.on_denied.clone(),
        every: Duration::from_secs(args.every),
        seen: HashSet::new(),
        last: None,
        missed: 0,
    };
    out.note("following the audit log for strangers; end it with Ctrl-C");
    follow(&cx.paths.audit_log(), out, |record, out| {
        if let Err(error) = teller.consider(record) {
            out.note(&format!("error: the notice could not be given: {error}"));
        }
    })
}

struct Teller {
    program: Option<String>,
    every: Duration,
    seen: HashSet<(String, String, String)>,
    last: Option<Instant>,
    /// Strangers that came too soon after the last notice.
    missed: u64,
}

impl Teller {
    fn consider(&mut self, record: &RecordLine) -> io::Result<()> {
        let Some(reason) = record.reason.as_deref().filter(|reason| REASONS.contains(reason)) else {
            return Ok(());
        };
        if self.seen.len() >= REMEMBERED {
            self.seen.clear();
        }
        let stranger = (record.binary_path.clone(), record.binary_hash.clone(), reason.to_owned());
        if !self.seen.insert(stranger) {
            return Ok(());
        }
        if self.last.is_some_and(|last| last.elapsed() < self.every) {
            self.missed += 1;
            return Ok(());
        }
        self.last = Some(Instant::now());
        let missed = std::mem::take(&mut self.missed);
        self.tell(record, reason, missed)
    }

    fn tell(&self, record: &RecordLine, reason: &str, missed: u64) -> io::Result<()> {
        let more = if missed > 0 { format!(", and {missed} others before it") } else { String::new() };
        let mut command = match &self.program {
            Some(program) => Command::new(program),
            None => {
                let path = shown(&record.binary_path);
                let mut command = Command::new("notify-send");
                command.args([
                    "--app-name=keychain-auth",
                    "--",
                    "A program asked for a secret and was refused",
                ]);
                command.arg(format!("{path}{more}\nkeychain-auth list-pending"));
                command
            }
        };
        command
            .env("KEYCHAIN_AUTH_NOTICE_PATH", shown(&record.binary_path))
            .env("KEYCHAIN_AUTH_NOTICE_HASH", &record.binary_hash)
            .env("KEYCHAIN_AUTH_NOTICE_REASON", reason)
            .env("KEYCHAIN_AUTH_NOTICE_SERVICE", shown(&record.service))
            .env("KEYCHAIN_AUTH_NOTICE_PID", record.pid.to_string())
            .env("KEYCHAIN_AUTH_NOTICE_OTHERS", missed.to_string())
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
    fn each_stranger_is_told_once_and_a_flood_is_one_notice() {
        let dir = tempfile::tempdir().unwrap();
        let (script, told) = (dir.path().join("tell"), dir.path().join("told"));
        let text = format!(
            "#!/bin/sh\necho \"$KEYCHAIN_AUTH_NOTICE_PATH $KEYCHAIN_AUTH_NOTICE_OTHERS\" >> {}\n",
            told.display()
        );
        std::fs::write(&script, text).unwrap();
        let mut permissions = std::fs::metadata(&script).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o700);
        std::fs::set_permissions(&script, permissions).unwrap();
        let mut teller = Teller {
            program: Some(script.to_str().unwrap().to_owned()),
            every: Duration::from_secs(3600),
            seen: HashSet::new(),
            last: None,
            missed: 0,
        };
        teller.consider(&RecordLine::default()).unwrap();
        for number in 0..500 {
            teller.consider(&record(&format!("/copy{}", number % 250))).unwrap();
        }
        teller.last = None;
        teller.consider(&record("/a\u{1b}[2J<b>")).unwrap();
        assert_eq!(std::fs::read_to_string(told).unwrap(), "/copy0 0\n/a\\u{1b}[2J‹b> 249\n");
    }
}
