//! Secrets taken in from other programs and out again: the real command line, real stores of those programs.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
};

use aes_gcm::{Aes256Gcm, KeyInit, Nonce, aead::Aead};
use age::secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::{
    cage::dump,
    client::Client,
    keys::with_keyring,
    skip::{need, skip},
    world::{Entry, Guarded, Outcome, World, await_that, is_root, run, spawn},
};

/// Marks every value of these tests, so that one that shows up anywhere is found.
const MARK: &str = "VALUEMARK";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A world whose vault exists and is not held by a daemon, with a tool that may do everything on these services.
fn at_rest(services: &[&str]) -> (World, PathBuf) {
    let mut world = World::new();
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, services)]);
    world.start();
    world.stop();
    (world, tool)
}

/// Everything of a service, as the daemon serves it: values and attributes by target.
fn served(world: &mut World, tool: &Path, service: &str) -> BTreeMap<String, (String, Value)> {
    world.start();
    let mut client = Client::connected(world, tool);
    let names = client.request(&json!({"type": "REQUEST", "action": "search", "service": service}));
    let names: Vec<&Value> = names["results"].as_array().unwrap().iter().map(|it| &it["target"]).collect();
    let mut all = BTreeMap::new();
    for some in names.chunks(100) {
        let request = json!({"type": "REQUEST", "action": "read", "service": service, "targets": some});
        for result in client.request(&request)["results"].as_array().unwrap() {
            let word = |member: &str| result[member].as_str().unwrap().to_owned();
            all.insert(word("target"), (word("value"), result["attributes"].clone()));
        }
    }
    drop(client);
    world.stop();
    all
}

fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, (String, Value)> {
    pairs.iter().map(|(target, value)| ((*target).to_owned(), ((*value).to_owned(), Value::Null))).collect()
}

/// Fails unless the command exits with 1, says this on stderr, and shows no value.
#[track_caller]
fn refused(outcome: &Outcome, said: &str) {
    assert_eq!(outcome.code, Some(1), "{}{}", outcome.out, outcome.err);
    assert!(outcome.err.contains(said), "{said:?} is expected: {}{}", outcome.out, outcome.err);
    silent(outcome);
}

/// Fails if a value was shown.
#[track_caller]
fn silent(outcome: &Outcome) {
    assert!(!outcome.out.contains(MARK) && !outcome.err.contains(MARK), "{}{}", outcome.out, outcome.err);
}

fn records(world: &World, action: &str) -> Vec<Value> {
    world.audit().into_iter().filter(|record| record["action"] == action).collect()
}

/// A file of the world's user.
fn file(world: &World, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = world.tmp(name);
    world.write(&path, bytes.as_ref());
    path
}

/// A pair of age keys: the recipient, and the file with its identity.
fn age_keys(world: &World, name: &str) -> (String, PathBuf) {
    let identity = age::x25519::Identity::generate();
    let secret = format!("# created for a test\n{}\n", identity.to_string().expose_secret());
    (identity.to_public().to_string(), file(world, name, secret))
}

#[test]
fn an_env_file_is_imported_when_it_is_applied_and_not_before() {
    let (mut world, tool) = at_rest(&["app"]);
    let env = file(
        &world,
        ".env",
        format!("# keys\nexport API_KEY=\"{MARK}\\nline\"\nEMPTY=\nTOKEN='{MARK} # $x'\r\n"),
    );
    let import = ["vault", "import", "env", text(&env), "--service", "app", "--prefix", "dev/"];
    let dry = world.cli(&import);
    silent(&dry);
    assert!(dry.err.contains("3 secrets are to be written") && dry.err.contains("--apply"), "{}", dry.err);
    let said = dry.done();
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    let wrote = |name| vec!["write", "app", name];
    assert_eq!(lines, [wrote("dev/API_KEY"), wrote("dev/EMPTY"), wrote("dev/TOKEN")]);
    assert!(records(&world, "import").is_empty() && served(&mut world, &tool, "app").is_empty());

    let applied = world.cli(&[&import[..], &["--apply"]].concat());
    silent(&applied);
    assert!(applied.err.contains("Imported 3 secrets"), "{}", applied.err);
    let record = &records(&world, "import")[0];
    assert_eq!(record["targets"], json!(["dev/API_KEY", "dev/EMPTY", "dev/TOKEN"]));
    assert!(record["detail"].as_str().unwrap().ends_with("vault import env"), "{record}");
    let log = fs::read_to_string(world.data().join("audit.log")).unwrap();
    assert!(!log.contains(MARK));
    let expected = values(&[
        ("dev/API_KEY", &format!("{MARK}\nline")),
        ("dev/EMPTY", ""),
        ("dev/TOKEN", &format!("{MARK} # $x")),
    ]);
    assert_eq!(served(&mut world, &tool, "app"), expected);
}

#[test]
fn what_an_import_would_overwrite_or_refuse_stops_it_until_the_user_chose() {
    let (mut world, tool) = at_rest(&["app"]);
    let import = |world: &World, body: &str, more: &[&str]| {
        let env = file(world, "env", body);
        world.cli(&[&["vault", "import", "env", text(&env), "--service", "app"], more].concat())
    };
    import(&world, "A=first\n", &["--apply"]).done();
    let both = format!("A={MARK}\nB=new\n");
    for more in [&[][..], &["--apply"]] {
        refused(&import(&world, &both, more), "1 secret is there already, so nothing is imported");
    }
    assert_eq!(served(&mut world, &tool, "app"), values(&[("A", "first")]));
    import(&world, &both, &["--apply", "--keep"]).done();
    assert_eq!(served(&mut world, &tool, "app"), values(&[("A", "first"), ("B", "new")]));
    import(&world, "A=third", &["--apply", "--overwrite"]).done();
    assert_eq!(served(&mut world, &tool, "app"), values(&[("A", "third"), ("B", "new")]));

    let unclear = format!("C=good\nD={MARK}#x\nC=again\n");
    let outcome = import(&world, &unclear, &["--apply"]);
    refused(&outcome, "2 entries are refused, so nothing is imported");
    assert!(outcome.out.contains("D (line 2)") && outcome.out.contains("C (line 3)"), "{}", outcome.out);
    let outcome = import(&world, &unclear, &["--apply", "--skip-refused", "--json"]);
    silent(&outcome);
    let plan: Value = serde_json::from_str(&outcome.done()).unwrap();
    assert_eq!(plan["secrets"], json!([{"service": "app", "target": "C", "does": "write"}]));
    assert_eq!(plan["refused"][0]["line"], 2);
    assert_eq!(served(&mut world, &tool, "app")["C"].0, "good");
    refused(
        &import(&world, &format!("E={MARK}\nF\n"), &["--apply"]),
        "env, line 2, column 2: an equals sign",
    );
}

#[test]
fn the_store_of_the_earlier_system_is_imported_and_its_colons_are_not_guessed() {
    let (mut world, tool) = at_rest(&["agentsecrets", "a:b"]);
    let folder = world.tmp("old");
    let key = [7_u8; 32];
    let store = |json: &Value| {
        let cipher = Aes256Gcm::new_from_slice(&key).unwrap();
        let nonce = [9_u8; 12];
        let sealed = cipher.encrypt(&Nonce::from(nonce), json.to_string().as_bytes()).unwrap();
        world.write(&folder.join("keychain.enc"), &[&nonce[..], &sealed].concat());
        world.write(&folder.join("keychain.key"), &key);
    };
    store(&json!({"agentsecrets:production/OPENAI_API_KEY": format!("{MARK}<&>\u{1f511}"), "a:b:c": "2"}));
    let import = ["vault", "import", "go-store", text(&folder)];
    let outcome = world.cli(&import);
    refused(&outcome, "1 entry is refused");
    assert!(outcome.out.contains("a:b:c: it has 2 colons"), "{}", outcome.out);
    world.cli(&[&import[..], &["--service", "a:b", "--apply"]].concat()).done();
    let expected = values(&[("production/OPENAI_API_KEY", &format!("{MARK}<&>\u{1f511}"))]);
    assert_eq!(served(&mut world, &tool, "agentsecrets"), expected);
    assert_eq!(served(&mut world, &tool, "a:b"), values(&[("c", "2")]));

    let sealed = fs::read(folder.join("keychain.enc")).unwrap();
    let mut changed = sealed.clone();
    changed[20] ^= 1;
    world.write(&folder.join("keychain.enc"), &changed);
    refused(&world.cli(&import), "can't be decrypted");
    world.write(&folder.join("keychain.enc"), &sealed);
    world.write(&folder.join("keychain.key"), &[7; 33]);
    refused(&world.cli(&import), "does not have 32 bytes");
}

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

/// A store of `pass` with a key of its own, whose agent ends with it.
struct PassStore<'w>(&'w World);

impl<'w> PassStore<'w> {
    /// None, after having skipped the test, where `pass` or GnuPG is missing.
    fn new(world: &'w World) -> Option<Self> {
        let (_, gpg) = (need("pass")?, need("gpg")?);
        world.folder(&world.home().join(".gnupg"), 0o700);
        let key = ["--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "Test <test@localhost>"];
        let store = Self(world);
        run(world.command(&gpg).args(key)).done();
        run(world.command(Path::new("/usr/bin/pass")).args(["init", "test@localhost"])).done();
        Some(store)
    }

    fn insert(&self, name: &str, content: &str) {
        let mut command = self.0.command(Path::new("/usr/bin/pass"));
        command.args(["insert", "--multiline", name]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = spawn(&mut command);
        child.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

impl Drop for PassStore<'_> {
    fn drop(&mut self) {
        let _ = self.0.command(Path::new("/usr/bin/gpgconf")).args(["--kill", "all"]).output();
    }
}

#[test]
fn a_store_of_pass_is_imported_through_the_users_gnupg() {
    let (mut world, tool) = at_rest(&["web"]);
    let Some(store) = PassStore::new(&world) else { return };
    store.insert("mail/example.org", &format!("{MARK}1\n"));
    store.insert("bank", &format!("{MARK}2\nuser: me\n"));
    store.insert("deep/er/still", &format!("{MARK}3 ü\n"));
    let broken = world.home().join(".password-store/mail/broken.gpg");
    world.write(&broken, b"no message of GnuPG");
    std::os::unix::fs::symlink("..", world.home().join(".password-store/mail/circle")).unwrap();
    let import = ["vault", "import", "pass", "--service", "web"];
    let outcome = world.cli(&import);
    refused(&outcome, "3 entries are refused");
    assert!(outcome.out.contains("bank: it has more than one line"), "{}", outcome.out);
    assert!(outcome.out.contains("mail/broken: it can't be decrypted"), "{}", outcome.out);
    assert!(outcome.out.contains("circle: it is a symbolic link"), "{}", outcome.out);
    fs::remove_file(&broken).unwrap();
    fs::remove_file(world.home().join(".password-store/mail/circle")).unwrap();
    let apply = |more: &[&str]| world.cli(&[&import[..], &["--apply"], more].concat());
    apply(&["--first-line"]).done();
    apply(&["--whole", "--prefix", "whole/", "bank"]).done();
    refused(&apply(&["nothing"]), "no entry and no folder nothing");
    refused(&apply(&["../.gnupg"]), "no entry and no folder ../.gnupg");
    drop(store);
    let expected = values(&[
        ("bank", &format!("{MARK}2")),
        ("deep/er/still", &format!("{MARK}3 ü")),
        ("mail/example.org", &format!("{MARK}1")),
        ("whole/bank", &format!("{MARK}2\nuser: me")),
    ]);
    assert_eq!(served(&mut world, &tool, "web"), expected);
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

#[test]
fn items_of_a_keychain_are_imported_as_secret_tool_finds_them() {
    let Some(secret_tool) = need("secret-tool") else { return };
    let Some((mut world, keyring)) = with_keyring() else { return };
    let tool = world.tool("tool");
    world.policy(&[Entry::all(&tool, &["mail"])]);
    world.start_args = vec!["--key".to_owned(), "file".to_owned()];
    world.start();
    world.stop();
    let store = |label: &str, attributes: &[&str], value: &[u8]| {
        let mut command = keyring.command(text(&secret_tool));
        command.args(["store", "--label", label]).args(attributes).stdin(Stdio::piped());
        let mut child = spawn(&mut command);
        child.stdin.take().unwrap().write_all(value).unwrap();
        assert!(child.wait().unwrap().success());
    };
    store("Work mail", &["app", "mail", "user", "me@work"], format!("{MARK} ü\nline").as_bytes());
    store("Home mail", &["app", "mail", "user", "me@home"], format!("{MARK}2").as_bytes());
    store("Other", &["app", "chat"], format!("{MARK}3").as_bytes());
    let address = keyring.address();
    let import = |more: &[&str]| {
        let mut command = world.command(&world.binary());
        command.env("DBUS_SESSION_BUS_ADDRESS", &address);
        run(command.args(["vault", "import", "secret-service", "--service", "mail"]).args(more))
    };
    silent(&import(&["app=mail"]));
    import(&["app=mail", "--apply"]).done();
    import(&["app=mail", "user=me@home", "--name-from", "user", "--prefix", "by/", "--apply"]).done();
    import(&["app=nothing", "--apply"]).done();
    let outcome = import(&["app=chat", "--name-from", "user", "--apply"]);
    refused(&outcome, "1 entry is refused");
    store("Binary", &["app", "binary"], b"\xff\xfe");
    let outcome = import(&["app=binary"]);
    assert!(outcome.out.contains("Binary: its value is not text"), "{}", outcome.out);
    keyring.lock();
    let outcome = import(&["app=mail", "--overwrite"]);
    refused(&outcome, "2 entries are refused");
    assert!(outcome.out.contains("it is locked"), "{}", outcome.out);
    let item = |value: &str, user: &str| (value.to_owned(), json!({"app": "mail", "user": user}));
    let expected: BTreeMap<String, (String, Value)> = [
        ("Home mail", item(&format!("{MARK}2"), "me@home")),
        ("Work mail", item(&format!("{MARK} ü\nline"), "me@work")),
        ("by/me@home", item(&format!("{MARK}2"), "me@home")),
    ]
    .map(|(name, item)| (name.to_owned(), item))
    .into();
    assert_eq!(served(&mut world, &tool, "mail"), expected);
}

/// Runs a program on a terminal of its own; each answer is typed when the terminal shows its question.
fn on_a_terminal(world: &World, program: &Path, args: &[&str], answers: &[(&str, &str)]) -> Option<Outcome> {
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

#[test]
fn beside_a_running_daemon_nothing_is_taken_in_or_out() {
    let world = World::started();
    let env = file(&world, "env", format!("A={MARK}"));
    let (recipient, _) = age_keys(&world, "key.txt");
    let out = world.tmp("out.age");
    for args in [
        &["vault", "import", "env", text(&env), "--service", "s", "--apply"][..],
        &["vault", "export", "-o", text(&out), "-r", &recipient],
    ] {
        let outcome = world.cli(args);
        refused(&outcome, "the vault is in use");
        assert!(outcome.err.contains("vault lock"), "{}", outcome.err);
    }
    assert!(!out.exists());
}

#[test]
fn a_command_that_holds_secrets_is_closed_to_others_and_keeps_them_in_locked_memory() {
    let (world, _) = at_rest(&["s"]);
    let mut command = world.command(&world.binary());
    command.args(["vault", "import", "env", "-", "--service", "s"]).stdin(Stdio::piped());
    let mut child = Guarded(spawn(command.stdout(Stdio::null()).stderr(Stdio::null())));
    let pid = child.0.id();
    let mut input = child.0.stdin.take().unwrap();
    input.write_all(format!("KEY='{MARK}'\n").as_bytes()).unwrap();
    await_that("the command took its input", || {
        (rustix::io::ioctl_fionread(&input).ok()? == 0).then_some(())
    });
    let spy = run(world.command(Path::new("/bin/cat")).arg(format!("/proc/{pid}/environ")));
    assert!(spy.code == Some(1) && spy.err.contains("ermission denied"), "{}{}", spy.out, spy.err);
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"));
    if let Ok(limits) = limits {
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    }
    if !is_root() {
        skip("only root can look into the memory of a command that is closed to others");
        return;
    }
    let (pieces, _) = dump::mapped(pid);
    assert!(pieces.len() > 10);
    let open: Vec<_> = pieces.iter().filter(|piece| !piece.place.contains("secretmem")).collect();
    let hits = open.iter().filter(|piece| memchr::memmem::find(&piece.bytes, MARK.as_bytes()).is_some());
    let hits: Vec<&String> = hits.map(|piece| &piece.place).collect();
    assert!(hits.is_empty(), "{hits:?}");
    drop(input);
    let ended = await_that("the command ends", || child.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
}
