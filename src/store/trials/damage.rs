//! Bits, files and whole states changed under the vault: an error or intact data, never fewer secrets.

use std::{fs, panic};

use super::*;

const FILES: [&str; 3] = ["vault.redb", "vault.key", "vault.head"];

/// A vault with 40 secrets and two lines, in the state that a SIGKILL leaves, or closed.
fn filled(closed: bool) -> (tempfile::TempDir, Vec<String>) {
    let dir = scratch();
    let vault = open_vault(dir.path()).unwrap();
    let names: Vec<String> = (0..40).map(|number| format!("target/{number}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    done(&vault, write("s", &pairs[..39], &[]));
    done(&vault, write("s", &pairs[39..], &[("last", "yes")]));
    let expected = read(&vault, "s", Names::All).unwrap();
    assert_eq!(expected.len(), 40);
    if closed {
        vault.close().unwrap();
        return (dir, expected);
    }
    (copy_dir(dir.path()), expected)
}

/// Opens what is in `dir`; whatever opens must be whole.
fn opens_whole(dir: &Path, expected: &[String]) -> Result<(), StoreError> {
    let vault = open_vault(dir)?;
    let values = read(&vault, "s", Names::All)?;
    assert_eq!(values, expected, "fewer or other secrets under success");
    assert_eq!(lines(&vault).len(), 2, "a line was lost under success");
    Ok(())
}

#[test]
fn a_vault_with_one_flipped_bit_is_an_error_or_intact_never_less() {
    // redb checks itself with assertions in debug builds; a panic is no success either
    let quiet = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let (mut tried, mut refused) = (0, 0);
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        for closed in [true, false] {
            let (original, expected) = filled(closed);
            for file in FILES {
                let bytes = fs::read(original.path().join(file)).unwrap();
                for bit in positions(bytes.len()) {
                    let dir = copy_dir(original.path());
                    let mut damaged = bytes.clone();
                    damaged[bit / 8] ^= 1 << (bit % 8);
                    fs::write(dir.path().join(file), damaged).unwrap();
                    tried += 1;
                    let opened = panic::catch_unwind(|| opens_whole(dir.path(), &expected));
                    let path = dir.path().join(file);
                    let mut now = fs::read(&path).unwrap();
                    if !matches!(opened, Ok(Ok(()))) && now.len() == bytes.len() {
                        now[bit / 8] = bytes[bit / 8];
                        fs::write(&path, now).unwrap();
                        let again = opens_whole(dir.path(), &expected);
                        assert!(
                            again.is_ok(),
                            "{file} bit {bit} closed {closed}: a refusal changed the file: {again:?}"
                        );
                    }
                    match opened {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            // redb's own choice between two states is one bit; nothing else may lead it to the older
                            let older = error == StoreError::Damaged("it was put back to an earlier state");
                            assert!(!older || file != "vault.redb" || bit < 16 * 8, "{bit}: fell back");
                            refused += 1;
                        }
                        Err(why) => {
                            let text = why.downcast_ref::<String>().map_or("", String::as_str);
                            assert!(
                                !text.contains("under success"),
                                "{file} bit {bit} closed {closed}: {text}"
                            );
                            refused += 1;
                        }
                    }
                }
            }
        }
    }));
    panic::set_hook(quiet);
    if let Err(why) = outcome {
        let text = why.downcast_ref::<String>().cloned();
        panic!("{}", text.unwrap_or_else(|| "a step of the test failed".to_owned()));
    }
    assert!(tried > 1000 && refused > tried / 10, "{refused} of {tried}");
}

/// Every bit of small files; of larger ones each bit that steers redb, one of each header byte, and a spread.
fn positions(bytes: usize) -> Vec<usize> {
    if bytes < 100 {
        return (0..bytes * 8).collect();
    }
    let spread = (0..120).map(|step| step * (bytes * 8) / 120 + step % 8);
    (0..16 * 8).chain((16..320).map(|byte| byte * 8 + byte % 8)).chain(spread).collect()
}

#[test]
fn a_removed_truncated_or_emptied_file_is_an_error_and_stays_as_it_is() {
    let (original, expected) = filled(true);
    for file in FILES {
        let length = fs::metadata(original.path().join(file)).unwrap().len();
        for left in [None, Some(0), Some(1), Some(length / 2), Some(length - 1)] {
            let dir = copy_dir(original.path());
            let path = dir.path().join(file);
            match left {
                None => fs::remove_file(&path).unwrap(),
                Some(left) => fs::File::options().write(true).open(&path).unwrap().set_len(left).unwrap(),
            }
            let error = open_vault(dir.path()).err().unwrap_or_else(|| panic!("{file} {left:?} opened"));
            assert_eq!(path.exists(), left.is_some(), "{file}: {error}");
            assert_eq!(
                left.is_none(),
                matches!(error, StoreError::Missing { .. }),
                "{file} {left:?}: {error}"
            );
            fs::copy(original.path().join(file), &path).unwrap();
            opens_whole(dir.path(), &expected).unwrap();
        }
    }
}

#[test]
fn where_only_the_state_of_the_log_is_left_no_vault_and_no_key_is_made_beside_it() {
    let (dir, _) = filled(true);
    assert!(dir.path().join("audit.state").exists());
    for file in FILES {
        fs::remove_file(dir.path().join(file)).unwrap();
    }
    let error = open_vault(dir.path()).err();
    assert!(matches!(&error, Some(StoreError::Missing { partner: Some("audit.state"), .. })), "{error:?}");
    assert!(FILES.iter().all(|file| !dir.path().join(file).exists()), "nothing was made");
}

#[test]
fn an_older_copy_of_one_file_is_an_error() {
    let dir = scratch();
    let vault = open_vault(dir.path()).unwrap();
    done(&vault, write("s", &[("a", "1")], &[]));
    let older = copy_dir(dir.path());
    done(&vault, delete(selection("s", Names::All, &[])));
    done(&vault, write("s", &[("b", "2")], &[]));
    vault.close().unwrap();
    let put_back = |file: &str| {
        let mixed = copy_dir(dir.path());
        fs::copy(older.path().join(file), mixed.path().join(file)).unwrap();
        open_vault(mixed.path()).map(|vault| read(&vault, "s", Names::All))
    };
    let error = put_back("vault.redb").err().unwrap();
    assert_eq!(error, StoreError::Damaged("it was put back to an earlier state"));
    assert_eq!(put_back("vault.head").unwrap().unwrap(), ["b=2"], "a head may be behind");
    // the two together are consistent: only the generation, compared with one kept elsewhere, shows it
    let current = open_vault(dir.path()).unwrap().generation();
    assert!(open_vault(older.path()).unwrap().generation() < current);
}

#[test]
fn a_key_of_another_vault_is_an_error_that_says_so() {
    let (dir, _) = filled(true);
    let (other, _) = filled(true);
    fs::copy(other.path().join("vault.key"), dir.path().join("vault.key")).unwrap();
    assert_eq!(open_vault(dir.path()).err(), Some(StoreError::WrongKey));
    fs::copy(other.path().join("vault.redb"), dir.path().join("vault.redb")).unwrap();
    let foreign = StoreError::Damaged("vault.head was changed, or is that of another vault");
    assert_eq!(open_vault(dir.path()).err(), Some(foreign));
}

type Edit<'a> = &'a dyn Fn(&redb::WriteTransaction);

/// Edits the closed vault through redb itself, with valid checksums, as one who has the file but not the key.
pub(super) fn edit(dir: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let db = redb::Database::open(dir.join("vault.redb")).unwrap();
    let transaction = db.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
    db.close().unwrap();
}

#[test]
fn records_and_lines_removed_swapped_or_replaced_by_older_ones_are_found() {
    use super::super::{
        disk::{OUTBOX, RECORDS},
        seal::RecordKey,
    };
    use redb::ReadableTable;

    let (original, _) = filled(true);
    let older = {
        let mut older = None;
        edit(original.path(), |transaction| {
            let table = transaction.open_table(RECORDS).unwrap();
            let (at, sealed) = table.first().unwrap().unwrap();
            older = Some((*at.value(), sealed.value().to_vec()));
        });
        older.unwrap()
    };
    let vault = open_vault(original.path()).unwrap();
    let names: Vec<String> = (0..40).map(|number| format!("target/{number}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "new")).collect();
    done(&vault, write("s", &pairs, &[]));
    vault.close().unwrap();

    let tries: [(&str, Edit<'_>); 5] = [
        ("removed", &|transaction| {
            transaction.open_table(RECORDS).unwrap().pop_first().unwrap();
        }),
        ("older", &|transaction| {
            transaction.open_table(RECORDS).unwrap().insert(&older.0, older.1.as_slice()).unwrap();
        }),
        ("swapped", &|transaction| {
            let mut table = transaction.open_table(RECORDS).unwrap();
            let owned = |entry: (redb::AccessGuard<'_, &RecordKey>, redb::AccessGuard<'_, &[u8]>)| {
                (*entry.0.value(), entry.1.value().to_vec())
            };
            let first = owned(table.pop_first().unwrap().unwrap());
            let last = owned(table.pop_last().unwrap().unwrap());
            table.insert(&first.0, last.1.as_slice()).unwrap();
            table.insert(&last.0, first.1.as_slice()).unwrap();
        }),
        ("line removed", &|transaction| {
            transaction.open_table(OUTBOX).unwrap().pop_last().unwrap();
        }),
        ("first line removed", &|transaction| {
            transaction.open_table(OUTBOX).unwrap().pop_first().unwrap();
        }),
    ];
    for (name, change) in tries {
        let dir = copy_dir(original.path());
        edit(dir.path(), change);
        assert!(matches!(open_vault(dir.path()), Err(StoreError::Damaged(_))), "{name}");
    }
    let dir = copy_dir(original.path());
    edit(dir.path(), |_| {});
    assert!(open_vault(dir.path()).is_ok(), "the edit itself is not what is refused");
}

#[test]
fn a_crash_while_making_a_vault_is_taken_up_again() {
    let dir = scratch();
    drop(open_vault(dir.path()).unwrap());
    let key = fs::read(dir.path().join("vault.key")).unwrap();
    // the head comes last
    fs::remove_file(dir.path().join("vault.head")).unwrap();
    drop(open_vault(dir.path()).unwrap());
    // the key comes first, the vault has its name only when it is complete
    fs::remove_file(dir.path().join("vault.head")).unwrap();
    fs::remove_file(dir.path().join("vault.redb")).unwrap();
    fs::write(dir.path().join("vault.redb.new"), "half").unwrap();
    // which was complete once, if there is what comes after it
    let gone = open_vault(dir.path()).err();
    assert!(matches!(&gone, Some(StoreError::Missing { partner: Some("audit.state"), .. })), "{gone:?}");
    fs::remove_file(dir.path().join("audit.state")).unwrap();
    drop(open_vault(dir.path()).unwrap());
    assert_eq!(fs::read(dir.path().join("vault.key")).unwrap(), key);
    assert!(!dir.path().join("vault.redb.new").exists());
}

#[test]
fn nothing_on_the_disk_shows_a_name_or_a_value() {
    let dir = scratch();
    let vault = open_vault(dir.path()).unwrap();
    let change = write("SERVICEMARK", &[("TARGETMARK", "VALUEMARK")], &[("NAMEMARK", "LABELMARK")]);
    done(&vault, change);
    vault.close().unwrap();
    for file in FILES {
        let bytes = fs::read(dir.path().join(file)).unwrap();
        assert!(!bytes.windows(4).any(|window| window == b"MARK"), "{file}");
    }
}

#[test]
fn a_second_process_and_exposed_files_are_refused() {
    use std::os::unix::fs::PermissionsExt;

    let (dir, expected) = filled(true);
    let vault = open_vault(dir.path()).unwrap();
    assert_eq!(open_vault(dir.path()).err(), Some(StoreError::InUse));
    drop(vault);
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for file in FILES {
        let path = dir.path().join(file);
        chmod(&path, 0o644);
        assert!(matches!(open_vault(dir.path()), Err(StoreError::Exposed(_))), "{file}");
        chmod(&path, 0o600);
    }
    chmod(dir.path(), 0o755);
    assert!(matches!(open_vault(dir.path()), Err(StoreError::Exposed(_))));
    chmod(dir.path(), 0o700);
    opens_whole(dir.path(), &expected).unwrap();
}
