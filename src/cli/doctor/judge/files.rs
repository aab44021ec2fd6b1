//! Our own files and folders: whose they are, and who else could use them.

use super::super::{
    facts::{Kind, OwnFile, Role, Seen},
    row::{Area, Row, State},
};
use crate::{store::KeySource, text::word};

pub(super) fn rows(files: &[OwnFile], source: Option<KeySource>, uid: u32) -> Vec<Row> {
    let judged = |file| lost(file, files).unwrap_or_else(|| row(file, uid));
    let mut rows: Vec<Row> = files.iter().map(judged).collect();
    // what others could use is not read: their rows say so
    let unread = |file: &OwnFile| {
        let exposed = |seen: Seen| exposure(file.role, &seen, uid).is_some();
        matches!(file.role, Role::DataFolder | Role::Key) && file.seen.ok().flatten().is_some_and(exposed)
    };
    if source.is_some() || !files.iter().any(unread) {
        rows.extend(key_source(files, source));
    }
    rows
}

/// What a role asks of its file.
struct Wanted {
    name: &'static str,
    kind: Kind,
    mode: u32,
    /// Whether the daemon refuses any other owner, mode or number of names.
    exact: bool,
    means: &'static str,
}

fn wanted(role: Role) -> Wanted {
    let (name, kind, means) = match role {
        Role::ConfigFolder => ("config folder", Kind::Folder, "who can write here can replace the policy"),
        Role::Config => ("config.json", Kind::File, "the policy: which program may use what"),
        Role::LinkedFolder => {
            ("folder of linked config.json", Kind::Folder, "who can write here can replace the policy")
        }
        Role::DataFolder => ("data folder", Kind::Folder, "it holds the vault, its key and the audit log"),
        Role::Vault => ("vault.redb", Kind::File, "the sealed secrets"),
        Role::Key => ("vault.key", Kind::File, "it holds the vault's key, or that key wrapped under another"),
        Role::Head => ("vault.head", Kind::File, "it tells an old copy of the vault from the newest"),
        Role::AuditLog => ("audit.log", Kind::File, "who asked for what"),
        Role::AuditState => {
            ("audit.state", Kind::File, "the sealed key that chains the next records of the log")
        }
        Role::Pending => ("pending.json", Kind::File, "the programs that wait for approval"),
        Role::SocketFolder => {
            ("socket folder", Kind::Folder, "who can write here can put another socket in the daemon's place")
        }
        Role::Socket => ("socket", Kind::Socket, "where programs ask"),
    };
    let exact = matches!(role, Role::DataFolder | Role::Vault | Role::Key | Role::Head | Role::AuditState);
    Wanted { name, kind, mode: if kind == Kind::Folder { 0o700 } else { 0o600 }, exact, means }
}

/// The row of a file of the vault that is gone: one beside it is never there without it.
fn lost(file: &OwnFile, files: &[OwnFile]) -> Option<Row> {
    let Ok(None) = file.seen else { return None };
    let there = |role| files.iter().any(|other| other.role == role && matches!(other.seen, Ok(Some(_))));
    let later = match file.role {
        Role::Key => &[Role::Vault, Role::Head][..],
        Role::Head => &[Role::Vault],
        Role::Vault => &[Role::Head, Role::AuditState],
        _ => return None,
    };
    let beside = *later.iter().find(|other| there(**other))?;
    let Wanted { name, means, .. } = wanted(file.role);
    let found = format!("missing, although {} is there", wanted(beside).name);
    Some(
        Row::ok(Area::Files, name, found, means).but(
            State::Bad,
            "restore vault.key, vault.redb, vault.head and audit.state together from a backup",
        ),
    )
}

fn row(file: &OwnFile, uid: u32) -> Row {
    let Wanted { name, kind, mode, means, .. } = wanted(file.role);
    let row = |found: String| Row::ok(Area::Files, name, found, means);
    let path = word(&file.path);
    let seen = match file.seen {
        Ok(Some(seen)) => seen,
        Ok(None) => return row("not there yet".to_owned()),
        Err(kind) => return row(kind.to_string()).but(State::Unknown, format!("ls -ld {path}")),
    };
    let found = format!("{:04o}", seen.mode);
    if seen.kind != kind {
        let what = match kind {
            Kind::Folder => "no folder",
            Kind::Socket => "no socket",
            _ => "no plain file",
        };
        return row(what.to_owned()).but(State::Bad, format!("look at it, and move it away: ls -ld {path}"));
    }
    match exposure(file.role, &seen, uid) {
        None => row(found),
        Some(Exposure::Owner) => row(format!("{found}, uid {}", seen.uid))
            .but(State::Bad, format!("find out why it is not yours; then: chown \"$(id -un)\" {path}")),
        Some(Exposure::Names) => row(format!("{found}, {} names", seen.names))
            .but(State::Bad, format!("find and remove the other names: find ~ -xdev -samefile {path}")),
        Some(Exposure::Mode(state)) => row(found).but(state, format!("chmod {mode:o} {path}")),
    }
}

/// What speaks against a file.
enum Exposure {
    Owner,
    Names,
    Mode(State),
}

fn exposure(role: Role, seen: &Seen, uid: u32) -> Option<Exposure> {
    let Wanted { kind, mode, exact, .. } = wanted(role);
    if seen.uid != uid && (exact || seen.uid != 0) {
        return Some(Exposure::Owner);
    }
    if exact && kind == Kind::File && seen.names != 1 {
        return Some(Exposure::Names);
    }
    if seen.mode & 0o022 != 0 {
        return Some(Exposure::Mode(State::Bad));
    }
    if seen.mode & 0o077 != 0 {
        // names of programs and services, or a folder of the user's own choice around the socket: no secret
        let harmless =
            matches!(role, Role::Config | Role::ConfigFolder | Role::LinkedFolder | Role::SocketFolder);
        // a policy of root's must be readable by the user whom it binds
        if harmless && seen.uid == 0 && uid != 0 {
            return None;
        }
        return Some(Exposure::Mode(if harmless { State::Warn } else { State::Bad }));
    }
    (exact && seen.mode != mode).then_some(Exposure::Mode(State::Bad))
}

fn key_source(files: &[OwnFile], source: Option<KeySource>) -> Option<Row> {
    let there = |role| {
        let file = files.iter().find(|file| file.role == role)?;
        Some(file.seen.ok()?.is_some())
    };
    let row = |found: &str, means: &str| Row::ok(Area::Files, "key source", found, means);
    let backup = "restore it from a backup, or move what is left away to begin anew";
    let (found, means) = match source {
        Some(source) => (source.as_str(), source.means()),
        None => ("vault.key", "what it says can't be read"),
    };
    Some(match (there(Role::Key)?, there(Role::Vault)?) {
        (false, false) => row("none yet", "the first start makes a vault, and a key for it"),
        (true, true) if source.is_none() => row(found, means)
            .but(State::Bad, "restore it from a backup: without it the vault can't be opened"),
        (true, true) => row(found, means),
        (false, true) => {
            row("missing", "the vault can't be opened without vault.key").but(State::Bad, backup)
        }
        (true, false) => row(found, "the vault that it opens is missing").but(State::Bad, backup),
    })
}
