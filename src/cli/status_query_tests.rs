#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io::{BufRead, BufReader},
    os::unix::net::UnixListener,
    path::PathBuf,
    thread,
};

use super::*;

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Somebody who listens, reads one line and answers with `answer`.
fn listener(answer: Vec<u8>) -> (tempfile::TempDir, PathBuf, thread::JoinHandle<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let handle = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        // a client that has heard enough may be gone
        let _ = (&stream).write_all(&answer);
        line
    });
    (folder, path, handle)
}

fn unwell(found: Found) -> &'static str {
    match found {
        Found::Unwell(why) => why,
        Found::Running(status) => panic!("{status:?}"),
        Found::Nobody => panic!("nobody"),
    }
}

#[test]
fn a_daemon_is_asked_once_and_members_of_a_newer_one_are_passed_over() {
    let answer = br#"{"type":"STATUS","version":"9","pid":7,"mode":"user","news":{"x":[1]},"missing":["landlock"],"policy":{"state":"ok","entries":3}}"#;
    let (_folder, path, asked) = listener([answer.as_slice(), b"\n"].concat());
    let Found::Running(status) = ask(&path, uid()) else { panic!("not running") };
    assert_eq!((status.version.as_deref(), status.pid), (Some("9"), Some(7)));
    assert_eq!(status.missing, ["landlock"]);
    assert_eq!(status.policy.unwrap().entries, 3);
    assert_eq!(asked.join().unwrap(), "{\"type\":\"STATUS\"}\n");
}

#[test]
fn a_missing_socket_and_a_dead_one_mean_that_nobody_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    assert!(matches!(ask(&path, uid()), Found::Nobody));
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(ask(&path, uid()), Found::Nobody));
}

#[test]
fn another_answer_is_no_daemon() {
    for answer in [&b"{\"type\":\"RESPONSE\"}\n"[..], b"hello\n", b"{\"type\":\"STATUS\",\"pid\":\"x\"}\n"] {
        let (_folder, path, _asked) = listener(answer.to_vec());
        assert_eq!(unwell(ask(&path, uid())), "it does not answer like a keychain-auth daemon");
    }
}

#[test]
fn an_answer_without_end_is_given_up() {
    let (_folder, path, _asked) = listener(vec![b'x'; MAX_ANSWER + 4096]);
    assert_eq!(unwell(ask(&path, uid())), "it closed the connection without an answer");
}

#[test]
fn a_silent_listener_is_given_up_after_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let began = Instant::now();
    assert_eq!(unwell(ask(&path, uid())), "it did not answer within 2 seconds");
    assert!(began.elapsed() >= DEADLINE);
}
