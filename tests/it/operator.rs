//! What the operator hears of the daemon, and what it costs when nobody listens.

use std::{
    fs::{self, File},
    io::Read,
    os::{
        fd::OwnedFd,
        unix::{fs::fchown, net::UnixStream, process::ExitStatusExt},
    },
    process::{Command, Stdio},
    sync::Mutex,
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, fchmod, fcntl_getfl, fcntl_setfl, fstat},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};
use serde_json::{Value, json};

use crate::{
    client::{Client, assert_refused, found, written},
    processes::served_by,
    skip::{need, skip},
    world::{Entry, Guarded, World, await_that, is_root, run, spawn},
};

/// A pipe that takes no more, its end to read first.
pub fn full_pipe() -> (File, OwnedFd) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    for size in [4096, 1] {
        while rustix::io::write(&writer, &vec![b'.'; size]).is_ok() {}
    }
    assert_eq!(rustix::io::write(&writer, b"."), Err(Errno::AGAIN));
    // what the daemon gets is as a shell gives it
    fcntl_setfl(&writer, flags).unwrap();
    (File::from(reader), writer)
}

#[test]
fn a_daemon_whose_messages_nobody_reads_serves_on_and_says_later_that_some_are_missing() {
    let world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let (mut reader, writer) = full_pipe();
    fchown(&writer, Some(world.uid()), None).unwrap();
    let mut command = world.command(&world.binary());
    command.arg("start").stderr(Stdio::from(writer));
    let (mut daemon, mut client) = served_by(&world, &tool, command);
    let fault = |client: &mut Client, round: usize| {
        // another fault each time: the same one is told once
        world.policy_text(&format!("{}{{", "\n".repeat(round)));
        assert_refused(&client.read("s", &["k"]), "error", "internal_error");
        world.policy(&[Entry::all(&tool, &["s"])]);
        assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    };
    for round in 0..10 {
        fault(&mut client, round);
    }
    // somebody reads again
    let mut filling = vec![0; 64 * 1024];
    reader.read_exact(&mut filling).unwrap();
    assert!(filling.iter().all(|byte| *byte == b'.'), "nothing was in between");
    fault(&mut client, 10);
    assert!(daemon.end(rustix::process::Signal::TERM).success());
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    let first = said.trim_start_matches('.').lines().next().unwrap_or_default().to_owned();
    assert!(first.contains("lines of this log are missing here"), "{said}");
    assert!(said.contains("every request is denied"), "the last fault is told: {said}");
}

/// A terminal of this process's user: who holds it, how to begin to read there, and what the daemon gets.
fn terminal() -> Option<(Guarded, impl FnOnce() -> File, OwnedFd)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/unread.py");
    let mut holder = Command::new(need("python3")?);
    holder.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = Guarded(spawn(&mut holder));
    let (begin, said) = (holder.0.stdin.take().unwrap(), holder.0.stdout.take().unwrap());
    let mut said = File::from(OwnedFd::from(said));
    let mut name = Vec::new();
    while !name.ends_with(b"\n") {
        let mut byte = [0];
        said.read_exact(&mut byte).unwrap();
        name.push(byte[0]);
    }
    let name = String::from_utf8(name).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.trim_end(), flags, Mode::empty()).unwrap();
    fchmod(&slave, Mode::RUSR | Mode::WUSR).unwrap();
    let listen = move || {
        drop(begin);
        said
    };
    Some((holder, listen, slave))
}

/// The same where standard error can't be opened anew, and a write waits until somebody reads.
fn unheard_by_another_user(listen: impl FnOnce() -> File, stderr: OwnedFd) {
    let world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let mut command = world.command(&world.binary());
    command.arg("start").stderr(Stdio::from(stderr));
    let (mut daemon, mut client) = served_by(&world, &tool, command);
    let mut round = 0;
    let mut fault = || {
        round += 1;
        // another fault each time: the same one is told once
        world.policy_text(&format!("{}{{", "\n".repeat(round)));
        assert_refused(&client.read("s", &["k"]), "error", "internal_error");
        world.policy(&[Entry::all(&tool, &["s"])]);
        assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    };
    for _ in 0..300 {
        fault();
    }
    // somebody reads again
    let (mut reader, said) = (listen(), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut piece) {
                said.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        let said = || String::from_utf8_lossy(&said.lock().unwrap()).into_owned();
        await_that("it says that lines are missing", || {
            fault();
            said().contains("lines of this log are missing here").then_some(())
        });
        assert!(daemon.end(rustix::process::Signal::TERM).success());
        assert!(said().contains("every request is denied"), "{}", said());
    });
}

#[test]
fn a_daemon_on_a_terminal_or_pipe_of_another_user_that_nobody_reads_serves_on() {
    if !is_root() {
        return skip("only root can give a process a terminal of another user");
    }
    let (reader, writer) = full_pipe();
    unheard_by_another_user(|| reader, writer);
    if let Some((_holder, listen, terminal)) = terminal() {
        unheard_by_another_user(listen, terminal);
    }
}

/// What a daemon says whose stderr is a socket, as under systemd, while its log is removed and when it ends. The journal
/// is named as systemd does it, by device and inode, or it is named wrongly, as for a service that was redirected.
fn told_to_journald(named: bool) -> String {
    let world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    let (mut journal, theirs) = UnixStream::pair().unwrap();
    let stat = fstat(&theirs).unwrap();
    let inode = if named { stat.st_ino } else { stat.st_ino + 1 };
    let mut command = world.command(&world.binary());
    command.arg("start").env("JOURNAL_STREAM", format!("{}:{inode}", stat.st_dev));
    command.stderr(OwnedFd::from(theirs));
    let (mut daemon, mut client) = served_by(&world, &tool, command);
    fs::remove_file(world.data().join("audit.log")).unwrap();
    world.policy_text("{");
    assert_refused(&client.read("s", &["k"]), "error", "internal_error");
    assert!(daemon.end(rustix::process::Signal::TERM).success());
    let mut said = String::new();
    journal.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn journald_gets_a_priority_before_each_line_and_a_file_gets_a_time() {
    let said = told_to_journald(true);
    let of = |words: &str| said.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{said}"));
    assert!(of("listening on").starts_with("<6>listening on /"), "{said}");
    assert!(
        of("the audit log was changed").starts_with("<4>the audit log was changed: the file was removed")
    );
    assert!(of("every request is denied").starts_with("<3>"), "{said}");
    assert!(said.lines().all(|line| line.starts_with('<') && line.as_bytes()[2] == b'>'), "{said}");
    assert!(!said.contains('\u{1b}'), "no colours: {said}");
    // the variable is inherited by whatever redirects
    let said = told_to_journald(false);
    assert!(said.lines().all(|line| line.starts_with("20") && line.contains("Z ")), "{said}");
}

#[test]
fn a_level_of_the_log_that_is_none_is_said() {
    let world = World::new();
    for (level, told) in [("verbose", true), ("warn", false), ("", false), ("debug", false)] {
        let mut command = world.command(&world.binary());
        command.arg("start").env("KEYCHAIN_AUTH_LOG", level);
        let said = world.tmp(&format!("said-{level}"));
        command.stderr(File::create(&said).unwrap());
        let mut daemon = Guarded(spawn(&mut command));
        await_that("it answers", || {
            world.cli(&["status", "--json"]).out.contains("\"daemon_running\": true").then_some(())
        });
        assert!(daemon.end(rustix::process::Signal::TERM).success());
        let said = fs::read_to_string(&said).unwrap();
        assert_eq!(said.contains("KEYCHAIN_AUTH_LOG is none of"), told, "{level}: {said}");
    }
}

#[test]
fn without_memory_the_daemon_ends_as_such_and_not_as_one_that_was_taken_over() {
    let Some(prlimit) = need("prlimit") else { return };
    for requests in [false, true] {
        let mut world = World::new();
        let tool = world.tool("tool");
        world.policy(&[Entry::all(&tool, &["s"])]);
        world.start_env = vec![("RUST_BACKTRACE".into(), "1".into())];
        world.start();
        let mut clients: Vec<Client> = (0..6).map(|_| Client::connected(&world, &tool)).collect();
        assert_eq!(clients[0].write("s", &[("k", "v")]), written());
        let pages = fs::read_to_string(format!("/proc/{}/statm", world.pid())).unwrap();
        let pages: u64 = pages.split_once(' ').unwrap().0.parse().unwrap();
        let mut limit = world.command(&prlimit);
        limit.arg(format!("--pid={}", world.pid())).arg(format!("--as={}:", pages * 4096));
        run(&mut limit).done();
        // names that need heap, one request at a time, or lines that need more than the memory for secrets
        let names: Vec<String> = (0..1000).map(|number| format!("{number:0>1000}")).collect();
        let line = json!({"type": "REQUEST", "action": "read", "service": "s", "targets": names}).to_string();
        for client in &mut clients {
            if requests {
                client.send(format!("{line}\n").as_bytes());
                client.recv();
            } else {
                client.send(line.as_bytes());
            }
        }
        let status = world.ended();
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{requests}: {status:?} {}", world.log());
        let log = world.log();
        // which of the two gives out first hangs on what they have in stock
        let said = ["memory allocation of", "there is no memory for a secret"]
            .iter()
            .any(|words| log.contains(words));
        assert!(said && !log.contains("taken over"), "{log}");
    }
}

#[test]
fn a_shortage_of_descriptors_is_told_once_however_long_it_lasts() {
    let Some(prlimit) = need("prlimit") else { return };
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    let pid = world.pid().to_string();
    // any process of the user can do that to the daemon
    let limit = |limit: &str| run(world.command(&prlimit).args(["--pid", &pid]).arg(limit)).done();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).map_or(24, Iterator::count);
    limit(&format!("--nofile={}:", open + 1));
    let idle: Vec<UnixStream> = (0..60).map(|_| UnixStream::connect(world.socket()).unwrap()).collect();
    await_that("one after the other had to go", || {
        let gone = |stream: &&UnixStream| {
            let mut fds = [PollFd::new(*stream, PollFlags::RDHUP)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
        };
        (idle.iter().filter(gone).count() >= 30).then_some(())
    });
    limit("--nofile=1024:");
    drop(idle);
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[("k", "v")]));
    let told = |words| world.log().matches(words).count();
    assert_eq!(told("no descriptors or memory for another connection"), 1, "{}", world.log());
    assert!(told("Too many open files") <= 1, "{}", world.log());
}

#[test]
fn secrets_beyond_the_locked_memory_are_told_by_status_and_doctor_with_what_to_do() {
    let Some(prlimit) = need("prlimit") else { return };
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    // what the daemon locks at its start, and no page more
    world.start_through = [prlimit.to_str().unwrap(), "--memlock=4194304"].map(str::to_owned).to_vec();
    world.start();
    let status = || -> Value { serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap() };
    let row = || {
        let table: Value = serde_json::from_str(&world.cli(&["doctor", "--json"]).out).unwrap();
        let rows = table["checks"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["name"] == "secrets in memory").expect("a row about it")
    };
    let (before, protected) = (status()["memory"].clone(), || {
        let protections = status()["protections"].as_array().unwrap().clone();
        protections.into_iter().find(|one| one["name"] == "locked_memory").expect("a protection of that name")
    });
    assert_eq!(before["spilled"], false);
    assert!(!protected()["means"].as_str().unwrap().contains("did not fit"), "{}", protected());
    assert_eq!(row()["state"], "ok");
    assert!(!world.cli(&["status"]).done().contains("swapped"));
    let mut client = Client::connected(&world, &tool);
    let value = "v".repeat(60 << 10);
    let names: Vec<String> = (0..90).map(|number| format!("t{number}")).collect();
    for names in names.chunks(15) {
        let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
        assert_eq!(client.write("s", &pairs), written());
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(client.read("s", &all)["results"].as_array().unwrap().len(), all.len());
    // that it happened, and nothing that depends on how long anybody's value is
    assert_eq!(status()["memory"], json!({"kept": before["kept"], "spilled": true}));
    assert!(protected()["means"].as_str().unwrap().contains("but for what did not fit"), "{}", protected());
    let (told, row) = (world.cli(&["status"]).done(), row());
    assert!(told.contains("in memory that may be swapped") && told.contains("LimitMEMLOCK"), "{told}");
    assert_eq!(row["state"], "warn", "{row}");
    assert!(row["advice"].as_str().unwrap().contains("ulimit -l"), "{row}");
}
