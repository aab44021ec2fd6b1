//! What the README and the pages show, played with the real program.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    client::{Client, written},
    documentation::{blocks, commands, page, quoted, rows},
    keychain,
    keychain_vault::{at_rest, cli},
    skip::need,
    world::{Entry, Outcome, World, run},
};

/// Whether a line of output is the one that the README shows: `…` stands for anything within a word, and any number of
/// spaces for one.
fn reads_like(shown: &str, said: &str) -> bool {
    let (shown, said): (Vec<_>, Vec<_>) =
        (shown.split_whitespace().collect(), said.split_whitespace().collect());
    shown.len() == said.len()
        && shown.iter().zip(said).all(|(shown, said)| match shown.split_once('…') {
            Some((begin, end)) => {
                said.len() >= begin.len() + end.len() && said.starts_with(begin) && said.ends_with(end)
            }
            None => *shown == said,
        })
}

#[test]
fn a_first_start_says_what_the_readme_shows() {
    let world = World::started();
    let runtime = world.root().join("run").display().to_string();
    let page = page("README.md").replace("/run/user/1000", &runtime);
    let block = blocks(&page, "text").into_iter().find(|block| block.contains(" INFO ")).unwrap();
    let untimed = |line: &str| line.split_once("  INFO ").map(|(_, said)| said.to_owned());
    let shown: Vec<String> = block.lines().map(|line| untimed(line).unwrap()).collect();
    // warnings say what a kernel lacks
    let said: Vec<String> = world.log().lines().filter_map(untimed).collect();
    assert_eq!(shown, said);
}

/// What is called keychain-auth below a folder.
fn left(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_name().to_string_lossy().contains("keychain-auth") {
            found.push(entry.path());
        } else if entry.file_type().unwrap().is_dir() {
            found.extend(left(&entry.path()));
        }
    }
    found
}

#[test]
fn the_readmes_removal_leaves_nothing_in_the_home_folder_and_the_keychain() {
    if need("secret-tool").is_none() {
        return;
    }
    let Some((mut world, keyring)) = keychain::world() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["s"])]);
    world.start_args = vec!["--store=keychain".into(), "--key=keychain".into()];
    world.start();
    assert_eq!(Client::connected(&world, &tool).write("s", &[("a", "1"), ("b", "2")]), written());
    keychain::carried(&world);
    world.stop();
    for unit in ["keychain-auth.service", "keychain-auth.socket"] {
        let units = world.home().join(".config/systemd/user");
        world.write(&units.join(unit), b"[Unit]\n");
        world.write(&units.join(format!("{unit}.d/override.conf")), b"[Unit]\n");
    }
    assert_eq!((keyring.items(&keychain::OURS).len(), left(&world.home()).len()), (3, 6));
    // these two are the machine's
    for program in ["systemctl", "sudo"] {
        let path = world.root().join("bin").join(program);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        world.own(&path, 0o755);
    }
    let page = page("README.md");
    let (_, removal) = page.split_once("To remove everything").unwrap();
    let mut shell = world.command(Path::new("/bin/sh"));
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", world.root().join("bin").display());
    shell.env("PATH", path).env("DBUS_SESSION_BUS_ADDRESS", keyring.address());
    run(shell.args(["-ec", blocks(removal, "sh")[0]])).done();
    assert_eq!(keyring.items(&keychain::OURS).len(), 0);
    assert_eq!(left(&world.home()), Vec::<PathBuf>::new());
    assert_eq!(left(&world.root().join("run")), Vec::<PathBuf>::new());
}

#[test]
fn every_vault_and_audit_command_works_beside_a_daemon_where_the_table_says_so_and_nowhere_else() {
    let page = page("docs/configuration.md");
    let (_, table) = page.split_once("## Commands beside the daemon").unwrap();
    let (table, _) = table.split_once("\n##").unwrap();
    let mut said = works_where(table);
    let mut world = World::new();
    // only where there is no vault
    assert_eq!(said.remove("vault init"), Some(vec![false, false, true]));
    world.cli(&["vault", "init", "--key", "file"]).done();
    let known: BTreeSet<String> = ["vault", "audit"]
        .iter()
        .flat_map(|group| {
            let help = world.cli(&[group, "--help"]).done();
            let verbs = commands(&help).into_iter().filter(|verb| verb != "help" && verb != "init");
            verbs.map(|verb| format!("{group} {verb}")).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(said.keys().cloned().collect::<BTreeSet<_>>(), known, "one row for each command");
    plays(&mut world, &said, |world, words| world.cli(words));
    // the same wherever the secrets rest
    let Some((mut world, keyring, _)) = at_rest(&[("B", "2")]) else { return };
    plays(&mut world, &said, |world, words| cli(world, &keyring, words));
}

#[test]
fn every_command_does_without_the_keychain_where_the_table_says_so_and_nowhere_else() {
    let page = page("docs/configuration.md");
    let (_, table) = page.split_once("### Commands and a locked keychain").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let said = works_where(table);
    let Some((world, keyring, _)) = at_rest(&[("B", "2")]) else { return };
    for state in 0..2 {
        if state == 1 {
            keyring.lock();
        }
        for (command, works) in &said {
            for arguments in arguments(&world, command) {
                let words: Vec<&str> =
                    command.split(' ').chain(arguments.iter().map(String::as_str)).collect();
                let outcome = cli(&world, &keyring, &words);
                let dry = words.contains(&"import") && !words.contains(&"--apply");
                let code = i32::from(!works[state] && !dry);
                assert_eq!(outcome.code, Some(code), "{state}: {words:?}: {outcome:?}");
                assert!(code == 0 || outcome.err.contains("the keychain is locked"), "{outcome:?}");
            }
        }
    }
}

/// The commands of a table, and whether each works, column by column.
fn works_where(table: &str) -> BTreeMap<String, Vec<bool>> {
    rows(table)
        .filter(|cells| cells[0].starts_with('`'))
        .map(|cells| {
            let command = quoted(cells[0]).next().unwrap().to_owned();
            (command, cells[1..].iter().map(|cell| cell.starts_with("yes")).collect())
        })
        .collect()
}

/// With what a command is played, once or twice.
fn arguments(world: &World, command: &str) -> Vec<Vec<String>> {
    let (env, out) = (world.tmp("env"), world.tmp("out"));
    world.write(&env, b"A=1\n");
    let _ = fs::remove_file(&out);
    let (env, out) = (env.to_str().unwrap(), out.to_str().unwrap());
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    let played = match command {
        "vault import" => {
            let dry = vec!["env", env, "--service", "s", "--overwrite"];
            vec![[&dry[..], &["--apply"]].concat(), dry]
        }
        "vault export" => vec![vec!["--output", out, "-r", &recipient]],
        "vault change-key-source" => vec![vec!["--key", "file"]],
        "audit export" => vec![vec!["--format", "json"]],
        _ => vec![vec![]],
    };
    played.into_iter().map(|words| words.into_iter().map(str::to_owned).collect()).collect()
}

/// Plays every command beside an unlocked daemon, a locked one, and none.
fn plays(world: &mut World, said: &BTreeMap<String, Vec<bool>>, cli: impl Fn(&World, &[&str]) -> Outcome) {
    for (state, name) in ["unlocked", "locked", "stopped"].iter().enumerate() {
        for (command, works) in said {
            for arguments in arguments(world, command) {
                match (*name, world.is_started()) {
                    ("stopped", true) => drop(world.stop()),
                    ("unlocked" | "locked", false) => world.start(),
                    _ => {}
                }
                match *name {
                    "locked" => drop(world.cli(&["vault", "lock"]).done()),
                    "unlocked" => drop(world.cli(&["vault", "unlock"]).done()),
                    _ => {}
                }
                let words: Vec<&str> =
                    command.split(' ').chain(arguments.iter().map(String::as_str)).collect();
                let outcome = cli(world, &words);
                assert_eq!(outcome.code, Some(i32::from(!works[state])), "{name}: {words:?}: {outcome:?}");
                assert!(works[state] || outcome.err.contains("\n  try: "), "{outcome:?}");
            }
        }
    }
}

/// Plays the README's example in a world of its own, word for word.
#[test]
fn the_readmes_example_does_what_it_shows() {
    let page = page("README.md");
    let mut world = World::new();
    let folder = world.tmp("demo");
    world.folder(&folder, 0o755);
    let [source] = blocks(&page, "rust")[..] else { panic!("one Rust program") };
    fs::write(folder.join("hello.rs"), source).unwrap();
    world.start();
    let dialogue = blocks(&page, "console").join("\n").replace("/home/you/demo", folder.to_str().unwrap());
    let mut lines = dialogue.lines().peekable();
    let mut played = 0;
    while let Some(line) = lines.next() {
        let command = line.strip_prefix("$ ").unwrap_or_else(|| panic!("a command first: {line}"));
        let mut shown = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
            shown.push(line);
        }
        let said = if let Some(arguments) = command.strip_prefix("rustc ") {
            // as the user of this suite, whose compiler another user may not start
            let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
            let built = rustc.args(arguments.split(' ')).current_dir(&folder).output().unwrap();
            world.own(&folder.join("hello"), 0o755);
            String::from_utf8(built.stderr).unwrap()
        } else {
            let mut shell = world.command(Path::new("/bin/sh"));
            let path = format!("{}:/usr/bin:/bin", world.root().join("bin").display());
            shell.args(["-c", &format!("{command} 2>&1")]).current_dir(&folder).env("PATH", path);
            run(&mut shell).done()
        };
        let said: Vec<&str> = said.lines().collect();
        let same =
            shown.len() == said.len() && shown.iter().zip(&said).all(|(shown, said)| reads_like(shown, said));
        assert!(
            same,
            "$ {command}\n--- the README shows\n{}\n--- it says\n{}",
            shown.join("\n"),
            said.join("\n")
        );
        played += 1;
    }
    assert!(played > 10, "{played} commands");
}

/// Runs a snippet before and after its executable is registered for the service.
fn snippet(world: &World, program: &Path, arguments: &[PathBuf], members: &str) {
    let ask = || run(world.command(program).args(arguments)).done();
    assert!(ask().contains("unregistered_binary_pending_approval"));
    let path = program.to_str().unwrap();
    world.cli(&["authorize", "--allow-interpreter", path, "demo"]).done();
    let policy = fs::read_to_string(world.config()).unwrap();
    world.policy_text(&policy.replacen("\"can_search\"", &format!("{members}\"can_search\""), 1));
    assert_eq!(ask(), "{\"type\":\"RESPONSE\",\"status\":\"success\",\"results\":[]}\n");
}

#[test]
fn the_readmes_go_snippet_is_served() {
    let Some(go) = need("go") else { return };
    let world = World::started();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("snippet-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("main.go"), blocks(&page("README.md"), "go")[0]).unwrap();
    let mut build = Command::new(go);
    build.args(["build", "-o", "tool", "main.go"]).current_dir(&folder);
    build.env("GO111MODULE", "off").env("GOCACHE", folder.parent().unwrap().join("go-cache"));
    let built = build.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let tool = world.root().join("bin/go-tool");
    world.copy(&folder.join("tool"), &tool);
    fs::remove_dir_all(folder).unwrap();
    snippet(&world, &tool, &[], "");
}

/// A snippet of the README that a program interprets.
fn script(program: &str, language: &str, extension: &str, terms: &str) {
    let Some(program) = need(program) else { return };
    let world = World::started();
    let script = world.tmp(&format!("client.{extension}"));
    world.write(&script, blocks(&page("README.md"), language)[0].as_bytes());
    snippet(&world, &fs::canonicalize(program).unwrap(), &[script], terms);
}

#[test]
fn the_readmes_python_snippet_is_served() {
    script("python3", "python", "py", "");
}

#[test]
fn the_readmes_node_snippet_is_served() {
    script("node", "js", "js", "\"relax\": [\"injected_code\"],\n      ");
}
