//! The vault and the model in memory answer alike, whatever is asked, and also after the vault was opened again.

use secrecy::ExposeSecret;
use std::{fs::Permissions as Mode, os::unix::fs::PermissionsExt};

use keychain_auth::{
    name::{Attributes, Service, Target, TargetPrefix},
    policy::{decide_change, decide_query},
    secret::{Buffer, SecretValue},
    store::{
        Change, Committed, Memory, Names, PendingChange, Query, Selection, Store, StoreError, Vault,
        WriteItem,
    },
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::admitted::{admit, policy_for};

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Edit>),
    Read(Selection, bool),
    Settle(u64),
    Reopen { cleanly: bool },
}

#[derive(Debug, Clone)]
enum Edit {
    Write(Service, Vec<(Target, String)>, Attributes),
    Delete(Selection),
}

const SERVICES: [&str; 3] = ["a", "a:b", "b"];
const NAMES: [&str; 8] = ["a", "a/", "a/b", "a/b/c", "b", "b:c", "c", "ü"];

fn service() -> impl Strategy<Value = Service> {
    select(SERVICES.to_vec()).prop_map(|name| Service::parse(name).unwrap())
}

fn target() -> impl Strategy<Value = Target> {
    select(NAMES.to_vec()).prop_map(|name| Target::parse(name).unwrap())
}

fn attributes() -> impl Strategy<Value = Attributes> {
    vec((select(vec!["env", "team"]), select(vec!["", "x"])), 0..3).prop_map(|pairs| {
        let mut attributes = Attributes::new();
        for (name, value) in pairs {
            // a name that is there twice keeps its first value
            let _ = attributes.insert(name, value);
        }
        attributes
    })
}

fn selection() -> impl Strategy<Value = Selection> {
    let prefix = select(NAMES.to_vec()).prop_map(|name| TargetPrefix::parse(name).unwrap());
    let names = prop_oneof![
        proptest::sample::subsequence(NAMES.to_vec(), 1..=NAMES.len()).prop_shuffle().prop_map(|names| {
            Names::Exact(names.into_iter().map(|name| Target::parse(name).unwrap()).collect())
        }),
        vec(prefix, 1..4).prop_map(Names::Prefix),
        Just(Names::All),
    ];
    let filter = prop_oneof![3 => Just(Attributes::new()), 1 => attributes()];
    (service(), names, filter).prop_map(|(service, names, filter)| Selection { service, names, filter })
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => (service(), vec((target(), ".{0,80}"), 1..5), attributes())
            .prop_map(|(service, items, attributes)| Edit::Write(service, items, attributes)),
        1 => selection().prop_map(Edit::Delete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(edit(), 1..4).prop_map(Step::Commit),
        6 => (selection(), any::<bool>()).prop_map(|(selection, values)| Step::Read(selection, values)),
        1 => (0_u64..30).prop_map(Step::Settle),
        1 => any::<bool>().prop_map(|cleanly| Step::Reopen { cleanly }),
    ]
}

fn pending(edit: &Edit) -> PendingChange {
    let change = match edit {
        Edit::Write(service, items, attributes) => Change::Write {
            service: service.clone(),
            items: items.iter().map(item).collect(),
            attributes: attributes.clone(),
        },
        Edit::Delete(selection) => Change::Delete(selection.clone()),
    };
    let record = |touched: &[Target]| format!("{touched:?}").into_bytes();
    let policy = policy_for(&SERVICES);
    PendingChange { change: decide_change(&admit(&policy), change).unwrap(), record: Box::new(record) }
}

fn item((target, value): &(Target, String)) -> WriteItem {
    let value = SecretValue::from_buffer(Buffer::from(value.as_bytes())).unwrap();
    WriteItem { target: target.clone(), value }
}

/// Everything a result says, in a form that can be compared.
fn told(result: Result<Committed, StoreError>) -> String {
    match result {
        Ok(committed) => {
            let records = committed.records().iter().map(|record| {
                let value = record.value.as_ref().map(ExposeSecret::expose_secret);
                format!("{:?} {value:?} {:?}", record.target, record.attributes)
            });
            format!("{:?} {:?}", records.collect::<Vec<_>>(), committed.outbox())
        }
        Err(error) => error.to_string(),
    }
}

fn commit(store: &dyn Store, edits: &[Edit]) -> Vec<String> {
    store.commit(edits.iter().map(pending).collect()).into_iter().map(told).collect()
}

fn read(store: &dyn Store, selection: &Selection, values: bool) -> String {
    let query = Query { selection: selection.clone(), values };
    let policy = policy_for(&SERVICES);
    told(store.read(decide_query(&admit(&policy), query).unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: Some(Box::new(
            proptest::test_runner::FileFailurePersistence::WithSource("regressions"),
        )),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_vault_does_what_the_model_does(steps in vec(step(), 1..25)) {
        let dir = tempfile::Builder::new().permissions(Mode::from_mode(0o700)).tempdir().unwrap();
        let mut vault = Vault::open(dir.path()).unwrap();
        let model = Memory::new();
        let mut settled = 0;
        for step in &steps {
            match step {
                Step::Commit(edits) => prop_assert_eq!(commit(&vault, edits), commit(&model, edits)),
                Step::Read(selection, values) => {
                    prop_assert_eq!(read(&vault, selection, *values), read(&model, selection, *values));
                }
                Step::Settle(id) => {
                    settled = settled.max(*id);
                    vault.settle(*id);
                    model.settle(*id);
                }
                Step::Reopen { cleanly } => {
                    if *cleanly { vault.close().unwrap() } else { drop(vault) }
                    vault = Vault::open(dir.path()).unwrap();
                    // what is settled is known to the log, which tells the vault again at each start
                    vault.settle(settled);
                }
            }
            prop_assert_eq!(vault.outbox().unwrap(), model.outbox().unwrap());
            for name in SERVICES {
                let service = Service::parse(name).unwrap();
                let all = Selection { service, names: Names::All, filter: Attributes::new() };
                prop_assert_eq!(read(&vault, &all, true), read(&model, &all, true));
            }
        }
    }
}
