//! Whole commands, from the command line to what is printed and what is on the disk.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use serde_json::Value;

use super::{output::tests::Kept, *};
use crate::{
    digest::Digest,
    paths::Paths,
    policy::{COMMAND_PATIENCE, CommandLine, Sighting},
};

/// What a command printed, and the failure it ended with.
struct Ran {
    stdout: String,
    stderr: String,
    failure: Option<Failure>,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }

    fn sentence(&self) -> &str {
        self.failure.as_ref().unwrap().sentence()
    }

    fn advice(&self) -> &str {
        self.failure.as_ref().unwrap().advice()
    }
}

struct Home {
    folder: tempfile::TempDir,
    paths: Paths,
}

fn home() -> Home {
    let folder = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(folder.path()).unwrap();
    let paths = Paths { config_dir: root.join("c"), data_dir: root.join("d"), socket: root.join("s") };
    // as the daemon makes it at its start
    fs::DirBuilder::new().mode(0o700).create(&paths.data_dir).unwrap();
    Home { folder, paths }
}

impl Home {
    fn tool(&self, name: &str, salt: &str) -> String {
        let path = fs::canonicalize(self.folder.path()).unwrap().join(name);
        fs::write(&path, format!("\x7fELF{salt}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn context(&self) -> Context {
        Context {
            paths: self.paths.clone(),
            uid: rustix::process::geteuid().as_raw(),
            now: jiff::Timestamp::now(),
            asked_socket: None,
            passphrase: None,
        }
    }

    fn run(&self, words: &[&str]) -> Ran {
        let (stdout, stderr) = (Kept::default(), Kept::default());
        let mut out = Output::over(Box::new(stdout.clone()), Box::new(stderr.clone()));
        let cli = Cli::try_parse_from(["keychain-auth"].iter().chain(words)).unwrap();
        let Command::Verb(verb) = cli.command else { panic!("no verb") };
        let failure = dispatch(verb, self.context(), &mut out).err();
        out.flush();
        Ran { stdout: stdout.text(), stderr: stderr.text(), failure }
    }

    fn done(&self, words: &[&str]) -> String {
        let ran = self.run(words);
        assert_eq!(ran.failure, None, "{words:?}");
        ran.stdout
    }

    fn pend(&self, path: &str, digest: Digest) {
        let sighting = Sighting {
            times: 1,
            path: path.into(),
            digest,
            pid: 7,
            command_line: CommandLine::masked([&b"tool"[..], b"--token", b"hunter2"]),
            action: None,
            service: None,
            targets: Vec::new(),
        };
        let cx = self.context();
        cx.pending_file().update(COMMAND_PATIENCE, cx.now, |queue| queue.record(sighting, cx.now)).unwrap();
    }
}

fn digest_of(path: &str) -> Digest {
    *crate::policy::Measured::take(Path::new(path)).unwrap().digest()
}

#[test]
fn register_and_upgrade_print_what_the_contract_says() {
    let home = home();
    let tool = home.tool("tool", "1");
    assert_eq!(
        home.done(&["register", &tool]),
        format!("Registered {tool} with hash {}\n", digest_of(&tool))
    );
    home.tool("tool", "2");
    assert_eq!(home.done(&["upgrade", &tool]), format!("Upgraded {tool} to new hash {}\n", digest_of(&tool)));
}

#[test]
fn upgrade_of_an_unknown_path_names_register() {
    let home = home();
    let tool = home.tool("tool", "1");
    assert_eq!(home.run(&["upgrade", &tool]).advice(), format!("keychain-auth register {tool}"));
}

#[test]
fn check_says_what_the_daemon_would_say() {
    let home = home();
    let tool = home.tool("tool", "1");
    let check = |service: &str| home.run(&["check", "--json", &tool, service]).json();
    assert_eq!(check("aws")["reason"], "unregistered_binary_pending_approval");
    home.done(&["register", &tool]);
    assert_eq!(check("aws")["reason"], "service_not_allowed");
    home.done(&["grant", &tool, "--read", "aws"]);
    let answer = check("aws");
    assert_eq!(
        (&answer["allowed"], &answer["read"], &answer["write"]),
        (&true.into(), &true.into(), &false.into())
    );
    assert_eq!(home.done(&["check", &tool, "aws"]), format!("{tool} may use aws: read\n"));
    home.tool("tool", "2");
    let changed = home.run(&["check", &tool, "aws"]);
    assert_eq!(changed.sentence(), format!("{tool} is registered with another hash"));
    assert!(changed.advice().ends_with(&format!("keychain-auth upgrade {tool}")));
}

#[test]
fn authorize_registers_and_grants_in_one_step_and_may_be_repeated() {
    let home = home();
    let tool = home.tool("tool", "1");
    for _ in 0..2 {
        let printed = home.done(&["authorize", &tool, "aws"]);
        assert!(printed.starts_with(&format!("Registered {tool} with hash sha256:")));
    }
    let list: Value = serde_json::from_str(&home.done(&["list", "--json"])).unwrap();
    let entry = &list["entries"][0];
    assert_eq!(entry["allowed_read_services"], serde_json::json!(["aws"]));
    assert_eq!(entry["allowed_write_services"], serde_json::json!(["aws"]));
    assert_eq!(entry["can_search"], true);
    assert_eq!(list["entries"].as_array().unwrap().len(), 1);
}

#[test]
fn revoke_and_unregister_work_for_a_program_that_is_gone() {
    let home = home();
    let tool = home.tool("tool", "1");
    home.done(&["authorize", &tool, "aws"]);
    fs::remove_file(&tool).unwrap();
    home.done(&["revoke", &tool, "--search", "--read", "aws"]);
    assert!(home.done(&["list"]).contains("search    no"));
    assert_eq!(home.done(&["unregister", &tool]), format!("Unregistered {tool}\n"));
    assert!(home.run(&["unregister", &tool]).advice().contains("keychain-auth list"));
}

#[test]
fn approve_takes_the_path_from_the_queue_and_leaves_it_and_keeps_permissions() {
    let home = home();
    let tool = home.tool("tool", "1");
    home.done(&["authorize", &tool, "aws"]);
    home.tool("tool", "2");
    let digest = digest_of(&tool);
    home.pend(&tool, digest);
    let waiting = home.done(&["list-pending"]);
    assert!(waiting.contains(&digest.to_string()) && !waiting.contains("hunter2"));
    assert_eq!(
        home.done(&["approve", &digest.to_string()]),
        format!("Registered {tool} with hash {digest}\n")
    );
    assert_eq!(home.run(&["list-pending"]).stdout, "");
    home.done(&["check", &tool, "aws"]);
}

#[test]
fn approve_refuses_a_file_that_has_another_hash_by_now() {
    let home = home();
    let tool = home.tool("tool", "1");
    let seen = digest_of(&tool);
    home.pend(&tool, seen);
    home.tool("tool", "swapped");
    let ran = home.run(&["approve", &seen.to_string()]);
    assert!(ran.sentence().contains("has another hash"));
    assert!(!home.paths.config().exists());
    let missing = home.run(&["approve", &Digest::new([9; 32]).to_string()]);
    assert!(missing.sentence().contains("no program with this hash"));
}

#[test]
fn approve_says_of_what_was_approved_that_it_is_registered() {
    let home = home();
    let tool = home.tool("tool", "1");
    let seen = digest_of(&tool);
    home.pend(&tool, seen);
    home.done(&["approve", &seen.to_string()]);
    let again = home.run(&["approve", &seen.to_string()]);
    assert!(again.sentence().contains("tool is registered with this hash already"), "{}", again.sentence());
}

#[test]
fn approve_asks_which_path_when_several_have_the_hash() {
    let home = home();
    let (a, b) = (home.tool("a", "same"), home.tool("b", "same"));
    let digest = digest_of(&a);
    home.pend(&a, digest);
    home.pend(&b, digest);
    assert!(home.run(&["approve", &digest.to_string()]).sentence().contains("several programs"));
    home.done(&["approve", &digest.to_string(), &b]);
    assert!(home.done(&["list-pending"]).contains(&a), "the other one still waits");
}

#[test]
fn deny_forgets_a_stranger_and_says_when_there_is_none() {
    let home = home();
    let tool = home.tool("tool", "1");
    home.pend(&tool, Digest::new([1; 32]));
    let hash = Digest::new([1; 32]).to_string();
    assert_eq!(home.done(&["deny", &hash]), format!("Denied {hash}\n"));
    assert!(home.run(&["deny", &hash]).failure.is_some());
}

#[test]
fn status_without_a_daemon_says_what_is_wrong_locally_and_succeeds() {
    let home = home();
    let tool = home.tool("tool", "1");
    home.done(&["register", &tool]);
    fs::write(home.paths.config(), "{").unwrap();
    let ran = home.run(&["status", "--json"]);
    assert_eq!(ran.failure, None);
    let status = ran.json();
    for member in ["daemon_running", "version", "mode", "config_path", "socket_path", "requires_sudo"] {
        assert!(status.get(member).is_some(), "{member}");
    }
    assert_eq!((&status["daemon_running"], &status["policy"]["state"]), (&false.into(), &"error".into()));
    let place = format!("{}:1:1: the JSON ends too early", home.paths.config().display());
    assert_eq!(status["policy"]["message"], place);
    assert_eq!(home.run(&["list"]).sentence(), place);
}

#[test]
fn list_shows_what_is_relaxed_expired_and_invalid() {
    let home = home();
    home.done(&["register", &home.tool("tool", "1")]);
    let text = r#"{"protocol_version":"1","registered_binaries":[
        {"path":"/a","hash":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         "relax":["injected_code"],"expires_at":"2020-01-01T00:00:00Z","allowed_target_prefixes":["x/"]},
        {"path":"/b\u001b[2J","hash":"sha256:short"}]}"#;
    fs::write(home.paths.config(), text).unwrap();
    let ran = home.run(&["list"]);
    for line in [
        "relaxed   injected_code",
        "expires   2020-01-01T00:00:00Z (expired)",
        "targets   x/…",
        "hash      invalid",
    ] {
        assert!(ran.stdout.contains(line), "{line}\n{}", ran.stdout);
    }
    assert!(ran.stderr.contains("warning: entry 2"));
    assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'));
}

#[test]
fn audit_show_filters_and_prints_raw_lines_as_json() {
    let home = home();
    let none = home.run(&["audit", "show"]);
    assert!(none.failure.is_none() && none.stderr.contains("no audit log"));
    let line = |second: u8, result: &str| {
        format!(
            r#"{{"timestamp":"2026-05-21T10:34:0{second}Z","action":"read","pid":{second},"binary_path":"/bin/a","service":"aws","targets":["K"],"result":"{result}"}}"#
        )
    };
    let log = format!("{}\nnot a record\n{}\n{}", line(1, "GRANTED"), line(2, "DENIED"), "{\"half");
    fs::write(home.paths.audit_log(), log).unwrap();
    let all = home.run(&["audit", "show"]);
    assert_eq!(all.stdout.lines().count(), 2);
    assert!(all.stderr.contains("1 line of the log is no record"));
    let denied = home.done(&["audit", "show", "--result", "denied", "--json"]);
    assert_eq!(denied, line(2, "DENIED") + "\n");
    assert_eq!(home.done(&["audit", "tail", "-n", "1", "--json"]), line(2, "DENIED") + "\n");
}

#[test]
fn a_command_line_that_makes_no_sense_is_a_usage_error() {
    let zeros = "0".repeat(63);
    for words in [
        &["grant", "/bin/a"][..],
        &["grant", "/bin/a", "--read", ""],
        &["revoke", "/bin/a"],
        &["approve", "sha256:ab"],
        &["deny", zeros.as_str()],
        &["check", "/bin/a"],
        &["audit", "show", "--since", "soon"],
        &["audit", "show", "--result", "MAYBE"],
        &["register"],
        &["nonsense"],
        &[],
    ] {
        let Err(usage) = Cli::try_parse_from(["keychain-auth"].iter().chain(words)) else {
            panic!("{words:?}")
        };
        assert_eq!(usage.exit_code(), 2, "{words:?}");
    }
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    <Cli as clap::CommandFactory>::command().debug_assert();
}
