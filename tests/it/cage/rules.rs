//! Every rule on the lists is needed: a session that does all that the daemon does, watched by strace, uses each one.

use std::{collections::HashMap, fs};

use keychain_auth::sandbox::{self, Call, Only};

use super::{session, threads};
use crate::{skip::need, world::World};

/// Rules that a session may not show, and why they stand all the same.
const UNSEEN: &[(&str, &str)] = &[
    ("sched_yield", "needs threads that meet in a channel at the same moment"),
    ("clock_gettime", "the vDSO serves here"),
    ("brk", "what the keeper's heap held before the cage closed may suffice"),
    ("restart_syscall", "needs a stop signal within a wait for the lock of the queue of strangers"),
    ("getpid", "of the witness, for abort, which the debugger plays"),
    ("gettid", "for abort, which the debugger plays"),
    ("tgkill Own(0)", "for abort, which the debugger plays"),
    ("writev Is(0, 2)", "the last words before abort, which the debugger plays"),
    ("setitimer Is(0, 0)", "for the last words, where standard error is no socket, which the debugger plays"),
    ("write Is(0, 2)", "of the witness, the report of a violation, which the debugger plays"),
    ("statfs", "of the witness, where btrfs or overlayfs shows two device numbers of one file"),
    ("fcntl Is(1, 1)", "made by debug builds only"),
    ("faccessat2", "needs a config.json behind a link that climbs, which another test plays"),
    ("unlinkat Is(2, 0)", "needs a folder with a default ACL, which another test plays"),
    ("fcntl Is(1, 36)", "the vault is opened again only after the disk failed, which another test plays"),
];
/// Of the witness alone, which does little: the memory it begins with may suffice, and the kernel may end it with the
/// keeper before its own threads have ended.
const BY_CHANCE: &[&str] = &[
    "mmap Lacks(2, 4)",
    "mprotect Lacks(2, 4)",
    "madvise",
    "munmap",
    "rt_sigprocmask",
    "sigaltstack",
    "exit",
    "exit_group",
];

/// A system call as strace saw it.
#[derive(Debug)]
pub(super) struct Seen {
    thread: u32,
    name: String,
    args: Vec<u64>,
}

/// The calls in what `strace -f -X raw` wrote.
pub(super) fn calls(trace: &str) -> Vec<Seen> {
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let whole = if let Some(start) = call.strip_suffix("<unfinished ...>") {
            begun.insert(thread, start);
            continue;
        } else if let Some((_, end)) = call.split_once(" resumed>") {
            format!("{}{end}", begun.remove(thread).unwrap_or_default())
        } else {
            call.to_owned()
        };
        // signals and exits have lines of another form
        let Some((name, rest)) = whole.trim_start().split_once('(') else { continue };
        let args = rest.rsplit_once(" = ").map_or(rest, |(args, _)| args).trim_end().trim_end_matches(')');
        let args = args.split(", ").map(number).collect();
        calls.push(Seen { thread: thread.parse().unwrap(), name: name.to_owned(), args });
    }
    calls
}

/// An argument: a number, flags that are joined by `|`, or the name of nothing.
fn number(arg: &str) -> u64 {
    arg.split('|')
        .map(|part| {
            let part = part.trim();
            let (negative, digits) = part.strip_prefix('-').map_or((false, part), |digits| (true, digits));
            let value = match digits.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16),
                None => digits.parse(),
            };
            let value = value.unwrap_or_default();
            if negative { value.wrapping_neg() } else { value }
        })
        .fold(0, |sum, part| sum | part)
}

/// What the threads of a process called after its list was in force.
pub(super) fn caged<'s>(seen: &'s [Seen], threads: &[u32]) -> Vec<&'s Seen> {
    let own: Vec<&Seen> = seen.iter().filter(|seen| threads.contains(&seen.thread)).collect();
    let locked = own.iter().position(|seen| seen.name == "seccomp").expect("a list comes into force");
    own[locked + 1..].to_vec()
}

fn holds(only: &Only, args: &[u64], pid: u32) -> bool {
    let low = |index: u8| args.get(usize::from(index)).map(|arg| *arg as u32);
    match *only {
        Only::Is(index, value) => low(index) == Some(value),
        Only::Lacks(index, bits) => low(index).is_some_and(|arg| arg & bits == 0),
        Only::Own(index) => low(index) == Some(pid),
        Only::Null(index) => args.get(usize::from(index)) == Some(&0),
    }
}

/// The rules of `list` that none of `calls` needed, in words.
pub(super) fn unneeded(list: &[Call], calls: &[&Seen], pid: u32) -> Vec<String> {
    let mut unneeded = Vec::new();
    for rule in list {
        let own: Vec<_> = calls.iter().filter(|call| call.name == rule.name).collect();
        if rule.only.is_empty() && own.is_empty() {
            unneeded.push(rule.name.to_owned());
        }
        for only in rule.only {
            if !own.iter().any(|call| holds(only, &call.args, pid)) {
                unneeded.push(format!("{} {only:?}", rule.name));
            }
        }
    }
    unneeded
}

#[test]
fn a_session_needs_every_rule_of_both_lists() {
    let Some(strace) = need("strace") else { return };
    let mut world = World::new();
    let trace = world.tmp("trace");
    // a file that may not grow gives an error, as on a full disk, and no signal
    let shell = ["/bin/sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
    let strace = [strace.to_str().unwrap(), "-D", "-f", "-qq", "-X", "raw", "-o", trace.to_str().unwrap()];
    world.start_through = shell.into_iter().chain(strace).map(str::to_owned).collect();
    let (pids, threads) = session::play(&mut world, |world| {
        let pids = super::processes(world);
        (pids, pids.map(threads))
    });
    let seen = calls(&fs::read_to_string(&trace).unwrap());
    for ((process, list), (pid, threads)) in [("keeper", sandbox::keeper()), ("witness", sandbox::witness())]
        .into_iter()
        .zip(pids.iter().zip(&threads))
    {
        let caged = caged(&seen, threads);
        assert!(caged.len() > 100, "{process}: {} calls", caged.len());
        let mut unneeded = unneeded(&list, &caged, *pid);
        unneeded.retain(|rule| !UNSEEN.iter().any(|(unseen, _)| unseen == rule));
        unneeded.retain(|rule| process != "witness" || !BY_CHANCE.contains(&rule.as_str()));
        assert!(unneeded.is_empty(), "no use of these rules of the {process} was seen: {unneeded:#?}");
    }
    let known: Vec<String> =
        [sandbox::keeper(), sandbox::witness()].iter().flat_map(|list| unneeded(list, &[], 0)).collect();
    for rule in UNSEEN.iter().map(|(rule, _)| rule).chain(BY_CHANCE) {
        assert!(known.iter().any(|known| known == rule), "{rule} is excused, and on no list");
    }
}
