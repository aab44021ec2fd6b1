//! What the audit log costs: a record on the way of each answer, the wait for the disk, and questions to a long log.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use keychain_auth::{
    audit::{Action, Event, Log, Outcome, Rotation, opened, pack},
    chain::VerificationKey,
    digest::Digest,
    name::{Service, Target as Name},
    store::{Store as _, Vault},
    wire,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    Scale,
    figures::{Row, Run, Target, median, short},
    rows::sync_time,
    stage::{Ask, Stage, optional, stay_on_core},
    world::World,
};

const CONNECTIONS: usize = 64;
/// The data folder of a log that no daemon has opened yet.
const APART: &str = "apart";

/// The record that a read of one name leaves.
fn event(number: usize, timestamp: Timestamp) -> Event {
    let name = format!("prod/p{:02}/KEY_{:06}", number % 100, number % 1000);
    let refused = number % 50 == 49;
    Event {
        timestamp,
        action: Action::Request(wire::Action::Read),
        pid: 1000 + (number % 30_000) as u32,
        binary_path: "/usr/local/bin/some-tool".into(),
        binary_hash: Some(Digest::new([7; 32])),
        service: Some(Service::parse(if refused { "other" } else { "bench" }).unwrap()),
        targets: vec![Name::parse(&name).unwrap()],
        outcome: if refused { Outcome::Denied } else { Outcome::Granted },
        reason: refused.then_some("service_not_allowed"),
        detail: None,
        uid: 1000,
        count: None,
    }
}

/// A vault with its log in a folder of this process's own.
fn begin(folder: &Path) -> (Vault, Log) {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).unwrap();
    let vault = Vault::open(folder).unwrap();
    let head = vault.audit_memory().unwrap().head;
    let seat = vault.take_seat().unwrap();
    let log = Log::open(&folder.join("audit.log"), seat, &head, Rotation::default()).unwrap();
    (vault, log)
}

/// What a read costs under each durability, as a multiple of what it costs without its record.
pub fn durability(written: &Stage, scale: &Scale) -> Vec<Row> {
    let synced = Stage::set(scale.sizes[0], 0, &["--audit-durability=synced"]);
    let (vault, mut log) = begin(&written.world.root().join(APART));
    let mut rounds = Vec::new();
    for _ in 0..scale.rounds {
        let held = |stage: &Stage, count: usize| stage.ours(&stage.client, "held", Ask::Read(1), &[count]);
        let many = |stage: &Stage, count: usize| {
            stage.ours(&stage.client, "many", Ask::Read(1), &[count.max(2 * CONNECTIONS), CONNECTIONS])
        };
        rounds.push(Round {
            record: records(&mut log, scale.requests),
            one: [held(written, scale.requests), held(&synced, scale.requests / 20)],
            many: [many(written, scale.requests * 2), many(&synced, scale.requests)],
            sync: sync_time(&synced, (scale.requests / 40).max(10)),
        });
    }
    drop(log);
    vault.close().unwrap();
    let rows = [(false, 0), (false, 1), (true, 0), (true, 1)];
    rows.into_iter().map(|(many, how)| row(&rounds, many, how)).collect()
}

struct Round {
    /// Median and mean of a record alone, in microseconds.
    record: (f64, f64),
    /// `written`, `synced`.
    one: [Run; 2],
    many: [Run; 2],
    sync: f64,
}

impl Round {
    /// With its record and without, in microseconds an answer.
    fn pair(&self, many: bool, how: usize) -> (f64, f64) {
        let time = |how: usize| match many {
            true => 1e6 / self.many[how].rate(),
            false => self.one[how].within(0.5),
        };
        let record = if many { self.record.1 } else { self.record.0 };
        (time(how), (time(0) - record).max(0.0))
    }
}

fn row(rounds: &[Round], many: bool, how: usize) -> Row {
    let pairs: Vec<(f64, f64)> = rounds.iter().map(|round| round.pair(many, how)).collect();
    let runs = rounds.iter().map(|round| if many { &round.many[how] } else { &round.one[how] });
    let runs: Vec<&Run> = runs.collect();
    let share = |share: f64| median(runs.iter().map(|run| run.within(share)));
    let clients = if many { format!("{CONNECTIONS} clients") } else { "1 client".to_owned() };
    let name = ["written", "synced"][how];
    let beside = match how {
        0 => String::new(),
        _ => format!("; one fdatasync: {} µs", short(median(rounds.iter().map(|round| round.sync)))),
    };
    let each = if many { " an answer" } else { "" };
    Row {
        what: format!("audit log `{name}`, {clients}, read of 1"),
        ours: format!("{} µs{each}", short(median(pairs.iter().map(|pair| pair.0)))),
        floor: format!(
            "{} µs: the same less its record{beside}",
            short(median(pairs.iter().map(|pair| pair.1)))
        ),
        ratio: median(pairs.iter().map(|(with, without)| with / without)),
        target: if how == 0 { Target::AtMost(1.5) } else { Target::None },
        spread: Some((share(0.5), share(0.99))),
    }
}

/// Records on the daemon's core, one after the other: median and mean.
fn records(log: &mut Log, count: usize) -> (f64, f64) {
    let times: Vec<f64> = thread::scope(|scope| {
        let working = scope.spawn(|| {
            stay_on_core(1);
            let one = |number: usize| {
                let began = Instant::now();
                let _ = log.append(&event(number, Timestamp::now())).unwrap();
                began.elapsed().as_secs_f64() * 1e6
            };
            (0..count).map(one).collect()
        });
        working.join().unwrap()
    });
    (median(times.iter().copied()), times.iter().sum::<f64>() / count as f64)
}

/// How long it takes to check and to show a long log, and how much memory.
pub fn questions(scale: &Scale) -> Vec<Row> {
    let world = World::new();
    let key = world.tmp("chain.key");
    let records = long_log(&world, &key, scale.records);
    let log = world.data().join("audit.log");
    let verify: &[&str] = &["audit", "verify", "--json"];
    let keyed: &[&str] = &["audit", "verify", "--json", "--key", key.to_str().unwrap()];
    let asked = [verify, keyed, &["audit", "show", "--json"], &["audit", "show", "--json", "--pid", "1000"]];
    let mut rounds = Vec::new();
    for _ in 0..scale.rounds.min(5) {
        let floor = floor(&log);
        rounds.push((floor, asked.map(|words| ask(&world, words, records))));
    }
    let names = [
        ("`audit verify`", 4.0),
        ("`audit verify --key`", 6.0),
        ("`audit show --json`", 4.0),
        ("`audit show --json` of one process", 4.0),
    ];
    let floor = median(rounds.iter().map(|round| round.0));
    let row = |(at, (what, most)): (usize, (&str, f64))| Row {
        what: format!("{what}, {} records", short(records as f64)),
        ours: format!("{} s", short(median(rounds.iter().map(|(_, answers)| answers[at].0)))),
        floor: format!("{} s: unpacking and SHA-256", short(floor)),
        ratio: median(rounds.iter().map(|(floor, answers)| answers[at].0 / floor)),
        target: Target::AtMost(most),
        spread: None,
    };
    let mut rows: Vec<Row> = names.into_iter().enumerate().map(row).collect();
    let most = rounds.iter().flat_map(|(_, answers)| answers).map(|answer| answer.1).max().unwrap();
    rows.push(Row {
        what: "resident memory of each of these, at most".into(),
        ours: format!("{} MiB", short(most as f64 / 1024.0)),
        floor: "20 MB".into(),
        ratio: most as f64 * 1024.0 / 20e6,
        target: Target::AtMost(1.0),
        spread: None,
    });
    rows
}

/// Writes so many records, rotated and packed as the daemon does it; the number of all, with those about the log.
fn long_log(world: &World, key_file: &Path, count: usize) -> u64 {
    let folder = world.data();
    let (vault, mut log) = begin(&folder);
    let key = VerificationKey::generate().unwrap();
    log.begin_chain(&key).unwrap();
    world.write(key_file, key.reveal().as_bytes());
    let step = SignedDuration::from_millis(100);
    let first = Timestamp::now() - step * i32::try_from(count).unwrap();
    for number in 0..count {
        let _ = log.append(&event(number, first + step * number as i32)).unwrap();
        for ended in log.take_ended() {
            vault.note_audit(log.head(), Some(ended));
        }
    }
    vault.note_audit(log.head(), None);
    log.take_unpacked().iter().for_each(|file| pack(file).unwrap());
    let records = log.head().seq;
    drop(log);
    vault.close().unwrap();
    let made: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    made.iter().for_each(|file| world.own(file, 0o600));
    for folder in folder.ancestors().take_while(|folder| *folder != world.home()) {
        world.own(folder, 0o700);
    }
    records
}

/// What whoever looks at every byte must do, in seconds.
fn floor(log: &Path) -> f64 {
    let began = Instant::now();
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 16];
    for mut file in opened(log).unwrap() {
        loop {
            match file.reader.read(&mut block).unwrap() {
                0 => break,
                length => hash.update(&block[..length]),
            }
        }
    }
    assert_eq!(hash.finalize().len(), 32);
    began.elapsed().as_secs_f64()
}

/// Runs the command to its end: seconds, and the most memory it had in KiB. Its answer must be about every record.
fn ask(world: &World, words: &[&str], records: u64) -> (f64, u64) {
    let mut command = world.command(&world.binary());
    let began = Instant::now();
    let mut child = command.args(words).stdout(Stdio::piped()).spawn().unwrap();
    let mut answer = child.stdout.take().unwrap();
    let (mut report, mut lines, mut block) = (Vec::new(), 0, vec![0; 1 << 16]);
    let (seconds, peak) = thread::scope(|scope| {
        let pid = child.id();
        let watching = scope.spawn(move || peak(pid));
        loop {
            let length = answer.read(&mut block).unwrap();
            if length == 0 {
                break;
            }
            lines += memchr::memchr_iter(b'\n', &block[..length]).count() as u64;
            report.extend_from_slice(&block[..length.min(block.len() - report.len().min(block.len()))]);
        }
        assert!(child.wait().unwrap().success(), "{words:?}");
        (began.elapsed().as_secs_f64(), watching.join().unwrap())
    });
    match words {
        [_, "verify", ..] => {
            let report: Value = serde_json::from_slice(&report).unwrap();
            assert!(report["whole"] == true && report["records"] == records, "{report}");
            assert_eq!(report["compared_with"], "vault");
            assert_eq!(words.contains(&"--key"), report["checked_with_key"].as_u64().unwrap() > records / 2);
        }
        [.., "--pid", _] => assert!(lines > 0 && lines < records, "{lines} of {records}"),
        _ => assert_eq!(lines, records),
    }
    (seconds, peak)
}

/// The most resident memory of a process, in KiB, until it ends.
fn peak(pid: u32) -> u64 {
    let mut peak = 0;
    // whoever has ended and was not waited for has no memory that could be told
    while let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status"))
        && let Some(now) = optional(&status, "VmHWM:")
    {
        peak = peak.max(now);
        thread::sleep(Duration::from_millis(1));
    }
    peak
}
