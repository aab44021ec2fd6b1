//! Making the daemon remember a digest of bytes that are not those that run.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{ChildStdin, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Arena, MARKER, Named};
use crate::{
    client::Client,
    skip::skip,
    tools::{Link, compiled},
    world::{Guarded, World, await_that, spawn, wait_bounded},
};

/// A process that changes one byte of a file behind the back of its times.
struct Alter(Guarded, ChildStdin);

impl Alter {
    fn of(arena: &Arena, file: &Path, how: &str) -> Self {
        // in the padding behind the program: it does the same with either byte
        let offset = fs::metadata(file).unwrap().len() - 1;
        let mut command = arena.world.command(&arena.attacker("alter"));
        command.arg(file).arg(offset.to_string()).arg(how).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(&mut command);
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        let input = child.stdin.take().unwrap();
        Self(Guarded(child), input)
    }

    fn now(mut self) {
        self.1.write_all(b"now\n").unwrap();
        assert!(wait_bounded(&mut self.0.0, "the byte is changed").success());
    }
}

/// A tool with a byte behind it that means nothing.
fn padded(world: &World, at: &Path) {
    let mut bytes = fs::read(compiled("clients/client.c", Link::Static)).unwrap();
    bytes.push(0);
    fs::write(at, bytes).unwrap();
    world.own(at, 0o755);
}

fn times(file: &Path) -> (i64, i64, i64, i64) {
    let found = fs::metadata(file).unwrap();
    (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec())
}

/// Waits until the digest of the file may be remembered.
fn settle(file: &Path) {
    let changed = fs::metadata(file).unwrap().ctime();
    await_that("the file has not changed for three seconds", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        (now.cast_signed() > changed + 3).then_some(())
    });
}

fn asks(arena: &Arena, program: &Path) -> String {
    Client::connected(&arena.world, program).read("s", &["k"]).to_string()
}

/// A folder in memory, removed with this.
struct InMemory(PathBuf);

impl InMemory {
    fn new(world: &World) -> Option<Self> {
        let place = Path::new("/dev/shm").join(world.root().file_name()?);
        let _ = fs::remove_dir_all(&place);
        fs::create_dir(&place).ok()?;
        world.own(&place, 0o755);
        Some(Self(place))
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_tool_in_memory_that_was_changed_without_a_trace_is_a_stranger() {
    let mut arena = Arena::new(Link::Static);
    let Some(place) = InMemory::new(&arena.world) else {
        return skip("/dev/shm takes no folder");
    };
    arena.tool = place.0.join("tool");
    padded(&arena.world, &arena.tool);
    settle(&arena.tool);
    arena.daemon();
    let (before, hash) = (times(&arena.tool), crate::tools::hash_of(&arena.tool));
    Alter::of(&arena, &arena.tool, "look").now();
    assert_eq!(times(&arena.tool), before, "the change left a trace, so this proves nothing");
    assert_ne!(crate::tools::hash_of(&arena.tool), hash);
    let count = arena.world.audit().len();
    assert!(!asks(&arena, &arena.tool).contains(MARKER), "other bytes than the registered ones were served");
    arena.refused_since(count, &["reason:unregistered_binary_pending_approval"], &[Named::Tool]);
}

/// Another program at the tool's path maps the tool's bytes, which lie elsewhere. While the witness hashes them, nobody
/// runs them, so they may be written: afterwards they are changed and put in the tool's place.
#[test]
fn bytes_that_were_hashed_as_a_library_are_hashed_again_when_they_run() {
    let mut arena = Arena::new(Link::Static);
    padded(&arena.world, &arena.tool);
    arena.daemon();
    let (folder, elsewhere) = (arena.world.root().join("bin"), arena.world.root().join("other"));
    // the tool keeps its folder's name, and its file is not touched: renaming it would be stamped
    arena.world.folder(&elsewhere, 0o755);
    let bytes = elsewhere.join("tool");
    padded(&arena.world, &bytes);
    let alter = Alter::of(&arena, &bytes, "touch");
    settle(&bytes);
    let before = times(&bytes);
    fs::write(arena.tool.with_extension("new"), {
        let mut other = fs::read(&arena.tool).unwrap();
        *other.last_mut().unwrap() = 7;
        other
    })
    .unwrap();
    arena.world.own(&arena.tool.with_extension("new"), 0o755);
    fs::rename(arena.tool.with_extension("new"), &arena.tool).unwrap();
    let mut mapper = Client::connected(&arena.world, &arena.tool);
    assert_eq!(mapper.order(&format!("load {}", bytes.display()), &[]), "ok");
    assert!(!mapper.read("s", &["k"]).to_string().contains(MARKER));
    drop(mapper);
    alter.now();
    assert_eq!(times(&bytes), before, "the change left a trace, so this proves nothing");
    fs::rename(&folder, arena.world.root().join("gone")).unwrap();
    fs::rename(&elsewhere, &folder).unwrap();
    let count = arena.world.audit().len();
    assert!(!asks(&arena, &arena.tool).contains(MARKER), "other bytes than the registered ones were served");
    arena.refused_since(count, &["reason:unregistered_binary_pending_approval"], &[Named::Tool]);
}
