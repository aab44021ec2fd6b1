//! What the kernel says of a daemon that serves: closed to its own user, filtered on every thread, without privileges.

use std::{fs, path::Path};

use crate::world::{World, run};

/// The processes of this world's daemon: keeper and witness.
fn processes(world: &World) -> Vec<u32> {
    let keeper = world.pid();
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    let all: Vec<u32> = std::iter::once(keeper).chain(children).collect();
    assert_eq!(all.len(), 2, "keeper and witness");
    all
}

/// The value of a line of a `status` file.
fn field<'s>(status: &'s str, name: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).trim()
}

#[test]
fn keeper_and_witness_are_closed_to_their_own_user() {
    let world = World::started();
    for pid in processes(&world) {
        for (what, command) in [
            ("memory", format!("head -c 1 /proc/{pid}/mem")),
            ("maps", format!("cat /proc/{pid}/maps")),
            ("environment", format!("cat /proc/{pid}/environ")),
            ("descriptors", format!("ls /proc/{pid}/fd/")),
            ("executable", format!("readlink /proc/{pid}/exe")),
        ] {
            let outcome = run(world.command(Path::new("/bin/sh")).args(["-c", &command]));
            assert!(outcome.code != Some(0) && outcome.out.is_empty(), "{what} of {pid}: {}", outcome.out);
        }
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    }
    // the same look at a process that does not close itself succeeds, or the test would prove nothing
    let open = run(world.command(Path::new("/bin/sh")).args(["-c", "cat /proc/$$/maps /proc/$$/environ"]));
    assert!(open.code == Some(0) && !open.out.is_empty());
}

#[test]
fn every_thread_of_keeper_and_witness_is_filtered_and_without_capabilities() {
    let world = World::started();
    let mut threads = 0;
    for pid in processes(&world) {
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let name = field(&status, "Name");
            assert_eq!(field(&status, "NoNewPrivs"), "1", "{name}");
            assert_eq!(field(&status, "Seccomp"), "2", "{name}");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(u64::from_str_radix(field(&status, set), 16), Ok(0), "{set} of {name}");
            }
            threads += 1;
        }
    }
    assert!(threads > 2, "more than one thread each: {threads}");
}

#[test]
fn a_daemon_without_protections_must_be_confirmed() {
    let mut world = World::new();
    world.start_args = vec!["--hardening=off".into()];
    let ended = world.try_start().map_err(|status| status.code());
    assert_eq!(ended, Err(Some(1)), "{}", world.log());
    assert!(world.log().contains("KEYCHAIN_AUTH_ALLOW_UNHARDENED=1"), "says how: {}", world.log());
    assert!(!world.data().exists(), "nothing was made");
}
