//! Honest clients never notice the checks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::{
    client::{Client, assert_refused, found, written},
    skip::{need, skip},
    tools::Link,
    world::{Entry, World, is_root, ordinary_uid, run},
};

fn served(link: Link) {
    let mut world = World::new();
    let tool = world.install("clients/client.c", link, "bin/tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    for _ in 0..50 {
        let mut client = Client::connected(&world, &tool);
        assert_eq!(client.write("s", &[("k", "v")]), written());
        assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    }
    let refused: Vec<_> = world.audit().into_iter().filter(|record| record["result"] != "GRANTED").collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn a_dynamic_c_program_is_served() {
    served(Link::Dynamic);
}

#[test]
fn a_static_c_program_is_served() {
    served(Link::Static);
}

#[test]
fn a_rust_program_is_served() {
    let mut world = World::new();
    let tool = world.root().join("bin/dialogue");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients/dialogue.rs");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let built = rustc.args(["--edition", "2024", "-O", "-o"]).arg(&tool).arg(source).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    world.own(&tool, 0o755);
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let replies = format!("{}\n{}\n", written(), found(&[("rust", "from rust")]));
    for _ in 0..20 {
        assert_eq!(run(&mut world.command(&tool)).out, replies);
    }
}

#[test]
fn a_tool_that_is_replaced_while_it_runs_stays_approved_until_its_entry_changes() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    let mut bytes = fs::read(&tool).unwrap();
    bytes.push(0);
    let fresh = tool.with_extension("fresh");
    fs::write(&fresh, bytes).unwrap();
    world.own(&fresh, 0o755);
    fs::rename(&fresh, &tool).unwrap();
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]), "the open connection");
    client.slot(1);
    client.connect();
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]), "a new connection of the running code");
    world.cli(&["upgrade", tool.to_str().unwrap()]).done();
    assert_refused(&client.read("s", &["k"]), "denied", "unregistered_binary_pending_approval");
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]), "the new code");
}

#[test]
fn a_service_with_mounts_of_its_own_is_served() {
    if !is_root() {
        return skip("only root can give an ordinary user a mount namespace without a user namespace");
    }
    let (Some(unshare), Some(setpriv)) = (need("unshare"), need("setpriv")) else { return };
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut command = world.command_as(&unshare, 0);
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount -t tmpfs private /var/tmp && uid=$1 && shift && exec \"$0\" --reuid=$uid --regid=$uid --clear-groups \"$@\"");
    command.arg(setpriv).arg(ordinary_uid().to_string()).arg(&tool);
    let mut client = Client::from_command(&world, &mut command);
    client.connect();
    assert_eq!(client.write("s", &[("k", "v")]), written());
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
}

#[test]
fn what_is_relaxed_for_a_tool_is_in_its_records() {
    let mut world = World::new();
    let tool = world.tool("tool");
    let mut entry = Entry::all(&tool, &["s"]);
    entry.more = vec![("relax".into(), json!(["descriptor_inherited"]))];
    world.policy(&[entry]);
    world.start();
    let mut client = Client::spawn(&world, &tool);
    client.connect_inheritable();
    assert_eq!(client.write("s", &[("k", "v")]), written());
    let record = world.audit_where("the write is recorded", |record| record["action"] == "write");
    assert!(
        record["detail"].as_str().is_some_and(|detail| detail.contains("descriptor_inherited")),
        "{record}"
    );
}

/// A file system in a file, mounted until this is dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_tool_on_a_filesystem_with_two_device_numbers_is_served() {
    if !is_root() {
        return skip("only root can mount a filesystem");
    }
    let (Some(mkfs), Some(mount)) = (need("mkfs.btrfs"), need("mount")) else { return };
    let mut world = World::new();
    let (image, place) = (world.tmp("btrfs.img"), world.root().join("disk"));
    fs::File::create(&image).unwrap().set_len(128 << 20).unwrap();
    assert!(Command::new(mkfs).arg("-q").arg(&image).output().unwrap().status.success());
    world.folder(&place, 0o755);
    let mounted = Command::new(mount).args(["-o", "loop"]).args([&image, &place]).output().unwrap();
    if !mounted.status.success() {
        return skip("the kernel can't mount btrfs");
    }
    let _mounted = Mounted(place.clone());
    world.own(&place, 0o755);
    let tool = world.install("clients/client.c", Link::Dynamic, "disk/tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
}
