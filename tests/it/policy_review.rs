//! `policy review`: what it proves with the vault's key, and that it says so and fails where it proves nothing.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use crate::{
    advice::{advice, follow},
    sealed_policy::{guessing, knowing, refuses_all, sealed, serves},
    world::{Entry, Outcome, World},
};

#[test]
fn a_forged_copy_of_the_sealed_policy_deceives_no_review_that_has_the_key_and_the_others_say_it() {
    let (mut world, tool) = sealed();
    let (config, copy) = (world.config(), world.data().join("policy.sealed"));
    let good = fs::read(&config).unwrap();
    // somebody grants himself everything, and makes the copy say so too: nothing seems to differ
    let evil = world.tool("evil");
    let entry = |services: &[&str]| Entry::all(&evil, services);
    world.policy(&[Entry::all(&tool, &["s"]), entry(&["s"])]);
    let forged = fs::read(&config).unwrap();
    let told = |outcome: &Outcome| outcome.out.lines().next().unwrap_or_default().to_owned();
    let gains =
        |outcome: &Outcome| outcome.out.contains(evil.to_str().unwrap()) && outcome.out.contains("+ read s");
    for round in 0..3 {
        world.write(&config, &forged);
        world.write(&copy, &forged);
        let deceived = world.cli(&["policy", "review"]);
        assert!(told(&deceived).starts_with("UNPROVEN") && !gains(&deceived), "{deceived:?}");
        assert!(deceived.code == Some(1) && !deceived.err.contains("policy.sealed"), "{deceived:?}");
        let review = knowing(&world, &["policy", "review"]);
        assert!(review.code == Some(1) && told(&review).starts_with("CHANGED"), "{review:?}");
        assert!(gains(&review) && !review.err.contains("put back what was sealed"), "{review:?}");
        let wrong = guessing(&world, &["policy", "review"]);
        assert!(wrong.code == Some(1) && wrong.out.is_empty(), "a wrong key shows nothing: {wrong:?}");
        // the real copy beside the forged config.json, and the other way round
        world.write(&copy, &good);
        let review = knowing(&world, &["policy", "review"]);
        assert!(
            review.code == Some(1) && told(&review).starts_with("Proven") && gains(&review),
            "{review:?}"
        );
        world.write(&copy, &forged);
        world.write(&config, &good);
        let review = knowing(&world, &["policy", "review"]);
        assert!(review.code == Some(0) && told(&review).contains("the policy that was sealed"), "{review:?}");
        // the same words in other bytes are refused by the daemon, and not called the same
        world.write(&config, &[&good[..], b"\n"].concat());
        world.write(&copy, &good);
        let review = knowing(&world, &["policy", "review"]);
        assert!(review.code == Some(1) && review.err.contains("is not the same"), "{review:?}");
        fs::remove_file(&copy).unwrap();
        let review = knowing(&world, &["policy", "review"]);
        assert!(review.code == Some(1) && told(&review).contains("is gone"), "{review:?}");
        world.write(&config, &good);
        // through the daemon, beside one that is locked, and where none runs
        match round {
            0 => drop(world.cli(&["vault", "lock"]).done()),
            1 => drop(world.stop()),
            _ => {}
        }
    }
    // a seal that nobody took off is seen also without the copy, and without a daemon
    let review = knowing(&world, &["policy", "review"]);
    assert!(review.out.contains("the policy that was sealed"), "{review:?}");
    knowing(&world, &["policy", "unseal"]).done();
    world.write(&copy, &forged);
    assert!(knowing(&world, &["policy", "review"]).done().contains("The policy is not sealed\n"));
}

/// A process that takes the place of the daemon, and says that it serves a damaged vault for reading only.
struct Impostor(Arc<AtomicBool>, PathBuf);

impl Impostor {
    fn listen(world: &World) -> Self {
        let socket = world.socket();
        let listener = UnixListener::bind(&socket).unwrap();
        world.own(&socket, 0o600);
        let data = world.data();
        let ends = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&ends);
        thread::spawn(move || {
            let status = json!({
                "type": "STATUS", "data_path": data, "vault": {"state": "salvaged"},
                "policy": {"state": "ok", "sealed": false},
            });
            while let Ok((stream, _)) = listener.accept()
                && !ended.load(Ordering::Relaxed)
            {
                let _ = BufReader::new(&stream).read_line(&mut String::new());
                let _ = writeln!(&stream, "{status}");
            }
        });
        Self(ends, socket)
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = UnixStream::connect(&self.1);
    }
}

#[test]
fn what_listens_at_the_socket_keeps_no_review_from_the_seal_and_none_that_proves_nothing_succeeds() {
    let (mut world, tool) = sealed();
    let (config, copy) = (world.config(), world.data().join("policy.sealed"));
    let good = fs::read(&config).unwrap();
    assert!(world.stop().success());
    let evil = world.tool("evil");
    world.policy(&[Entry::all(&tool, &["s"]), Entry::all(&evil, &["s"])]);
    world.write(&copy, &fs::read(&config).unwrap());
    let impostor = Impostor::listen(&world);
    let state: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    assert_eq!(state["vault"]["state"], "salvaged", "it is heard");
    let review = knowing(&world, &["policy", "review"]);
    assert!(review.code == Some(1) && review.out.starts_with("CHANGED"), "{review:?}");
    assert!(review.out.contains("+ read s") && !review.err.contains("policy.sealed"), "{review:?}");
    // without the key: beside the forged copy, beside none, and where nothing is forged
    let unproven = |world: &World| {
        let review = world.cli(&["policy", "review"]);
        assert!(review.code == Some(1) && review.out.starts_with("UNPROVEN"), "{review:?}");
        assert!(!review.err.contains("policy.sealed") && !review.err.contains("install"), "{review:?}");
    };
    unproven(&world);
    fs::remove_file(&copy).unwrap();
    unproven(&world);
    world.write(&copy, &good);
    world.write(&config, &good);
    unproven(&world);
    drop(impostor);
    fs::remove_file(world.socket()).unwrap();
    // a daemon that does serve the vault for reading only keeps it: nothing is proven beside it, with the key as without
    world.start_args.push("--salvage".into());
    world.start();
    let review = knowing(&world, &["policy", "review"]);
    assert!(review.code == Some(1) && review.out.starts_with("UNPROVEN"), "{review:?}");
    assert!(review.err.contains("start the daemon without --salvage"), "{review:?}");
}

#[test]
fn a_sealed_policy_that_is_no_json_is_named_with_line_and_column() {
    let (mut world, tool) = sealed();
    world.policy_text("{\n  \"protocol_version\": \"1\",\n  oops\n}\n");
    refuses_all(&world, &tool);
    let place = format!("{}:3:3: ", world.config().display());
    let status: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    let message = status["policy"]["message"].as_str().unwrap();
    assert!(message.contains("is not the policy that was sealed") && message.contains(&place), "{message}");
    let copy = world.data().join("policy.sealed");
    let good = fs::read(&copy).unwrap();
    let unproven = world.cli(&["policy", "review"]);
    world.write(&copy, b"{}");
    let changed = knowing(&world, &["policy", "review"]);
    world.write(&copy, &good);
    for (review, word) in [(unproven, "UNPROVEN"), (changed, "CHANGED")] {
        assert!(review.code == Some(1) && review.err.contains(&place), "{review:?}");
        assert!(review.out.starts_with(word) && !review.err.contains("policy.sealed"), "{review:?}");
    }
    // what it advises who has the key is what mends it
    let review = knowing(&world, &["policy", "review"]);
    assert!(review.code == Some(1) && review.err.contains(&place), "{review:?}");
    follow(&world, advice(&review), "put back what was sealed: ").done();
    serves(&world, &tool);
    world.policy_text("{");
    world.stop();
    let status: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    assert!(status["policy"]["message"].as_str().unwrap().contains(":1:1: "), "{status}");
    assert!(world.cli(&["policy", "review"]).err.contains(":1:1: "));
}
