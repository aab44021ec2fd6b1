//! What is imported from the stores of other programs.

use std::{collections::BTreeMap, fs, io::Write, path::Path, process::Stdio};

use aes_gcm::{Aes256Gcm, KeyInit, Nonce, aead::Aead};
use serde_json::{Value, json};

use super::{MARK, at_rest, exports::on_a_terminal, file, records, refused, served, silent, text, values};
use crate::{
    keys::with_keyring,
    skip::need,
    world::{Entry, World, run, spawn},
};

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
fn one_value_is_imported_from_standard_input_and_never_stands_on_a_command_line() {
    let (mut world, tool) = at_rest(&["app"]);
    let piped = |world: &World, value: &[u8], more: &[&str]| {
        let input = file(world, "input", value);
        let mut command = world.command(&world.binary());
        command.args(["vault", "import", "value"]).args(more).args(["--service", "app"]);
        run(command.stdin(fs::File::open(input).unwrap()))
    };
    let dry = piped(&world, MARK.as_bytes(), &["KEY"]);
    silent(&dry);
    assert!(
        dry.err.contains("1 secret is to be written") && dry.out.contains("write     app  KEY"),
        "{dry:?}"
    );
    for (name, value) in [
        ("plain", format!("{MARK}\n")),
        ("exact", MARK.to_owned()),
        ("lines", format!("{MARK}'\"$\n\n")),
        ("crlf", format!("{MARK}\r\n")),
        ("returns", format!("{MARK}\r\r\n")),
        ("bare", format!("{MARK}\r")),
    ] {
        let applied = piped(&world, value.as_bytes(), &[name, "--prefix", "dev/", "--apply"]);
        silent(&applied);
        assert!(applied.err.contains("Imported 1 secret"), "{applied:?}");
    }
    let again = piped(&world, MARK.as_bytes(), &["exact", "--prefix", "dev/", "--apply"]);
    refused(&again, "1 secret is there already");
    for nothing in [b"".as_slice(), b"\n", b"\r\n"] {
        let nothing = piped(&world, nothing, &["exact", "--prefix", "dev/", "--overwrite", "--apply"]);
        refused(&nothing, "standard input holds no value");
    }
    refused(&piped(&world, b"\xff", &["KEY", "--apply"]), "1 entry is refused");
    let long = piped(&world, &[b'x'; 65_537], &["KEY", "--apply"]);
    assert!(long.out.contains("its value is over 65536 bytes"), "{long:?}");
    // what somebody gives as an argument is taken for nothing
    assert_eq!(piped(&world, b"", &["KEY", MARK, "--apply"]).code, Some(2));
    let record = &records(&world, "import")[0];
    assert_eq!(record["targets"], json!(["dev/plain"]));
    assert!(record["detail"].as_str().unwrap().ends_with("vault import value"), "{record}");
    let expected = values(&[
        ("dev/plain", MARK),
        ("dev/exact", MARK),
        ("dev/lines", &format!("{MARK}'\"$\n")),
        ("dev/crlf", MARK),
        ("dev/returns", &format!("{MARK}\r")),
        ("dev/bare", &format!("{MARK}\r")),
    ]);
    assert_eq!(served(&mut world, &tool, "app"), expected);
}

#[test]
fn one_value_is_typed_without_echo_on_a_terminal() {
    let (mut world, tool) = at_rest(&["app"]);
    let binary = world.binary();
    let import = ["vault", "import", "value", "KEY", "--service", "app", "--apply"];
    let asked = "Value of the secret: ";
    let cancelled = on_a_terminal(&world, &binary, &import, &[(asked, "half\u{3}")]);
    let Some(cancelled) = cancelled else { return };
    assert!(cancelled.code == Some(1) && cancelled.out.contains("no value was typed"), "{}", cancelled.out);
    let typed = format!("{MARK} 'x'\r");
    let applied = on_a_terminal(&world, &binary, &import, &[(asked, &typed)]).unwrap();
    silent(&applied);
    assert!(applied.code == Some(0) && applied.out.contains("Imported 1 secret"), "{}", applied.out);
    assert_eq!(served(&mut world, &tool, "app"), values(&[("KEY", &format!("{MARK} 'x'"))]));
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
fn where_no_store_of_pass_is_its_place_is_named_with_the_way_to_name_another() {
    let (world, _) = at_rest(&["web"]);
    let import = ["vault", "import", "pass", "--service", "web"];
    for (more, place) in [(&[][..], "home/.password-store"), (&["--store", "/nope"], "/nope")] {
        let outcome = world.cli(&[&import[..], more].concat());
        refused(&outcome, "there is no store of pass at");
        assert!(outcome.err.contains(place) && outcome.err.contains("--store"), "{}", outcome.err);
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
