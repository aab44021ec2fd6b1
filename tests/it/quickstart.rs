//! The quickstart, word for word, with its own Go program; and the same dialogue from Python and Node.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    skip::{need, skip},
    tools::hash_of,
    world::{World, await_that, run},
};

const DENIED: &str = "Write denied: unregistered_binary_pending_approval\n";
/// How often an unregistered client must read the reason: the earlier system lost it in 124 of 200 runs.
const RUNS: usize = 200;
const SECRETS: [(&str, &str); 2] = [
    ("production/workspace_abc/proj_123/OPENAI_API_KEY", "sk-proj-456"),
    ("production/workspace_abc/proj_123/AWS_SECRET_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
];

/// The quickstart's Go program, cut out of the text beside the repository and built; None after a skip.
fn go_program() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/seed");
    let page = fs::read_dir(&folder).ok().and_then(|files| {
        files.filter_map(|file| Some(file.ok()?.path())).find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("quickstart") && name.ends_with(".txt")
        })
    });
    let Some(page) = page else {
        skip("../shared/seed with the quickstart is not here");
        return None;
    };
    let go = need("go")?;
    let text = fs::read_to_string(page).unwrap();
    let program = &text[text.find("package main").expect("a Go program")..];
    let body = program.find("func main()").expect("its main function");
    let end = body + program[body..].find("\n}\n").expect("the end of it") + 3;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("quickstart-{}", std::process::id()));
    let built = folder.join(std::thread::current().name().unwrap().replace("::", "-"));
    fs::create_dir_all(&built).unwrap();
    let source = built.join("main.go");
    fs::write(&source, &program[..end]).unwrap();
    let mut build = Command::new(go);
    build.arg("build").arg("-o").arg(built.join("tool")).arg(&source).current_dir(&built);
    build.env("GO111MODULE", "off").env("GOCACHE", folder.parent().unwrap().join("go-cache"));
    let output = build.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(built.join("tool"))
}

/// A world where the program lies as `your-tool`, with a daemon; None after a skip.
fn world_with_program() -> Option<(World, PathBuf)> {
    let program = go_program()?;
    let world = World::started();
    let tool = world.root().join("bin/your-tool");
    world.copy(&program, &tool);
    fs::remove_dir_all(program.parent().unwrap()).unwrap();
    Some((world, tool))
}

fn both_secrets() -> String {
    let lines: String =
        SECRETS.iter().map(|(target, value)| format!("target: {target}\nvalue:  {value}\n\n")).collect();
    format!("Secrets written successfully.\n{lines}")
}

#[test]
fn the_unregistered_program_reads_the_reason_every_time() {
    let Some((world, tool)) = world_with_program() else { return };
    let said: Vec<String> = (0..RUNS).map(|_| run(&mut world.command(&tool)).out).collect();
    let told = said.iter().filter(|text| *text == DENIED).count();
    assert_eq!(told, RUNS, "otherwise: {:?}", said.iter().find(|text| *text != DENIED));
    // beyond a hundred a minute those of one stranger are folded, and the record says how many it stands for
    let times = |record: &Value| record["count"].as_u64().unwrap_or(1);
    let denied = await_that("each attempt is recorded once", || {
        let all = world.audit().into_iter().filter(|record| record["binary_path"] == json!(tool));
        let all: Vec<Value> = all.collect();
        (all.iter().map(times).sum::<u64>() == RUNS as u64).then_some(all)
    });
    let mut single = denied.iter().filter(|record| record.get("count").is_none());
    assert!(single.all(|record| record["targets"] == json!([SECRETS[0].0, SECRETS[1].0])), "{}", denied[0]);
}

#[test]
fn the_program_registered_and_granted_by_hand_reads_both_secrets_back() {
    let Some((world, tool)) = world_with_program() else { return };
    let said = world.cli(&["register", tool.to_str().unwrap()]).done();
    assert_eq!(said, format!("Registered {} with hash {}\n", tool.display(), hash_of(&tool)));
    assert_eq!(run(&mut world.command(&tool)).out, "Write denied: service_not_allowed\n");
    let mut policy = world.read_policy();
    let entry = &mut policy["registered_binaries"][0];
    entry["allowed_read_services"] = json!(["agentsecrets"]);
    entry["allowed_write_services"] = json!(["agentsecrets"]);
    entry["can_search"] = json!(true);
    // as an editor that writes in place would, with its own layout
    fs::write(world.config(), serde_json::to_string_pretty(&policy).unwrap() + "\n").unwrap();
    assert_eq!(run(&mut world.command(&tool)).out, both_secrets());
    the_log_reads_like_the_quickstarts(&world, &tool);
}

#[test]
fn the_program_registered_and_granted_by_command_reads_both_secrets_back() {
    let Some((world, tool)) = world_with_program() else { return };
    world.cli(&["register", tool.to_str().unwrap()]).done();
    let grant =
        ["grant", tool.to_str().unwrap(), "--read", "agentsecrets", "--write", "agentsecrets", "--search"];
    world.cli(&grant).done();
    for _ in 0..20 {
        assert_eq!(run(&mut world.command(&tool)).out, both_secrets());
    }
    the_log_reads_like_the_quickstarts(&world, &tool);
}

/// The example of the quickstart's last step, member by member.
#[track_caller]
fn the_log_reads_like_the_quickstarts(world: &World, tool: &Path) {
    let record = world.audit_where("the read is recorded", |record| {
        record["action"] == "read" && record["result"] == "GRANTED"
    });
    let members: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        members[..8],
        ["timestamp", "action", "pid", "binary_path", "binary_hash", "service", "targets", "result"]
    );
    assert!(record["pid"].as_u64().is_some_and(|pid| pid > 1));
    assert_eq!((&record["binary_path"], &record["binary_hash"]), (&json!(tool), &json!(hash_of(tool))));
    assert_eq!(
        (&record["service"], &record["targets"]),
        (&json!("agentsecrets"), &json!([SECRETS[0].0, SECRETS[1].0]))
    );
    let log = fs::read_to_string(world.data().join("audit.log")).unwrap();
    assert!(SECRETS.iter().all(|(_, value)| !log.contains(value)), "no value is ever logged");
}

/// The dialogue of a script, unregistered and then granted to its interpreter.
fn script(interpreter: &Path, script: &str, members: &[(&str, Value)]) {
    let interpreter = fs::canonicalize(interpreter).unwrap();
    let world = World::started();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients").join(script);
    let place = world.tmp(script);
    world.copy(&source, &place);
    let dialogue = || {
        let outcome = run(world.command(&interpreter).arg(&place));
        assert!(outcome.err.is_empty(), "{}", outcome.err);
        outcome.out
    };
    assert_eq!(dialogue(), DENIED);
    let path = interpreter.to_str().unwrap();
    world.cli(&["register", "--allow-interpreter", path]).done();
    world.cli(&["grant", path, "--read", "agentsecrets", "--write", "agentsecrets"]).done();
    let mut policy = world.read_policy();
    for (name, value) in members {
        policy["registered_binaries"][0][*name] = value.clone();
    }
    world.policy_text(&policy.to_string());
    let name = script.strip_suffix(".py").map_or("node", |_| "python");
    let lines: String = SECRETS
        .iter()
        .map(|(target, value)| format!("{name}/{} {value}\n", target.rsplit('/').next().unwrap()))
        .collect();
    for _ in 0..5 {
        assert_eq!(dialogue(), lines);
    }
}

#[test]
fn a_python_script_has_the_same_dialogue() {
    // Debian's own: another one in front of it on PATH may be a shim that a user can write
    let Some(python) = need("python3") else { return };
    script(&python, "dialogue.py", &[]);
}

#[test]
fn a_node_script_has_the_same_dialogue() {
    let Some(node) = need("node") else { return };
    // its compiler writes the code that it runs
    script(&node, "dialogue.js", &[("relax", json!(["injected_code"]))]);
}
