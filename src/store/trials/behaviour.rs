//! What every store does alike.

use super::*;

#[test]
fn the_memory_behaves_as_a_store() {
    suite(&|| (None, Box::new(Memory::new())));
}

#[test]
fn the_vault_behaves_as_a_store() {
    suite(&|| {
        let dir = scratch();
        let vault = open_vault(dir.path()).unwrap();
        (Some(dir), Box::new(vault))
    });
}

pub(super) type Made = (Option<tempfile::TempDir>, Box<dyn Store>);

type Behaviour = fn(&dyn Store);

/// Those that take few records.
pub(super) const LIGHT: [Behaviour; 8] = [
    exact_reads_answer_in_request_order_and_leave_out_what_is_missing,
    searches_and_prefixes_are_sorted_and_filtered,
    a_write_replaces_value_and_attributes,
    deletes_name_what_they_removed_and_keep_their_line_even_for_nothing,
    services_and_targets_are_separate,
    changes_of_a_group_are_seen_by_those_after_them,
    every_change_leaves_a_line_until_it_is_settled_and_another_commit_came,
    values_may_be_empty_and_as_long_as_allowed,
];
const HEAVY: [Behaviour; 3] = [
    an_answer_beyond_the_limit_is_an_error,
    a_reader_beside_a_writer_never_sees_two_writes_mixed,
    a_delete_beyond_the_limit_touches_nothing_and_spares_its_group,
];

pub(super) fn suite(make: &dyn Fn() -> Made) {
    for behaviour in LIGHT.into_iter().chain(HEAVY) {
        let (_dir, store) = make();
        behaviour(&*store);
    }
}

fn exact_reads_answer_in_request_order_and_leave_out_what_is_missing(store: &dyn Store) {
    let exact = |names: &[&str]| Names::Exact(targets(names));
    assert_eq!(read(store, "s", exact(&["b", "a"])).unwrap(), [""; 0]);
    let committed = commit_one(store, write("s", &[("a", "1"), ("b", "2")], &[])).unwrap();
    assert!(committed.records().is_empty());
    assert_eq!(read(store, "s", exact(&["b", "none", "a"])).unwrap(), ["b=2", "a=1"]);
    assert_eq!(read(store, "S", exact(&["a"])).unwrap(), [""; 0], "services are case-sensitive");
}

fn searches_and_prefixes_are_sorted_and_filtered(store: &dyn Store) {
    done(store, write("s", &[("p/2", "2"), ("q", "3"), ("p", "4")], &[("env", "dev")]));
    done(store, write("s", &[("p/1", "1")], &[("env", "prod"), ("team", "x")]));
    let search = |names: Names, filter: &[(&str, &str)]| {
        words(&store.read(query(selection("s", names, filter), false)).unwrap())
    };
    assert_eq!(search(Names::All, &[]), ["p=-", "p/1=-", "p/2=-", "q=-"]);
    assert_eq!(search(prefixes(&["q", "p/", "p/1"]), &[]), ["p/1=-", "p/2=-", "q=-"]);
    assert_eq!(search(Names::All, &[("env", "prod")]), ["p/1=-"]);
    assert_eq!(search(Names::Exact(targets(&["q", "p/1"])), &[("env", "dev")]), ["q=-"]);
    let found = store.read(query(selection("s", prefixes(&["p/1"]), &[]), true)).unwrap();
    assert_eq!(found.records()[0].attributes, attributes(&[("env", "prod"), ("team", "x")]));
    assert_eq!(words(&found), ["p/1=1"]);
    assert!(found.outbox().is_none());
}

fn a_write_replaces_value_and_attributes(store: &dyn Store) {
    done(store, write("s", &[("a", "1")], &[("env", "dev")]));
    done(store, write("s", &[("a", "2")], &[]));
    let found = store.read(query(selection("s", Names::All, &[]), true)).unwrap();
    assert_eq!(words(&found), ["a=2"]);
    assert!(found.records()[0].attributes.is_empty());
}

fn deletes_name_what_they_removed_and_keep_their_line_even_for_nothing(store: &dyn Store) {
    done(store, write("s", &[("a", "1"), ("b", "2")], &[("env", "dev")]));
    done(store, write("s", &[("p/1", "3"), ("p/2", "4")], &[]));
    let gone = commit_one(store, delete(selection("s", Names::Exact(targets(&["x", "b"])), &[]))).unwrap();
    assert_eq!(words(&gone), ["b=-"]);
    let none = commit_one(store, delete(selection("none", Names::All, &[]))).unwrap();
    assert!(none.records().is_empty());
    assert_eq!(none.outbox().unwrap().line, b"delete ");
    let filtered = commit_one(store, delete(selection("s", Names::All, &[("env", "dev")]))).unwrap();
    assert_eq!(words(&filtered), ["a=-"]);
    let rest = commit_one(store, delete(selection("s", prefixes(&["p/"]), &[]))).unwrap();
    assert_eq!(words(&rest), ["p/1=-", "p/2=-"]);
    assert_eq!(read(store, "s", Names::All).unwrap(), [""; 0]);
    assert_eq!(
        lines(store),
        ["write a,b", "write p/1,p/2", "delete b", "delete ", "delete a", "delete p/1,p/2"]
    );
}

fn services_and_targets_are_separate(store: &dyn Store) {
    done(store, write("a", &[("b:c", "1")], &[]));
    done(store, write("a:b", &[("c", "2")], &[]));
    assert_eq!(read(store, "a", Names::All).unwrap(), ["b:c=1"]);
    assert_eq!(read(store, "a:b", Names::All).unwrap(), ["c=2"]);
}

fn changes_of_a_group_are_seen_by_those_after_them(store: &dyn Store) {
    done(store, write("s", &[("p/0", "0")], &[("env", "old")]));
    let results = store.commit(vec![
        write("s", &[("p/1", "1"), ("p/2", "2")], &[("env", "new")]),
        delete(selection("s", prefixes(&["p/"]), &[("env", "new")])),
        write("s", &[("p/1", "again")], &[]),
        delete(selection("s", Names::Exact(targets(&["p/1", "p/0"])), &[])),
        write("s", &[("p/3", "3")], &[]),
    ]);
    let results: Vec<Committed> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(words(&results[1]), ["p/1=-", "p/2=-"]);
    assert_eq!(words(&results[3]), ["p/1=-", "p/0=-"], "in the order asked");
    let ids: Vec<u64> = results.iter().map(|result| result.outbox().unwrap().id).collect();
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ids:?}");
    assert_eq!(read(store, "s", Names::All).unwrap(), ["p/3=3"]);
}

fn every_change_leaves_a_line_until_it_is_settled_and_another_commit_came(store: &dyn Store) {
    let first = commit_one(store, write("s", &[("a", "1")], &[])).unwrap().outbox().unwrap().clone();
    let second = commit_one(store, write("s", &[("b", "2")], &[])).unwrap().outbox().unwrap().clone();
    assert_eq!(store.outbox().unwrap().lines, [first.clone(), second.clone()]);
    store.settle(first.id);
    assert_eq!(store.outbox().unwrap().lines, std::slice::from_ref(&second));
    let third = commit_one(store, delete(selection("s", Names::All, &[]))).unwrap().outbox().unwrap().clone();
    assert!(third.id > second.id);
    assert_eq!(store.outbox().unwrap().lines, [second, third]);
    store.settle(u64::MAX);
    assert!(store.outbox().unwrap().lines.is_empty());
    assert!(store.commit(Vec::new()).is_empty());
}

fn values_may_be_empty_and_as_long_as_allowed(store: &dyn Store) {
    let long = "v".repeat(crate::secret::MAX_VALUE);
    done(store, write("s", &[("empty", ""), ("long", &long)], &[]));
    let found = read(store, "s", Names::All).unwrap();
    assert_eq!(found, ["empty=".to_owned(), format!("long={long}")]);
}

fn an_answer_beyond_the_limit_is_an_error(store: &dyn Store) {
    let long = "v".repeat(crate::secret::MAX_VALUE);
    let names: Vec<String> = (0..170).map(|number| format!("t{number}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), long.as_str())).collect();
    done(store, write("s", &pairs, &[]));
    assert_eq!(read(store, "s", Names::All), Err(StoreError::TooLarge));
    let search = store.read(query(selection("s", Names::All, &[]), false)).unwrap();
    assert_eq!(search.records().len(), 170);
}

fn a_delete_beyond_the_limit_touches_nothing_and_spares_its_group(store: &dyn Store) {
    let names: Vec<String> = (0..10_300).map(|number| format!("{number:01024}")).collect();
    for chunk in names.chunks(1030) {
        let pairs: Vec<(&str, &str)> = chunk.iter().map(|name| (name.as_str(), "")).collect();
        done(store, write("s", &pairs, &[]));
    }
    let delete_all = delete(selection("s", Names::All, &[]));
    let results = store.commit(vec![delete_all, write("t", &[("a", "1")], &[])]);
    assert_eq!(results[0].as_ref().err(), Some(&StoreError::TooLarge));
    assert!(results[1].is_ok());
    assert_eq!(read(store, "t", Names::All).unwrap(), ["a=1"]);
    assert_eq!(read(store, "s", prefixes(&[names[0].as_str()])).unwrap().len(), 1);
    assert_eq!(store.outbox().unwrap().lines.len(), 11);
}

fn a_reader_beside_a_writer_never_sees_two_writes_mixed(store: &dyn Store) {
    let names: Vec<String> = (0..100).map(|number| format!("t{number:03}")).collect();
    let flip = |value: &str, count: usize| {
        let pairs: Vec<(&str, &str)> = names[..count].iter().map(|name| (name.as_str(), value)).collect();
        vec![delete(selection("s", Names::All, &[])), write("s", &pairs, &[])]
    };
    assert!(store.commit(flip("0", 100)).iter().all(Result::is_ok));
    std::thread::scope(|scope| {
        let reader = || {
            let mut seen = std::collections::BTreeSet::new();
            while !seen.contains("99") {
                let found = match read(store, "s", Names::All) {
                    // a keychain whose items change faster than they can be read tells nothing, which is no mixture
                    Err(StoreError::Unreachable(_)) => continue,
                    found => found.unwrap(),
                };
                let (_, value) = found[0].split_once('=').unwrap();
                assert!(found.iter().all(|one| one.ends_with(&format!("={value}"))), "{found:?}");
                assert_eq!(found.len(), 100 - value.parse::<usize>().unwrap() % 7);
                seen.insert(value.to_owned());
            }
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        for round in 1..100 {
            assert!(store.commit(flip(&round.to_string(), 100 - round % 7)).iter().all(Result::is_ok));
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
