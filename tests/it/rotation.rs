//! The log in several files: its own rotation, that of others, a full disk, and replies that wait for the disk.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    client::{Client, Got, assert_refused, found, written},
    processes::traced,
    skip::{need, skip},
    world::{Entry, World, await_that, is_root, run},
};

fn begun(arguments: &[&str]) -> (World, PathBuf) {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start_args = arguments.iter().map(|word| (*word).to_owned()).collect();
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    (world, tool)
}

/// One read whose record has some hundred kilobytes of names.
fn long_read(client: &mut Client, number: usize) {
    let targets: Vec<String> = (0..200).map(|n| format!("{number}-{n}-{}", "x".repeat(1000))).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    assert_eq!(client.read("s", &targets), found(&[]));
}

/// The names of the log's files.
fn names(world: &World) -> Vec<String> {
    let all = fs::read_dir(world.data()).unwrap();
    let mut names: Vec<String> = all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("audit.log"));
    names.sort();
    names
}

fn whole(world: &World) -> String {
    world.cli(&["audit", "verify"]).done()
}

#[test]
fn a_full_file_is_moved_and_packed_the_oldest_goes_and_the_chain_goes_on() {
    let (mut world, tool) = begun(&["--audit-max-size=1", "--audit-max-files=2"]);
    let mut client = Client::connected(&world, &tool);
    for number in 0..12 {
        long_read(&mut client, number);
    }
    await_that("the first file is packed", || {
        names(&world).iter().any(|name| name.ends_with(".zst")).then_some(())
    });
    let all = whole(&world);
    assert!(all.contains(", 1 to ") && all.contains("whole and unchanged"), "{all}");
    // asked for by name, whichever file has it
    for number in [0, 11] {
        let target = format!("{number}-0-{}", "x".repeat(1000));
        let shown = world.cli(&["audit", "show", "--target", &target, "--json"]).done();
        assert_eq!(shown.lines().count(), 1, "read number {number}");
    }
    for number in 12..30 {
        long_read(&mut client, number);
    }
    await_that("two earlier files are left, packed", || {
        let names = names(&world);
        (names.len() == 3 && names[1..].iter().all(|name| name.ends_with(".zst"))).then_some(())
    });
    let rest = whole(&world);
    assert!(!rest.contains(", 1 to ") && rest.contains("in 3 files"), "{rest}");
    // the vault may know of a killed daemon's log as it was two seconds earlier, in which all of these files were begun
    world.kill();
    world.start();
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]));
    whole(&world);
    let changed = world.audit().into_iter().filter(|record| record["reason"] == "audit_log_changed").count();
    assert_eq!(changed, 0);
    let packed = await_that("every earlier file is packed", || {
        let names = names(&world);
        names[1..].iter().all(|name| name.ends_with(".zst")).then_some(names)
    });
    for name in packed {
        let path = world.data().join(&name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        let kept = bytes.clone();
        bytes[middle] ^= 1;
        world.write(&path, &bytes);
        assert_eq!(world.cli(&["audit", "verify"]).code, Some(1), "{name} was changed");
        world.write(&path, &kept);
    }
}

#[test]
fn a_log_that_others_rotate_goes_on_in_a_new_file_at_the_signal() {
    let (mut world, tool) = begun(&[]);
    let log = world.data().join("audit.log");
    let mut client = Client::connected(&world, &tool);
    for name in ["audit.log.2", "audit.log.1"] {
        assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
        fs::rename(&log, world.data().join(name)).unwrap();
        kill_process(Pid::from_raw(world.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
        await_that("the new file is begun", || fs::metadata(&log).is_ok_and(|it| it.len() > 0).then_some(()));
        assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    }
    assert_eq!(world.audit().iter().filter(|record| record["reason"] == "audit_log_changed").count(), 0);
    assert!(whole(&world).contains("in 3 files"));
    // nothing was moved: nothing happens
    let records = world.audit_all().len();
    kill_process(Pid::from_raw(world.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    assert_eq!(world.audit_all().len(), records + 1);
    assert!(world.stop().success());
}

/// The rules that docs/audit.md gives, for this log and this daemon: the user's own logrotate needs no `su`, and there is no
/// systemd here to send the signal.
fn rules_of_the_page(world: &World) -> String {
    let page = include_str!("../../docs/audit.md");
    let begins = page.find("/home/you/.local/share/keychain-auth/audit.log {").expect("rules for logrotate");
    let rules = &page[begins..][..page[begins..].find("```").expect("their end")];
    let own = |line: &str| match line.trim() {
        "su you you" => String::new(),
        "systemctl --user kill --signal=HUP keychain-auth.service" => format!("kill -HUP {}", world.pid()),
        "rotate 20" => "rotate 2".to_owned(),
        line => line.replace("/home/you/.local/share/keychain-auth", world.data().to_str().unwrap()),
    };
    let own: Vec<String> = rules.lines().map(own).collect();
    assert!(
        own.iter().any(String::is_empty) && own.contains(&format!("kill -HUP {}", world.pid())),
        "{own:?}"
    );
    own.join("\n")
}

/// logrotate itself.
#[test]
fn logrotate_moves_the_log_and_loses_no_record() {
    let Some(logrotate) = need("logrotate") else { return };
    let (mut world, tool) = begun(&[]);
    let log = world.data().join("audit.log");
    let (rules, state) = (world.tmp("logrotate.conf"), world.tmp("logrotate.state"));
    world.write(&rules, format!("{}\n", rules_of_the_page(&world)).as_bytes());
    let mut client = Client::connected(&world, &tool);
    let mut first = Vec::new();
    for round in 0..4 {
        assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
        let mut command = world.command(&logrotate);
        command.args(["--force", "--state"]).arg(&state).arg(&rules);
        let rotated = run(&mut command);
        assert_eq!((rotated.code, rotated.err.as_str()), (Some(0), ""), "{rotated:?}");
        await_that("the new file is begun", || fs::metadata(&log).is_ok_and(|it| it.len() > 0).then_some(()));
        let whole = whole(&world);
        let files = if round == 0 { 2 } else { 3 };
        assert!(whole.contains(&format!("in {files} files")), "{whole}");
        first.push(world.audit_all()[0]["seq"].as_u64().unwrap());
    }
    assert!(
        first.is_sorted_by(|one, next| one < next),
        "each file goes on where the last one ended: {first:?}"
    );
    assert_eq!(names(&world), ["audit.log", "audit.log.1", "audit.log.2"]);
    // every record behind those of the files that logrotate removed, none twice
    let shown = world.cli(&["audit", "show", "--json"]).done();
    let number =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap();
    let numbers: Vec<u64> = shown.lines().map(number).collect();
    assert_eq!(numbers, (first[1]..first[1] + numbers.len() as u64).collect::<Vec<_>>());
    assert!(!shown.contains("audit_log_changed"), "{shown}");
    assert_eq!(client.write("s", &[("k", "w")]), written());
    drop(client);
    assert!(world.stop().success());
    whole(&world);
}

#[test]
fn under_synced_no_reply_leaves_before_the_disk_has_its_record() {
    let (Some(strace), true) = (need("strace"), is_root()) else {
        return skip("only root can watch the daemon");
    };
    let counted = |how: &str| {
        let (world, tool) = begun(&[&format!("--audit-durability={how}")]);
        let out = world.root().join("calls");
        let mut watch = Command::new(&strace);
        watch.args(["-f", "-e", "trace=fdatasync,sendto", "-o"]).arg(&out);
        let mut watching = traced(&mut watch, world.pid());
        let mut client = Client::connected(&world, &tool);
        for _ in 0..20 {
            assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
        }
        watching.end(Signal::INT);
        fs::read_to_string(out).unwrap()
    };
    // between two replies of one client there is a sync that succeeded
    let calls = counted("synced");
    let (mut synced, mut replies) = (false, 0);
    for line in calls.lines() {
        synced |= line.contains("fdatasync") && line.ends_with("= 0");
        if line.contains("sendto(") && line.contains("MSG_DONTWAIT") {
            assert!(synced, "{calls}");
            (synced, replies) = (false, replies + 1);
        }
    }
    assert!(replies >= 20, "{calls}");
    let calls = counted("written");
    assert!(calls.lines().filter(|line| line.contains("fdatasync(")).count() < 20, "{calls}");
}

/// A small disk of its own for the data folder, until this is dropped.
pub struct Disk(PathBuf);

impl Disk {
    pub fn under(world: &World, size: &str) -> Self {
        let data = world.data();
        for folder in [".local", ".local/share", ".local/share/keychain-auth"] {
            world.folder(&world.home().join(folder), 0o700);
        }
        let owner = format!("size={size},mode=0700,uid={0},gid={0}", world.uid());
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &owner, "small"]).arg(&data)).done();
        Self(data)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Takes all room that is left on the disk of `folder`.
pub fn fill(folder: &Path) {
    let mut file = fs::File::create(folder.join("filler")).unwrap();
    for size in [1 << 16, 1 << 12, 1] {
        let block = vec![1; size];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }
}

#[test]
fn on_a_full_disk_nothing_leaves_without_its_record_and_refusals_are_still_recorded() {
    if !is_root() {
        return skip("only root can make a small disk");
    }
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let _disk = Disk::under(&world, "4m");
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    fill(&world.data());
    let (mut served, mut refused) = (0, 0);
    for _ in 0..400 {
        let reply = client.read("s", &["k"]);
        if reply == found(&[("k", "v")]) {
            served += 1;
        } else {
            assert_refused(&reply, "error", "audit_unavailable");
            refused += 1;
        }
    }
    assert!(refused > 300, "{served} served, {refused} refused");
    let reads = |world: &World| {
        let granted = |r: &serde_json::Value| r["action"] == "read" && r["result"] == "GRANTED";
        world.audit().into_iter().filter(granted).count()
    };
    assert_eq!(reads(&world), served, "one record for each that was served");
    let mut stranger = Client::connected(&world, &world.tool("stranger-of-another-hash"));
    let asked = stranger.read("s", &["k"]);
    assert_refused(&asked, "denied", "unregistered_binary_pending_approval");
    assert_eq!(reads(&world), served, "the reserve is for refusals");
    assert_refused(&client.read("s", &["k"]), "error", "audit_unavailable");
    // room is made, and nothing else has to be done
    fs::remove_file(world.data().join("filler")).unwrap();
    await_that("it is served again", || (client.read("s", &["k"]) == found(&[("k", "v")])).then_some(()));
    whole(&world);
    assert_eq!(client.write("s", &[("k", "w")]), written());
    drop(client);
    assert!(world.stop().success());
    whole(&world);
}

#[test]
fn many_clients_share_a_sync() {
    let (world, tool) = begun(&["--audit-durability=synced"]);
    let request = json!({"type": "REQUEST", "action": "read", "service": "s", "targets": ["k"]});
    let mut clients: Vec<Client> = (0..16).map(|_| Client::connected(&world, &tool)).collect();
    for client in &mut clients {
        client.send(format!("{request}\n").repeat(10).as_bytes());
    }
    for client in &mut clients {
        for _ in 0..10 {
            assert!(matches!(client.recv(), Got::Line(_)));
        }
    }
    assert_eq!(world.audit().iter().filter(|record| record["action"] == "read").count(), 160);
    whole(&world);
}
