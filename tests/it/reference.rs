//! A reference: what clients were told, and which stores are possible after it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Values by service and target.
pub type Store = BTreeMap<(String, String), String>;

/// An action, its service and its targets, as a record has them.
type Done = (String, String, Vec<String>);

/// What begins every value, and may be seen in no refusal, log or queue.
pub const MARK: &str = "S3CR3T";

/// Every reason of a refusal.
const REASONS: [&str; 11] = [
    "unregistered_binary_pending_approval",
    "service_not_allowed",
    "action_not_in_policy",
    "target_not_allowed",
    "untrusted_caller",
    "malformed_request",
    "store_locked",
    "audit_unavailable",
    "rate_limited",
    "overloaded",
    "internal_error",
];

/// The stores that are possible after what was said, and how many records of which kind there must be.
#[derive(Debug, Clone)]
pub struct Model {
    /// More than one while it is unknown what became of a change whose reply did not arrive.
    pub stores: Vec<Store>,
    /// Every success that was said.
    pub said: Vec<Done>,
    /// Of every change whose reply did not arrive.
    pub unsure: Vec<Done>,
    /// Whether a change that an error answered may have happened: the disk did not say, and goes on failing.
    pub unsure_of_errors: bool,
    /// Requests that would have been served, and were not.
    pub refused: Vec<String>,
    /// What may never be.
    pub problems: Vec<String>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            stores: vec![Store::new()],
            said: vec![],
            unsure: vec![],
            unsure_of_errors: false,
            refused: vec![],
            problems: vec![],
        }
    }
}

impl Model {
    pub fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(what.into());
    }

    /// Takes in the reply to a request that the policy allows; None if none came.
    pub fn served(&mut self, request: &Value, reply: Option<&Value>) {
        let action = request["action"].as_str().unwrap_or("HELLO").to_owned();
        match reply {
            None => {
                self.perhaps(request);
                self.refused.push(format!("{action}: no reply"));
            }
            Some(reply) if reply["status"] == "success" || reply["type"] != "RESPONSE" => {
                self.success(request, &action, reply);
            }
            Some(reply) => {
                self.refusal(reply);
                if self.unsure_of_errors && reply["reason"] == "internal_error" {
                    self.perhaps(request);
                }
                self.refused.push(format!("{action}: {}", reply["reason"].as_str().unwrap_or_default()));
            }
        }
    }

    /// A change that has happened whole or not at all.
    fn perhaps(&mut self, request: &Value) {
        if request["action"] == "write" || request["action"] == "delete" {
            let changed: Vec<Store> = self.stores.iter().map(|store| changed(store, request)).collect();
            self.stores.extend(changed);
            self.stores.dedup();
            let [action, service] = ["action", "service"].map(|member| word(&request[member]));
            self.unsure.push((action, service, words(&request["targets"])));
        }
    }

    /// Takes in the reply to a request that must be refused, whatever fails.
    pub fn denied(&mut self, what: &str, reply: Option<&Value>) {
        match reply {
            Some(reply) if reply["status"] == "success" => {
                self.problem(format!("{what} was served: {reply}"));
            }
            Some(reply) => self.refusal(reply),
            None => {}
        }
    }

    /// Takes in the reply to a request that must be refused for this reason.
    pub fn denied_because(&mut self, what: &str, reason: &str, reply: Option<&Value>) {
        match reply {
            Some(reply) if reply["reason"] == reason => self.refusal(reply),
            other => self.problem(format!("{what} is {reason}, and was answered {other:?}")),
        }
    }

    fn refusal(&mut self, reply: &Value) {
        let known = reply["reason"].as_str().is_some_and(|reason| REASONS.contains(&reason));
        if !known || reply["type"] != "RESPONSE" || reply.to_string().contains(MARK) {
            self.problem(format!("no proper refusal: {reply}"));
        }
    }

    fn success(&mut self, request: &Value, action: &str, reply: &Value) {
        let possible = |store: &Store| answer(store, request).is_none_or(|answer| answer == *reply);
        if !self.stores.iter().any(possible) {
            return self.problem(format!("{action} of {} was answered {reply}", request["targets"]));
        }
        self.stores.retain(possible);
        let targets = match action {
            // an exact request has the names that it asked for, any other those that it came upon
            "read" | "search" | "delete" if action == "search" || request["match"] == "prefix" => {
                reply["results"]
                    .as_array()
                    .map(|results| results.iter().map(|result| word(&result["target"])).collect())
                    .unwrap_or_default()
            }
            "check" if request["match"] == "prefix" => vec![],
            _ => words(&request["targets"]),
        };
        if matches!(action, "write" | "delete") {
            for store in &mut self.stores {
                *store = changed(store, request);
            }
        }
        if action != "HELLO" {
            self.said.push((action.to_owned(), word(&request["service"]), targets));
        }
    }

    /// Compares the audit log with what was said.
    pub fn compare_records(&mut self, records: &[Value]) {
        let mut granted: BTreeMap<Done, usize> = BTreeMap::new();
        // a log that was moved away, or that the disk did not confirm, gets the lines of the outbox once more
        let mut lines = BTreeSet::new();
        for record in records.iter().filter(|record| record["result"] == "GRANTED") {
            if !lines.insert((record["timestamp"].to_string(), record["pid"].to_string())) {
                continue;
            }
            let done = (word(&record["action"]), word(&record["service"]), words(&record["targets"]));
            *granted.entry(done).or_default() += 1;
        }
        let count = |list: &[Done], key| list.iter().filter(|one| *one == key).count();
        let said = self.said.clone();
        for key in &said {
            let (recorded, said) = (granted.get(key).copied().unwrap_or_default(), count(&said, key));
            if recorded < said {
                self.problem(format!("{key:?} was said {said} times, and has {recorded} records"));
            }
        }
        for (key, recorded) in granted.iter().filter(|((action, ..), _)| action == "write") {
            let most = count(&said, key) + count(&self.unsure, key);
            if *recorded > most {
                self.problem(format!("{key:?} has {recorded} records, and was done at most {most} times"));
            }
        }
    }
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().map(|words| words.iter().map(word).collect()).unwrap_or_default()
}

/// The names of a store that a request means.
fn meant(store: &Store, request: &Value) -> Vec<(String, String)> {
    let asked = words(&request["targets"]);
    let service = word(&request["service"]);
    if request["match"] == "prefix" || request["targets"].is_null() {
        let wanted = |(of, name): &&(String, String)| {
            *of == service && (asked.is_empty() || asked.iter().any(|begin| name.starts_with(begin)))
        };
        store.keys().filter(wanted).cloned().collect()
    } else {
        let names = asked.into_iter().map(|name| (service.clone(), name));
        names.filter(|name| store.contains_key(name)).collect()
    }
}

fn changed(store: &Store, request: &Value) -> Store {
    let mut store = store.clone();
    if request["action"] == "delete" {
        for name in meant(&store, request) {
            store.remove(&name);
        }
    } else {
        let names = words(&request["targets"]).into_iter().map(|name| (word(&request["service"]), name));
        store.extend(names.zip(words(&request["values"])));
    }
    store
}

/// The one answer that a store gives to a request. None where the answer does not depend on it.
fn answer(store: &Store, request: &Value) -> Option<Value> {
    let action = request["action"].as_str()?;
    let result = |name: (String, String)| match action {
        "read" => json!({"target": name.1, "value": store[&name]}),
        _ => json!({"target": name.1}),
    };
    let results: Vec<Value> = match action {
        "write" | "check" => vec![],
        _ => meant(store, request).into_iter().map(result).collect(),
    };
    Some(json!({"type": "RESPONSE", "status": "success", "results": results}))
}
