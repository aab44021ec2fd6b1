//! `vault lock` and `vault unlock` of a daemon that runs.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::{Value, json};

use crate::{
    client::{Client, assert_refused, found, written},
    keys::{PASSPHRASE, askpass, cli_with, with_passphrase},
    tools::{Link, hash_of},
    world::{Entry, World},
};

fn started() -> (World, PathBuf) {
    let mut world = with_passphrase();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("a", "1")]), written());
    (world, tool)
}

fn unlock(world: &World, passphrase: &str) -> crate::world::Outcome {
    let program = askpass(world, "typed", passphrase);
    cli_with(world, &[("KEYCHAIN_AUTH_ASKPASS", program.to_str().unwrap())], &["vault", "unlock"])
}

fn state(world: &World) -> Value {
    serde_json::from_str(&world.cli(&["vault", "status", "--json"]).done()).unwrap()
}

#[test]
fn a_locked_vault_serves_nobody_until_somebody_gives_its_key() {
    let (world, tool) = started();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.read("s", &["a"]), found(&[("a", "1")]));
    assert_eq!(state(&world)["state"], "unlocked");
    world.cli(&["vault", "lock"]).done();
    world.cli(&["vault", "lock"]).done();
    assert_eq!(state(&world)["state"], "locked");
    let status: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
    assert_eq!(status["vault"]["state"], "locked");
    // on the open connection, on a new one, and every action that touches the store
    for action in ["read", "delete", "search"] {
        let ask = json!({"type": "REQUEST", "action": action, "service": "s", "targets": ["a"]});
        assert_refused(&client.request(&ask), "error", "store_locked");
    }
    assert_refused(&Client::connected(&world, &tool).write("s", &[("a", "2")]), "error", "store_locked");
    let check = json!({"type": "REQUEST", "action": "check", "service": "s"});
    assert_eq!(client.request(&check), written(), "a check touches no secret");

    let refused = unlock(&world, "incorrect horse");
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("does not open vault.key"), "{}", refused.err);
    assert_refused(&client.read("s", &["a"]), "error", "store_locked");
    unlock(&world, PASSPHRASE).done();
    assert_eq!(state(&world)["state"], "unlocked");
    assert_eq!(client.read("s", &["a"]), found(&[("a", "1")]));
    assert_eq!(client.write("s", &[("a", "2")]), written());
    assert!(unlock(&world, PASSPHRASE).done().contains("already"));
    let log = fs::read_to_string(world.data().join("audit.log")).unwrap();
    for words in ["vault locked", "vault unlocked"] {
        assert!(log.contains(r#""action":"vault""#) && log.contains(words), "{words}: {log}");
    }
    assert!(world.cli(&["audit", "verify"]).code == Some(0));
}

#[test]
fn a_locked_daemon_ends_cleanly_and_the_next_start_needs_the_key_again() {
    let (mut world, tool) = started();
    world.cli(&["vault", "lock"]).done();
    assert!(world.stop().success());
    world.start();
    assert_eq!(Client::connected(&world, &tool).read("s", &["a"]), found(&[("a", "1")]));
}

#[test]
fn a_key_that_was_sealed_for_another_nonce_or_another_daemon_opens_nothing() {
    let (world, tool) = started();
    world.cli(&["vault", "lock"]).done();
    // a process that took the daemon's place listens, and gets what it can use for nothing
    let place = world.root().join("run/impostor");
    world.folder(&place, 0o700);
    let socket = place.join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    world.own(&socket, 0o600);
    let nonce = "ab".repeat(32);
    let impostor = {
        let nonce = nonce.clone();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            lines.next().unwrap().unwrap();
            writeln!(&stream, r#"{{"type":"UNLOCK","state":"locked","nonce":"{nonce}"}}"#).unwrap();
            let heard = lines.next().unwrap().unwrap();
            writeln!(&stream, r#"{{"type":"UNLOCK","state":"unlocked"}}"#).unwrap();
            heard
        })
    };
    let program = askpass(&world, "typed", PASSPHRASE);
    let socket = socket.to_str().unwrap().to_owned();
    if crate::world::is_root() {
        // this process's own user listens, whom the command of another user does not believe; root's it does
        fs::set_permissions(&place, fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(Path::new(&socket), fs::Permissions::from_mode(0o666)).unwrap();
    }
    let env = [("KEYCHAIN_AUTH_ASKPASS", program.to_str().unwrap())];
    cli_with(&world, &env, &["--socket", &socket, "vault", "unlock"]).done();
    let heard = impostor.join().unwrap();
    let message: Value = serde_json::from_str(&heard).unwrap();
    let sealed = message["key"].as_str().unwrap().to_owned();

    let mut client = Client::connected(&world, &tool);
    let mut unlock = |nonce: &str| client.request(&json!({"type": "UNLOCK", "nonce": nonce, "key": sealed}));
    assert_refused(&unlock(&nonce), "error", "store_locked");
    let mut client = Client::connected(&world, &tool);
    let given = client.request(&json!({"type": "UNLOCK"}));
    assert_eq!(given["state"], "locked");
    let ours = given["nonce"].as_str().unwrap();
    for nonce in [ours, &nonce] {
        let answer = client.request(&json!({"type": "UNLOCK", "nonce": nonce, "key": sealed}));
        assert_refused(&answer, "error", "store_locked");
    }
    assert_eq!(state(&world)["state"], "locked");
}

/// A key that no vault has, for the nonce of this connection.
fn try_a_wrong_key(client: &mut Client) -> Value {
    let nonce = client.request(&json!({"type": "UNLOCK"}))["nonce"].clone();
    client.request(&json!({"type": "UNLOCK", "nonce": nonce, "key": "ab".repeat(72)}))
}

fn of_the_vault(records: &[Value]) -> Vec<&Value> {
    records.iter().filter(|record| record["action"] == "vault").collect()
}

/// Writes `t0`, `t1` and so on until it is told to stop. Gives the names for which it was told a success.
fn write_on(client: &mut Client, name: &str, stop: &AtomicBool) -> Vec<String> {
    let mut done = Vec::new();
    for number in 0..2000 {
        let target = format!("{name}-{number}");
        let reply = client.write("s", &[(&target, "v")]);
        if reply == written() {
            done.push(target);
        } else {
            assert_refused(&reply, "error", "store_locked");
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    done
}

/// Each write that was told to be done has one record, and no other has one.
fn assert_recorded_once(world: &World, done: &[String]) {
    let mut recorded: Vec<String> = world
        .audit_all()
        .iter()
        .filter(|record| record["action"] == "write" && record["result"] == "GRANTED")
        .filter_map(|record| record["targets"][0].as_str().map(str::to_owned))
        .filter(|target| target != "a")
        .collect();
    recorded.sort();
    let mut done = done.to_vec();
    done.sort();
    assert_eq!(recorded, done);
}

/// Has eight clients write while `work` is done; the targets of the writes that were told to be done, and what `work` gave.
fn writing_beside<T>(world: &World, tool: &Path, work: impl FnOnce() -> T) -> (Vec<String>, T) {
    let stop = AtomicBool::new(false);
    let mut writers: Vec<Client> = (0..8).map(|_| Client::connected(world, tool)).collect();
    thread::scope(|scope| {
        let writing: Vec<_> = writers
            .iter_mut()
            .enumerate()
            .map(|(at, client)| {
                scope.spawn({
                    let stop = &stop;
                    move || write_on(client, &at.to_string(), stop)
                })
            })
            .collect();
        let given = work();
        stop.store(true, Ordering::Relaxed);
        (writing.into_iter().flat_map(|it| it.join().unwrap()).collect(), given)
    })
}

#[test]
fn a_wrong_key_for_an_open_vault_is_refused_and_beside_it_every_write_is_recorded_once() {
    let (mut world, tool) = started();
    let mut strangers: Vec<Client> =
        (0..4).map(|at| Client::connected(&world, &world.tool(&format!("stranger{at}")))).collect();
    let (done, tried) = writing_beside(&world, &tool, || {
        thread::scope(|scope| {
            let trying: Vec<_> = strangers
                .iter_mut()
                .map(|stranger| {
                    scope.spawn(|| {
                        for _ in 0..150 {
                            assert_refused(&try_a_wrong_key(stranger), "error", "store_locked");
                        }
                    })
                })
                .collect();
            trying.into_iter().map(|it| it.join()).collect::<Vec<_>>()
        })
    });
    assert!(tried.iter().all(Result::is_ok), "none opens it");
    assert!(world.stop().success());
    assert_recorded_once(&world, &done);
    assert!(world.cli(&["audit", "verify"]).code == Some(0));
    assert_eq!(of_the_vault(&world.audit_all()), Vec::<&Value>::new());
}

#[test]
fn a_vault_that_is_locked_and_unlocked_beside_writers_has_every_write_in_the_log_once() {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let (done, switched) = writing_beside(&world, &tool, || {
        (0..10).flat_map(|_| ["lock", "unlock"]).map(|verb| world.cli(&["vault", verb])).collect::<Vec<_>>()
    });
    switched.into_iter().for_each(|it| drop(it.done()));
    assert!(world.stop().success());
    assert_recorded_once(&world, &done);
    let records = world.audit_all();
    let steps = of_the_vault(&records);
    assert_eq!(steps.len(), 20, "{steps:?}");
    // who unlocks holds the key, and is closed to others
    let locks = steps.iter().filter(|step| step["detail"] == "vault locked");
    for step in locks {
        assert!(step["binary_path"].as_str().unwrap().ends_with("/keychain-auth"), "{step}");
    }
}

#[test]
fn a_flood_of_lock_unlock_and_seal_buries_nothing() {
    let (mut world, _) = started();
    let mut stranger = Client::connected(&world, &world.tool("stranger"));
    let lock = |stranger: &mut Client| stranger.request(&json!({"type": "LOCK"}));
    let seal = json!({"type": "SEAL", "nonce": "ab".repeat(32), "key": "ab".repeat(72)});
    for _ in 0..200 {
        assert_refused(&try_a_wrong_key(&mut stranger), "error", "store_locked");
        assert_refused(&stranger.request(&seal), "error", "store_locked");
    }
    for _ in 0..500 {
        assert_eq!(lock(&mut stranger), json!({"type": "LOCK", "state": "locked"}));
    }
    for _ in 0..200 {
        assert_refused(&try_a_wrong_key(&mut stranger), "error", "store_locked");
    }
    // what is gathered is written at the end at the latest
    assert!(world.stop().success());
    let records = world.audit_all();
    let steps = of_the_vault(&records);
    assert_eq!(steps.len(), 1, "only the first changed anything: {steps:?}");
    assert_eq!(steps[0]["detail"], "vault locked");
    assert!(steps[0]["binary_path"].as_str().unwrap().ends_with("/stranger"), "{}", steps[0]);
    let refused: Vec<&Value> = records.iter().filter(|it| it["reason"] == "store_locked").collect();
    let told: u64 = refused.iter().map(|record| record["count"].as_u64().unwrap_or(1)).sum();
    assert_eq!(told, 600, "none is lost");
    assert!(refused.len() < 250, "{} records", refused.len());
    assert!(world.cli(&["audit", "verify"]).code == Some(0));
}

#[test]
fn a_refused_unlock_is_told_of_whoever_wrote_it_and_not_of_whoever_connected() {
    const EACH: usize = 120;
    let (mut world, tool) = started();
    let thief = world.install("attacks/borrowed_fd.c", Link::Dynamic, "bin/borrowed_fd");
    let key = json!({"type": "UNLOCK", "nonce": "00".repeat(32), "key": "00".repeat(72)});
    let request = world.tmp("request");
    world.write(&request, format!("{key}\n").as_bytes());
    let mut client = Client::connected(&world, &tool);
    let pid = client.pid();
    assert_eq!(client.request(&json!({"type": "REQUEST", "action": "check", "service": "s"})), written());
    for _ in 0..EACH {
        let out = world.tmp("out");
        client.order(&format!("run {} {} {}", thief.display(), request.display(), out.display()), &[]);
    }
    let records = |world: &World| -> Vec<Value> {
        let all = world.audit_all();
        all.into_iter().filter(|record| record["reason"] == "store_locked").collect()
    };
    let by_others = records(&world);
    for record in &by_others {
        assert!(record["binary_path"] == thief.to_str().unwrap() && record["pid"] != pid, "{record}");
        assert_eq!(record["binary_hash"], "", "what no entry has is not hashed: {record}");
    }
    assert!(by_others.len() < EACH, "a flood of them is folded: {}", by_others.len());
    // its own are told of it, each
    for _ in 0..EACH {
        assert_refused(&client.request(&key), "error", "store_locked");
    }
    let own = |record: &&Value| record["binary_path"] == tool.to_str().unwrap() && record["pid"] == pid;
    let all = records(&world);
    assert_eq!(all.iter().filter(own).count(), EACH, "{:#?}", all.last());
    assert!(all.iter().filter(own).all(|record| record["binary_hash"] == hash_of(&tool)));
    assert!(world.stop().success());
    let told: u64 = records(&world).iter().map(|record| record["count"].as_u64().unwrap_or(1)).sum();
    assert_eq!(told, 2 * EACH as u64, "none is lost");
}

#[test]
fn another_seal_is_told_of_whoever_wrote_it_and_not_of_whoever_connected() {
    let (world, tool) = started();
    let thief = world.install("attacks/borrowed_fd.c", Link::Dynamic, "bin/borrowed_fd");
    let (request, out) = (world.tmp("request"), world.tmp("out"));
    let place = world.root().join("run/between");
    world.folder(&place, 0o700);
    let socket = place.join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    world.own(&socket, 0o600);
    if crate::world::is_root() {
        fs::set_permissions(&place, fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    }
    // between the owner's command and the daemon: the tool asks, and the thief writes what was sealed on its connection
    let mut client = Client::connected(&world, &tool);
    let pid = client.pid();
    let sealing = thread::scope(|scope| {
        let sealing = scope.spawn(|| {
            let program = askpass(&world, "typed", PASSPHRASE);
            let env = [("KEYCHAIN_AUTH_ASKPASS", program.to_str().unwrap())];
            cli_with(&world, &env, &["--socket", socket.to_str().unwrap(), "policy", "seal"])
        });
        'sealed: for stream in listener.incoming() {
            let stream = stream.unwrap();
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
                if line["key"].is_null() {
                    writeln!(&stream, "{}", client.request(&line)).unwrap();
                    continue;
                }
                world.write(&request, format!("{line}\n").as_bytes());
                client
                    .order(&format!("run {} {} {}", thief.display(), request.display(), out.display()), &[]);
                stream.shutdown(std::net::Shutdown::Both).unwrap();
                break 'sealed;
            }
        }
        drop(listener);
        sealing.join().unwrap()
    });
    assert!(fs::read_to_string(&out).unwrap().contains("sealed"), "{sealing:?}");
    let is_it = |record: &Value| record["detail"] == "another seal for the policy";
    let record = world.audit_where("the seal is recorded", is_it);
    assert!(record["binary_path"] == thief.to_str().unwrap() && record["pid"] != pid, "{record}");
}

#[test]
fn a_vault_that_was_put_back_while_it_was_locked_is_not_opened() {
    let (world, tool) = started();
    let data = world.data();
    let files = ["vault.redb", "vault.head"];
    let lock = || world.cli(&["vault", "lock"]).done();
    lock();
    let old: Vec<Vec<u8>> = files.iter().map(|name| fs::read(data.join(name)).unwrap()).collect();
    unlock(&world, PASSPHRASE).done();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("a", "2")]), written());
    lock();
    let new: Vec<Vec<u8>> = files.iter().map(|name| fs::read(data.join(name)).unwrap()).collect();
    for (name, bytes) in files.iter().zip(&old) {
        world.write(&data.join(name), bytes);
    }
    let refused = unlock(&world, PASSPHRASE);
    assert!(refused.code == Some(1) && refused.err.contains("damaged"), "{}", refused.err);
    assert_eq!(state(&world)["state"], "locked");
    for (name, bytes) in files.iter().zip(&new) {
        world.write(&data.join(name), bytes);
    }
    unlock(&world, PASSPHRASE).done();
    assert_eq!(Client::connected(&world, &tool).read("s", &["a"]), found(&[("a", "2")]));
}

#[test]
fn init_makes_a_vault_once_and_start_takes_it() {
    let mut world = World::new();
    let program = askpass(&world, "askpass", PASSPHRASE);
    let env = [("KEYCHAIN_AUTH_ASKPASS", program.to_str().unwrap())];
    let short = askpass(&world, "short", "short");
    let refused = cli_with(
        &world,
        &[("KEYCHAIN_AUTH_ASKPASS", short.to_str().unwrap())],
        &["vault", "init", "--key", "passphrase"],
    );
    assert!(refused.code == Some(1) && refused.err.contains("fewer than 8 bytes"), "{}", refused.err);
    assert_eq!(state(&world)["state"], "absent");
    let made = cli_with(&world, &env, &["vault", "init", "--key", "passphrase"]).done();
    assert!(made.contains("source passphrase"), "{made}");
    let again = cli_with(&world, &env, &["vault", "init", "--key", "file"]);
    assert!(again.code == Some(1) && again.err.contains("there is a vault already"), "{}", again.err);
    assert_eq!(state(&world)["state"], "closed");
    world.start_env.push(("KEYCHAIN_AUTH_ASKPASS".into(), program.display().to_string()));
    world.start();
    let busy = cli_with(&world, &env, &["vault", "init"]);
    assert!(busy.code == Some(1) && busy.err.contains("there is a vault already"), "{}", busy.err);
}
