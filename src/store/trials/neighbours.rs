//! Damage to the files beside the vault: no secret is lost with them, and the log goes on or says what happened to it.

use std::fs;

use super::*;
use crate::{
    audit::{Log, Rotation, trials::event},
    chain::Head,
};

const POSITIONS: usize = 200;

/// Opens vault and log as a start does, reads everything, leaves a record, and closes both.
fn session(dir: &Path) -> Result<(Vec<String>, Head), String> {
    let vault = open_vault(dir).map_err(|error| error.to_string())?;
    let values = read(&vault, "s", Names::All).map_err(|error| error.to_string())?;
    let known = vault.audit_memory().unwrap().head;
    let seat = vault.take_seat().unwrap();
    let mut log = Log::open(&dir.join("audit.log"), seat, &known, Rotation::default())
        .map_err(|error| error.to_string())?;
    let _ = log.append(&event("x")).map_err(|error| error.to_string())?;
    vault.note_audit(log.head(), None);
    vault.close().unwrap();
    Ok((values, log.head()))
}

/// A vault with 20 secrets and a log of two starts; and the same one start and one secret earlier.
fn lived() -> (tempfile::TempDir, tempfile::TempDir, Vec<String>) {
    let dir = scratch();
    let names: Vec<String> = (0..20).map(|number| format!("target/{number}")).collect();
    let mut older = None;
    for part in [&names[..19], &names[19..]] {
        let vault = open_vault(dir.path()).unwrap();
        let pairs: Vec<(&str, &str)> = part.iter().map(|name| (name.as_str(), name.as_str())).collect();
        done(&vault, write("s", &pairs, &[]));
        vault.close().unwrap();
        session(dir.path()).unwrap();
        older.get_or_insert_with(|| copy_dir(dir.path()));
    }
    let (values, _) = session(dir.path()).unwrap();
    assert_eq!(values.len(), 20);
    (dir, older.unwrap(), values)
}

fn log(dir: &Path) -> String {
    String::from_utf8_lossy(&fs::read(dir.join("audit.log")).unwrap()).into_owned()
}

#[test]
fn a_flipped_bit_beside_the_vault_loses_no_secret_and_no_chain() {
    let (original, _, expected) = lived();
    let before = session(copy_dir(original.path()).path()).unwrap().1;
    for file in ["audit.state", "audit.reserve", "audit.log"] {
        let bytes = fs::read(original.path().join(file)).unwrap();
        let kept = bytes.len().min(10_000);
        for step in 0..POSITIONS {
            let dir = copy_dir(original.path());
            let mut damaged = bytes.clone();
            damaged[kept * step / POSITIONS] ^= 1 << (step % 8);
            fs::write(dir.path().join(file), &damaged).unwrap();
            // a log that is none any more is refused, and the vault is whole all the same
            let Ok((values, head)) = session(dir.path()) else {
                assert_eq!(file, "audit.log", "step {step}");
                assert_eq!(read(&open_vault(dir.path()).unwrap(), "s", Names::All).unwrap(), expected);
                assert!(fs::read(dir.path().join(file)).unwrap() == damaged, "a refusal changed the log");
                continue;
            };
            assert_eq!(values, expected, "{file} step {step}");
            let told = log(dir.path()).contains("audit_log_changed");
            match file {
                // of its two slots one is whole, and what lies between them means nothing
                "audit.state" => assert!(head.chain == before.chain && !told, "step {step}"),
                "audit.log" => {
                    assert!(fs::read(dir.path().join(file)).unwrap().starts_with(&damaged) || told)
                }
                _ => assert_eq!(head.chain, before.chain, "step {step}"),
            }
        }
    }
}

#[test]
fn a_file_beside_the_vault_that_is_gone_cut_or_an_older_copy_loses_no_secret_and_the_log_says_so() {
    let (original, older, expected) = lived();
    for file in ["audit.state", "audit.reserve", "audit.log"] {
        let length = fs::metadata(original.path().join(file)).unwrap().len();
        let cuts = [None, Some(0), Some(1), Some(length / 2), Some(length - 1), Some(length)];
        for left in cuts {
            let dir = copy_dir(original.path());
            let path = dir.path().join(file);
            match left {
                None => fs::remove_file(&path).unwrap(),
                Some(left) if left == length => drop(fs::copy(older.path().join(file), &path).unwrap()),
                Some(left) => fs::File::options().write(true).open(&path).unwrap().set_len(left).unwrap(),
            }
            match session(dir.path()) {
                Ok((values, _)) => assert_eq!(values, expected, "{file} {left:?}"),
                Err(error) => {
                    assert!(file == "audit.log" && !error.is_empty(), "{file} {left:?}: {error}");
                    continue;
                }
            }
            let told = log(dir.path()).contains("audit_log_changed");
            // one whole slot suffices, and an older state leads to the newer one
            let silent = file == "audit.reserve"
                || (file == "audit.state" && left.is_some_and(|left| left >= length / 2));
            assert!(told != silent, "{file} {left:?}: {}", log(dir.path()));
        }
    }
}
