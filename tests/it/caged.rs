//! What a caged daemon meets in its life and survives; what it can't do, and what others see of it, is in `cage`.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use rustix::{
    fs::{XattrFlags, setxattr},
    process::Signal,
};

use crate::{
    client::{Client, assert_refused, found, written},
    processes::served_by,
    skip::need,
    world::{Entry, World, run},
};

#[test]
fn a_daemon_without_protections_must_be_confirmed() {
    let mut world = World::new();
    world.start_args = vec!["--hardening=off".into()];
    let ended = world.try_start().map_err(|status| status.code());
    assert_eq!(ended, Err(Some(1)), "{}", world.log());
    assert!(world.log().contains("KEYCHAIN_AUTH_ALLOW_UNHARDENED=1"), "says how: {}", world.log());
    assert!(!world.data().exists(), "nothing was made");
}

/// What others do to the log must not lead the caged daemon to a system call that it may not make.
#[test]
fn whatever_is_done_to_its_log_the_daemon_serves_on_and_the_log_says_it() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    let log = world.data().join("audit.log");
    let copy = |bytes: &[u8]| world.write(&log, bytes);
    type Touch<'a> = &'a dyn Fn(Vec<u8>);
    let touches: [(&str, Touch<'_>); 5] = [
        ("removed", &|_| fs::remove_file(&log).unwrap()),
        ("replaced", &|bytes| copy(&bytes)),
        ("truncated", &|_| File::options().write(true).open(&log).unwrap().set_len(0).unwrap()),
        ("cut within a line", &|bytes| {
            File::options().write(true).open(&log).unwrap().set_len(bytes.len() as u64 - 3).unwrap();
        }),
        ("written by others", &|_| {
            File::options().append(true).open(&log).unwrap().write_all(b"{\"a\":1}\n").unwrap();
        }),
    ];
    for (how, touch) in touches {
        assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]), "before it is {how}");
        touch(fs::read(&log).unwrap());
        assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]), "{how}: {}", world.log());
        assert_eq!(client.write("s", &[("k", "v")]), written(), "{how}");
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.contains("\"audit_log_changed\""), "{how}: {text}");
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o7777, 0o600, "{how}");
        copy(b"");
    }
    assert!(world.stop().success());
}

/// A disk that is full is no reason to end: the vault is opened again from inside the cage.
#[test]
fn a_disk_that_takes_no_more_ends_no_daemon() {
    let Some(prlimit) = need("prlimit") else { return };
    let world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let mut command = world.command(Path::new("/bin/sh"));
    command.args(["-c", "trap '' XFSZ; exec \"$0\" start"]).arg(world.binary());
    // what it would say has no place either
    let said = world.tmp("stderr");
    let full = File::create(&said).unwrap();
    full.set_len(64 << 20).unwrap();
    command.stderr(File::options().append(true).open(&said).unwrap());
    let (mut daemon, mut client) = served_by(&world, &tool, command);
    // the daemon's user sets it, as nobody else may
    let limit = |bytes: String| {
        let mut limit = world.command(&prlimit);
        limit.arg(format!("--pid={}", daemon.0.id())).arg(format!("--fsize={bytes}:"));
        run(&mut limit).done();
    };
    limit(fs::metadata(world.data().join("vault.redb")).unwrap().len().to_string());
    let long = "v".repeat(60_000);
    let many: Vec<(&str, &str)> = ["a", "b", "c", "d"].map(|name| (name, long.as_str())).to_vec();
    for _ in 0..3 {
        assert_refused(&client.write("s", &many), "error", "internal_error");
        assert_eq!(client.read("s", &["k", "a"]), found(&[("k", "v")]));
    }
    limit("unlimited".into());
    assert_eq!(client.write("s", &many), written());
    assert!(daemon.end(Signal::TERM).success());
}

/// Who can write the policy's folder may put a link there; looking where it leads is no call that ends the daemon.
#[test]
fn a_policy_behind_a_link_that_climbs_is_read() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let config = world.config();
    let folder = config.parent().unwrap().to_owned();
    fs::rename(&config, folder.join("real.json")).unwrap();
    world.folder(&folder.join("deeper"), 0o700);
    symlink("deeper/../real.json", &config).unwrap();
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    assert!(world.stop().success());
}

/// A default ACL gives new files another mode than the daemon asks for, and it may change none once it is caged.
#[test]
fn a_folder_whose_default_acl_takes_rights_from_new_files_ends_no_daemon() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    let log = world.data().join("audit.log");
    fs::rename(&log, world.tmp("audit.log")).unwrap();
    setxattr(world.data(), "system.posix_acl_default", &only_readable(), XattrFlags::empty()).unwrap();
    assert_refused(&client.read("s", &["k"]), "error", "audit_unavailable");
    assert!(!log.exists(), "the file with the wrong mode is gone again");
    fs::rename(world.tmp("audit.log"), &log).unwrap();
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    assert!(world.stop().success());
}

/// A default ACL as the kernel keeps it: not even the owner may write.
fn only_readable() -> Vec<u8> {
    let (version, nobody) = (2_u32, u32::MAX);
    let entry = |tag: u16, rights: u16| [tag.to_le_bytes(), rights.to_le_bytes()].concat();
    let mut bytes = version.to_le_bytes().to_vec();
    // owner, group, others
    for (tag, rights) in [(1, 4), (4, 0), (32, 0)] {
        bytes.extend(entry(tag, rights));
        bytes.extend(nobody.to_le_bytes());
    }
    bytes
}

#[test]
fn too_few_descriptors_are_refused_with_the_command_that_raises_them() {
    let Some(prlimit) = need("prlimit") else { return };
    let mut world = World::new();
    world.start_through = [prlimit.to_str().unwrap(), "--nofile=80"].map(String::from).to_vec();
    let ended = world.try_start().map_err(|status| status.code());
    assert_eq!(ended, Err(Some(1)), "{}", world.log());
    assert!(world.log().contains("ulimit -n"), "{}", world.log());
    assert!(!world.data().exists(), "nothing was made");
}
