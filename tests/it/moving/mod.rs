//! Secrets taken in from other programs and out again: the real command line, real stores of those programs.

mod exports;
mod imports;

pub use exports::on_a_terminal;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
};

use age::secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::{
    cage::dump,
    client::{Client, found},
    processes::text,
    skip::skip,
    world::{Entry, Guarded, Outcome, World, await_that, is_root, run, spawn},
};

/// Marks every value of these tests, so that one that shows up anywhere is found.
const MARK: &str = "VALUEMARK";

/// A world whose vault exists and is not held by a daemon, with a tool that may do everything on these services.
fn at_rest(services: &[&str]) -> (World, PathBuf) {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, services)]);
    world.start();
    world.stop();
    (world, tool)
}

/// Everything of a service, as the daemon serves it: values and attributes by target.
fn served(world: &mut World, tool: &Path, service: &str) -> BTreeMap<String, (String, Value)> {
    world.start();
    let mut client = Client::connected(world, tool);
    let names = client.request(&json!({"type": "REQUEST", "action": "search", "service": service}));
    let names: Vec<&Value> = names["results"].as_array().unwrap().iter().map(|it| &it["target"]).collect();
    let mut all = BTreeMap::new();
    for some in names.chunks(100) {
        let request = json!({"type": "REQUEST", "action": "read", "service": service, "targets": some});
        for result in client.request(&request)["results"].as_array().unwrap() {
            let word = |member: &str| result[member].as_str().unwrap().to_owned();
            all.insert(word("target"), (word("value"), result["attributes"].clone()));
        }
    }
    drop(client);
    world.stop();
    all
}

fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, (String, Value)> {
    pairs.iter().map(|(target, value)| ((*target).to_owned(), ((*value).to_owned(), Value::Null))).collect()
}

/// Fails unless the command exits with 1, says this on stderr, and shows no value.
#[track_caller]
fn refused(outcome: &Outcome, said: &str) {
    assert_eq!(outcome.code, Some(1), "{}{}", outcome.out, outcome.err);
    assert!(outcome.err.contains(said), "{said:?} is expected: {}{}", outcome.out, outcome.err);
    silent(outcome);
}

/// Fails if a value was shown.
#[track_caller]
fn silent(outcome: &Outcome) {
    assert!(!outcome.out.contains(MARK) && !outcome.err.contains(MARK), "{}{}", outcome.out, outcome.err);
}

fn records(world: &World, action: &str) -> Vec<Value> {
    world.audit().into_iter().filter(|record| record["action"] == action).collect()
}

/// A file of the world's user.
fn file(world: &World, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = world.tmp(name);
    world.write(&path, bytes.as_ref());
    path
}

/// A pair of age keys: the recipient, and the file with its identity.
pub fn age_keys(world: &World, name: &str) -> (String, PathBuf) {
    let identity = age::x25519::Identity::generate();
    let secret = format!("# created for a test\n{}\n", identity.to_string().expose_secret());
    (identity.to_public().to_string(), file(world, name, secret))
}

#[test]
fn beside_a_running_daemon_nothing_is_taken_in_or_out() {
    let world = World::started();
    let env = file(&world, "env", format!("A={MARK}"));
    let (recipient, _) = age_keys(&world, "key.txt");
    let out = world.tmp("out.age");
    for args in [
        &["vault", "import", "env", text(&env), "--service", "s", "--apply"][..],
        &["vault", "export", "-o", text(&out), "-r", &recipient],
    ] {
        let outcome = world.cli(args);
        refused(&outcome, &format!("the vault is in use by the daemon (pid {})", world.pid()));
        assert!(outcome.err.contains("vault lock"), "{}", outcome.err);
    }
    assert!(!out.exists());
}

#[test]
fn a_vault_whose_daemon_is_locked_takes_secrets_in_and_serves_them_when_it_is_unlocked() {
    let (mut world, tool) = at_rest(&["s"]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    world.cli(&["vault", "lock"]).done();
    let env = file(&world, "env", format!("A={MARK}"));
    world.cli(&["vault", "import", "env", text(&env), "--service", "s", "--apply"]).done();
    assert_eq!(client.read("s", &["A"])["reason"], "store_locked");
    world.cli(&["vault", "unlock"]).done();
    assert_eq!(client.read("s", &["A"]), found(&[("A", MARK)]));
    // the daemon has the log: it brings the record there when it has the vault again
    let record = world.audit_where("the import has its record", |record| record["action"] == "import");
    assert_eq!(record["targets"], json!(["A"]));
}

#[test]
fn a_command_that_holds_secrets_is_closed_to_others_and_keeps_them_in_locked_memory() {
    let (world, _) = at_rest(&["s"]);
    let mut command = world.command(&world.binary());
    command.args(["vault", "import", "env", "-", "--service", "s"]).stdin(Stdio::piped());
    let mut child = Guarded(spawn(command.stdout(Stdio::null()).stderr(Stdio::null())));
    let pid = child.0.id();
    let mut input = child.0.stdin.take().unwrap();
    input.write_all(format!("KEY='{MARK}'\n").as_bytes()).unwrap();
    await_that("the command took its input", || {
        (rustix::io::ioctl_fionread(&input).ok()? == 0).then_some(())
    });
    let spy = run(world.command(Path::new("/bin/cat")).arg(format!("/proc/{pid}/environ")));
    assert!(spy.code == Some(1) && spy.err.contains("ermission denied"), "{}{}", spy.out, spy.err);
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"));
    if let Ok(limits) = limits {
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    }
    if !is_root() {
        skip("only root can look into the memory of a command that is closed to others");
        return;
    }
    let (pieces, _) = dump::mapped(pid);
    assert!(pieces.len() > 10);
    let open: Vec<_> = pieces.iter().filter(|piece| !piece.place.contains("secretmem")).collect();
    let hits = open.iter().filter(|piece| memchr::memmem::find(&piece.bytes, MARK.as_bytes()).is_some());
    let hits: Vec<&String> = hits.map(|piece| &piece.place).collect();
    assert!(hits.is_empty(), "{hits:?}");
    drop(input);
    let ended = await_that("the command ends", || child.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
}
