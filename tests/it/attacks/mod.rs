//! Attackers of the same user who want a secret that only the registered tool may read.
//!
//! Each test plays its attack twice: against the [`naive`] foil, where it must obtain the marker, and against the
//! real daemon, where it must not, and where the audit log must say why.

mod descriptors;
mod digests;
mod disks;
mod exec;
mod identity;
mod injection;
mod naive;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::naive::{Naive, Trust};
use crate::{
    client::{Client, found, written},
    tools::Link,
    world::{Entry, Outcome, World},
};

/// The secret that nobody but the tool may see.
const MARKER: &str = "marker-7d1f4a2be09c4f0d";

/// Which executable a record must name.
#[derive(Debug, Clone)]
enum Named {
    /// The registered tool: it runs, whatever is done with it.
    Tool,
    /// This one.
    At(PathBuf),
}

/// Checks that may fail before anybody could see what runs: the process was gone, or is another user's.
const UNSEEN: [&str; 2] = ["peer_gone", "foreign_uid"];

/// A world with one registered tool and its secret.
struct Arena {
    world: World,
    tool: PathBuf,
}

impl Arena {
    /// The request that every attacker sends.
    fn request() -> String {
        json!({"type": "REQUEST", "action": "read", "service": "s", "targets": ["k"]}).to_string()
    }

    fn new(link: Link) -> Self {
        Self::in_world(World::new(), link)
    }

    fn in_world(world: World, link: Link) -> Self {
        let tool = world.install("clients/client.c", link, "bin/tool");
        Self { world, tool }
    }

    /// An attacker's program in this world.
    fn attacker(&self, name: &str) -> PathBuf {
        self.world.install(&format!("attacks/{name}.c"), Link::Dynamic, &format!("bin/{name}"))
    }

    /// A file of the attacker with the request in it.
    fn request_file(&self) -> PathBuf {
        let file = self.world.tmp("request");
        self.world.write(&file, format!("{}\n", Self::request()).as_bytes());
        file
    }

    /// Registers the tool, starts the real daemon, and lets the tool store the marker and read it back.
    fn daemon(&mut self) {
        self.world.policy(&[Entry::all(&self.tool, &["s"])]);
        self.world.start();
        self.honest();
    }

    /// The tool itself is served.
    #[track_caller]
    fn honest(&self) {
        let mut client = Client::connected(&self.world, &self.tool);
        assert_eq!(client.write("s", &[("k", MARKER)]), written());
        assert_eq!(client.read("s", &["k"]), found(&[("k", MARKER)]));
    }

    /// Plays `attack` against the foil, where it must win, and against the daemon, where it must not.
    ///
    /// `attack` returns what the attacker obtained. `details` are the audit details of which each refusal must be one, `named`
    /// the executables of which each must name one.
    #[track_caller]
    fn play(&mut self, trust: Trust, details: &[&str], named: &[Named], attack: impl Fn(&Self) -> String) {
        let foil = Naive::start(&self.world, &self.tool, trust);
        let won = attack(self);
        drop(foil);
        assert!(won.contains(MARKER), "the attack fails even against the foil, so it proves nothing: {won}");
        self.daemon();
        let before = self.world.audit().len();
        let got = attack(self);
        assert!(!got.contains(MARKER), "the attacker obtained the secret");
        self.refused_since(before, details, named);
        self.honest();
    }

    /// Waits until there is a refusal since record `before`, and checks that all of them are of `details` and name one of
    /// `named`.
    ///
    /// A detail `reason:x` stands for a refusal by the reason x.
    #[track_caller]
    fn refused_since(&self, before: usize, details: &[&str], named: &[Named]) -> Vec<Value> {
        let programs: Vec<Value> = named
            .iter()
            .map(|named| match named {
                Named::Tool => json!(self.tool),
                Named::At(path) => json!(path),
            })
            .collect();
        let refused = crate::world::await_that("the attempt is in the audit log", || {
            let new: Vec<Value> =
                self.world.audit().into_iter().skip(before).filter(|r| r["result"] != "GRANTED").collect();
            (!new.is_empty()).then_some(new)
        });
        for record in &refused {
            let detail = match record["detail"].as_str() {
                // after the check's name may stand what it found
                Some(detail) => detail.split(':').next().unwrap_or_default().to_owned(),
                None => format!("reason:{}", record["reason"].as_str().unwrap_or_default()),
            };
            assert!(details.contains(&detail.as_str()), "expected one of {details:?}: {record}");
            let path = &record["binary_path"];
            let unseen = *path == "" && UNSEEN.contains(&detail.as_str());
            assert!(unseen || programs.contains(path), "expected one of {named:?}: {record}");
            assert!(record["pid"].as_u64().is_some_and(|pid| pid > 0), "a process is named: {record}");
        }
        refused
    }
}

/// The output of an attacker; None (after a skip) where this machine has no user namespaces for ordinary users.
fn unless_impossible(outcome: Outcome) -> Option<String> {
    match outcome.code {
        Some(77) => {
            crate::skip::skip("ordinary users may not make user namespaces here");
            None
        }
        Some(78) => {
            crate::skip::skip("the kernel has too many pids to see one again");
            None
        }
        _ => Some(format!("{}{}", outcome.out, outcome.err)),
    }
}

/// Runs an attacker to its end.
fn run(arena: &Arena, program: &Path, args: &[&str]) -> Outcome {
    crate::world::run(arena.world.command(program).args(args))
}
