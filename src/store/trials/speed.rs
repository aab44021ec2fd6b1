//! Figures, not gates: `cargo test --release --lib store::trials::speed -- --ignored --nocapture`.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use super::*;

pub(super) fn say(what: &str, time: Duration) {
    std::io::stdout().write_all(format!("{what}: {time:?}\n").as_bytes()).unwrap();
}

pub(super) fn best(times: u32, mut run: impl FnMut()) -> Duration {
    let one = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..times).map(one).min().unwrap()
}

#[test]
#[ignore = "measures"]
fn a_vault_of_10_000_and_of_100_000_secrets() {
    for secrets in [10_000, 100_000] {
        std::io::stdout().write_all(format!("{secrets} secrets\n").as_bytes()).unwrap();
        measure(secrets);
    }
}

fn measure(secrets: usize) {
    let dir = scratch();
    let vault = open_vault(dir.path()).unwrap();
    let names: Vec<String> =
        (0..secrets).map(|n| format!("production/workspace/p{}/KEY_{n}", n % 100)).collect();
    for chunk in names.chunks(1000) {
        let pairs: Vec<(&str, &str)> =
            chunk.iter().map(|name| (name.as_str(), "0123456789abcdef0123456789")).collect();
        vault.settle(u64::MAX);
        done(&vault, write("s", &pairs, &[]));
    }
    let name = names[secrets * 7 / 9].as_str();
    let exact = || read(&vault, "s", Names::Exact(targets(&[name]))).unwrap();
    exact();
    let thousand = best(20, || (0..1000).for_each(|_| drop(exact())));
    say("1,000 exact reads", thousand);
    say(
        "prefix read of a hundredth",
        best(5, || {
            assert_eq!(
                read(&vault, "s", prefixes(&["production/workspace/p7/"])).unwrap().len(),
                secrets / 100
            )
        }),
    );
    say(
        "search of all",
        best(3, || drop(vault.read(query(selection("s", Names::All, &[]), false)).unwrap())),
    );
    say("commit of 1", best(50, || done(&vault, write("s", &[(name, "new")], &[]))));
    let pairs: Vec<(&str, &str)> = names[..100].iter().map(|name| (name.as_str(), "new")).collect();
    say("commit of 100", best(20, || done(&vault, write("s", &pairs, &[]))));
    say("close", {
        let start = Instant::now();
        vault.close().unwrap();
        start.elapsed()
    });
    say("open", best(5, || drop(open_vault(dir.path()).unwrap())));
    let size = std::fs::metadata(dir.path().join("vault.redb")).unwrap().len();
    std::io::stdout().write_all(format!("size: {} KiB\n", size / 1024).as_bytes()).unwrap();
}
