//! `audit verify`: whether the log is whole and unchanged, and the first place where it is not.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Serialize;
use zeroize::Zeroizing;

use super::{START, files_of, unreadable};
use crate::{
    audit::{Finding, Verdict, Witnesses, verify},
    chain::{Checkpoint, Head, VerificationKey},
    cli::{
        context::Context,
        failure::Failure,
        output::{Output, Style},
        owner::{Owner, close_to_others},
        status_query::{AuditStatus, Found, ask},
        words::counted,
    },
};

/// Most findings shown to people: one screen.
const SHOWN: usize = 20;
/// Longest file with a key that is read.
const MAX_KEY_FILE: u64 = 1024;

#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// The verification key that seal-key printed, in a file, or - for standard input
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Another log, such as a copy; nothing of this machine is compared with it
    #[arg(long, value_name = "PATH")]
    log: Option<PathBuf>,
    /// Print JSON; the exit code says the same
    #[arg(long)]
    json: bool,
}

/// With what the log was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Compared {
    /// The daemon that runs.
    Daemon,
    /// The vault, of a daemon that does not run.
    Vault,
    /// Nothing, and why.
    Nothing(String),
}

#[derive(Serialize)]
struct Report {
    whole: bool,
    records: u64,
    first: Option<u64>,
    last: Option<u64>,
    records_before_the_first: u64,
    files: Vec<PathBuf>,
    compared_with: Compared,
    checked_with_key: u64,
    lines_before_the_chain: u64,
    changes_that_the_daemon_noticed: u64,
    wrong: u64,
    findings: Vec<Place>,
}

#[derive(Serialize)]
struct Place {
    file: PathBuf,
    line: u64,
    what: String,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let key = args.key.as_deref().map(read_key).transpose()?;
    let log = args.log.clone().unwrap_or_else(|| cx.paths.audit_log());
    // asked before the log is read: whatever it knows then must be there
    let (compared, head, checkpoints) = match args.log {
        Some(_) => (Compared::Nothing("it is another log".to_owned()), None, Vec::new()),
        None => known(cx, &log),
    };
    let open = files_of(&log)?;
    let all: Vec<PathBuf> = open.iter().map(|file| file.path.clone()).collect();
    if all.is_empty() && head.is_none_or(|head| head.seq == 0) {
        let (yet, advice) = match args.log {
            Some(_) => (
                "",
                "name the file that is written, audit.log; its earlier files are found beside it".to_owned(),
            ),
            None => (" yet", format!("the daemon begins it: {START}; or name another log with --log")),
        };
        return Err(Failure::new(format!("there is no audit log at {}{yet}", log.display()), advice));
    }
    let total: u64 = all.iter().filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum();
    let mut done = 0;
    let witnesses = Witnesses { key, head, checkpoints };
    let verdict = verify(open, witnesses, matches!(compared, Compared::Daemon), |bytes| {
        done += bytes;
        out.progress(done, total);
    });
    out.end_progress();
    let verdict = verdict.map_err(|error| unreadable(&log, &error))?;
    let report = report(&log, &verdict, all, compared, args.key.is_some());
    if args.json {
        out.json(&report)
    } else {
        show(&report, args.key.is_some(), out)
    }
    match report.findings.first() {
        None if args.key.is_some() && report.checked_with_key == 0 => Err(Failure::new(
            format!("{} has no record of the chain that this key begins", log.display()),
            "give the key of a chain that is there, or ask without --key",
        )),
        None => Ok(()),
        Some(Place { file, line, what }) => Err(Failure::new(
            format!("the audit log is not whole: {}:{line}: {what}", file.display()),
            "keep a copy of all its files as they are; what each finding means is in docs/audit.md",
        )),
    }
}

fn report(
    log: &Path,
    verdict: &Verdict,
    files: Vec<PathBuf>,
    compared_with: Compared,
    keyed: bool,
) -> Report {
    let place = |finding: &Finding| Place {
        // a log that is gone has no file
        file: files.get(finding.file).map_or(log, PathBuf::as_path).to_owned(),
        line: finding.line,
        what: finding.wrong.to_string(),
    };
    Report {
        whole: verdict.wrong == 0 && !(keyed && verdict.keyed == 0),
        records: verdict.lines,
        first: verdict.first,
        last: verdict.last,
        records_before_the_first: verdict.first.map_or(0, |first| first.saturating_sub(1)),
        compared_with,
        checked_with_key: verdict.keyed,
        lines_before_the_chain: verdict.unchained,
        changes_that_the_daemon_noticed: verdict.noticed,
        wrong: verdict.wrong,
        findings: verdict.findings.iter().map(place).collect(),
        files,
    }
}

fn show(report: &Report, keyed: bool, out: &mut Output) {
    for Place { file, line, what } in report.findings.iter().take(SHOWN) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        out.cells(&[(Style::Bad, &format!("{name}:{line}")), (Style::Plain, &format!(": {what}"))]);
    }
    if let Some(more @ 1..) = usize::try_from(report.wrong).ok().and_then(|all| all.checked_sub(SHOWN)) {
        out.line(&format!("and {more} more: keychain-auth audit verify --json"));
    }
    let range = match (report.first, report.last) {
        (Some(first), Some(last)) => format!(", {first} to {last}"),
        _ => String::new(),
    };
    let files = counted(report.files.len() as u64, "file", "files");
    out.line(&format!("{}{range}, in {files}", counted(report.records, "record", "records")));
    match &report.compared_with {
        Compared::Daemon => out.line("compared with what the daemon knows"),
        Compared::Vault => out.line("compared with what the vault knows"),
        Compared::Nothing(why) => out.line(&format!("not compared with the daemon or its vault: {why}")),
    }
    if keyed {
        let records = counted(report.checked_with_key, "record", "records");
        out.line(&format!("the hashes of {records} checked with the key"));
    }
    if report.records_before_the_first > 0 {
        let before = counted(report.records_before_the_first, "record", "records");
        out.line(&format!("{before} from before these are not here: rotated out, or removed"));
    }
    if report.lines_before_the_chain > 0 {
        out.line(&counted(
            report.lines_before_the_chain,
            "line is older than the chain: nothing is known of it",
            "lines are older than the chain: nothing is known of them",
        ));
    }
    if report.changes_that_the_daemon_noticed > 0 {
        out.line(&format!(
            "{} of changes from outside: keychain-auth audit show --reason audit_log_changed",
            counted(report.changes_that_the_daemon_noticed, "record tells", "records tell")
        ));
    }
    match &report.compared_with {
        _ if !report.whole => {}
        // records that were cut off at the end leave no trace in the rest
        Compared::Nothing(_) => {
            out.cells(&[(
                Style::Warn,
                "nothing that is here was changed; whether its end is missing can't be told",
            )]);
        }
        _ if report.records_before_the_first > 0 => {
            out.cells(&[(Style::Good, "what is here is whole and unchanged")]);
        }
        Compared::Daemon | Compared::Vault => out.cells(&[(Style::Good, "whole and unchanged")]),
    }
}

/// What the daemon that writes this log knows of it, or its vault.
fn known(cx: &Context, log: &Path) -> (Compared, Option<Head>, Vec<Checkpoint>) {
    let nothing = |why: String| (Compared::Nothing(why), None, Vec::new());
    match ask(&cx.paths.socket, cx.uid) {
        Found::Running(status) => match status.audit.filter(|audit| Path::new(&audit.path) == log) {
            Some(audit) => match (audit.head(), audit.checkpoints()) {
                (Some(head), Some(checkpoints)) => (Compared::Daemon, Some(head), checkpoints),
                _ => nothing("the daemon's answer is not understood".to_owned()),
            },
            None => nothing("the daemon that runs writes another log".to_owned()),
        },
        Found::Unwell(why) => nothing(format!("something listens at the socket, but {why}")),
        Found::Nobody if !cx.paths.data_dir.join("vault.redb").exists() => {
            nothing("there is no vault".to_owned())
        }
        Found::Nobody => match close_to_others()
            .and_then(|()| Owner::open_without_values(cx, "audit verify"))
            .and_then(|owner| owner.audit_memory())
        {
            Ok(memory) => (Compared::Vault, Some(memory.head), memory.checkpoints),
            Err(failure) => nothing(failure.sentence().to_owned()),
        },
    }
}

impl AuditStatus {
    fn head(&self) -> Option<Head> {
        let Self { epoch, seq, .. } = *self;
        let chain = crate::chain::ChainId::parse(&self.chain)?;
        Some(Head {
            chain,
            epoch,
            seq,
            mac: crate::chain::hex(&self.mac)?,
            digest: crate::chain::hex(&self.digest)?,
        })
    }

    fn checkpoints(&self) -> Option<Vec<Checkpoint>> {
        let read = |(seq, digest): &(u64, String)| {
            Some(Checkpoint { seq: *seq, digest: crate::chain::hex(digest)? })
        };
        self.checkpoints.iter().map(read).collect()
    }
}

fn read_key(path: &Path) -> Result<VerificationKey, Failure> {
    let failed = |error: io::Error| {
        Failure::new(
            match error.kind() {
                io::ErrorKind::NotFound => format!("--key: there is no file {}", path.display()),
                kind => format!("--key: {} can't be read: {kind}", path.display()),
            },
            "name the file that holds what keychain-auth audit seal-key printed",
        )
    };
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_KEY_FILE).unwrap_or_default()));
    let read = if path == Path::new("-") {
        io::stdin().take(MAX_KEY_FILE).read_to_end(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(MAX_KEY_FILE).read_to_end(&mut text))
    };
    read.map_err(failed)?;
    VerificationKey::parse(&text).ok_or_else(|| {
        Failure::new(
            format!("--key: {} holds no verification key", path.display()),
            "it is 64 hexadecimal digits, as keychain-auth audit seal-key printed them",
        )
    })
}
