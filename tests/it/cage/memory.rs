//! What is left of a value in memory when the clients that wrote and read it are gone: nothing.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    dump::{Form, Piece, core, forms, found, mapped, secret_memory},
    inside::Debugger,
    older_kernels::lacking,
    processes,
};
use crate::{
    client::{Client, Got, written},
    skip::need,
    world::{Entry, World, await_that},
};

/// A value with everything that encodings change, between parts that none changes.
struct Marker {
    text: String,
    parts: Vec<String>,
}

impl Marker {
    fn new() -> Self {
        let part = || {
            let mut random = [0; 10];
            getrandom::fill(&mut random).unwrap();
            data_encoding::HEXLOWER.encode(&random)
        };
        let parts: Vec<String> = (0..8).map(|_| part()).collect();
        let between = ["\"", "\\", "é", "\n", "🔑", "/", "\t", ""];
        let text = parts.iter().zip(between).map(|(part, special)| format!("{part}{special}")).collect();
        Self { text, parts }
    }

    /// The forms of the whole and of each part.
    fn forms(&self) -> Vec<Form> {
        let parts = self.parts.iter().enumerate();
        let mut all = forms("the value", self.text.as_bytes());
        all.extend(
            parts.flat_map(|(number, part)| forms(&format!("part {number} of the value"), part.as_bytes())),
        );
        all
    }
}

fn request(action: &str, service: &str, more: &Value) -> Value {
    let mut request = json!({"type": "REQUEST", "action": action, "service": service, "targets": ["marked"]});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

/// Everything that can happen to a value on its way in or out.
fn traffic(world: &World, tool: &Path, marker: &Marker) {
    let value = marker.text.as_str();
    let mut client = Client::connected(world, tool);
    for round in 0..5 {
        let target = format!("marked{round}");
        assert_eq!(client.write("s", &[("marked", value), (&target, value)]), written());
        let exact = client.read("s", &["marked", &target]);
        assert_eq!(exact["results"][1]["value"], value);
        let prefix = client.request(&request("read", "s", &json!({"match": "prefix"})));
        assert_eq!(prefix["results"].as_array().unwrap().len(), round + 2);
    }
    let line = request("write", "s", &json!({"values": [value]})).to_string();
    client.trickle(format!("{line}\n").as_bytes());
    assert_eq!(client.recv().json(), written());
    refused(&mut client, &line, value);
    refused_by_policy(world, &mut client, value);
    hasty(world, tool, &line, value);
    assert_eq!(
        client.request(&request("delete", "s", &json!({"targets": ["marked0"]})))["status"],
        "success"
    );
}

/// Lines that are no requests, with the value in them.
fn refused(client: &mut Client, line: &str, value: &str) {
    let quoted = json!(value).to_string();
    for malformed in [
        format!("{line} trailing"),
        line.replace("\"values\"", "\"worth\""),
        line.replace("\"REQUEST\"", &quoted),
        line.replace("\"write\"", &quoted),
        line.replace("\"values\":[", &format!("\"values\":[{quoted},")),
        line.replace("\"values\":[", &format!("\"values\":[\"\\ud800\",{quoted},")),
        line.replace(&quoted, &format!("[{quoted}]")),
        format!("{{{quoted}:{quoted}}}"),
        quoted.clone(),
        line.replace(&quoted, &json!(value.repeat(65_536 / value.len() + 1)).to_string()),
    ] {
        client.send(format!("{malformed}\n").as_bytes());
        let reply = client.recv().json();
        assert_eq!(reply["reason"], "malformed_request", "{malformed}");
    }
}

/// Requests with the value in them that the policy or the identity of the caller refuses.
fn refused_by_policy(world: &World, client: &mut Client, value: &str) {
    assert_eq!(client.write("forbidden", &[("marked", value)])["reason"], "service_not_allowed");
    let stranger = world.tool("stranger");
    let mut bytes = std::fs::read(&stranger).unwrap();
    bytes.extend([0; 3]);
    std::fs::write(&stranger, bytes).unwrap();
    let mut stranger = Client::connected(world, &stranger);
    assert_eq!(stranger.write("s", &[("marked", value)])["reason"], "unregistered_binary_pending_approval");
}

/// Clients that leave in the middle, and lines that are too long or no text.
fn hasty(world: &World, tool: &Path, line: &str, value: &str) {
    for (bytes, answered) in [
        (format!("{line}{}\n", " ".repeat(2 << 20)).into_bytes(), true),
        ([line.as_bytes(), b"\xff\n"].concat(), true),
        (line.as_bytes().to_vec(), false),
        (line.as_bytes()[..line.len() - 5].to_vec(), false),
    ] {
        let mut client = Client::connected(world, tool);
        client.send(&bytes);
        match client.recv_within(if answered { 30_000 } else { 50 }) {
            Got::Timeout => assert!(!answered),
            other => assert!(answered, "{other:?}"),
        }
        client.kill();
    }
    // replies that nobody takes fill the connection; the client is killed within one
    let mut deaf = Client::connected(world, tool);
    let long = value.repeat(60_000 / value.len());
    let names: Vec<String> = (0..14).map(|number| format!("long{number}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), long.as_str())).collect();
    assert_eq!(deaf.write("s", &pairs), written());
    let read = request("read", "s", &json!({"targets": names}));
    deaf.send(format!("{read}\n").repeat(20).as_bytes());
    deaf.kill();
}

/// A world in which the marker went in and out, and whose clients are gone.
fn after_traffic(mut world: World, marker: &Marker) -> (World, PathBuf) {
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    traffic(&world, &tool, marker);
    await_that("no connection is left but the one that asks", || {
        let status: Value = serde_json::from_str(&world.cli(&["status", "--json"]).done()).unwrap();
        (status["connections"] == 1).then_some(())
    });
    (world, tool)
}

/// Everything that root can read of the daemon's processes from outside.
fn everything(world: &World) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for pid in processes(world) {
        let (mapped, closed) = mapped(pid);
        assert!(closed.iter().all(|line| line.contains("secretmem")), "{closed:?}");
        pieces.extend(mapped);
        pieces.push(core(world, pid));
    }
    pieces
}

/// Sends a value in a request without an end, and looks while the daemon holds it: what was `seen` before it was found in
/// what is `held`. A line must end within seconds, so on a slow machine this is tried again.
fn half_request<T>(
    world: &World,
    tool: &Path,
    seen: impl Fn() -> T,
    held: impl Fn() -> Vec<Piece>,
) -> (Marker, T) {
    await_that("the search finds what is in memory for secrets", || {
        let half = Marker::new();
        let mut waiting = Client::connected(world, tool);
        waiting.send(request("write", "s", &json!({"values": [half.text]})).to_string().as_bytes());
        assert_eq!(waiting.recv_within(50), Got::Timeout);
        let seen = seen();
        (!found(&half.forms(), &held()).is_empty()).then_some((half, seen))
    })
}

#[test]
fn nothing_of_a_value_is_left_in_memory_when_its_clients_are_gone() {
    let (Some(debugger), Some(_gdb)) = (Debugger::new(), need("gdb")) else { return };
    let marker = Marker::new();
    let (world, tool) = after_traffic(World::new(), &marker);
    let pieces = everything(&world);
    let socket = forms("the socket's path", world.socket().to_str().unwrap().as_bytes());
    assert!(!found(&socket, &pieces).is_empty(), "the search finds what is there");
    let places = found(&marker.forms(), &pieces);
    assert!(places.is_empty(), "{places:#?}");
    let places = found(&marker.forms(), &[secret_memory(&debugger, &world)]);
    assert!(places.is_empty(), "in secret memory: {places:#?}");

    // a request that is not finished is still there: in secret memory, and only there
    let outside = || processes(&world).map(|pid| mapped(pid).0).into_iter().flatten().collect::<Vec<_>>();
    let (half, seen) = half_request(&world, &tool, outside, || vec![secret_memory(&debugger, &world)]);
    let places = found(&half.forms(), &seen);
    assert!(places.is_empty(), "{places:#?}");
}

#[test]
fn nothing_of_a_value_is_left_where_the_kernel_has_no_secret_memory() {
    let (Some(_root), Some(_gdb)) = (Debugger::new(), need("gdb")) else { return };
    let marker = Marker::new();
    let (world, tool) = after_traffic(lacking(&["memfd_secret"], "enforce"), &marker);
    let places = found(&marker.forms(), &everything(&world));
    assert!(places.is_empty(), "{places:#?}");
    half_request(&world, &tool, || (), || mapped(world.pid()).0);
}

/// What a hash keyed with `key` keeps of it, and the key in halves, as a cipher's state may hold it.
fn forms_of_key(name: &str, key: &[u8]) -> Vec<Form> {
    let mut all = forms(name, key);
    for (form, bytes) in [
        ("first half", key[..16].to_vec()),
        ("second half", key[16..].to_vec()),
        ("inner pad", key.iter().map(|byte| byte ^ 0x36).collect()),
        ("outer pad", key.iter().map(|byte| byte ^ 0x5c).collect()),
    ] {
        all.extend(forms(&format!("{name}, {form}"), &bytes).into_iter().take(1));
    }
    all
}

#[test]
fn keys_are_nowhere_but_in_secret_memory() {
    let Some(debugger) = Debugger::new() else { return };
    let (world, _tool) = after_traffic(World::new(), &Marker::new());
    let slab = [secret_memory(&debugger, &world)];
    let file = std::fs::read_to_string(world.data().join("vault.key")).unwrap();
    let vault_key = data_encoding::HEXLOWER.decode(file.trim().as_bytes()).unwrap();
    // keys stand at the beginning of a piece; what else is in use there now is wiped buffers
    let keys: Vec<&[u8]> = slab[0]
        .bytes
        .chunks(64)
        .map(|piece| &piece[..32])
        .filter(|key| key.iter().any(|byte| *byte != 0))
        .collect();
    assert!((2..32).contains(&keys.len()), "those derived from the vault's key: {}", keys.len());
    let mut all = forms("the key file", file.trim().as_bytes());
    all.extend(forms_of_key("the vault's key", &vault_key));
    for (number, key) in keys.iter().enumerate() {
        all.extend(forms_of_key(&format!("key {number}"), key));
    }
    let places = found(&all, &everything(&world));
    assert!(places.is_empty(), "{places:#?}");
    assert!(found(&all, &slab).len() >= keys.len(), "the search finds them where they are");
}

#[test]
fn a_locked_daemon_has_neither_the_keys_nor_a_name() {
    let Some(debugger) = Debugger::new() else { return };
    let marker = Marker::new();
    let (world, tool) = after_traffic(World::new(), &Marker::new());
    // a name that nothing but the vault's index holds once its client is gone
    let name = &marker.parts[0];
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[(name.as_str(), "v")]), written());
    drop(client);
    let keys_in = |slab: &Piece| -> std::collections::BTreeSet<Vec<u8>> {
        let pieces = slab.bytes.chunks(64).map(|piece| piece[..32].to_vec());
        pieces.filter(|key| key.iter().any(|byte| *byte != 0)).collect()
    };
    let before = keys_in(&secret_memory(&debugger, &world));
    let names = forms("the name", name.as_bytes());
    assert!(!found(&names, &everything(&world)).is_empty(), "the search finds the name while it is open");
    world.cli(&["vault", "lock"]).done();
    let after = keys_in(&secret_memory(&debugger, &world));
    let left: Vec<_> = after.intersection(&before).collect();
    // the transport key, and the two of the audit chain, which goes on
    assert!(
        left.len() <= 4 && before.len() > left.len() + 5,
        "{} of {} keys are left",
        left.len(),
        before.len()
    );
    let file = std::fs::read_to_string(world.data().join("vault.key")).unwrap();
    let vault_key = data_encoding::HEXLOWER.decode(file.trim().as_bytes()).unwrap();
    assert!(
        found(&forms_of_key("the vault's key", &vault_key), &[secret_memory(&debugger, &world)]).is_empty()
    );
    let places = found(&names, &everything(&world));
    assert!(places.is_empty(), "{places:#?}");
}
