//! The rows that are answers: ours beside the floor, in rounds that take turns.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    time::Instant,
};

use sha2::{Digest as _, Sha256};

use crate::{
    Scale,
    figures::{Row, Run, Target, median, short},
    plot::Sketch,
    stage::{Ask, Stage},
};

/// A row against the floor.
struct Race {
    what: &'static str,
    target: Target,
    large: bool,
    /// The client's core; the daemon's is 1.
    core: usize,
    how: &'static str,
    ask: Ask,
    numbers: Vec<usize>,
    runs: Vec<(Run, Run)>,
}

impl Race {
    fn round(&mut self, stage: &Stage, ours_first: bool) {
        let client = if self.large { &stage.large } else { &stage.client };
        let ours = || stage.ours_on(self.core, client, self.how, self.ask, &self.numbers);
        let floor = || stage.floor_on(self.core, client, self.how, self.ask, &self.numbers);
        let both = if ours_first {
            let ours = ours();
            (ours, floor())
        } else {
            let floor = floor();
            (ours(), floor)
        };
        self.runs.push(both);
    }

    /// One connection is compared by median times, which other work on the machine moves least; many by answers a second.
    fn row(&self) -> Row {
        let of = |figure: fn(&Run) -> f64| {
            let ours = median(self.runs.iter().map(|(ours, _)| figure(ours)));
            (ours, median(self.runs.iter().map(|(_, floor)| figure(floor))))
        };
        let half: fn(&Run) -> f64 = |run| run.within(0.5);
        let (ours, floor, ratio) = if self.how == "many" {
            let ((ours, floor), ratios) = (of(Run::rate), self.runs.iter().map(|(a, b)| a.rate() / b.rate()));
            (format!("{}/s", short(ours)), format!("{}/s", short(floor)), median(ratios))
        } else {
            let ((ours, floor), ratios) = (of(half), self.runs.iter().map(|(a, b)| half(b) / half(a)));
            (format!("{} µs", short(ours)), format!("{} µs", short(floor)), median(ratios))
        };
        Row {
            what: self.what.into(),
            ours,
            floor,
            ratio,
            target: self.target,
            spread: Some((of(half).0, of(|run| run.within(0.99)).0)),
        }
    }

    fn sketch(&self) -> [Sketch; 2] {
        let (ours, floor): (Vec<Run>, Vec<Run>) = self.runs.iter().cloned().unzip();
        [("ours", ours), ("floor", floor)].map(|(who, runs)| Sketch {
            name: format!("{}, {who}", self.what),
            points: Run::joined(&runs).each,
        })
    }
}

/// What is drawn.
pub struct Sketches {
    /// Times of answers, ours and the floor's, a pair a row.
    pub spreads: Vec<[Sketch; 2]>,
    /// Microseconds by size of the store, in the order of the scale's sizes.
    pub growth: Vec<(String, Vec<f64>)>,
}

/// Measures everything that has answers.
pub fn measure(stages: &mut [Stage; 3], scale: &Scale) -> (Vec<Row>, Sketches) {
    let requests = scale.requests;
    let race = |what, target, how, ask, numbers| Race {
        what,
        target: Target::AtLeast(target),
        large: false,
        core: 0,
        how,
        ask,
        numbers,
        runs: Vec::new(),
    };
    let mut races = [
        race("held connection, read of 1", 0.60, "held", Ask::Read(1), vec![requests]),
        race("held connection, read of 100", 0.20, "held", Ask::Read(100), vec![requests / 4]),
        race("64 connections, read of 1", 0.40, "many", Ask::Read(1), vec![requests * 2, 64]),
        race("connect, verify, read of 1; client of 20 KB", 0.20, "fresh", Ask::Read(1), vec![requests / 4]),
        Race {
            large: true,
            ..race(
                "connect, verify, read of 1; client of 50 MB",
                0.20,
                "fresh",
                Ask::Read(1),
                vec![requests / 4],
            )
        },
        Race {
            core: 1,
            ..race("held, read of 1; client on the daemon's core", 0.60, "held", Ask::Read(1), vec![requests])
        },
        Race {
            core: 1,
            ..race("held, read of 100; client on its core", 0.20, "held", Ask::Read(100), vec![requests / 4])
        },
        Race {
            core: 1,
            ..race(
                "connect, verify, read; client on its core",
                0.20,
                "fresh",
                Ask::Read(1),
                vec![requests / 4],
            )
        },
    ];
    let mut ladder = Ladder::default();
    for round in 0..scale.rounds {
        eprintln!("round {} of {}", round + 1, scale.rounds);
        for race in &mut races {
            race.round(&stages[0], round % 2 == 0);
        }
        ladder.round(stages, requests);
    }
    let mut table: Vec<Row> = races.iter().map(Race::row).collect();
    let tail = races[2].runs.iter().map(|(ours, _)| ours.within(0.99) / ours.within(0.5));
    table.insert(
        3,
        Row {
            what: "64 connections: p99 beside p50".into(),
            ours: String::new(),
            floor: String::new(),
            ratio: median(tail),
            target: Target::AtMost(4.0),
            spread: None,
        },
    );
    table.extend(ladder.rows(scale));
    table.push(cold(&stages[0], scale));
    // what shares a core is in the table only: more lines could not be told apart
    let spreads = races.iter().filter(|race| race.core == 0).map(Race::sketch).collect();
    (table, Sketches { spreads, growth: ladder.sketch() })
}

/// The same requests at every size of the store, and what they are compared with.
#[derive(Default)]
struct Ladder {
    /// By request, then by round, then by size: p50 in microseconds.
    times: Vec<Vec<[f64; 3]>>,
    tails: Vec<Vec<f64>>,
    syncs: Vec<f64>,
}

const STEPS: [(&str, &str, Ask, usize); 6] = [
    ("read of 1", "held", Ask::Read(1), 2),
    ("read of 100", "held", Ask::Read(100), 8),
    ("connect, verify, read of 1", "fresh", Ask::Read(1), 8),
    ("durable write of 1", "held", Ask::Write(1), 40),
    ("durable write of 100", "held", Ask::Write(100), 80),
    ("search by prefix that returns 10", "held", Ask::Prefix, 8),
];
const READ_OF_10: usize = STEPS.len();

impl Ladder {
    fn round(&mut self, stages: &[Stage; 3], requests: usize) {
        self.times.resize_with(STEPS.len() + 1, Vec::new);
        self.tails.resize_with(STEPS.len() + 1, Vec::new);
        let ten = ("read of 10", "held", Ask::Read(10), 8);
        for (index, (_, how, ask, part)) in STEPS.into_iter().chain([ten]).enumerate() {
            let runs = [0, 1, 2].map(|at| {
                let stage = &stages[at];
                stage.ours(&stage.client, how, ask, &[(requests / part).max(10)])
            });
            self.tails[index].push(runs[0].within(0.99));
            self.times[index].push(runs.map(|run| run.within(0.5)));
        }
        self.syncs.push(sync_time(&stages[0], (requests / 40).max(10)));
    }

    fn p50(&self, step: usize, size: usize) -> f64 {
        median(self.times[step].iter().map(|sizes| sizes[size]))
    }

    fn beside(&self, what: &str, step: usize, other: (&str, usize), most: f64) -> Row {
        let pairs = self.times[step].iter().zip(&self.times[other.1]);
        self.row(
            what,
            step,
            format!("{} µs: {}", short(self.p50(other.1, 0)), other.0),
            most,
            median(pairs.map(|(a, b)| a[0] / b[0])),
        )
    }

    fn row(&self, what: &str, step: usize, floor: String, most: f64, ratio: f64) -> Row {
        let p50 = self.p50(step, 0);
        Row {
            what: what.into(),
            ours: format!("{} µs", short(p50)),
            floor,
            ratio,
            target: Target::AtMost(most),
            spread: Some((p50, median(self.tails[step].iter().copied()))),
        }
    }

    fn rows(&self, scale: &Scale) -> Vec<Row> {
        let sync = median(self.syncs.iter().copied());
        let in_syncs = median(self.times[3].iter().zip(&self.syncs).map(|(time, sync)| time[0] / sync));
        let mut rows = vec![
            self.row(STEPS[3].0, 3, format!("{} µs: one fdatasync", short(sync)), 3.0, in_syncs),
            self.beside(STEPS[4].0, 4, ("write of 1", 3), 2.5),
            self.beside(STEPS[5].0, 5, ("read of 10", READ_OF_10), 2.0),
        ];
        for (step, (what, ..)) in STEPS.into_iter().enumerate().take(5) {
            let ratio = median(self.times[step].iter().map(|sizes| sizes[2] / sizes[0]));
            rows.push(Row {
                what: format!(
                    "{what}: {} secrets beside {}",
                    short(scale.sizes[2] as f64),
                    short(scale.sizes[0] as f64)
                ),
                ours: format!("{} µs", short(self.p50(step, 2))),
                floor: format!("{} µs", short(self.p50(step, 0))),
                ratio,
                target: Target::AtMost(1.2),
                spread: None,
            });
        }
        rows
    }

    fn sketch(&self) -> Vec<(String, Vec<f64>)> {
        let line = |(step, (what, ..)): (usize, (&str, &str, Ask, usize))| {
            (what.to_owned(), (0..3).map(|size| self.p50(step, size)).collect())
        };
        STEPS.into_iter().enumerate().map(line).collect()
    }
}

/// One append and fdatasync in the vault's folder, in microseconds.
pub fn sync_time(stage: &Stage, times: usize) -> f64 {
    let path = stage.world.tmp("synced");
    let mut file = File::create(&path).unwrap();
    let one = |_| {
        let began = Instant::now();
        file.write_all(&[0x61; 4096]).unwrap();
        file.sync_data().unwrap();
        began.elapsed().as_secs_f64() * 1e6
    };
    median((0..times).map(one).collect::<Vec<_>>())
}

/// The first request of a large client that was never seen, beside SHA-256 over its bytes.
fn cold(stage: &Stage, scale: &Scale) -> Row {
    let bytes = fs::read(&stage.large).unwrap();
    let mut pairs = Vec::new();
    for _ in 0..scale.rounds.min(5) {
        // another inode under the same path: its digest is not remembered
        let fresh = stage.large.with_extension("new");
        fs::write(&fresh, &bytes).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        stage.world.own(&fresh, 0o755);
        fs::rename(&fresh, &stage.large).unwrap();
        let ours = stage.ours(&stage.large, "fresh", Ask::Read(1), &[1]).within(0.5);
        let began = Instant::now();
        let digest = Sha256::digest(&bytes);
        let hash = began.elapsed().as_secs_f64() * 1e6;
        assert_eq!(digest.len(), 32);
        pairs.push((ours, hash));
    }
    let ours = median(pairs.iter().map(|pair| pair.0));
    Row {
        what: "first request of a client of 50 MB".into(),
        ours: format!("{} ms", short(ours / 1e3)),
        floor: format!("{} ms: SHA-256 of it", short(median(pairs.iter().map(|pair| pair.1)) / 1e3)),
        ratio: median(pairs.iter().map(|pair| pair.0 / pair.1)),
        target: Target::AtMost(1.25),
        spread: None,
    }
}
