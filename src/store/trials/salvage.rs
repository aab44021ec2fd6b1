//! A damaged vault, served for reading only: the right value or an error, never less under success, never a byte changed.

use std::{fs, path::Path};

use super::{
    super::{
        disk::{RECORDS, open_shadow},
        files::Folder,
        salvage::Age,
        seal::RecordKey,
    },
    damage::edit,
    *,
};
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata};

const COUNT: usize = 40;

fn name(number: usize) -> String {
    format!("target/{number}")
}

/// A closed vault with 40 secrets of 150 bytes each, and more than one page of them.
fn filled() -> tempfile::TempDir {
    let dir = scratch();
    let vault = open_vault(dir.path()).unwrap();
    let pairs: Vec<(String, String)> =
        (0..COUNT).map(|number| (name(number), format!("{number}{}", "v".repeat(150)))).collect();
    let pairs: Vec<(&str, &str)> =
        pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    done(&vault, write("s", &pairs, &[]));
    vault.close().unwrap();
    dir
}

fn salvage(dir: &Path) -> Result<Salvage, StoreError> {
    open_taken(dir).salvage(&KeyMaterial::File)
}

fn rows(dir: &Path) -> Vec<(RecordKey, Vec<u8>)> {
    let db = open_shadow(&Folder::open(dir).unwrap(), true).unwrap();
    let table = db.begin_read().unwrap().open_table(RECORDS).unwrap();
    assert_eq!(table.len().unwrap() as usize, COUNT);
    table
        .iter()
        .unwrap()
        .map(|row| row.unwrap())
        .map(|(at, row)| (*at.value(), row.value().to_vec()))
        .collect()
}

/// Where these bytes lie in the file, wherever a copy of them lies.
fn places(file: &[u8], bytes: &[u8]) -> Vec<usize> {
    (0..=file.len() - bytes.len()).filter(|at| file[*at..].starts_with(bytes)).collect()
}

/// Each name read by itself, and what a list of all says. Every value is right, and every answer is whole.
fn tried(salvage: &Salvage) -> (usize, bool) {
    let mut right = 0;
    for number in 0..COUNT {
        let wanted = targets(&[&name(number)]);
        match read(salvage, "s", Names::Exact(wanted)) {
            Ok(found) => {
                assert_eq!(found, [format!("{}={number}{}", name(number), "v".repeat(150))]);
                right += 1;
            }
            Err(error) => assert!(matches!(error, StoreError::Damaged(_)), "{error}"),
        }
    }
    let extent = salvage.extent();
    assert_eq!((extent.intact as usize, extent.damaged as usize), (right, COUNT - right));
    let listed = match read(salvage, "s", prefixes(&["target/"])) {
        Ok(found) => {
            assert_eq!(found.len(), COUNT, "fewer under success");
            true
        }
        Err(error) => {
            assert!(matches!(error, StoreError::Damaged(_)), "{error}");
            false
        }
    };
    (right, listed)
}

fn refuses_changes(salvage: &Salvage) {
    for change in [write("s", &[("a", "1")], &[]), delete(selection("s", Names::All, &[]))] {
        assert_eq!(commit_one(salvage, change).err(), Some(StoreError::Salvaged));
    }
}

#[test]
fn every_flipped_bit_of_a_record_loses_that_record_alone_and_changes_nothing() {
    let original = filled();
    let file = fs::read(original.path().join("vault.redb")).unwrap();
    let (at, sealed) = rows(original.path()).swap_remove(7);
    let value_starts = sealed.len() - (192 + 16);
    let copies = places(&file, &sealed);
    let keys = places(&file, &at);
    assert!(!copies.is_empty() && !keys.is_empty());
    // nonce, length, label and value, then the key that it rests under
    let flips = (0..sealed.len()).map(|byte| (&copies, byte)).chain((0..at.len()).map(|byte| (&keys, byte)));
    let mut unordered = 0;
    for (index, (copies, byte)) in flips.enumerate() {
        let dir = copy_dir(original.path());
        let mut damaged = file.clone();
        for copy in copies {
            damaged[copy + byte] ^= 1 << (index % 8);
        }
        let path = dir.path().join("vault.redb");
        fs::write(&path, &damaged).unwrap();
        assert!(matches!(open_vault(dir.path()), Err(StoreError::Damaged(_))), "byte {byte}");
        assert!(fs::read(&path).unwrap() == damaged, "a refusal changed the file");
        let salvage = salvage(dir.path()).unwrap_or_else(|error| panic!("byte {byte} of {index}: {error}"));
        let (right, listed) = tried(&salvage);
        assert_eq!((right, listed), (COUNT - 1, false), "byte {byte} of {index}");
        // a name that was never there is told apart from those that can't be read, also when one has lost its name
        assert_eq!(read(&salvage, "s", Names::Exact(targets(&["never"]))), Ok(Vec::new()));
        let names = salvage.read(query(selection("s", Names::All, &[]), false));
        let whole_label = index >= value_starts && index < sealed.len();
        assert!(names.is_err() || whole_label, "a list without a name: byte {byte}");
        assert!(names.is_ok() || !whole_label, "only the value is damaged");
        refuses_changes(&salvage);
        unordered += 1;
        drop(salvage);
        assert!(fs::read(&path).unwrap() == damaged, "byte {byte}: salvage changed the file");
    }
    assert!(unordered > 300, "{unordered}");
}

#[test]
fn any_damage_is_salvaged_right_or_refused_and_no_file_is_written() {
    let original = filled();
    let file = fs::read(original.path().join("vault.redb")).unwrap();
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let (mut served, mut refused) = (0, 0);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for step in 0..400_usize {
            let dir = copy_dir(original.path());
            let mut damaged = file.clone();
            // one bit, or a run of bytes, anywhere in the used part and beyond
            let at = step * 7919 % damaged.len();
            match step % 3 {
                0 => damaged[at] ^= 1 << (step % 8),
                1 => damaged[at..].iter_mut().take(16).for_each(|byte| *byte = 0),
                _ => damaged[at..].iter_mut().take(600).for_each(|byte| *byte = byte.wrapping_mul(31)),
            }
            let path = dir.path().join("vault.redb");
            fs::write(&path, &damaged).unwrap();
            // the database's own assertions stop what they meet; the daemon tries in a child
            match std::panic::catch_unwind(|| salvage(dir.path())) {
                Ok(Ok(salvage)) => {
                    let (right, listed) = tried(&salvage);
                    assert!(!listed || right == COUNT);
                    refuses_changes(&salvage);
                    served += 1;
                }
                Ok(Err(_)) | Err(_) => refused += 1,
            }
            assert!(fs::read(&path).unwrap() == damaged, "step {step}");
        }
    }));
    std::panic::set_hook(quiet);
    outcome.unwrap_or_else(|why| panic!("{:?}", why.downcast_ref::<String>()));
    assert!(served > 20 && refused > 20, "{served} served, {refused} refused");
}

#[test]
fn a_record_that_is_missing_or_an_older_one_is_not_salvaged_around() {
    let original = filled();
    let (at, older) = rows(original.path()).swap_remove(3);
    let vault = open_vault(original.path()).unwrap();
    let pairs: Vec<String> = (0..COUNT).map(name).collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|name| (name.as_str(), "new")).collect();
    done(&vault, write("s", &pairs, &[]));
    vault.close().unwrap();
    for put_back in [true, false] {
        let dir = copy_dir(original.path());
        edit(dir.path(), |transaction| {
            let mut table = transaction.open_table(RECORDS).unwrap();
            match put_back {
                true => drop(table.insert(&at, older.as_slice()).unwrap()),
                false => drop(table.remove(&at).unwrap()),
            }
        });
        assert!(
            matches!(salvage(dir.path()), Err(StoreError::Damaged(_))),
            "nobody knows which one is older"
        );
    }
}

#[test]
fn of_a_vault_that_was_put_back_what_is_there_is_read_and_nothing_is_missing_under_success() {
    for saved in [false, true] {
        let dir = scratch();
        let vault = open_vault(dir.path()).unwrap();
        done(&vault, write("s", &[("a", "1")], &[]));
        let older = copy_dir(dir.path());
        done(&vault, write("s", &[("b", "2")], &[]));
        let mut seat = vault.take_seat().unwrap();
        if saved {
            seat.save(&super::super::seat::tests::epoch(1)).unwrap();
        }
        vault.close().unwrap();
        // alone its head tells; together with its head the audit state does
        let files: &[&str] = if saved { &["vault.redb", "vault.head"] } else { &["vault.redb"] };
        for file in files {
            fs::copy(older.path().join(file), dir.path().join(file)).unwrap();
        }
        let error = open_vault(dir.path()).err();
        assert_eq!(error, Some(StoreError::Damaged("it was put back to an earlier state")), "{saved}");
        let found = open_taken(dir.path()).verify(&KeyMaterial::File, &mut |_, _| {}).unwrap();
        assert_eq!(found.problems, ["it was put back to an earlier state"]);
        let before = fs::read(dir.path().join("vault.redb")).unwrap();
        let salvage = salvage(dir.path()).unwrap();
        assert!(salvage.extent().age == Age::Earlier && salvage.extent().words().contains("earlier state"));
        assert_eq!(read(&salvage, "s", Names::Exact(targets(&["a"]))).unwrap(), ["a=1"]);
        for names in
            [Names::Exact(targets(&["b"])), Names::Exact(targets(&["a", "b"])), Names::All, prefixes(&["a"])]
        {
            assert!(matches!(read(&salvage, "s", names), Err(StoreError::Damaged(_))));
        }
        refuses_changes(&salvage);
        drop(salvage);
        assert!(fs::read(dir.path().join("vault.redb")).unwrap() == before);
    }
}

#[test]
fn a_whole_vault_is_salvaged_whole_and_none_is_made_where_there_is_none() {
    let dir = filled();
    let salvage = salvage(dir.path()).unwrap();
    assert_eq!(tried(&salvage), (COUNT, true));
    assert_eq!(salvage.extent(), Extent { intact: COUNT as u64, damaged: 0, age: Age::Current, whole: true });
    refuses_changes(&salvage);
    let empty = scratch();
    assert_eq!(open_taken(empty.path()).salvage(&KeyMaterial::File).err(), Some(StoreError::Absent));
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn what_the_log_of_a_salvaged_vault_notes_is_how_far_that_vault_had_come() {
    let dir = filled();
    let state = dir.path().join("audit.state");
    fs::write(&state, vec![1; fs::metadata(&state).unwrap().len().max(1) as usize]).unwrap();
    let salvaged = salvage(dir.path()).unwrap();
    let reached = salvaged.take_seat().unwrap().generation();
    drop(salvaged);
    let vault = open_vault(dir.path()).unwrap();
    assert!(reached > 1, "{reached}");
    assert_eq!(reached, vault.take_seat().unwrap().generation());
}

#[test]
fn without_an_intact_head_nobody_is_told_that_a_vault_was_put_back_nor_that_a_name_is_not_there() {
    for damage in [|head: &Path| fs::remove_file(head).unwrap(), |head: &Path| fs::write(head, "x").unwrap()]
    {
        let dir = filled();
        damage(&dir.path().join("vault.head"));
        let salvage = salvage(dir.path()).unwrap();
        assert_eq!(
            salvage.extent(),
            Extent { intact: COUNT as u64, damaged: 0, age: Age::Untold, whole: false }
        );
        assert!(salvage.extent().words().contains("without an intact vault.head"));
        for names in [Names::Exact(targets(&["not there"])), Names::All] {
            let told = read(&salvage, "s", names).unwrap_err().to_string();
            assert!(told.contains("names may be missing") && told.contains("vault.head"), "{told}");
        }
    }
}
