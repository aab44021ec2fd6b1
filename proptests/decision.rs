//! The decision against a model in plain words: what the entry does not say is denied, and the first failing check answers.

use keychain_auth::{
    name::{Attributes, Service, Target, TargetPrefix},
    policy::{Denial, decide_change, decide_check, decide_query},
    secret::{Buffer, SecretValue},
    store::{Change, Names, Query, Selection, WriteItem},
};
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::FileFailurePersistence};
use serde_json::json;

use crate::admitted::{admit, policy_with};

const SERVICES: [&str; 3] = ["aws", "AWS", "github"];

/// What an entry says.
#[derive(Debug, Clone)]
struct Says {
    read: Vec<&'static str>,
    write: Vec<&'static str>,
    search: bool,
    prefixes: Option<Vec<String>>,
}

impl Says {
    fn members(&self) -> String {
        let mut members = json!({"allowed_read_services": self.read, "allowed_write_services": self.write,
            "can_search": self.search});
        if let Some(prefixes) = &self.prefixes {
            members["allowed_target_prefixes"] = json!(prefixes);
        }
        let text = members.to_string();
        text[1..text.len() - 1].to_owned()
    }

    fn covers(&self, name: &str) -> bool {
        self.prefixes.as_ref().is_none_or(|list| list.iter().any(|prefix| name.starts_with(prefix)))
    }

    fn allows_no_target(&self) -> bool {
        self.prefixes.as_ref().is_some_and(Vec::is_empty)
    }

    /// `listed`: whether the list that the action needs has the service.
    fn answer(&self, listed: bool, searches: bool, asked: &Asked) -> Result<(), Denial> {
        let covered = match asked {
            Asked::Exact(names) | Asked::Prefix(names) => names.iter().all(|name| self.covers(name)),
            Asked::All => self.prefixes.is_none(),
        };
        match (listed, self.search || !searches, covered) {
            (false, ..) => Err(Denial::ServiceNotAllowed),
            (_, false, _) => Err(Denial::ActionNotInPolicy),
            (.., false) => Err(Denial::TargetNotAllowed),
            (true, true, true) => Ok(()),
        }
    }
}

#[derive(Debug, Clone)]
enum Asked {
    Exact(Vec<String>),
    Prefix(Vec<String>),
    All,
}

impl Asked {
    fn names(&self) -> Names {
        match self {
            Self::Exact(names) => {
                Names::Exact(names.iter().map(|name| Target::parse(name).expect("a target")).collect())
            }
            Self::Prefix(names) => {
                Names::Prefix(names.iter().map(|name| TargetPrefix::parse(name).expect("a prefix")).collect())
            }
            Self::All => Names::All,
        }
    }

    fn exact(&self) -> bool {
        matches!(self, Self::Exact(_))
    }
}

fn says() -> impl Strategy<Value = Says> {
    let list = || vec(select(&SERVICES[..]), 0..3);
    (list(), list(), any::<bool>(), option::of(vec("[ab]{1,2}/?", 0..3)))
        .prop_map(|(read, write, search, prefixes)| Says { read, write, search, prefixes })
}

fn asked() -> impl Strategy<Value = Asked> {
    let names = || vec("[ab]{1,3}/?[ab]?", 1..4);
    prop_oneof![names().prop_map(Asked::Exact), names().prop_map(Asked::Prefix), Just(Asked::All)]
}

fn service(name: &str) -> Service {
    Service::parse(name).expect("a service")
}

fn selection(name: &str, asked: &Asked) -> Selection {
    Selection { service: service(name), names: asked.names(), filter: Attributes::new() }
}

fn write_of(name: &str, targets: &[String]) -> Change {
    let item = |target: &String| WriteItem {
        target: Target::parse(target).expect("a target"),
        value: SecretValue::from_buffer(Buffer::from(&b"v"[..])).expect("a value"),
    };
    Change::Write {
        service: service(name),
        items: targets.iter().map(item).collect(),
        attributes: Attributes::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_query_is_allowed_exactly_when_the_entry_says_so(
        says in says(), name in select(&SERVICES[..]), asked in asked(), values in any::<bool>(),
    ) {
        let policy = policy_with(&says.members());
        let query = Query { selection: selection(name, &asked), values };
        let decided = decide_query(&admit(&policy), query).map(drop);
        prop_assert_eq!(decided, says.answer(says.read.contains(&name), !values || !asked.exact(), &asked));
    }

    #[test]
    fn a_delete_is_allowed_exactly_when_the_entry_says_so(says in says(), name in select(&SERVICES[..]), asked in asked()) {
        let policy = policy_with(&says.members());
        let decided = decide_change(&admit(&policy), Change::Delete(selection(name, &asked))).map(drop);
        prop_assert_eq!(decided, says.answer(says.write.contains(&name), !asked.exact(), &asked));
    }

    #[test]
    fn a_write_is_allowed_exactly_when_the_entry_says_so(
        says in says(), name in select(&SERVICES[..]), targets in vec("[ab]{1,3}/?[ab]?", 1..4),
    ) {
        let policy = policy_with(&says.members());
        let decided = decide_change(&admit(&policy), write_of(name, &targets)).map(drop);
        prop_assert_eq!(decided, says.answer(says.write.contains(&name), false, &Asked::Exact(targets)));
    }

    #[test]
    fn a_check_says_what_some_action_on_the_service_would_get(says in says(), name in select(&SERVICES[..]), asked in asked()) {
        let policy = policy_with(&says.members());
        let decided = decide_check(admit(&policy).entry().permissions(), &selection(name, &asked));
        let listed = says.read.contains(&name) || says.write.contains(&name);
        let expected = match asked {
            // without names it asks about the service alone, and an entry that allows no target allows nothing of it
            Asked::All if listed && says.allows_no_target() => Err(Denial::TargetNotAllowed),
            Asked::All => if listed { Ok(()) } else { Err(Denial::ServiceNotAllowed) },
            _ => says.answer(listed, !asked.exact(), &asked),
        };
        prop_assert_eq!(decided, expected);
    }
}
