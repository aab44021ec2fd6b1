//! Exports, and what becomes of them on their way back.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use super::{MARK, age_keys, at_rest, file, records, refused, served, silent, text};
use crate::{
    client::Client,
    skip::need,
    world::{Outcome, World, run},
};

/// Values and attributes with everything that formats trip over.
fn nasty() -> Vec<(String, String, Value)> {
    let mut all = vec![
        ("plain".to_owned(), format!("{MARK}1"), Value::Null),
        ("empty".to_owned(), String::new(), json!({"owner": ""})),
        (
            "täg \"\\ / 🔑".to_owned(),
            format!("{MARK}\0\n\r\t\u{1b}\u{7f}\u{85}\u{2028}\"\\"),
            json!({"a": "\u{1}", "b": "x"}),
        ),
        ("long".to_owned(), format!("{MARK}{}", "\u{1}".repeat(65_536 - MARK.len())), Value::Null),
    ];
    all.extend(
        (0..300).map(|n| (format!("many/{n}"), format!("{MARK}{n}"), json!({"n": (n % 3).to_string()}))),
    );
    all
}

fn fill(world: &mut World, tool: &Path, service: &str) -> BTreeMap<String, (String, Value)> {
    world.start();
    let mut client = Client::connected(world, tool);
    for (target, value, attributes) in nasty() {
        let mut request = json!({"type": "REQUEST", "action": "write", "service": service, "targets": [target],
            "values": [value]});
        if attributes != Value::Null {
            request["attributes"] = attributes;
        }
        assert_eq!(client.request(&request)["status"], "success");
    }
    drop(client);
    world.stop();
    nasty().into_iter().map(|(target, value, attributes)| (target, (value, attributes))).collect()
}

#[test]
fn an_export_is_imported_exactly_and_only_with_an_identity_of_its_recipients() {
    let (mut world, tool) = at_rest(&["s", "t"]);
    let expected = fill(&mut world, &tool, "s");
    let (recipient, identity) = age_keys(&world, "mine.txt");
    let (other, others) = age_keys(&world, "others.txt");
    let out = world.tmp("out.age");
    let export = ["vault", "export", "--output", text(&out), "-r", &recipient, "-r", &other];
    let outcome = world.cli(&export);
    silent(&outcome);
    assert!(outcome.done().starts_with("Exported 304 secrets to "));
    let bytes = fs::read(&out).unwrap();
    let shown = String::from_utf8_lossy(&bytes);
    assert!(shown.starts_with("age-encryption.org/v1\n"));
    assert!(!shown.contains(MARK) && !shown.contains("many/"), "a name or value stands in the file");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&out).unwrap().permissions()) & 0o777,
        0o600
    );
    let mut named: Vec<String> = Vec::new();
    for record in records(&world, "export") {
        assert!(record["detail"].as_str().unwrap().ends_with("vault export, encrypted to 2 recipients"));
        named.extend(
            record["targets"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()),
        );
    }
    named.sort();
    assert_eq!(named, expected.keys().cloned().collect::<Vec<_>>(), "every name that left is recorded, once");
    refused(&world.cli(&export), "out.age is there already");
    assert_eq!(fs::read(&out).unwrap(), bytes);

    let (mut there, tool) = at_rest(&["s"]);
    let copy = file(&there, "in.age", &bytes);
    let import = |world: &World, more: &[&str]| {
        world.cli(&[&["vault", "import", "export", text(&copy), "--apply"], more].concat())
    };
    let (_, strange) = age_keys(&there, "strange.txt");
    refused(&import(&there, &[]), "it is encrypted to recipients");
    refused(&import(&there, &["-i", text(&strange)]), "it is for other recipients");
    for identity in [&identity, &others] {
        let key = file(&there, "key.txt", fs::read(identity).unwrap());
        let outcome = import(&there, &["-i", text(&key), "--overwrite"]);
        silent(&outcome);
        outcome.done();
        assert_eq!(served(&mut there, &tool, "s"), expected);
    }
}

#[test]
fn an_export_that_was_cut_or_changed_imports_nothing() {
    let (mut world, tool) = at_rest(&["s"]);
    fill(&mut world, &tool, "s");
    let (recipient, identity) = age_keys(&world, "key.txt");
    let out = world.tmp("out.age");
    world.cli(&["vault", "export", "-o", text(&out), "-r", &recipient]).done();
    let bytes = fs::read(&out).unwrap();
    let (mut there, tool) = at_rest(&["s"]);
    let key = file(&there, "key.txt", fs::read(identity).unwrap());
    let import = |bytes: &[u8]| {
        let copy = file(&there, "in.age", bytes);
        there.cli(&["vault", "import", "export", text(&copy), "-i", text(&key), "--apply"])
    };
    // within the head, at the ends of the pieces of 64 KiB, and within the last one
    let head = bytes.windows(4).position(|four| four == b"\n---").unwrap() + 60;
    for length in [0, 10, head, head + 65_552, head + 2 * 65_552, bytes.len() - 1] {
        refused(&import(&bytes[..length.min(bytes.len() - 1)]), "");
    }
    for at in [30, head - 20, head + 5, bytes.len() / 2, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        refused(&import(&changed), "");
    }
    refused(&import(&[&bytes[..], b"x"].concat()), "");
    assert!(served(&mut there, &tool, "s").is_empty());
}

#[test]
fn what_age_decrypts_is_the_documented_format_and_what_it_encrypts_is_imported() {
    let Some(age) = need("age") else { return };
    let (mut world, tool) = at_rest(&["s"]);
    let expected = fill(&mut world, &tool, "s");
    let (recipient, identity) = age_keys(&world, "key.txt");
    let out = world.tmp("out.age");
    world.cli(&["vault", "export", "-o", text(&out), "-r", &recipient, "--service", "s"]).done();
    let plain = run(world.command(&age).args(["-d", "-i", text(&identity), text(&out)])).done();
    let mut lines = plain.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let head = json!({"format": "keychain-auth export", "version": "1", "records": "304"});
    assert_eq!(lines.next(), Some(head));
    let records: BTreeMap<String, (String, Value)> = lines
        .map(|it| {
            (
                it["target"].as_str().unwrap().into(),
                (it["value"].as_str().unwrap().into(), it["attributes"].clone()),
            )
        })
        .collect();
    assert_eq!(records, expected);

    let (mut there, tool) = at_rest(&["s"]);
    let (clear, sealed) = (file(&there, "clear", &plain), there.tmp("sealed.age"));
    run(there.command(&age).args(["-r", &recipient, "-o", text(&sealed), text(&clear)])).done();
    let key = file(&there, "key.txt", fs::read(identity).unwrap());
    there.cli(&["vault", "import", "export", text(&sealed), "-i", text(&key), "--apply"]).done();
    assert_eq!(served(&mut there, &tool, "s"), expected);
    there.cli(&["vault", "import", "export", text(&clear), "--apply", "--overwrite"]).done();
    assert_eq!(served(&mut there, &tool, "s"), expected, "an export in clear is imported too");
}

/// A command of the world with these files as its descriptors from 3 on.
fn with_descriptors(world: &World, args: &[&str], files: &[&Path]) -> Outcome {
    let mut shell = world.command(Path::new("/bin/sh"));
    let passed: String =
        files.iter().enumerate().map(|(n, file)| format!(" {}<'{}'", n + 3, text(file))).collect();
    shell.arg("-c").arg(format!("exec \"$@\"{passed}")).arg("sh").arg(world.binary()).args(args);
    run(&mut shell)
}

#[test]
fn an_export_with_a_passphrase_opens_with_it_alone_and_age_opens_it_too() {
    let (mut world, tool) = at_rest(&["s"]);
    let expected = fill(&mut world, &tool, "s");
    let (right, wrong) =
        (file(&world, "right", "correct horse battery\n"), file(&world, "wrong", "wrong horse battery"));
    let short = file(&world, "short", "1234567\n");
    let out = world.tmp("out.age");
    let export = ["vault", "export", "-o", text(&out), "--export-passphrase-fd", "3"];
    refused(&with_descriptors(&world, &export, &[&short]), "fewer than 8 bytes");
    assert!(!out.exists());
    let said = with_descriptors(&world, &export, &[&right]).done();
    assert!(said.contains("encrypted with a passphrase"), "{said}");
    let import =
        ["vault", "import", "export", text(&out), "--export-passphrase-fd", "3", "--overwrite", "--apply"];
    refused(&with_descriptors(&world, &import, &[&wrong]), "the passphrase is another one");
    with_descriptors(&world, &import, &[&right]).done();
    assert_eq!(served(&mut world, &tool, "s"), expected);

    // a file that asks for an hour of work is refused at once
    let bytes = fs::read(&out).unwrap();
    let cost = bytes.windows(4).position(|four| four == b" 18\n").expect("what a passphrase costs");
    let dear = file(&world, "dear.age", [&bytes[..cost], b" 30\n", &bytes[cost + 4..]].concat());
    let import = ["vault", "import", "export", text(&dear), "--export-passphrase-fd", "3"];
    refused(&with_descriptors(&world, &import, &[&right]), "costs more than is tried");

    let Some(age) = need("age") else { return };
    let clear = world.tmp("clear");
    let args = ["-d", "-o", text(&clear), text(&out)];
    let Some(outcome) =
        on_a_terminal(&world, &age, &args, &[("Enter passphrase", "correct horse battery\n")])
    else {
        return;
    };
    assert_eq!(outcome.code, Some(0), "{}", outcome.out);
    assert_eq!(fs::read_to_string(&clear).unwrap().lines().count(), expected.len() + 1);
}

#[test]
fn an_export_is_encrypted_with_what_is_typed_twice_on_a_terminal() {
    let (mut world, tool) = at_rest(&["s"]);
    fill(&mut world, &tool, "s");
    let out = world.tmp("out.age");
    let binary = world.binary();
    let export = ["vault", "export", "-o", text(&out)];
    let (first, again) = ("New passphrase of the export: ", "The same again: ");
    let answers = [(first, "typed by a person\r"), (again, "typed by another\r")];
    let Some(outcome) = on_a_terminal(&world, &binary, &export, &answers) else { return };
    assert!(outcome.code == Some(1) && outcome.out.contains("the two passphrases differ"), "{}", outcome.out);
    assert!(!outcome.out.contains("typed"), "it is shown: {}", outcome.out);
    assert!(!out.exists() && records(&world, "export").is_empty());
    let answers = [(first, "typed by a person\r"), (again, "typed by a person\r")];
    let outcome = on_a_terminal(&world, &binary, &export, &answers).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.out);
    let right = file(&world, "right", "typed by a person");
    let import = ["vault", "import", "export", text(&out), "--export-passphrase-fd", "3", "--keep"];
    with_descriptors(&world, &import, &[&right]).done();
}

/// Runs a program on a terminal of its own; each answer is typed when the terminal shows its question.
pub fn on_a_terminal(
    world: &World,
    program: &Path,
    args: &[&str],
    answers: &[(&str, &str)],
) -> Option<Outcome> {
    let python = need("python3")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/terminal.py");
    Some(run(world.command(&python).arg(script).arg(json!(answers).to_string()).arg(program).args(args)))
}

#[test]
fn an_export_in_plaintext_needs_a_word_typed_on_a_terminal() {
    let (mut world, tool) = at_rest(&["s"]);
    fill(&mut world, &tool, "s");
    let out = world.tmp("clear");
    let export = ["vault", "export", "--output", text(&out), "--plaintext"];
    refused(&world.cli(&["vault", "export", "--output", "-", "--plaintext"]), "never standard output");
    // a session of its own has no terminal
    let binary = world.binary();
    let alone = run(world.command(Path::new("/usr/bin/setsid")).arg("-w").arg(&binary).args(export));
    refused(&alone, "has to be confirmed on a terminal: there is none");
    let Some(outcome) = on_a_terminal(&world, &binary, &export, &[("Type plaintext", "yes\n")]) else {
        return;
    };
    assert!(outcome.code == Some(1) && outcome.out.contains("something else was typed"), "{}", outcome.out);
    assert!(!out.exists() && records(&world, "export").is_empty(), "nothing left, and nothing is recorded");
    let outcome = on_a_terminal(&world, &binary, &export, &[("Type plaintext", "plaintext\n")]).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.out);
    assert!(fs::read_to_string(&out).unwrap().contains(MARK));
    assert!(!records(&world, "export").is_empty());
    let count = fs::read_dir(out.parent().unwrap()).unwrap().count();
    assert_eq!(count, 1, "no draft stays");
}
