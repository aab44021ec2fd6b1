//! A config.json that can't be trusted denies everything, and the last good one is not used.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};

use crate::{
    client::{Client, assert_refused, found, written},
    tools::hash_of,
    world::{Entry, World, is_root},
};

struct Served {
    world: World,
    tool: std::path::PathBuf,
    client: Client,
}

fn served() -> Served {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start();
    let mut client = Client::connected(&world, &tool);
    assert_eq!(client.write("s", &[("k", "v")]), written());
    Served { world, tool, client }
}

impl Served {
    /// Open and new connections are denied, `status` says why with each of `words`, and a good file heals it.
    #[track_caller]
    fn denies_until_mended(mut self, words: &[&str]) {
        assert_refused(&self.client.read("s", &["k"]), "error", "internal_error");
        let reply = Client::connected(&self.world, &self.tool).read("s", &["k"]);
        assert_refused(&reply, "error", "internal_error");
        let status = self.world.cli(&["status"]);
        let said = format!("{}{}", status.out, status.err);
        let log = self.world.log();
        for word in words {
            assert!(said.contains(word), "status names {word}: {said}");
            assert!(log.contains(word), "the log names {word}: {log}");
        }
        self.world.policy(&[Entry::all(&self.tool, &["s"])]);
        assert_eq!(Client::connected(&self.world, &self.tool).read("s", &["k"]), found(&[("k", "v")]));
    }
}

#[test]
fn a_syntax_error_denies_all_and_is_named_by_file_line_and_column() {
    let served = served();
    served.world.policy_text("{\n  \"protocol_version\": \"1\",\n  \"registered_binaries\": [,]\n}\n");
    let path = served.world.config();
    served.denies_until_mended(&[path.to_str().unwrap(), "3", "27"]);
}

#[test]
fn an_entry_with_a_fault_is_refused_with_the_fault_and_not_told_to_register_again() {
    let world = World::started();
    let tool = world.tool("tool");
    let entry = |end: &str| Entry {
        more: vec![("expires_at".into(), json!(end)), ("allowed_target_prefix".into(), json!(["a/"]))],
        ..Entry::all(&tool, &["s"])
    };
    world.policy(&[entry("next week")]);
    let reply = Client::connected(&world, &tool).read("s", &["k"]);
    assert_refused(&reply, "denied", "unregistered_binary_pending_approval");
    let message = reply["message"].as_str().unwrap();
    assert!(message.contains("expires_at") && message.contains("keychain-auth unregister"), "{message}");
    let status = world.cli(&["status"]);
    let said = format!("{}{}", status.out, status.err);
    assert!(said.contains("expires_at") && said.contains("its member \"allowed_target_prefix\""), "{said}");
    world.policy(&[entry("2999-01-01T00:00:00Z")]);
    assert_eq!(Client::connected(&world, &tool).read("s", &["k"]), found(&[]));
}

#[test]
fn a_fault_at_the_end_of_a_line_is_told_with_a_column_that_an_editor_has() {
    let served = served();
    // a string that a line feed breaks: the end of line 2, behind its 8 bytes
    served.world.policy_text("{\n  \"proto\n");
    let place = format!("{}:2:9: ", served.world.config().display());
    served.denies_until_mended(&[&place]);
}

#[test]
fn an_empty_file_denies_all() {
    let served = served();
    served.world.policy_text("");
    served.denies_until_mended(&["config.json"]);
}

#[test]
fn a_member_of_the_wrong_type_denies_all() {
    let served = served();
    let mut policy = served.world.read_policy();
    policy["registered_binaries"][0]["allowed_read_services"] = json!("s");
    served.world.policy_text(&policy.to_string());
    served.denies_until_mended(&["config.json"]);
}

#[test]
fn a_duplicate_member_denies_all() {
    let served = served();
    let text = fs::read_to_string(served.world.config()).unwrap();
    served
        .world
        .policy_text(&text.replace("\"can_search\":true", "\"can_search\":false,\"can_search\":true"));
    served.denies_until_mended(&["config.json"]);
}

#[test]
fn a_file_that_its_group_can_write_denies_all() {
    let served = served();
    fs::set_permissions(served.world.config(), fs::Permissions::from_mode(0o660)).unwrap();
    served.denies_until_mended(&["config.json"]);
}

#[test]
fn a_file_that_everybody_can_write_denies_all() {
    let served = served();
    fs::set_permissions(served.world.config(), fs::Permissions::from_mode(0o606)).unwrap();
    served.denies_until_mended(&["config.json"]);
}

#[test]
fn a_file_of_another_user_denies_all() {
    if !is_root() {
        return crate::skip::skip("only root can give a file to another user");
    }
    let served = served();
    std::os::unix::fs::chown(served.world.config(), Some(crate::world::STRANGE_UID), None).unwrap();
    fs::set_permissions(served.world.config(), fs::Permissions::from_mode(0o644)).unwrap();
    served.denies_until_mended(&["config.json"]);
}

#[test]
fn a_removed_file_serves_nobody() {
    let mut served = served();
    fs::remove_file(served.world.config()).unwrap();
    assert_ne!(served.client.read("s", &["k"])["status"], "success");
    assert_ne!(Client::connected(&served.world, &served.tool).read("s", &["k"])["status"], "success");
}

#[test]
fn a_hash_of_58_digits_matches_nothing_and_is_reported_without_breaking_the_file() {
    let mut served = served();
    let mut policy = served.world.read_policy();
    let short = json!({"path": "/usr/local/bin/agentsecrets",
        "hash": "sha256:fd7ecae9159e6f93a25178d3489fbffa7219917ca12567d5e42b156948",
        "allowed_read_services": ["agentsecrets"], "allowed_write_services": ["agentsecrets"], "can_search": true});
    policy["registered_binaries"].as_array_mut().unwrap().push(short);
    served.world.policy_text(&policy.to_string());
    assert_eq!(served.client.read("s", &["k"]), found(&[("k", "v")]));
    let status = served.world.cli(&["status"]);
    let said = format!("{}{}", status.out, status.err);
    assert!(said.contains("/usr/local/bin/agentsecrets"), "{said}");
    let other = served.world.tool("other");
    served.world.cli(&["register", other.to_str().unwrap()]).done();
    let kept: Vec<Value> = served.world.read_policy()["registered_binaries"].as_array().unwrap().clone();
    assert!(
        kept.iter().any(|entry| entry["path"] == "/usr/local/bin/agentsecrets"),
        "an edit keeps what it can't use"
    );
    assert_eq!(served.world.entry(&other).unwrap()["hash"], json!(hash_of(&other)));
}

#[test]
fn commands_leave_a_broken_file_as_it_is() {
    let world = World::new();
    let tool = world.tool("tool");
    world.policy_text("{ broken");
    let outcome = world.cli(&["register", tool.to_str().unwrap()]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.err.contains("config.json"), "{}", outcome.err);
    assert_eq!(fs::read_to_string(world.config()).unwrap(), "{ broken");
}
