//! A process that commits in a loop is killed at random moments, again and again.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use super::*;

const DIR: &str = "KEYCHAIN_AUTH_CRASH_DIR";
const KILLS: u32 = 100;
const TARGETS: usize = 500;

/// Not a test: what the killed process runs. Each batch writes its number to the same 500 targets.
#[test]
#[ignore = "run as a child by the test below"]
fn committing_child() {
    let Some(dir) = env::var_os(DIR) else { return };
    let vault = open_vault(Path::new(&dir)).unwrap();
    let names: Vec<String> = (0..TARGETS).map(|number| format!("target/{number}")).collect();
    let first = vault.generation();
    // bounded, so that a child whose parent died ends by itself
    for batch in first..first + 10_000 {
        let value = batch.to_string();
        let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
        let committed = commit_one(&vault, write("s", &pairs, &[])).unwrap();
        assert_eq!(committed.outbox().unwrap().id, batch);
        std::io::stdout().write_all(format!("committed {batch}\n").as_bytes()).unwrap();
    }
}

#[test]
fn a_killed_batch_is_whole_or_absent_and_an_acknowledged_one_is_there_with_its_line() {
    let dir = scratch();
    let (mut acknowledged, mut ahead) = (0_u64, 0);
    for round in 0..KILLS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "store::trials::crash::committing_child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let mut line = String::new();
        let mut wanted = random[0] % 4;
        while wanted > 0 && output.read_line(&mut line).unwrap() > 0 {
            if let Some(batch) = line.trim_end().strip_prefix("committed ") {
                acknowledged = batch.parse().unwrap();
                wanted -= 1;
            }
            line.clear();
        }
        // the moment itself is what is tried
        thread::sleep(Duration::from_micros(u64::from(random[1]) * 150));
        child.kill().unwrap();
        for line in output.lines() {
            if let Some(batch) = line.unwrap().strip_prefix("committed ") {
                acknowledged = batch.parse().unwrap();
            }
        }
        child.wait().unwrap();

        let vault = open_vault(dir.path()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let batches = vault.generation() - 1;
        ahead += u32::from(batches > acknowledged);
        assert!(batches >= acknowledged, "round {round}: {batches} of {acknowledged}");
        let values = read(&vault, "s", Names::All).unwrap();
        assert_eq!(values.len(), if batches == 0 { 0 } else { TARGETS });
        assert!(values.iter().all(|value| value.ends_with(&format!("={batches}"))), "round {round}: torn");
        assert_eq!(vault.outbox().unwrap().lines.len() as u64, batches);
        acknowledged = batches;
    }
    assert!(
        acknowledged > u64::from(KILLS) / 2,
        "the children got to work: {acknowledged}, unacknowledged {ahead}"
    );
}
