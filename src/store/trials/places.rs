//! Which records lie beside each other, and that nothing depends on it but the number of pages that are touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use redb::{ReadableDatabase, ReadableTable};

use super::{
    super::{
        disk::{RECORDS, open_shadow},
        files::Folder,
        place::{TOGETHER, name_part},
        seal::RecordKey,
    },
    *,
};

/// The places of all records of a closed vault.
fn places(dir: &Path) -> Vec<RecordKey> {
    let db = open_shadow(&Folder::open(dir).unwrap(), true).unwrap();
    let table = db.begin_read().unwrap().open_table(RECORDS).unwrap();
    table.iter().unwrap().map(|row| *row.unwrap().0.value()).collect()
}

fn groups(dir: &Path) -> usize {
    places(dir).iter().map(|at| at[..8].to_vec()).collect::<BTreeSet<_>>().len()
}

fn put(dir: &Path, batches: &[&[&str]], value: &str) {
    let vault = open_vault(dir).unwrap();
    for batch in batches {
        let pairs: Vec<(&str, &str)> = batch.iter().map(|name| (*name, value)).collect();
        done(&vault, write("s", &pairs, &[]));
    }
    vault.close().unwrap();
}

fn all(dir: &Path) -> Vec<String> {
    let vault = open_vault(dir).unwrap();
    read(&vault, "s", Names::All).unwrap()
}

#[test]
fn what_is_written_together_lies_together_and_what_is_written_alone_stays_where_it_is() {
    let dir = scratch();
    put(dir.path(), &[&["a", "b", "c"], &["d"], &["e"]], "1");
    assert_eq!(groups(dir.path()), 3);
    let before = places(dir.path());
    // alone, and with the same batch in another order
    put(dir.path(), &[&["b"], &["e"], &["c", "a", "b"]], "2");
    assert_eq!(places(dir.path()), before);
    assert_eq!(all(dir.path()), ["a=2", "b=2", "c=2", "d=1", "e=2"]);
    // what comes from elsewhere moves to where the first of its batch lies
    put(dir.path(), &[&["d", "b", "e", "f"]], "3");
    assert_eq!(groups(dir.path()), 2);
    assert_eq!(all(dir.path()), ["a=2", "b=3", "c=2", "d=3", "e=3", "f=3"]);
    let parts = |places: &[RecordKey]| places.iter().map(name_part).collect::<BTreeSet<_>>();
    assert!(parts(&places(dir.path())).is_superset(&parts(&before)), "each keeps its part of the hash");
}

#[test]
fn one_batch_may_name_what_an_earlier_one_of_its_group_has_moved_or_removed() {
    let dir = scratch();
    put(dir.path(), &[&["a", "b"], &["c", "d"]], "1");
    let vault = open_vault(dir.path()).unwrap();
    let exact = |names: &[&str]| selection("s", Names::Exact(targets(names)), &[]);
    let group = vec![
        write("s", &[("c", "2"), ("a", "2")], &[]),
        delete(exact(&["a", "d"])),
        write("s", &[("d", "3"), ("b", "3"), ("a", "3")], &[]),
        write("s", &[("a", "4"), ("c", "4")], &[]),
    ];
    assert!(vault.commit(group).into_iter().all(|outcome| outcome.is_ok()));
    let expected = ["a=4", "b=3", "c=4", "d=3"];
    assert_eq!(read(&vault, "s", Names::All).unwrap(), expected);
    vault.close().unwrap();
    assert_eq!((all(dir.path()), places(dir.path()).len()), (expected.map(str::to_owned).to_vec(), 4));
}

#[test]
fn under_another_key_what_lay_together_lies_together() {
    let dir = scratch();
    put(dir.path(), &[&["a", "b", "c"], &["d"], &["e", "f"]], "1");
    let before = places(dir.path());
    let record: RenderRecord = Box::new(|_| b"rekey".to_vec());
    open_taken(dir.path()).rekey(&KeyMaterial::File, record, &mut |_, _| {}).unwrap().close().unwrap();
    assert_eq!(groups(dir.path()), 3);
    let parts = |all: &[RecordKey]| -> BTreeSet<Vec<u8>> {
        all.iter().flat_map(|at| at.as_chunks::<4>().0.iter().map(|part| part.to_vec())).collect()
    };
    // who has the old key, and guesses names, finds none of them by a part of their old hashes
    assert!(parts(&places(dir.path())).is_disjoint(&parts(&before)), "something of an old place is left");
    assert_eq!(all(dir.path()).len(), 6);
}

#[test]
fn a_long_batch_is_several_groups_and_some_of_each_are_gathered_when_they_are_written_together() {
    let dir = scratch();
    let names: Vec<String> = (0..3 * TOGETHER).map(|number| format!("{number:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    put(dir.path(), &[&names], "1");
    assert_eq!(groups(dir.path()), 3);
    let some: Vec<&str> = names.iter().step_by(4).copied().collect();
    put(dir.path(), &[&some], "2");
    let vault = open_vault(dir.path()).unwrap();
    let all = read(&vault, "s", Names::All).unwrap();
    vault.close().unwrap();
    assert!(all.iter().all(|record| record.ends_with(if some.contains(&&record[..3]) {
        "=2"
    } else {
        "=1"
    })));
    let mut counts = BTreeMap::new();
    for at in places(dir.path()) {
        *counts.entry(at[..8].to_vec()).or_insert(0_usize) += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    // a quarter of the two others has moved to the first
    assert_eq!(counts, [TOGETHER * 3 / 4, TOGETHER * 3 / 4, TOGETHER * 3 / 2]);
}
