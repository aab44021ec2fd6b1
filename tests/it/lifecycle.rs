//! Start and end of the daemon: one at a time, private from the first moment, and never over a damaged vault.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    client::{Client, found, written},
    skip::skip,
    world::{Entry, Guarded, STRANGE_UID, World, is_root, ordinary_uid, run, spawn},
};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// A world whose daemon has stored `k` = `v` in `s` and has ended.
fn with_vault() -> (World, PathBuf) {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    let status = world.stop();
    assert!(status.success(), "{status:?}");
    (world, tool)
}

#[test]
fn a_second_start_fails_naming_the_first_and_harms_nothing() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    let socket = fs::metadata(world.socket()).unwrap().ino();
    for _ in 0..3 {
        let second = world.cli(&["start"]);
        assert_eq!(second.code, Some(1), "{}", second.err);
        assert!(second.err.contains(&world.pid().to_string()), "names pid {}: {}", world.pid(), second.err);
    }
    assert_eq!(fs::metadata(world.socket()).unwrap().ino(), socket, "the socket is the same one");
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]));
}

#[test]
fn a_second_start_on_another_socket_does_not_touch_the_vault_in_use() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let other = world.tmp("other.sock");
    let second = world.cli(&["start", "--socket", other.to_str().unwrap()]);
    assert_eq!(second.code, Some(1), "{}", second.err);
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
}

#[test]
fn a_stale_socket_is_replaced_after_a_kill() {
    let (mut world, tool) = with_vault();
    for _ in 0..3 {
        world.start();
        assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]));
        world.kill();
        assert!(world.socket().exists(), "a killed daemon leaves its socket behind");
    }
    world.start();
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]));
}

#[test]
fn a_file_that_is_no_socket_is_never_removed() {
    let mut world = World::new();
    world.write(&world.socket(), b"precious");
    world.folder(world.socket().parent().unwrap(), 0o700);
    assert_eq!(world.try_start().map_err(|status| status.code()), Err(Some(1)));
    assert_eq!(fs::read(world.socket()).unwrap(), b"precious");
}

#[test]
fn the_socket_of_somebody_else_who_listens_is_not_displaced() {
    let mut world = World::new();
    world.folder(world.socket().parent().unwrap(), 0o700);
    let listener = UnixListener::bind(world.socket()).unwrap();
    std::os::unix::fs::chown(world.socket(), Some(ordinary_uid()), None).unwrap();
    let inode = fs::metadata(world.socket()).unwrap().ino();
    assert_eq!(world.try_start().map_err(|status| status.code()), Err(Some(1)));
    assert_eq!(fs::metadata(world.socket()).unwrap().ino(), inode);
    drop(listener);
}

#[test]
fn socket_and_folder_are_private_from_the_first_moment() {
    let mut world = World::new();
    let (socket, stop) = (world.socket(), Arc::new(AtomicBool::new(false)));
    let (watched, done) = (socket.clone(), Arc::clone(&stop));
    let watcher = thread::spawn(move || {
        let mut modes = std::collections::BTreeSet::new();
        while !done.load(Ordering::SeqCst) {
            for path in [watched.as_path(), watched.parent().unwrap()] {
                if let Ok(meta) = fs::symlink_metadata(path) {
                    modes.insert((meta.file_type().is_socket(), meta.permissions().mode() & 0o777));
                }
            }
        }
        modes
    });
    for _ in 0..5 {
        world.start();
        world.stop();
        fs::remove_dir_all(socket.parent().unwrap()).unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let modes: Vec<(bool, u32)> = watcher.join().unwrap().into_iter().collect();
    assert_eq!(modes, [(false, 0o700), (true, 0o600)], "modes ever seen, of folder and socket");
}

#[test]
fn everything_that_the_daemon_makes_is_private() {
    let (mut world, tool) = with_vault();
    world.start();
    // a stranger makes pending.json
    Client::connected(&world, &world.tool("stranger")).read("s", &["k"]);
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]));
    let mut folders = vec![world.data(), world.socket().parent().unwrap().to_owned()];
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{folder:?}");
        for file in fs::read_dir(&folder).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(mode(&path) & 0o077, 0, "{path:?} is {:o}", mode(&path));
            }
        }
    }
}

#[test]
fn a_runtime_folder_that_others_may_enter_is_refused_or_closed() {
    let mut world = World::new();
    let folder = world.socket().parent().unwrap().to_owned();
    world.folder(&folder, 0o777);
    if world.try_start().is_ok() {
        assert_eq!(mode(&folder), 0o700);
    }
}

#[test]
fn a_runtime_folder_of_another_user_is_refused() {
    if !is_root() {
        return skip("only root can give a folder to another user");
    }
    let mut world = World::new();
    let folder = world.socket().parent().unwrap().to_owned();
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::chown(&folder, Some(STRANGE_UID), None).unwrap();
    assert_eq!(world.try_start().map_err(|status| status.code()), Err(Some(1)));
    assert!(fs::read_dir(&folder).unwrap().next().is_none(), "nothing was made in it");
}

#[test]
fn term_and_int_end_the_daemon_cleanly() {
    for signal in [Signal::TERM, Signal::INT] {
        let (mut world, tool) = with_vault();
        world.start();
        let mut client = Client::connected(&world, &tool);
        assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
        let status = world.end(signal);
        assert_eq!(status.code(), Some(0), "{signal:?}: {status:?} {}", world.log());
        assert!(!world.socket().exists(), "{signal:?}: the socket is removed");
        assert_eq!(client.recv(), crate::client::Got::Eof);
    }
}

#[test]
fn nothing_of_the_daemon_outlives_it() {
    for signal in [Signal::TERM, Signal::KILL] {
        let (mut world, _) = with_vault();
        world.start();
        world.end(signal);
        let binary = world.binary();
        crate::world::await_that("all its processes have ended", || {
            processes_of(&binary).is_empty().then_some(())
        });
    }
}

#[test]
fn without_its_witness_the_daemon_serves_nobody_and_ends() {
    let (mut world, tool) = with_vault();
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    kill_process(pid(world.witness()), Signal::KILL).unwrap();
    let status = world.ended();
    assert_eq!(status.code(), Some(1), "{}", world.log());
    assert!(world.log().contains("witness"), "says what is gone: {}", world.log());
    assert!(!world.socket().exists(), "the socket is removed");
}

#[test]
fn with_a_witness_that_hangs_nobody_new_is_served_and_the_daemon_can_be_ended() {
    let (mut world, tool) = with_vault();
    world.start();
    let witness = pid(world.witness());
    kill_process(witness, Signal::STOP).unwrap();
    let mut client = Client::connected(&world, &tool);
    client.send(b"{\"type\":\"REQUEST\",\"action\":\"read\",\"service\":\"s\",\"targets\":[\"k\"]}\n");
    let got = client.recv_within(3_000);
    assert!(!format!("{got:?}").contains("success"), "{got:?}");
    assert_eq!(world.stop().code(), Some(0));
    let binary = world.binary();
    // a stopped process ends by the death of its parent only once it runs again
    let _ = kill_process(witness, Signal::CONT);
    crate::world::await_that("all its processes have ended", || {
        processes_of(&binary).is_empty().then_some(())
    });
}

#[test]
fn a_permission_that_is_revoked_while_the_caller_is_looked_at_releases_nothing() {
    let (mut world, tool) = with_vault();
    world.start();
    let witness = pid(world.witness());
    let mut client = Client::connected(&world, &tool);
    kill_process(witness, Signal::STOP).unwrap();
    client.send(b"{\"type\":\"REQUEST\",\"action\":\"read\",\"service\":\"s\",\"targets\":[\"k\"]}\n");
    assert!(!format!("{:?}", client.recv_within(300)).contains("Line"), "the witness has not answered yet");
    world.cli(&["revoke", tool.to_str().unwrap(), "--read", "s"]).done();
    kill_process(witness, Signal::CONT).unwrap();
    crate::client::assert_refused(&client.recv().json(), "denied", "service_not_allowed");
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed()).unwrap()
}

/// The processes that run this world's binary.
fn processes_of(binary: &Path) -> Vec<String> {
    // every world has a link of its own, so the path names the world
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let exe = fs::read_link(format!("/proc/{pid}/exe"));
            exe.is_ok_and(|exe| exe == binary) || line.starts_with(binary.as_os_str().as_encoded_bytes())
        })
        .collect()
}

#[test]
fn the_socket_flag_wins_over_the_variable_and_the_default() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let (flag, variable) = (world.tmp("flag.sock"), world.tmp("variable.sock"));
    let mut command = world.command(&world.binary());
    command.args(["start", "--socket"]).arg(&flag).env("KEYCHAIN_AUTH_SOCKET", &variable);
    let mut daemon = Guarded(spawn(&mut command));
    crate::world::await_that("it listens", || flag.exists().then_some(()));
    let mut client = Client::spawn(&world, &tool);
    assert_eq!(client.order(&format!("connect cloexec {}", flag.display()), &[]), "ok");
    assert_eq!(client.write("s", &[("k", "v")]), written());
    assert!(!variable.exists() && !world.socket().exists());
    let mut status = world.command(&world.binary());
    let said = run(status.args(["status", "--json"]).env("KEYCHAIN_AUTH_SOCKET", &flag));
    assert!(said.out.contains(flag.to_str().unwrap()), "{}", said.out);
    assert!(daemon.end(Signal::TERM).success());
    world.start();
}

/// Names and bytes of everything in the data folder but the log, the queue and locks, which hold no secrets.
fn snapshot(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(world.data())
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| {
            path.is_file()
                && !["audit.log", "pending.json", "daemon.lock"].iter().any(|name| path.ends_with(name))
        })
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// The file of the vault and the file of its key: by what they are, the larger and the one of key size.
fn vault_and_key(world: &World) -> (PathBuf, PathBuf) {
    let files = snapshot(world);
    let audit =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("audit."));
    let others = files.iter().filter(|(path, _)| !audit(path));
    let vault = others.max_by_key(|(_, bytes)| bytes.len()).unwrap().0.clone();
    let key = files
        .keys()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("key")))
        .unwrap()
        .clone();
    assert_ne!(vault, key);
    (vault, key)
}

#[track_caller]
fn refuses_to_start_and_touches_nothing(world: &mut World, what: &str) {
    let before = snapshot(world);
    let ended = world.try_start();
    assert_eq!(ended.map_err(|status| status.code()), Err(Some(1)), "{what}: {}", world.log());
    assert!(snapshot(world) == before, "{what}: the files are as they were");
    let log = world.log();
    let sentence = log.lines().last().unwrap_or_default();
    assert!(sentence.split(' ').count() >= 4, "{what}: says why in a sentence: {log}");
    assert!(!log.contains("panicked"), "{what}: {log}");
}

#[test]
fn a_vault_without_its_key_stops_the_daemon() {
    let (mut world, tool) = with_vault();
    let (_, key) = vault_and_key(&world);
    let aside = world.tmp("key");
    fs::rename(&key, &aside).unwrap();
    refuses_to_start_and_touches_nothing(&mut world, "no key");
    fs::rename(&aside, &key).unwrap();
    world.start();
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]));
}

#[test]
fn a_key_without_its_vault_stops_the_daemon() {
    let (mut world, tool) = with_vault();
    let (vault, _) = vault_and_key(&world);
    let aside = world.tmp("vault");
    fs::rename(&vault, &aside).unwrap();
    refuses_to_start_and_touches_nothing(&mut world, "no vault");
    fs::rename(&aside, &vault).unwrap();
    world.start();
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]));
}

#[test]
fn the_key_of_another_vault_stops_the_daemon() {
    let ((mut world, tool), (other, _)) = (with_vault(), with_vault());
    let ((_, key), (_, foreign)) = (vault_and_key(&world), vault_and_key(&other));
    let own = fs::read(&key).unwrap();
    world.write(&key, &fs::read(foreign).unwrap());
    refuses_to_start_and_touches_nothing(&mut world, "another key");
    world.write(&key, &own);
    world.start();
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]));
}

#[test]
fn a_key_file_that_others_may_read_stops_the_daemon() {
    let (mut world, _) = with_vault();
    let (_, key) = vault_and_key(&world);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refuses_to_start_and_touches_nothing(&mut world, "a readable key");
}

#[test]
fn a_damaged_vault_stops_the_daemon() {
    let (mut world, _) = with_vault();
    let (vault, key) = vault_and_key(&world);
    for (what, file) in [("vault", vault), ("key", key)] {
        let whole = fs::read(&file).unwrap();
        for (how, bytes) in [
            ("emptied", Vec::new()),
            ("cut in half", whole[..whole.len() / 2].to_vec()),
            ("zeroed", vec![0; whole.len()]),
            ("overwritten with text", b"not a vault\n".to_vec()),
        ] {
            world.write(&file, &bytes);
            refuses_to_start_and_touches_nothing(&mut world, &format!("the {what} {how}"));
        }
        world.write(&file, &whole);
    }
    world.start();
}
