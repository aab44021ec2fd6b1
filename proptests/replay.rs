//! Every seed and every regression of the fuzz targets, through the same laws, without the fuzzer.

use std::{
    collections::BTreeSet,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use keychain_auth::wire::Message;

use crate::laws::{self, Law, Seen, request::SENTENCES};

fn fuzz(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder)
}

/// The files of a folder with their names; none where there is no folder.
fn files(folder: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let named = |entry: fs::DirEntry| (entry.file_name().into_string().expect("a name"), entry.path());
    let mut files: Vec<_> = entries.map(|entry| named(entry.expect("an entry"))).collect();
    files.sort();
    files
}

fn names(folder: &Path) -> BTreeSet<String> {
    files(folder).into_iter().map(|(name, _)| name).collect()
}

/// What the law makes of a file; a broken law names it.
fn replay(law: Law, file: &Path) -> Seen {
    let bytes = fs::read(file).expect("a seed can be read");
    catch_unwind(|| law(&bytes)).unwrap_or_else(|_| panic!("{} breaks its law", file.display()))
}

#[test]
fn every_law_has_a_target_and_seeds_and_no_folder_is_forgotten() {
    let laws: BTreeSet<String> = laws::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    let targets = names(&fuzz("fuzz_targets"));
    assert_eq!(targets, laws.iter().map(|name| format!("{name}.rs")).collect());
    assert_eq!(names(&fuzz("seeds")), laws);
    assert!(names(&fuzz("regressions")).is_subset(&laws));
    let dictionaries = names(&fuzz("dictionaries"));
    assert!(dictionaries.iter().all(|name| laws.contains(name.trim_end_matches(".dict"))));
}

#[test]
fn every_seed_keeps_its_law_and_its_name_says_what_becomes_of_it() {
    for (name, law) in laws::ALL {
        for (seed, path) in files(&fuzz("seeds").join(name)) {
            let expected = if seed.starts_with("refused_") { Seen::Refused } else { Seen::Accepted };
            assert_eq!(replay(law, &path), expected, "{name}/{seed}");
        }
    }
}

#[test]
fn every_regression_keeps_its_law() {
    for (name, law) in laws::ALL {
        for (_, path) in files(&fuzz("regressions").join(name)) {
            let _ = replay(law, &path);
        }
    }
}

#[test]
fn every_rule_of_a_request_line_has_a_seed_that_breaks_it() {
    let sentence = |(_, path): (String, PathBuf)| {
        let error = Message::parse(&fs::read_to_string(path).ok()?).err()?.to_string();
        Some(error.split_once(" (byte ")?.0.to_owned())
    };
    let broken: BTreeSet<String> = files(&fuzz("seeds/request")).into_iter().filter_map(sentence).collect();
    assert_eq!(broken, SENTENCES.map(str::to_owned).into());
}
