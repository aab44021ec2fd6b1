//! Many strangers, large strangers, restless strangers: registered clients don't wait for them.

use std::{fs, os::unix::ffi::OsStrExt, path::PathBuf, thread, time::Duration};

use serde_json::json;

use crate::{
    client::{Client, found, written},
    skip::{need, skip},
    world::{Entry, World, await_that, is_root},
};

fn world_with_tool() -> (World, PathBuf) {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    (world, tool)
}

fn request() -> Vec<u8> {
    format!("{}\n", json!({"type": "REQUEST", "action": "read", "service": "s", "targets": ["k"]}))
        .into_bytes()
}

#[test]
fn sixty_four_strangers_of_four_gigabytes_delay_no_registered_client() {
    let (world, tool) = world_with_tool();
    let giant = world.tool("giant");
    fs::OpenOptions::new().write(true).open(&giant).unwrap().set_len(4 << 30).unwrap();
    let mut strangers: Vec<Client> = (0..64).map(|_| Client::connected(&world, &giant)).collect();
    for stranger in &mut strangers {
        stranger.send(&request());
    }
    for _ in 0..10 {
        let mut client = Client::spawn(&world, &tool);
        client.connect();
        // to hash a quarter of a terabyte first would take minutes
        assert_eq!(client.read("s", &["k"]), found(&[("k", "v")]));
    }
    for stranger in &mut strangers {
        assert_eq!(stranger.recv().json()["status"], "denied");
    }
}

/// The calls of keeper and witness, as strace sees them in their order.
#[test]
fn a_stranger_costs_neither_hash_nor_scan_before_its_refusal_and_a_changed_tool_no_scan() {
    const SCANS: [&str; 5] = ["\"maps\"", "\"map_files", "\"pagemap\"", "\"fd\"", "\"task\""];
    if !is_root() {
        return skip("only root can see the arguments of the daemon's calls");
    }
    let (Some(strace), Some(setpriv)) = (need("strace"), need("setpriv")) else { return };
    let mut world = World::new();
    let (tool, changed, stranger) = (world.tool("tool"), world.tool("changed"), world.tool("stranger"));
    world.policy(&[Entry::all(&tool, &["s"]), Entry::all(&changed, &["s"])]);
    for other in [&changed, &stranger] {
        fs::write(other, [fs::read(other).unwrap(), vec![0]].concat()).unwrap();
    }
    let trace = world.tmp("trace");
    let strace = [strace.to_str().unwrap(), "-D", "-f", "-qq", "-o", trace.to_str().unwrap()];
    let (user, group) = (format!("--reuid={}", world.uid()), format!("--regid={}", world.uid()));
    let setpriv = [setpriv.to_str().unwrap(), &user, &group, "--clear-groups"];
    world.start_through = strace.into_iter().chain(setpriv).map(str::to_owned).collect();
    world.start_undropped = true;
    world.start();
    let keeper = world.pid();
    let begun = fs::read_to_string(&trace).unwrap().lines().count();
    for (other, advice) in [(&stranger, "keychain-auth register"), (&changed, "keychain-auth upgrade")] {
        let reply = Client::connected(&world, other).read("s", &["k"]);
        assert!(reply["message"].as_str().unwrap().contains(advice), "{reply}");
        await_that("it waits for approval", || {
            let queue = fs::read_to_string(world.data().join("pending.json")).unwrap_or_default();
            queue.contains(other.to_str().unwrap()).then_some(())
        });
    }
    assert_eq!(Client::connected(&world, &tool).write("s", &[("k", "v")]), written());
    assert!(world.stop().success());
    // strace writes late what it saw
    let trace = await_that("strace has written all", || {
        let trace = fs::read_to_string(&trace).unwrap();
        trace.contains("exit_group(").then_some(trace)
    });
    let calls: Vec<&str> = trace.lines().skip(begun).collect();
    // strace sees no reply, which lies in secret memory, but it sees when one is sent
    let keeper = format!("{keeper} ");
    let sent: Vec<usize> = (0..calls.len())
        .filter(|at| calls[*at].starts_with(&keeper) && calls[*at].contains("sendto("))
        .collect();
    let [first, second, ..] = sent[..] else { panic!("two refusals: {sent:?}") };
    let scans = |calls: &[&str]| {
        calls
            .iter()
            .filter(|call| call.contains("openat(") && SCANS.iter().any(|scan| call.contains(scan)))
            .count()
    };
    // the first bytes of a program
    let reads = |calls: &[&str]| calls.iter().filter(|call| call.contains("\"\\177ELF")).count();
    assert_eq!((scans(&calls[..first]), reads(&calls[..first])), (0, 0), "{:#?}", &calls[..first]);
    let between = &calls[first..second];
    assert_eq!(scans(between), 0, "{between:#?}");
    assert_eq!(reads(between), 2, "one is hashed for the queue, the other to be refused: {between:#?}");
    assert!(scans(&calls[second..]) >= 3, "the tool that is served is looked at: {:#?}", &calls[second..]);
}

/// Connects, asks, takes the answer and closes, again and again for some seconds; how often.
fn hammer(client: &mut Client) -> usize {
    client.order(&format!("hammer {} 4000", request().len()), &request()).parse().unwrap()
}

#[test]
fn strangers_that_reconnect_in_a_loop_leave_a_registered_client_its_turns_and_are_queued_together() {
    let (world, tool) = world_with_tool();
    let mut client = Client::spawn(&world, &tool);
    let mut restless: Vec<Client> =
        (0..8).map(|number| Client::spawn(&world, &world.tool(&format!("stranger{number}")))).collect();
    let written_at = || fs::metadata(world.data().join("pending.json")).and_then(|meta| meta.modified()).ok();
    let (served, strangers, writes) = thread::scope(|scope| {
        let noise: Vec<_> = restless.iter_mut().map(|stranger| scope.spawn(|| hammer(stranger))).collect();
        let served = scope.spawn(|| hammer(&mut client));
        let mut seen = std::collections::BTreeSet::new();
        while !served.is_finished() || noise.iter().any(|stranger| !stranger.is_finished()) {
            seen.extend(written_at());
            thread::sleep(Duration::from_millis(5));
        }
        let strangers: Vec<usize> = noise.into_iter().map(|stranger| stranger.join().unwrap()).collect();
        (served.join().unwrap(), strangers, seen.len())
    });
    let granted = |record: &serde_json::Value| record["action"] == "read" && record["result"] == "GRANTED";
    let granted = world.audit().into_iter().filter(granted).count();
    assert_eq!(granted, served, "each of its connections was served");
    // all wait in one line for the same event loop: who is served and verified has at least the fifth part of their turns
    let rounds: usize = strangers.iter().sum();
    assert!(served * 5 * strangers.len() >= rounds, "{served} beside {strangers:?}");
    assert!(writes * 10 <= rounds, "pending.json was written {writes} times for {rounds} strangers");
}

#[test]
fn a_path_or_argument_with_control_characters_forges_no_line() {
    let (world, _) = world_with_tool();
    let ask = crate::tools::compiled("attacks/ask.c", crate::tools::Link::Dynamic);
    let evil: [&[u8]; 4] = [
        b"line\n{\"timestamp\":\"2026-01-01T00:00:00Z\",\"action\":\"read\",\"result\":\"GRANTED\"}",
        b"screen\x1b[2J\x1b]0;title\x07",
        b"bytes\xff\xfe\xc0\xaf",
        b"c1\xc2\x9b31m quote\" back\\slash",
    ];
    for name in evil {
        let folder = world.root().join("bin").join(std::ffi::OsStr::from_bytes(name));
        world.folder(&folder, 0o755);
        let program = folder.join("ask");
        world.copy(&ask, &program);
        let mut command = world.command(&program);
        command.arg(world.socket()).arg(String::from_utf8(request()).unwrap().trim_end());
        let outcome = crate::world::run(&mut command);
        assert!(
            outcome.out.contains("unregistered_binary_pending_approval"),
            "{}{}",
            outcome.out,
            outcome.err
        );
    }
    // every line is read as a record, and so each is whole and of the known shape
    let denied = world.audit().into_iter().filter(|record| record["result"] == "DENIED").count();
    assert_eq!(denied, evil.len());
    let shown = crate::world::await_that("they wait for approval", || {
        Some(world.cli(&["list-pending"]).done()).filter(|shown| shown.matches("/ask").count() >= evil.len())
    });
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    let log = world.cli(&["audit", "show"]).done();
    assert!(!log.contains(|c: char| c.is_control() && c != '\n'), "{log:?}");
}

#[test]
fn the_queue_holds_128_strangers_and_no_more() {
    let (world, _) = world_with_tool();
    let ask = crate::tools::compiled("attacks/ask.c", crate::tools::Link::Dynamic);
    let waiting = || {
        let listed: serde_json::Value =
            serde_json::from_str(&world.cli(&["list-pending", "--json"]).done()).unwrap();
        listed["pending"].as_array().unwrap().len()
    };
    for number in 0..160 {
        let program = world.root().join(format!("bin/stranger{number}"));
        world.copy(&ask, &program);
        let mut command = world.command(&program);
        command.arg(world.socket()).arg(String::from_utf8(request()).unwrap().trim_end());
        assert!(crate::world::run(&mut command).out.contains("denied"));
        if number % 40 == 39 {
            let enough = 128.min(number + 1);
            crate::world::await_that("those so far wait", || (waiting() >= enough).then_some(()));
        }
    }
    assert_eq!(waiting(), 128);
}

/// The paths that `list-pending` shows, asked once.
fn listed(world: &World) -> Vec<PathBuf> {
    let said: serde_json::Value =
        serde_json::from_str(&world.cli(&["list-pending", "--json"]).done()).unwrap();
    let pending = said["pending"].as_array().unwrap().iter();
    pending.map(|one| PathBuf::from(one["path"].as_str().unwrap())).collect()
}

/// Asks once as a stranger.
fn refused(world: &World, path: &std::path::Path) {
    let reply = Client::connected(world, path).read("s", &["k"]);
    assert_eq!(reply["reason"], "unregistered_binary_pending_approval");
}

#[test]
fn a_stranger_is_listed_approved_and_denied_by_the_command_that_follows_its_refusal() {
    let (world, _) = world_with_tool();
    // the first begins the second in which pending.json is not written again
    for number in 0..4 {
        let stranger = world.tool(&format!("stranger{number}"));
        refused(&world, &stranger);
        assert!(listed(&world).contains(&stranger), "{number}");
    }
    let (welcome, unwelcome) = (world.tool("welcome"), world.tool("unwelcome"));
    // each with bytes of its own, since a hash is what they are called by
    for (stranger, length) in [(&welcome, 2 << 20), (&unwelcome, 3 << 20)] {
        fs::OpenOptions::new().write(true).open(stranger).unwrap().set_len(length).unwrap();
    }
    refused(&world, &welcome);
    world.cli(&["approve", &crate::tools::hash_of(&welcome)]).done();
    refused(&world, &unwelcome);
    world.cli(&["deny", &crate::tools::hash_of(&unwelcome)]).done();
    let waiting = listed(&world);
    assert!(!waiting.contains(&welcome) && !waiting.contains(&unwelcome), "{waiting:?}");
}

#[test]
fn a_program_that_is_registered_right_after_its_refusal_waits_no_longer() {
    let (world, _) = world_with_tool();
    for number in 0..3 {
        // its write begins the second in which the next one only waits in memory
        refused(&world, &world.tool(&format!("before{number}")));
        let tool = world.tool(&format!("new{number}"));
        refused(&world, &tool);
        world.cli(&["register", tool.to_str().unwrap()]).done();
        refused(&world, &world.tool(&format!("after{number}")));
        let waiting = listed(&world);
        assert!(waiting.contains(&world.root().join(format!("bin/after{number}"))), "{waiting:?}");
        assert!(!waiting.contains(&tool), "{waiting:?}");
    }
    // the file itself, and not only what is shown of it
    let file = fs::read_to_string(world.data().join("pending.json")).unwrap();
    assert!(!file.contains("/bin/new"), "{file}");
    // nor does one whose entry was written by hand
    let (tool, by_hand) = (world.root().join("bin/tool"), world.root().join("bin/before0"));
    assert!(listed(&world).contains(&by_hand));
    world.policy(&[Entry::all(&tool, &["s"]), Entry::all(&by_hand, &[])]);
    assert!(!listed(&world).contains(&by_hand));
}

#[test]
fn a_stranger_that_can_not_be_written_yet_is_told_by_list_pending_and_listed_as_soon_as_it_can() {
    let (world, _) = world_with_tool();
    // the lock's file is there from now on
    refused(&world, &world.tool("first"));
    await_that("the first", || (!listed(&world).is_empty()).then_some(()));
    let lock = fs::File::open(world.data().join("pending.lock")).unwrap();
    lock.lock().unwrap();
    let late = world.tool("late");
    refused(&world, &late);
    // longer than the daemon waits for the lock, as often as it is asked
    for _ in 0..2 {
        let said = world.cli(&["list-pending"]);
        assert!(said.err.contains("is not listed yet"), "{said:?}");
    }
    // nor is one lost that came while the pen was still at the first
    let later = world.tool("later");
    refused(&world, &later);
    lock.unlock().unwrap();
    let waiting = listed(&world);
    assert!(waiting.contains(&late) && waiting.contains(&later), "{waiting:?}");
    // a daemon that can't write ends all the same
    lock.lock().unwrap();
    refused(&world, &world.tool("last"));
    let mut world = world;
    assert!(world.stop().success());
}
