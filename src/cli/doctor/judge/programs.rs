//! Each registered program: whether it is what was registered, and who could speak through it.

use super::super::{
    facts::{FileState, LibraryFacts, Program},
    row::{Area, Row, State},
};
use crate::{
    cli::words::{counted, left_open},
    policy::{Distrust, Risk},
    text::word,
};

pub(super) fn rows(programs: &[Program]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut well = 0;
    for program in programs {
        let about = about(program, programs);
        well += u64::from(about.is_empty());
        rows.extend(about);
    }
    if well > 0 {
        let found = counted(well, "program", "programs");
        rows.insert(
            0,
            Row::ok(Area::Programs, "unchanged", found, "as registered, with every identity check"),
        );
    }
    rows.extend(replaceable(programs));
    rows
}

fn about(program: &Program, all: &[Program]) -> Vec<Row> {
    let path = word(&program.path);
    let row = |found: &str, means: String| {
        Row::ok(Area::Programs, program.path.display().to_string(), found, means)
    };
    let mut rows = Vec::new();
    if let Some(why) = program.unusable {
        let advice = match program.digest {
            None => format!("if you trust the file as it is: keychain-auth upgrade {path}"),
            Some(_) => "correct the entry in config.json".to_owned(),
        };
        rows.push(row("no effect", why.to_owned()).but(State::Warn, advice));
    }
    if let Some(end) = &program.expired {
        let advice = format!("to give it more time: keychain-auth grant {path} --expires 30d");
        rows.push(row("expired", format!("it matches nothing since {end}")).but(State::Warn, advice));
    }
    rows.extend(program.relaxed.iter().map(|check| {
        row(&format!("relaxed {check}"), format!("without this check, {}", left_open(*check)))
            .but(State::Warn, format!("keychain-auth revoke {path} --relax {check}"))
    }));
    rows.extend(file(program, all));
    rows.extend(program.risks.iter().map(|risk| {
        let (found, state, advice) = advice(risk, program);
        row(found, risk.to_string()).but(state, advice)
    }));
    rows.extend(program.libraries.iter().filter_map(|library| self::library(program, library)));
    rows
}

fn file(program: &Program, all: &[Program]) -> Option<Row> {
    let path = word(&program.path);
    let row =
        |found: &str, means: &str| Row::ok(Area::Programs, program.path.display().to_string(), found, means);
    let digest = program.digest?;
    let newer = |other: &&Program| other.path == program.path && other.file == FileState::Same;
    Some(match &program.file {
        FileState::Same | FileState::Unasked => return None,
        FileState::Gone => row("gone", "its file does not exist; another one there would need the same hash")
            .but(State::Warn, format!("if you removed it: keychain-auth unregister {path} --hash {digest}")),
        FileState::Other if all.iter().any(|other| newer(&other)) => {
            row("older hash", "an older version of it would still be let in")
                .but(State::Warn, format!("keychain-auth unregister {path} --hash {digest}"))
        }
        FileState::Other => row("other hash", "the file changed since it was registered, so it is refused")
            .but(
                State::Warn,
                format!("find out who changed it; if it was you: keychain-auth upgrade {path}"),
            ),
        FileState::Unread(why) => {
            row("unreadable", why).but(State::Unknown, format!("look at it: ls -l {path}"))
        }
    })
}

fn advice(risk: &Risk, program: &Program) -> (&'static str, State, String) {
    let path = word(&program.path);
    let unregister = format!("keychain-auth unregister {path}, and register a compiled tool instead");
    match risk {
        Risk::Interpreter | Risk::RenamedInterpreter(_) => ("interpreter", State::Warn, unregister),
        Risk::Script(_) | Risk::NotElf => ("not ELF", State::Warn, unregister),
        Risk::Setuid => ("set-uid", State::Warn, format!("chmod ug-s {path}, or unregister it")),
        Risk::File(Distrust::Writable) => ("exposed", State::Bad, format!("chmod go-w {path}")),
        Risk::Folder { folder, why: Distrust::Writable } => {
            ("exposed", State::Bad, format!("chmod go-w {}, or install it elsewhere", word(folder)))
        }
        Risk::File(_) | Risk::Folder { .. } => (
            "exposed",
            State::Bad,
            "install it where only you and root can write, and register that".to_owned(),
        ),
        Risk::ForeignFilesystem(_) => {
            ("network disk", State::Warn, "copy it to a local disk, and register that".to_owned())
        }
    }
}

fn library(program: &Program, library: &LibraryFacts) -> Option<Row> {
    let row = |found: &str, means: String| {
        Row::ok(Area::Programs, program.path.display().to_string(), found, means)
    };
    let (binary, path, shown) = (word(&program.path), word(&library.path), library.path.display());
    if let Some((place, why)) = &library.exposed {
        let means = format!("{}: {why}, so somebody else could change its library {shown}", place.display());
        return Some(row("library exposed", means).but(State::Bad, format!("chmod go-w {}", word(place))));
    }
    let distrust = format!("keychain-auth distrust-library {binary} {path}");
    Some(match &library.file {
        FileState::Same | FileState::Unasked => return None,
        FileState::Gone => row("library gone", format!("{shown} does not exist")).but(State::Warn, distrust),
        FileState::Other => {
            row("library changed", format!("{shown} has another hash, so the program is refused with it"))
                .but(State::Warn, format!("if you updated it: keychain-auth trust-library {binary} {path}"))
        }
        FileState::Unread(why) => {
            row("library unreadable", why.clone()).but(State::Unknown, format!("look at it: ls -l {path}"))
        }
    })
}

/// One row for all: where tools are installed by their user, every one of them is such.
fn replaceable(programs: &[Program]) -> Option<Row> {
    let names: Vec<String> = programs
        .iter()
        .filter(|program| program.replaceable)
        .map(|program| program.path.display().to_string())
        .collect();
    if names.is_empty() {
        return None;
    }
    let means = format!(
        "any process of yours can put another file in its place, which is refused until you upgrade: {}",
        names.join(", ")
    );
    let found = counted(names.len() as u64, "program", "programs");
    Some(
        Row::ok(Area::Programs, "replaceable by you", found, means)
            .but(State::Warn, "install it where only root can write, and look before you upgrade"),
    )
}
