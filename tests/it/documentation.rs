//! What the pages say is so: names of tests, commands, limits and links. What they show is played in `walkthrough`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use keychain_auth::{audit, caller::Check, import, name, policy, secret, store, sys::trap, wire::limits};

use crate::world::World;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn page(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All files below `folder` with this extension.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut folders = vec![repository().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Whether a file is part of the program, and not a test of it.
fn is_program(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    let inner = path.strip_prefix(repository().join("src"));
    inner.is_ok_and(|inner| !inner.to_string_lossy().contains("trials")) && !name.ends_with("_tests.rs")
}

fn sources() -> Vec<(PathBuf, String)> {
    let all = ["src", "tests", "proptests"].iter().flat_map(|folder| files(folder, "rs"));
    all.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// What stands between backticks.
pub fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The cells of the rows of all tables.
pub fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    page.lines().filter_map(|line| {
        Some(line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect())
    })
}

/// The fenced blocks of a language.
pub fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let begin = format!("\n```{language}\n");
    page.split(begin.as_str())
        .skip(1)
        .filter_map(|rest| rest.split_once("\n```"))
        .map(|(block, _)| block)
        .collect()
}

/// The tests of a source: functions behind `#[test]`, of `proptest!` too, and the modules that `races!` makes of them.
fn tests_in(source: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            marked = true;
        } else if let Some(function) = line.strip_prefix("fn ") {
            let end = function.find('(').unwrap_or(function.len());
            if marked && !function.starts_with("by_a_") {
                found.insert(&function[..end]);
            }
            marked = false;
        } else if let Some((race, _)) = line.split_once(": \"")
            && line.ends_with("\";")
        {
            found.insert(race);
        }
    }
    found
}

#[test]
fn every_test_that_security_md_names_exists_and_every_attack_is_named_there() {
    let (page, sources) = (page("SECURITY.md"), sources());
    let all: BTreeSet<&str> = sources.iter().flat_map(|(_, source)| tests_in(source)).collect();
    let named: BTreeSet<&str> = rows(&page)
        .filter(|cells| cells.len() == 4)
        .flat_map(|cells| quoted(cells[2]).collect::<Vec<_>>())
        .collect();
    assert!(named.len() > 80, "{} tests are named", named.len());
    let missing: Vec<_> = named.difference(&all).collect();
    assert!(missing.is_empty(), "SECURITY.md names tests that are not there: {missing:?}");
    let attacks = sources.iter().filter(|(path, _)| path.to_string_lossy().contains("/it/attacks/"));
    let attacks: BTreeSet<&str> = attacks.flat_map(|(_, source)| tests_in(source)).collect();
    let unnamed: Vec<_> = attacks.difference(&named).collect();
    assert!(unnamed.is_empty(), "attacks that SECURITY.md does not name: {unnamed:?}");
}

/// The commands that a help text lists.
pub fn commands(help: &str) -> Vec<String> {
    let (_, list) = help.split_once("\nCommands:\n").expect("a list of commands");
    let lines = list.lines().take_while(|line| !line.is_empty());
    // a continued description is indented further
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn every_command_and_its_options_are_in_the_readme() {
    let (world, page) = (World::new(), page("README.md"));
    let table: Vec<&str> = rows(&page).filter(|cells| cells.len() == 2).map(|cells| cells[0]).collect();
    let row = |command: &str| {
        let begins = [format!("`{command}`"), format!("`{command} ")];
        table.iter().find(|cell| begins.iter().any(|begin| cell.starts_with(begin)))
    };
    let import =
        page.lines().find(|line| line.starts_with("| `vault import ")).expect("the first of the imports");
    let help_of = |command: &str| {
        let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        if command.ends_with("help") { String::new() } else { world.cli(&words).done() }
    };
    let mut waiting = commands(&help_of(""));
    assert!(waiting.len() > 10, "{waiting:?}");
    while let Some(name) = waiting.pop() {
        let help = help_of(&name);
        if help.contains("\nCommands:\n") {
            let verbs = commands(&help).into_iter().filter(|verb| verb != "help");
            waiting.extend(verbs.map(|verb| format!("{name} {verb}")));
            continue;
        }
        let row = row(&name).unwrap_or_else(|| panic!("the README's table has no row for {name}"));
        let options = help.split_whitespace().filter_map(|word| word.strip_prefix("--"));
        for option in options.map(|word| word.trim_end_matches([',', ']', '>', '.'])) {
            let known = ["help", "socket", "passphrase-fd"].contains(&option)
                || option.contains("allow-")
                || option == "lines"
                // what every import has is said once, in the first of their rows
                || (name.starts_with("vault import") && import.contains(&format!("--{option}")));
            let option = option.split(['|', '>']).next().unwrap();
            assert!(known || row.contains(&format!("--{option}")), "{name} --{option}");
        }
    }
}

/// Bytes in the largest unit that divides them.
fn bytes(count: u64) -> String {
    match count {
        mib if mib % (1 << 20) == 0 => format!("{} MiB", mib >> 20),
        kib if kib % (1 << 10) == 0 && kib > 1 << 12 => format!("{} KiB", kib >> 10),
        _ => format!("{} bytes", number(count)),
    }
}

fn number(count: u64) -> String {
    if count < 1000 { count.to_string() } else { format!("{},{:03}", count / 1000, count % 1000) }
}

fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 60 { format!("{} min", seconds / 60) } else { format!("{seconds} s") }
}

#[test]
fn every_limit_in_the_readme_is_the_codes() {
    let size = |count: usize| bytes(count as u64);
    let count = |count: usize| number(count as u64);
    let is: BTreeMap<&str, String> = [
        ("wire::limits::MAX_LINE", size(limits::MAX_LINE)),
        ("wire::limits::MAX_TARGETS", count(limits::MAX_TARGETS)),
        ("wire::limits::MAX_REPLY", size(limits::MAX_REPLY)),
        ("wire::limits::FIRST_LINE", time(limits::FIRST_LINE)),
        ("wire::limits::SILENT_STRANGER", time(limits::SILENT_STRANGER)),
        ("wire::limits::LINE_FINISH", time(limits::LINE_FINISH)),
        ("wire::limits::REPLY_TAKEN", time(limits::REPLY_TAKEN)),
        ("wire::limits::IDLE", time(limits::IDLE)),
        ("wire::limits::DRAIN", time(limits::DRAIN)),
        ("wire::limits::MAX_CONNECTIONS", count(limits::MAX_CONNECTIONS)),
        ("wire::limits::MAX_PER_REGISTERED", count(limits::MAX_PER_REGISTERED)),
        ("wire::limits::MAX_PER_STRANGER", count(limits::MAX_PER_STRANGER)),
        ("wire::limits::MAX_UNTAKEN", size(limits::MAX_UNTAKEN)),
        ("wire::limits::MAX_UNFINISHED", size(limits::MAX_UNFINISHED)),
        ("name::MAX_SERVICE", size(name::MAX_SERVICE)),
        ("name::MAX_TARGET", size(name::MAX_TARGET)),
        ("name::MAX_ATTRIBUTES", count(name::MAX_ATTRIBUTES)),
        ("name::MAX_ATTRIBUTE_NAME", size(name::MAX_ATTRIBUTE_NAME)),
        ("name::MAX_ATTRIBUTE_VALUE", size(name::MAX_ATTRIBUTE_VALUE)),
        ("secret::MAX_VALUE", size(secret::MAX_VALUE)),
        ("policy::MAX_CONFIG", bytes(policy::MAX_CONFIG)),
        ("policy::MAX_PENDING", count(policy::MAX_PENDING)),
        ("store::MAX_ANSWER", size(store::MAX_ANSWER)),
        ("store::MAX_REMOVED", count(store::MAX_REMOVED)),
        ("store::MAX_WAITING", count(store::MAX_WAITING)),
        ("audit::MAX_LINE", size(audit::MAX_LINE)),
        ("import::MAX_SECRETS", count(import::MAX_SECRETS)),
        ("import::MAX_VALUES", size(import::MAX_VALUES)),
        ("import::MAX_SOURCE", size(import::MAX_SOURCE)),
        ("import::MAX_EXPORT_LINE", size(import::MAX_EXPORT_LINE)),
    ]
    .into();
    let page = page("README.md");
    let limit = |cells: &Vec<&str>| cells.len() == 3 && cells[2].starts_with('`') && cells[2].contains("::");
    let said: BTreeMap<&str, String> =
        rows(&page).filter(limit).map(|cells| (cells[2].trim_matches('`'), cells[1].to_owned())).collect();
    assert_eq!(said, is);
    // a limit that the code gains is to be said too, and one that nothing uses is none
    let sources = sources();
    for (file, path) in [("src/wire/limits.rs", "wire::limits::"), ("src/name.rs", "name::")] {
        let constants = fs::read_to_string(repository().join(file)).unwrap();
        for constant in constants.lines().filter_map(|line| line.strip_prefix("pub const ")) {
            let constant = constant.split(':').next().unwrap();
            let uses = |(path, source): &(PathBuf, String)| {
                path.starts_with(repository().join("src"))
                    && !path.ends_with(file)
                    && source.contains(constant)
            };
            let used = file == "src/name.rs" || sources.iter().any(uses);
            assert_eq!(said.contains_key(format!("{path}{constant}").as_str()), used, "{path}{constant}");
        }
    }
    assert!(page.contains(&format!("| {} | `start` only: a system call", trap::EXIT_CODE)));
}

#[test]
fn every_reason_check_and_variable_is_described() {
    let protocol = page("docs/protocol.md");
    for check in Check::ALL {
        assert!(protocol.contains(&format!("\n| `{check}` | ")), "{check}");
    }
    let replies = page("src/wire/reply.rs");
    let reasons: Vec<&str> = replies
        .split_once("impl Reason")
        .and_then(|(_, code)| code.split_once("pub const fn status"))
        .map(|(codes, _)| codes.split('"').skip(1).step_by(2).collect())
        .unwrap();
    assert!(reasons.len() > 8, "{reasons:?}");
    for reason in reasons {
        assert!(protocol.contains(&format!("\n| `{reason}` | ")), "{reason}");
    }
    let described = page("docs/configuration.md");
    for (path, source) in sources().iter().filter(|(path, _)| is_program(path)) {
        for word in source.split(|c: char| !c.is_ascii_uppercase() && c != '_') {
            let variable = word.strip_prefix("KEYCHAIN_AUTH_").is_some_and(|rest| !rest.is_empty());
            assert!(!variable || described.contains(&format!("`{word}`")), "{word} of {}", path.display());
        }
    }
}

#[test]
fn every_action_that_a_record_can_carry_is_described_and_can_be_asked_for() {
    let words = |file: &str| -> BTreeSet<String> {
        let source = page(file);
        let (_, code) = source.split_once("impl Action {").unwrap();
        let (_, code) = code.split_once("pub const fn as_str(self)").unwrap();
        let (code, _) = code.split_once("\n    }\n").unwrap();
        code.split('"').skip(1).step_by(2).map(ToOwned::to_owned).collect()
    };
    let all: BTreeSet<String> =
        words("src/audit/record.rs").union(&words("src/wire/request.rs")).cloned().collect();
    let listed = audit::Action::ALL.map(|action| action.as_str().to_owned());
    assert_eq!(all, listed.into(), "what a record can carry, and what is listed");
    let (world, log) = (World::new(), page("docs/audit.md"));
    let row = log.lines().find(|line| line.starts_with("| `action` | ")).unwrap();
    for action in &all {
        assert!(quoted(row).any(|word| word == action), "{action} is not described");
        for command in ["show", "tail", "stats"] {
            world.cli(&["audit", command, "--action", action]).done();
        }
        world.cli(&["audit", "export", "--format", "json", "--action", action]).done();
    }
}

#[test]
fn every_reason_that_a_record_can_carry_can_be_asked_for() {
    let world = World::new();
    let mut asked = 0;
    for (path, source) in sources().iter().filter(|(path, _)| is_program(path)) {
        let code = source.split("#[cfg(test)]").next().unwrap();
        let given = ["reason: Some(\"", "NoPolicy { reason: \""]
            .into_iter()
            .flat_map(|before| code.split(before).skip(1));
        for reason in given.filter_map(|rest| rest.split('"').next()) {
            asked += 1;
            let outcome = world.cli(&["audit", "show", "--reason", reason]);
            assert_eq!(outcome.code, Some(0), "{reason} of {}: {outcome:?}", path.display());
        }
    }
    assert!(asked >= 3, "{asked}");
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut pages = files("docs", "md");
    let top = fs::read_dir(repository()).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(top.filter(|path| path.extension().is_some_and(|it| it == "md")));
    assert!(pages.len() > 7, "{pages:?}");
    for path in pages {
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", path.display());
            if !place.is_empty() {
                let target = fs::read_to_string(target).unwrap();
                let headings = target.lines().filter(|line| line.starts_with('#'));
                let found = headings.map(|line| anchor(line.trim_start_matches('#'))).any(|it| it == place);
                assert!(found, "{}: {link}", path.display());
            }
        }
    }
}

#[test]
fn the_user_unit_asks_for_nothing_that_needs_a_namespace() {
    let unit = page("packaging/systemd/keychain-auth.service");
    let options = unit.lines().filter(|line| !line.starts_with(['#', '[']) && line.contains('='));
    let mut names = 0;
    for option in options.map(|line| line.split('=').next().unwrap()) {
        names += 1;
        let namespace = [
            "Protect",
            "Private",
            "ReadOnly",
            "ReadWrite",
            "Inaccessible",
            "Bind",
            "Temporary",
            "Root",
            "Mount",
            "Exec",
            "NoExec",
            "Extension",
            "Dynamic",
            "StateDirectory",
            "ConfigurationDirectory",
            "RuntimeDirectory",
        ];
        let harmless = option == "ExecStart";
        assert!(harmless || !namespace.iter().any(|begin| option.starts_with(begin)), "{option}");
    }
    assert!(names > 5 && unit.contains("\nType=notify\n"));
    assert!(page("packaging/systemd/keychain-auth.socket").contains("\nPassCredentials=yes\n"));
}

#[test]
fn the_rooms_know_nothing_that_architecture_md_denies_them() {
    let denied: [(&str, &[&str]); 8] = [
        ("src/import", &["tokio", "std::fs", "rustix", "crate::transfer", "Vault", "Timestamp::now"]),
        ("src/wire", &["tokio", "std::fs", "std::time::Instant", "SystemTime", "Timestamp::now"]),
        ("src/caller", &["tokio", "std::fs", "rustix", "SystemTime", "Timestamp::now"]),
        ("src/policy", &["tokio", "std::net", "os::unix::net", "crate::secret"]),
        ("src/store", &["tokio", "serde", "crate::caller", "crate::wire"]),
        ("src/witness", &["crate::secret", "crate::store", "crate::policy", "crate::daemon"]),
        ("src/audit", &["crate::secret", "tokio"]),
        ("src/broker", &["crate::secret", "crate::policy", "crate::daemon", "crate::name", "std::fs"]),
    ];
    for (room, words) in denied {
        for path in files(room, "rs").iter().filter(|path| is_program(path)) {
            let source = fs::read_to_string(path).unwrap();
            let code = source.split("#[cfg(test)]\n#[allow").next().unwrap();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let known = words.iter().find(|word| line.contains(**word));
                assert_eq!(known, None, "{}: {line}", path.display());
            }
        }
    }
    for (path, source) in sources().iter().filter(|(path, _)| path.starts_with(repository().join("src"))) {
        let lines = source.lines().count();
        assert!(lines <= 500, "{} has {lines} lines", path.display());
        let platform = path.starts_with(repository().join("src/sys"));
        let uses = ["unsafe {", "unsafe impl", "unsafe fn", "cfg(target_os", "allow(unsafe_code"];
        let used = uses.iter().find(|word| source.contains(**word));
        assert!(platform || used.is_none(), "{}: {used:?}", path.display());
    }
}
