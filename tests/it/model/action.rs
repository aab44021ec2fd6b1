//! What can happen: requests of several clients, odd bytes, changes of the policy, and the end of the daemon.

use proptest::{collection::vec, option, prelude::*, sample::subsequence};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Clients of a transcript; each is an executable of its own.
pub const CLIENTS: usize = 4;
const SERVICES: [&str; 2] = ["s", "s:a"];
/// Some begin with others, and one could be taken for a service and a target.
const TARGETS: [&str; 5] = ["a", "a:b", "ab", "b", "c"];

/// One step of a transcript, one line of its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// A well-formed request.
    Ask { who: usize, request: Value },
    /// Bytes that are no request; a line feed follows.
    Raw { who: usize, bytes: Vec<u8> },
    /// The entry of a client from here on; none makes it a stranger.
    Policy { who: usize, may: Option<May> },
    /// A request, and SIGKILL some microseconds after it; then a new start.
    Kill { who: usize, request: Value, after: u64 },
    /// SIGTERM, and a new start.
    Stop {},
}

/// The permissions of an entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct May {
    pub read: Vec<String>,
    pub write: Vec<String>,
    pub search: bool,
    pub prefixes: Option<Vec<String>>,
}

impl May {
    /// Everything on both services.
    pub fn everything() -> Self {
        let all: Vec<String> = SERVICES.map(str::to_owned).to_vec();
        Self { read: all.clone(), write: all, search: true, prefixes: None }
    }

    fn covers(&self, name: &str) -> bool {
        self.prefixes.as_ref().is_none_or(|begins| begins.iter().any(|begin| name.starts_with(begin)))
    }
}

/// Why the contract refuses a request, if it does: the first failing check answers.
pub fn refusal(may: Option<&May>, request: &Value) -> Option<&'static str> {
    let Some(may) = may else { return Some("unregistered_binary_pending_approval") };
    let action = request["action"].as_str().unwrap();
    let lists = |list: &[String]| list.iter().any(|service| request["service"] == **service);
    let listed = match action {
        "read" | "search" => lists(&may.read),
        "check" => lists(&may.read) || lists(&may.write),
        _ => lists(&may.write),
    };
    if !listed {
        return Some("service_not_allowed");
    }
    let prefix = request["match"] == "prefix";
    if (prefix || action == "search") && !may.search {
        return Some("action_not_in_policy");
    }
    let inside = match request["targets"].as_array() {
        Some(targets) => targets.iter().all(|target| may.covers(target.as_str().unwrap())),
        None if action == "check" => may.prefixes.as_ref().is_none_or(|prefixes| !prefixes.is_empty()),
        None => may.prefixes.is_none(),
    };
    (!inside).then_some("target_not_allowed")
}

fn names() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(TARGETS.to_vec(), 1..4).prop_shuffle()
}

fn request() -> impl Strategy<Value = Value> {
    let service = prop::sample::select(SERVICES.to_vec());
    let of = move |action: &'static str| (Just(action), service.clone());
    prop_oneof![
        4 => (of("write"), names(), any::<u16>()).prop_map(|((action, service), targets, number)| {
            let values: Vec<String> =
                targets.iter().map(|name| format!("{}-{number}-{name}", crate::reference::MARK)).collect();
            json!({"type": "REQUEST", "action": action, "service": service, "targets": targets, "values": values})
        }),
        4 => (of("read"), names(), any::<bool>()).prop_map(named),
        2 => (of("delete"), names(), any::<bool>()).prop_map(named),
        1 => (of("search"), names(), any::<bool>()).prop_map(named),
        1 => (of("check"), names(), any::<bool>()).prop_map(named),
        1 => prop_oneof![of("search"), of("check")].prop_map(|(action, service)| {
            json!({"type": "REQUEST", "action": action, "service": service})
        }),
    ]
}

fn named(((action, service), targets, prefix): ((&str, &str), Vec<&str>, bool)) -> Value {
    let mut request = json!({"type": "REQUEST", "action": action, "service": service, "targets": targets});
    if prefix {
        request["match"] = json!("prefix");
    }
    request
}

fn raw() -> impl Strategy<Value = Vec<u8>> {
    let written: Vec<&[u8]> = vec![
        b"",
        b"{",
        b"[]",
        b"{\"type\":\"REQUEST\"}",
        b"{\"type\":\"REQUEST\",\"action\":\"read\",\"service\":\"s\",\"targets\":[]}",
        b"{\"type\":\"REQUEST\",\"action\":\"read\",\"service\":\"s\",\"service\":\"s:a\",\"targets\":[\"a\"]}",
        b"{\"type\":\"REQUEST\",\"action\":\"write\",\"service\":\"s\",\"targets\":[\"a\"],\"values\":[]}",
        b"{\"type\":\"REQUEST\",\"action\":\"read\",\"service\":\"s\",\"targets\":[\"a\"]} x",
        b"{\"type\":\"REQUEST\",\"action\":\"read\",\"service\":\"\\ud800\",\"targets\":[\"a\"]}",
    ];
    prop_oneof![
        prop::sample::select(written).prop_map(<[u8]>::to_vec),
        vec(any::<u8>().prop_map(|byte| if byte == b'\n' { b' ' } else { byte }), 1..60),
    ]
}

fn may() -> impl Strategy<Value = May> {
    let services = || {
        subsequence(SERVICES.to_vec(), 0..=2)
            .prop_map(|some| some.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let prefixes = option::weighted(0.3, subsequence(vec!["a", "a:", "b"], 1..3));
    (services(), services(), any::<bool>(), prefixes).prop_map(|(read, write, search, prefixes)| May {
        read,
        write,
        search,
        prefixes: prefixes.map(|some| some.into_iter().map(str::to_owned).collect()),
    })
}

/// One action.
pub fn action() -> impl Strategy<Value = Action> {
    let who = 0..CLIENTS;
    prop_oneof![
        20 => (who.clone(), request()).prop_map(|(who, request)| Action::Ask { who, request }),
        3 => (who.clone(), raw()).prop_map(|(who, bytes)| Action::Raw { who, bytes }),
        3 => (who.clone(), option::weighted(0.8, may())).prop_map(|(who, may)| Action::Policy { who, may }),
        1 => (who, request(), 0..3000_u64)
            .prop_map(|(who, request, after)| Action::Kill { who, request, after }),
        1 => Just(Action::Stop {}),
    ]
}
