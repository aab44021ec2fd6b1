//! Kernels that lack a protection: `enforce` refuses and names it, `best-effort` starts and tells the truth about it.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    net::TcpStream,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
    thread,
};

use keychain_auth::sandbox::{Folders, NEWEST_ABI, REQUIRED_ABI, cage};
use landlock::{ABI, AccessFs, Ruleset, RulesetAttr as _};
use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};

use super::{processes, serves, serving_in};
use crate::{
    client::{Client, assert_refused},
    skip::skip,
    tools::Link,
    world::{Guarded, World, is_root, spawn},
};

/// A world whose daemons run on a kernel that lacks `what`.
pub(crate) fn lacking(what: &[&str], hardening: &str) -> World {
    let mut world = World::new();
    let launcher = world.install("clients/older_kernel.c", Link::Static, "bin/older_kernel");
    world.start_through = vec![launcher.to_str().unwrap().to_owned()];
    world.start_through.extend(what.iter().map(|what| (*what).to_owned()));
    world.start_through.push("--".into());
    world.start_args = vec![format!("--hardening={hardening}")];
    world
}

/// The protections that are not in force, as the daemon tells everyone.
fn told(world: &World, tool: &Path) -> Vec<String> {
    let status = Client::connected(world, tool).request(&json!({"type": "STATUS"}));
    let protections = status["protections"].as_array().unwrap();
    assert!(protections.len() >= 8, "{status}");
    let lacking = protections.iter().filter(|protection| protection["enforced"] == json!(false));
    lacking.map(|protection| protection["name"].as_str().unwrap().to_owned()).collect()
}

/// Under `enforce` the daemon does not start and says `words`; under `best-effort` it serves and says that `protection`
/// is not in force, and all others are.
#[track_caller]
fn refused_or_told(what: &[&str], words: &str, protection: &str) {
    let mut world = lacking(what, "enforce");
    world.policy(&[]);
    assert_eq!(world.try_start().map_err(|status| status.code()), Err(Some(1)), "{}", world.log());
    let log = world.log();
    assert!(log.contains("does not give every protection") && log.contains(words), "{what:?}: {log}");
    assert!(!world.socket().exists(), "nobody could connect");

    let (world, tool) = serving_in(lacking(what, "best-effort"));
    assert_eq!(told(&world, &tool), [protection], "{what:?}");
    assert!(world.log().contains(&format!("not in force: {protection}")), "{}", world.log());
}

#[test]
fn without_landlock_enforce_refuses_and_best_effort_says_so() {
    refused_or_told(&["landlock"], "Landlock ABI 3", "landlock");
    refused_or_told(&["landlock-boot"], "Landlock ABI 3", "landlock");
}

#[test]
fn with_a_landlock_that_is_too_old_enforce_refuses_and_best_effort_says_so() {
    refused_or_told(&["landlock=1"], "Landlock ABI 3", "landlock");
    refused_or_told(&["landlock=2"], "Landlock ABI 3", "landlock");
}

#[test]
fn without_filters_enforce_refuses_and_best_effort_says_so_although_a_container_has_one() {
    refused_or_told(&["seccomp"], "seccomp", "seccomp");
    let (world, _tool) = serving_in(lacking(&["seccomp"], "best-effort"));
    for pid in processes(&world) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("\nSeccomp:\t2\n"), "the launcher's own filter: {status}");
    }
}

#[test]
fn with_memory_that_can_be_made_executable_enforce_refuses_and_best_effort_says_so() {
    refused_or_told(&["mdwe"], "memory that can't be made executable", "no_exec_memory");
}

#[test]
fn with_memory_that_can_not_be_locked_enforce_refuses_and_best_effort_says_so() {
    refused_or_told(&["memlock"], "locked_memory", "locked_memory");
    refused_or_told(&["memfd_secret", "memlock"], "locked_memory", "locked_memory");
}

#[test]
fn every_landlock_from_the_oldest_that_suffices_and_a_kernel_without_secret_memory_are_enough() {
    for what in ["landlock=3", "landlock=4", "landlock=5", "landlock=6", "landlock=7", "memfd_secret"] {
        let (world, tool) = serving_in(lacking(&[what], "enforce"));
        assert_eq!(told(&world, &tool), Vec::<String>::new(), "{what}");
    }
}

/// Folders of one test: what the daemon reads, changes and removes from, and something else.
struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Self {
        let ground = tempfile::tempdir().unwrap();
        for folder in ["policy", "data", "run", "outside"] {
            fs::create_dir(ground.path().join(folder)).unwrap();
            fs::write(ground.path().join(folder).join("file"), "content").unwrap();
        }
        Self(ground)
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn folders(&self) -> Folders {
        Folders { read: vec![self.at("policy")], change: self.at("data"), remove: Some(self.at("run")) }
    }
}

fn denied<T>(outcome: io::Result<T>) -> bool {
    outcome.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Landlock binds the thread that asks for it, so each test of it is a thread that ends.
fn in_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

#[test]
fn an_abi_that_does_not_suffice_is_named_and_restricts_nothing() {
    for abi in [ABI::Unsupported, ABI::V1, ABI::V2] {
        let ground = Ground::new();
        in_a_thread(|| {
            let missing = cage(&ground.folders(), abi);
            assert_eq!(missing.len(), 1, "{missing:?}");
            assert!(missing[0].contains("Landlock ABI 3"), "{missing:?}");
            assert!(File::open(ground.at("outside/file")).is_ok(), "half a cage would be reported as none");
        });
    }
}

/// The newest ABI that this kernel has.
fn offered() -> ABI {
    in_a_thread(|| {
        let ruleset = Ruleset::default().handle_access(AccessFs::Execute).unwrap().create().unwrap();
        ruleset.restrict_self().unwrap().landlock.into()
    })
}

#[test]
fn every_abi_that_suffices_leaves_the_daemon_its_own_folders_only() {
    if offered() < REQUIRED_ABI {
        return skip("this kernel has no Landlock that suffices");
    }
    for abi in [ABI::V3, ABI::V4, ABI::V5, ABI::V6, NEWEST_ABI] {
        let ground = Ground::new();
        in_a_thread(|| {
            assert_eq!(cage(&ground.folders(), abi), Vec::<String>::new());
            files(&ground);
        });
    }
}

/// What a caged thread may do with files.
fn files(ground: &Ground) {
    assert!(denied(File::open(ground.at("outside/file"))));
    assert!(denied(fs::read_dir(ground.at("outside"))) && denied(fs::read_dir("/")));
    assert!(
        denied(File::create(ground.at("outside/new"))) && denied(fs::remove_file(ground.at("outside/file")))
    );
    assert_eq!(fs::read_to_string(ground.at("policy/file")).unwrap(), "content");
    assert!(denied(File::options().write(true).open(ground.at("policy/file"))));
    assert!(denied(File::options().write(true).truncate(true).open(ground.at("policy/file"))));
    assert!(
        denied(File::create(ground.at("policy/new"))) && denied(fs::remove_file(ground.at("policy/file")))
    );
    fs::write(ground.at("data/new"), "new").unwrap();
    fs::rename(ground.at("data/new"), ground.at("data/file")).unwrap();
    fs::remove_file(ground.at("data/file")).unwrap();
    assert!(denied(fs::create_dir(ground.at("data/folder"))));
    assert!(denied(std::os::unix::fs::symlink("/", ground.at("data/link"))));
    assert!(denied(File::open(ground.at("run/file"))) && denied(File::create(ground.at("run/new"))));
    fs::remove_file(ground.at("run/file")).unwrap();
}

#[test]
fn newer_abis_also_close_the_network_and_keep_signals_in() {
    let (port, abstract_name) = (closed_port(), format!("keychain-auth-test-{}", std::process::id()));
    let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let other = Guarded(spawn(Command::new("/bin/sleep").arg("60")));
    let pid = Pid::from_raw(other.0.id().cast_signed()).unwrap();
    for (abi, network, scopes) in
        [(ABI::V3, false, false), (ABI::V4, true, false), (ABI::V6, true, true), (ABI::V7, true, true)]
    {
        if offered() < abi {
            skip(&format!("this kernel has no Landlock ABI {}", abi as i32));
            continue;
        }
        let ground = Ground::new();
        in_a_thread(|| {
            assert_eq!(cage(&ground.folders(), abi), Vec::<String>::new());
            assert_eq!(denied(TcpStream::connect(("127.0.0.1", port))), network, "TCP, {abi:?}");
            assert_eq!(denied(UnixStream::connect_addr(&address)), scopes, "abstract socket, {abi:?}");
            assert_eq!(test_kill_process(pid).is_err(), scopes, "signal, {abi:?}");
        });
    }
}

/// A port of this machine where nobody listens.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// How many descriptors the daemon holds, as root sees it.
fn descriptors(world: &World) -> usize {
    fs::read_dir(format!("/proc/{}/fd", world.pid())).unwrap().count()
}

/// What a client sends as descriptors: with this kernel the kernel refuses it, with an older one the daemon takes none.
#[test]
fn descriptors_sent_to_the_daemon_are_refused_or_dropped_and_fill_nothing() {
    if !is_root() {
        return skip("only root may count the descriptors of a process that is closed to its own user");
    }
    for what in [&[][..], &["passrights"][..]] {
        let (world, tool) = serving_in(lacking(what, "enforce"));
        let mut client = Client::spawn(&world, &tool);
        let read =
            format!("{}\n", json!({"type": "REQUEST", "action": "read", "service": "s", "targets": ["k"]}));
        let gift = format!("gift {}", read.len());
        let refused = |client: &mut Client| match client.order(&gift, read.as_bytes()).as_str() {
            "ok" => {
                let reply = client.recv().json();
                assert_refused(&reply, "denied", "untrusted_caller");
                true
            }
            other => {
                assert_eq!(other, format!("error {}", libc::EPERM), "the kernel's own refusal");
                false
            }
        };
        client.connect();
        let dropped = refused(&mut client);
        assert!(dropped || what.is_empty(), "an older kernel sends them");
        let before = descriptors(&world);
        for _ in 0..20 {
            client.order("close", b"");
            client.connect();
            assert_eq!(refused(&mut client), dropped);
        }
        assert!(descriptors(&world) < before + 100, "{} after {before}", descriptors(&world));
        serves(&world, &tool);
    }
}

#[test]
fn without_a_handle_on_the_caller_its_address_space_pins_it_and_status_says_what_is_missing() {
    let (world, tool) = serving_in(lacking(&["peerpidfd"], "enforce"));
    serves(&world, &tool);
    let status: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    assert!(status["missing"][0].as_str().unwrap().contains("SO_PEERPIDFD"), "{status}");
    assert!(world.log().contains("this kernel lacks SO_PEERPIDFD"), "{}", world.log());
}
