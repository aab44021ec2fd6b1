//! What the kernel says of every thread, and what other processes of the same user can reach.

use std::{fs, path::PathBuf};

use super::{processes, serves, serving, serving_in, threads};
use crate::{
    keychain,
    keyring::Keyring,
    skip::{need, skip},
    tools::Link,
    world::{World, is_root, run},
};

/// The one capability of a witness that root runs: to look at processes with more capabilities than it has.
const LOOKING: u64 = 1 << 19;

/// A daemon that serves, its processes and the fewest threads that each has.
struct Daemon {
    processes: Vec<(u32, usize)>,
    world: World,
    tool: PathBuf,
    _keyring: Option<Keyring>,
}

impl Daemon {
    fn serving(world: World, keyring: Option<Keyring>) -> Self {
        let (world, tool) = serving_in(world);
        let mut processes = vec![(world.pid(), 4)];
        if keyring.is_some() {
            let [witness, broker] = world.children();
            processes.extend([(witness, 3), (broker, 1)]);
        } else {
            processes.push((world.witness(), 3));
        }
        Self { processes, world, tool, _keyring: keyring }
    }

    /// With the secrets in the vault, and with the secrets in a keychain, which has a broker, where there is one.
    fn of_each_kind() -> Vec<Self> {
        let with_broker = keychain::world().map(|(world, keyring)| Self::serving(world, Some(keyring)));
        [Self::serving(World::new(), None)].into_iter().chain(with_broker).collect()
    }
}

fn status(pid: u32, thread: u32) -> impl Fn(&str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).unwrap();
    move |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
    }
}

#[test]
fn every_thread_is_filtered_without_capabilities_and_without_a_way_to_new_ones() {
    for daemon in Daemon::of_each_kind() {
        for (pid, least) in daemon.processes {
            let threads = threads(pid);
            assert!(threads.len() >= least, "threads of {pid}: {threads:?}");
            for thread in threads {
                let status = status(pid, thread);
                assert_eq!(status("NoNewPrivs"), "1");
                assert_eq!(status("Seccomp"), "2", "a filter");
                for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                    assert_eq!(status(set), "0000000000000000", "{set}");
                }
            }
        }
    }
}

#[test]
fn what_can_wait_for_the_processor_is_behind_everything_else_and_answers_are_not() {
    let daemon = Daemon::serving(World::new(), None);
    let nice = |pid: u32, thread: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")).unwrap();
        let (name, fields) = stat.split_once('(').unwrap().1.rsplit_once(") ").unwrap();
        (name.to_owned(), fields.split(' ').nth(16).unwrap().to_owned())
    };
    let lowly = |pid: u32| -> Vec<String> {
        let (_, usual) = nice(pid, pid);
        let named = threads(pid).into_iter().map(|thread| nice(pid, thread));
        named.filter(|(_, nice)| *nice != usual).map(|(name, nice)| format!("{name} {nice}")).collect()
    };
    assert_eq!(lowly(daemon.world.pid()), ["log-pack 10"]);
    let strangers = lowly(daemon.world.witness());
    assert!(matches!(&strangers[..], [one] if one.ends_with(" 19")), "{strangers:?}");
}

/// All sets of capabilities of every thread of a process are empty, but those of what it may keep.
#[track_caller]
fn holds_only(pid: u32, kept: u64) {
    for thread in threads(pid) {
        let status = status(pid, thread);
        let set = |name: &str| u64::from_str_radix(&status(name), 16).unwrap();
        for (name, held) in [("CapInh", 0), ("CapAmb", 0), ("CapBnd", 0), ("CapPrm", kept), ("CapEff", kept)]
        {
            assert_eq!(set(name), held, "{name} of thread {thread} of {pid}");
        }
    }
}

#[test]
fn a_daemon_that_begins_with_capabilities_gives_up_all_and_the_bound_of_them_too() {
    if !is_root() {
        return skip("only root can give capabilities");
    }
    let Some(setpriv) = need("setpriv") else { return };
    let given = |world: &mut World| {
        let user = [format!("--reuid={}", world.uid()), format!("--regid={}", world.uid())];
        let caps = "+setpcap,+sys_ptrace,+dac_read_search";
        let caps = [format!("--inh-caps={caps}"), format!("--ambient-caps={caps}"), "--clear-groups".into()];
        let setpriv = [setpriv.to_str().unwrap().to_owned()];
        world.start_through = setpriv.into_iter().chain(user).chain(caps).collect();
        world.start_undropped = true;
    };
    let mut world = World::new();
    given(&mut world);
    let mut begins = std::process::Command::new(&world.start_through[0]);
    let begins = run(begins.args(&world.start_through[1..]).args(["cat", "/proc/self/status"])).done();
    for set in ["CapBnd", "CapAmb", "CapEff"] {
        let line = begins.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t")).unwrap();
        assert_ne!(u64::from_str_radix(line, 16).unwrap(), 0, "it begins with {set}");
    }
    let with_broker = keychain::world().map(|(mut world, keyring)| {
        given(&mut world);
        Daemon::serving(world, Some(keyring))
    });
    for daemon in [Daemon::serving(world, None)].into_iter().chain(with_broker) {
        for (pid, _) in &daemon.processes {
            holds_only(*pid, 0);
        }
        serves(&daemon.world, &daemon.tool);
    }
}

#[test]
fn of_a_daemon_that_root_runs_the_witness_may_look_and_that_is_all() {
    if !is_root() {
        return skip("only root can run it as root");
    }
    let (world, _tool) = serving_in(World::of_root());
    let [keeper, witness] = processes(&world);
    holds_only(keeper, 0);
    holds_only(witness, LOOKING);
}

#[test]
fn no_process_leaves_a_core_dump() {
    for daemon in Daemon::of_each_kind() {
        for (pid, _) in daemon.processes {
            let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
            let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
            assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
        }
    }
}

/// What the prowler says of each way into `victim`.
fn prowl(world: &World, victim: &str) -> Vec<(String, i32)> {
    let prowler = world.install("clients/prowler.c", Link::Dynamic, "bin/prowler");
    let said = run(world.command(&prowler).arg(victim)).done();
    let ways: Vec<(String, i32)> = said
        .lines()
        .map(|line| {
            let (way, errno) = line.rsplit_once(' ').unwrap();
            (way.to_owned(), errno.parse().unwrap())
        })
        .collect();
    assert!(ways.len() >= 15, "{said}");
    ways
}

#[test]
fn another_process_of_the_same_user_gets_into_none_of_them() {
    let (world, _tool) = serving();
    let closed: Vec<_> = prowl(&world, "own").into_iter().filter(|(_, errno)| *errno != 0).collect();
    assert!(closed.is_empty(), "the prowler gets into a process that has closed nothing: {closed:?}");
    for Daemon { processes, world, tool, _keyring } in Daemon::of_each_kind() {
        for (pid, _) in processes {
            for (way, errno) in prowl(&world, &pid.to_string()) {
                assert!([libc::EPERM, libc::EACCES].contains(&errno), "{way} of {pid}: {errno}");
            }
        }
        serves(&world, &tool);
    }
}
