//! Callers whose files do not answer, by mischief or because a network is down: they wait alone.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Stdio},
};

use serde_json::json;

use crate::{
    client::{Client, found, written},
    processes::text,
    skip::{need, skip},
    tools::{Link, compiled},
    world::{Entry, Guarded, World, is_root, spawn, wait_bounded},
};

/// A filesystem with a tool on it that stops answering.
struct SilentDisk {
    server: Guarded,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    tool: PathBuf,
}

impl SilentDisk {
    fn mounted(world: &World) -> Option<Self> {
        let folder = world.root().join("disk");
        world.folder(&folder, 0o755);
        Self::at(world, &folder, &[])
    }

    /// At a folder that has files already, for whoever enters the mount namespace of its server.
    fn mounted_over(world: &World, folder: &Path) -> Option<Self> {
        Self::at(world, folder, &["private"])
    }

    fn at(world: &World, folder: &Path, how: &[&str]) -> Option<Self> {
        if !is_root() {
            skip("only root can mount a filesystem");
            return None;
        }
        let mut bytes = fs::read(compiled("clients/client.c", Link::Static)).unwrap();
        bytes.push(0);
        let file = world.tmp("bytes");
        fs::write(&file, bytes).unwrap();
        let mut command = std::process::Command::new(compiled("clients/silent_disk.c", Link::Static));
        command.arg(&file).arg(folder).args(how).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = Guarded(spawn(&mut command));
        let mut disk = Self {
            input: server.0.stdin.take(),
            output: BufReader::new(server.0.stdout.take().unwrap()),
            server,
            tool: folder.join("tool"),
        };
        if disk.says() != "mounted" {
            assert_eq!(wait_bounded(&mut disk.server.0, "the server ends").code(), Some(77));
            skip("the kernel has no FUSE");
            return None;
        }
        // whoever runs it later needs no page that nobody gives
        let root = PathBuf::from(format!("/proc/{}/root", disk.server.0.id()));
        let shown = root.join(disk.tool.strip_prefix("/").unwrap());
        assert_eq!(fs::read(shown).unwrap(), fs::read(&file).unwrap());
        Some(disk)
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Lets it answer nothing any more.
    fn silence(&mut self) {
        self.input.as_mut().unwrap().write_all(b"silence\n").unwrap();
        assert_eq!(self.says(), "silent");
    }
}

impl Drop for SilentDisk {
    fn drop(&mut self) {
        // whoever waits for it gets an error, and the folder can be removed
        drop(self.input.take());
        wait_bounded(&mut self.server.0, "the filesystem is gone");
    }
}

fn request() -> Vec<u8> {
    format!("{}\n", json!({"type": "REQUEST", "action": "read", "service": "s", "targets": ["k"]}))
        .into_bytes()
}

/// Connects the disk's tool so often, lets the disk fall silent, and lets all of them ask.
fn asking(world: &World, disk: &mut SilentDisk, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| Client::connected(world, &disk.tool)).collect();
    disk.silence();
    for client in &mut clients {
        client.send(&request());
    }
    clients
}

#[track_caller]
fn serves_at_once(world: &World, tool: &Path) {
    for _ in 0..20 {
        assert_eq!(Client::connected(world, tool).read("s", &["k"]), found(&[("k", "v")]));
    }
}

#[test]
fn a_tool_and_a_library_on_a_filesystem_with_a_server_are_taken_only_from_whoever_trusts_the_server() {
    let world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let Some(disk) = SilentDisk::mounted(&world) else { return };
    let (tool, served) = (text(&tool), text(&disk.tool));
    for args in [&["register", served][..], &["trust-library", tool, served]] {
        let refused = world.cli(args);
        assert_eq!(refused.code, Some(1), "{args:?}: {refused:?}");
        assert!(
            refused.err.contains("FUSE") && refused.err.contains("--allow-foreign-filesystem"),
            "{}",
            refused.err
        );
        world.cli(&[args, &["--allow-foreign-filesystem"]].concat()).done();
    }
}

#[test]
fn strangers_whose_files_do_not_answer_are_refused_and_make_nobody_wait() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let Some(mut disk) = SilentDisk::mounted(&world) else { return };
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    let mut silent = asking(&world, &mut disk, 30);
    serves_at_once(&world, &tool);
    let other = world.root().join("bin/other");
    world.copy(&world.tmp("bytes"), &other);
    let mut refused = vec![(Client::connected(&world, &other).read("s", &["k"]), other)];
    refused.extend(silent.iter_mut().map(|client| (client.recv().json(), disk.tool.clone())));
    for (reply, path) in refused {
        assert_eq!(reply["reason"], "unregistered_binary_pending_approval", "{reply}");
        assert!(reply["message"].as_str().unwrap().contains(path.to_str().unwrap()), "{reply}");
    }
    let named = world.audit().into_iter().filter(|record| record["binary_path"] == json!(disk.tool)).count();
    assert_eq!(named, silent.len());
    serves_at_once(&world, &tool);
}

#[test]
fn files_that_do_not_answer_mounted_over_a_registered_tool_make_nobody_wait() {
    let Some(nsenter) = need("nsenter") else { return };
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let Some(mut disk) = SilentDisk::mounted_over(&world, tool.parent().unwrap()) else { return };
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    let (server, user) = (disk.server.0.id().to_string(), world.uid().to_string());
    let mut over: Vec<Client> = (0..30)
        .map(|_| {
            let mut command = world.command_as(&nsenter, 0);
            command.args(["--target", &server, "--mount", "--setuid", &user, "--setgid", &user]).arg(&tool);
            let mut client = Client::from_command(&world, &mut command);
            client.connect();
            client
        })
        .collect();
    for client in &mut over {
        // nothing that the kernel shows without a look at the file tells them from the tool
        assert_eq!(fs::read_link(format!("/proc/{}/exe", client.pid())).unwrap(), tool);
    }
    disk.silence();
    for client in &mut over {
        client.send(&request());
    }
    serves_at_once(&world, &tool);
    drop(disk);
    for client in &mut over {
        let reply = client.recv().json();
        assert!(reply["status"] == "denied" && reply.get("results").is_none(), "{reply}");
    }
    serves_at_once(&world, &tool);
}

#[test]
fn registered_tools_whose_files_do_not_answer_make_no_other_wait() {
    let mut world = World::new();
    let tool = world.tool("tool");
    let Some(mut disk) = SilentDisk::mounted(&world) else { return };
    let mut entry = Entry::all(&disk.tool, &["s"]);
    entry.more = vec![("relax".into(), json!(["unreadable_peer"]))];
    world.policy(&[Entry::all(&tool, &["s"]), entry]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    assert_eq!(Client::connected(&world, &disk.tool).read("s", &["k"]), found(&[("k", "v")]));
    let _silent = asking(&world, &mut disk, 3);
    serves_at_once(&world, &tool);
}
