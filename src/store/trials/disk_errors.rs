//! A disk that takes no more, played by a limit on the size of files: the kernel then refuses real writes.

use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

const CHILD: &str = "KEYCHAIN_AUTH_FULL_DISK";

/// Runs the body of this test in a process of its own that survives SIGXFSZ: there a limit is nobody else's, and a write
/// beyond it is an error.
pub(crate) fn in_a_process_that_may_not_grow_files(test: &str, body: fn()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// No file of this process may grow beyond `bytes`; None for no limit. Only for the process that was made for it.
pub(crate) fn limit(bytes: Option<u64>) {
    assert!(std::env::var_os(CHILD).is_some(), "the limit would be every test's");
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

#[test]
fn a_full_disk_refuses_writes_keeps_reads_and_serves_again_when_there_is_room() {
    in_a_process_that_may_not_grow_files(
        "store::trials::disk_errors::a_full_disk_refuses_writes_keeps_reads_and_serves_again_when_there_is_room",
        || {
            let dir = scratch();
            let vault = open_vault(dir.path()).unwrap();
            done(&vault, write("s", &[("a", "1")], &[]));
            let size = std::fs::metadata(dir.path().join("vault.redb")).unwrap().len();
            limit(Some(size));
            let long = "v".repeat(60_000);
            for round in 0..5 {
                let results = vault.commit(vec![
                    write("s", &[("b", "small")], &[]),
                    write("s", &[("c", &long), ("d", &long), ("e", &long), ("f", &long)], &[]),
                ]);
                assert!(
                    results.iter().all(|result| matches!(result, Err(StoreError::Io(_)))),
                    "round {round}: {results:?}"
                );
                assert_eq!(read(&vault, "s", Names::All).unwrap(), ["a=1"], "round {round}: half a group");
                assert_eq!(lines(&vault), ["write a"]);
            }
            limit(None);
            done(&vault, write("s", &[("b", "2")], &[]));
            assert_eq!(read(&vault, "s", Names::All).unwrap(), ["a=1", "b=2"]);
            drop(vault);
            let vault = open_vault(dir.path()).unwrap();
            assert_eq!(read(&vault, "s", Names::All).unwrap(), ["a=1", "b=2"]);
            assert_eq!(lines(&vault), ["write a", "write b"]);
        },
    );
}
