//! Every system call that the daemon makes fails once: it answers an error or ends, and nothing is lost, torn or told.
//!
//! A tracer (`clients/fault.c`) lets one call of one thread fail. The calls are those that a session without faults was
//! seen to make; the session with the fault is compared with a model of what its clients were told, and a daemon
//! without faults has to find the same afterwards. What each fault leads to stands in docs/faults.md.

mod session;
mod site;
mod table;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Mutex,
    thread,
};

use session::{Begins, Run, play};
use site::{Fault, Site, kinds, sites};
use table::Table;

use crate::{
    skip::skip,
    world::{World, is_root},
};

/// Runs at a time: each waits for its processes most of the time.
const AT_A_TIME: usize = 6;
/// Of a call that a session makes more often, so many places are tried in a whole sweep: first, last and between.
const MOST_PLACES: usize = 3;

/// How much is played: `KEYCHAIN_AUTH_FAULTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// One place of each call, and there every kind of fault where what is kept or what protects is concerned. What the
    /// suite does.
    Sample,
    /// Every kind at every place: `all`.
    All,
    /// The same, and docs/faults.md is written from it: `write`.
    Write,
}

fn extent() -> Extent {
    match std::env::var("KEYCHAIN_AUTH_FAULTS").as_deref() {
        Err(_) => Extent::Sample,
        Ok("all") => Extent::All,
        Ok("write") => Extent::Write,
        Ok(other) => panic!("KEYCHAIN_AUTH_FAULTS is {other}, and not all or write"),
    }
}

/// The faults to play on the calls that a session made.
fn faults(sites: &BTreeMap<Site, usize>, extent: Extent) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (site, &count) in sites {
        let mut kinds = kinds(site);
        if extent == Extent::Sample && !site.is_vital() {
            kinds.truncate(1);
        }
        for (index, kind) in kinds.into_iter().enumerate() {
            let places: Vec<usize> = match extent {
                // another place for each kind
                Extent::Sample => vec![1 + index * count.div_ceil(2) % count],
                _ if count <= MOST_PLACES => (1..=count).collect(),
                _ => (0..MOST_PLACES).map(|place| 1 + place * (count - 1) / (MOST_PLACES - 1)).collect(),
            };
            faults.extend(places.into_iter().map(|nth| Fault { site: site.clone(), nth, kind }));
        }
    }
    faults
}

/// Plays all faults, some at a time.
fn sweep(faults: &[(Begins, Fault)], template: &Path) -> Vec<Run> {
    let next = Mutex::new(faults.iter().enumerate());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let taken = next.lock().unwrap().next();
                    let Some((index, (begins, fault))) = taken else { return };
                    let run = catch_unwind(AssertUnwindSafe(|| play(*begins, template, Some(fault))));
                    let run = run.unwrap_or_else(|_| Run {
                        outcome: None,
                        problems: vec!["the session could not be played to its end".to_owned()],
                        trace: String::new(),
                        log: String::new(),
                    });
                    for problem in &run.problems {
                        println!("{fault} ({begins:?}): {problem}");
                    }
                    done.lock().unwrap().push((index, run));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, run)| run).collect()
}

#[test]
fn every_call_that_fails_is_an_error_or_an_end_and_nothing_is_lost_torn_or_told() {
    if !is_root() {
        return skip("root alone may let calls of a daemon fail that has closed itself to others");
    }
    let extent = extent();
    let mut world = World::new();
    session::template(&mut world);
    let mut all = Vec::new();
    let mut seen = BTreeMap::new();
    for begins in [Begins::Fresh, Begins::Killed] {
        let run = play(begins, &world.data(), None);
        assert!(run.problems.is_empty(), "without a fault: {:?}\n{}", run.problems, run.log);
        let mut sites = sites(&run.trace);
        // what a fresh start shows already
        sites.retain(|site, count| seen.insert(site.clone(), *count).is_none_or(|before| *count > before));
        all.extend(faults(&sites, extent).into_iter().map(|fault| (begins, fault)));
    }
    let untried: Vec<String> = seen
        .keys()
        .filter(|site| kinds(site).is_empty() && !site::is_spared(site))
        .map(ToString::to_string)
        .collect();
    assert!(untried.is_empty(), "calls without a fault, and without a reason for it: {untried:#?}");

    let only = std::env::var("KEYCHAIN_AUTH_FAULT").ok();
    if let Some(only) = &only {
        all.retain(|(_, fault)| fault.to_string().contains(only));
    }
    let runs = sweep(&all, &world.data());
    let mut table = Table::default();
    let mut problems = Vec::new();
    let mut reached = 0;
    for ((begins, fault), run) in all.iter().zip(&runs) {
        problems.extend(run.problems.iter().map(|problem| format!("{fault} ({begins:?}): {problem}")));
        if let Some(outcome) = run.outcome {
            reached += 1;
            table.add(fault, outcome);
        }
    }
    println!("{reached} of {} faults were reached", all.len());
    if extent == Extent::Write {
        table.write(reached);
    }
    // which of two outcomes a fault has can hang on a moment: only a whole sweep knows them all
    let unknown = if extent == Extent::Sample { Vec::new() } else { Table::read().lacks(&table) };
    assert!(problems.is_empty(), "{} problems: {problems:#?}", problems.len());
    assert!(unknown.is_empty(), "not in docs/faults.md; run scripts/faults --write: {unknown:#?}");
    assert!(only.is_some() || reached * 10 > all.len() * 8, "{reached} of {} faults were reached", all.len());
}
