//! What is wrong with a command line or a file is said before anybody is asked for a passphrase.

use std::{fs, path::Path};

use crate::{
    advice::advice,
    keys::{PASSPHRASE, askpass, cli_with, with_passphrase},
    processes::text,
    world::{Outcome, World, run},
};

/// A vault with a passphrase and without a daemon.
fn closed() -> World {
    let mut world = with_passphrase();
    world.start();
    world.stop();
    world
}

/// Runs the command with a program that asks, and fails if it was asked.
#[track_caller]
fn unasked(world: &World, args: &[&str], said: &str) {
    let asked = world.tmp("asked");
    let program = world.tmp("counts");
    world.write(&program, format!("#!/bin/sh\necho asked >> {}\n", text(&asked)).as_bytes());
    world.own(&program, 0o700);
    let outcome = cli_with(world, &[("KEYCHAIN_AUTH_ASKPASS", text(&program))], args);
    assert!(outcome.code == Some(1) && outcome.err.contains(said), "{args:?}: {outcome:?}");
    assert!(!asked.exists(), "{args:?} asked for a passphrase: {}", fs::read_to_string(&asked).unwrap());
}

#[test]
fn a_missing_file_or_an_existing_output_is_told_before_a_passphrase_is_asked_for() {
    let mut world = closed();
    let there = world.tmp("there");
    world.write(&there, b"A=\"unclosed");
    let gone = world.tmp("gone");
    let nowhere = world.tmp("no/folder/out.age");
    let export = ["vault", "export", "-o"];
    let import = ["vault", "import"];
    let service = ["--service", "s", "--apply"];
    let tries: [(Vec<&str>, &str); 9] = [
        ([&export[..], &[text(&there)]].concat(), "there is there already"),
        ([&export[..], &[text(&nowhere)]].concat(), "can't be written"),
        ([&export[..], &[text(&gone), "-r", "age1x"]].concat(), "is no age recipient"),
        ([&export[..], &[text(&gone), "--export-passphrase-fd", "77"]].concat(), "no such descriptor"),
        ([&import[..], &["env", text(&gone)], &service].concat(), "can't be read"),
        ([&import[..], &["env", text(&there)], &service].concat(), "not closed"),
        ([&import[..], &["export", text(&gone), "--apply"]].concat(), "can't be read"),
        ([&import[..], &["go-store", text(&gone), "--apply"]].concat(), "can't be read"),
        ([&import[..], &["export", text(&there), "-i", text(&gone)]].concat(), "can't be read"),
    ];
    for (args, said) in &tries {
        unasked(&world, args, said);
    }
    // an empty one is no failure, and no reason to ask either
    let program = world.tmp("counts");
    world.write(&there, b"# nothing\n");
    let empty = [&import[..], &["env", text(&there)], &service].concat();
    let outcome = cli_with(&world, &[("KEYCHAIN_AUTH_ASKPASS", text(&program))], &empty);
    assert!(outcome.code == Some(0) && outcome.err.contains("nothing to import"), "{outcome:?}");
    assert!(!world.tmp("asked").exists(), "nobody was asked");
    world.start();
    unasked(&world, &[&export[..], &[text(&gone)]].concat(), "in use by the daemon");
    unasked(&world, &[&import[..], &["env", text(&there)], &service].concat(), "in use by the daemon");
}

/// As a service would run it: without a terminal.
fn without_a_terminal(world: &World, args: &[&str], fd: Option<&Path>) -> Outcome {
    let mut command = world.command(Path::new("/usr/bin/setsid"));
    let redirected = fd.map(|file| format!("exec \"$@\" 7< '{}'", text(file)));
    command.args(["-w", "/bin/sh", "-c", redirected.as_deref().unwrap_or("exec \"$@\""), "sh"]);
    run(command.arg(world.binary()).args(args))
}

#[test]
fn a_new_passphrase_without_a_terminal_is_given_as_advised() {
    let mut world = World::started();
    world.stop();
    let change = ["vault", "change-key-source", "--key", "passphrase"];
    let outcome = without_a_terminal(&world, &change, None);
    assert!(outcome.err.contains("the new passphrase"), "{outcome:?}");
    assert!(advice(&outcome).contains("--new-passphrase-fd N"), "{outcome:?}");
    assert!(!advice(&outcome).contains(" --passphrase-fd"), "{outcome:?}");
    let secret = world.tmp("secret");
    world.write(&secret, b"correct horse battery staple\n");
    without_a_terminal(&world, &[&change[..], &["--new-passphrase-fd", "7"]].concat(), Some(&secret)).done();
    let program = askpass(&world, "typed", PASSPHRASE);
    cli_with(&world, &[("KEYCHAIN_AUTH_ASKPASS", text(&program))], &["vault", "verify"]).done();
}
