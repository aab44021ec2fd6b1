//! What to do about a vault that somebody else has, and about a policy that is not the sealed one: made here alone, from which
//! daemon runs and which files are there, so that no command sends people to one that refuses.

use super::{
    context::Context,
    failure::Failure,
    sealing::copy,
    status_query::{DaemonStatus, Found, ask},
    text::word,
};
use crate::{
    daemon::{Lock, LockError},
    store::{StoreError, Taken},
};

/// Whether a daemon holds the vault, and says that it serves it for reading only.
///
/// The lock counts and not what listens, which may be anybody: a vault that nobody holds can be opened with its key.
pub(super) fn salvages(cx: &Context) -> bool {
    matches!(Holder::of(cx, holder(cx).flatten()), Holder::Salvages)
        && Taken::existing(&cx.paths.data_dir).err() == Some(StoreError::InUse)
}

/// How a daemon is ended, however it was started.
pub(super) const STOP: &str = "stop the daemon, then try again: Ctrl-C where it runs, or: systemctl --user stop keychain-auth.socket keychain-auth.service";

/// The daemon that has the data folder.
enum Holder {
    /// It listens where we ask, and can be told to lock.
    Answers,
    /// The same, with a vault that it serves for reading only, and does not give away.
    Salvages,
    /// It listens elsewhere, or does not answer.
    Elsewhere,
}

impl Holder {
    fn of(cx: &Context, pid: Option<u32>) -> Self {
        // its path may lead to the same folder by another name
        let same = |status: &DaemonStatus| {
            (pid.is_some() && status.pid == pid) || status.data_path.as_deref() == cx.paths.data_dir.to_str()
        };
        match ask(&cx.paths.socket, cx.uid) {
            Found::Running(status) if same(&status) => match status.vault {
                Some(vault) if vault.state == "salvaged" => Self::Salvages,
                _ => Self::Answers,
            },
            _ => Self::Elsewhere,
        }
    }
}

/// The pid of the daemon that has the data folder, where its lock tells it; None where no daemon has it. Nothing is made.
pub(super) fn holder(cx: &Context) -> Option<Option<u32>> {
    let lock = cx.paths.daemon_lock();
    match lock.exists().then(|| Lock::take(&lock)) {
        Some(Err(LockError::Held(pid))) => Some(pid),
        _ => None,
    }
}

/// The failure of whoever wants the vault that a daemon has.
pub(super) fn held(cx: &Context, pid: Option<u32>) -> Failure {
    let daemon = format!("the daemon{}", numbered(pid));
    match Holder::of(cx, pid) {
        Holder::Answers => Failure::new(
            format!("the vault is in use by {daemon}"),
            "take it from there first: keychain-auth vault lock; afterwards: keychain-auth vault unlock",
        ),
        Holder::Salvages => Failure::new(
            format!(
                "the vault is in use by {daemon}, which was started with --salvage and can't give it away"
            ),
            STOP,
        ),
        Holder::Elsewhere => Failure::new(
            format!(
                "the vault is in use by {daemon}, which does not answer at {}",
                cx.paths.socket.display()
            ),
            format!("name its socket with --socket, or {STOP}"),
        ),
    }
}

/// Behind the word "daemon": its pid, where the lock tells it.
pub(super) fn numbered(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// What to do about a config.json that is not the sealed one, said where the seal in the vault was not asked.
pub(super) fn put_policy_back(cx: &Context) -> String {
    if cx.paths.config().exists() {
        return "see what changed, and how it is put back: keychain-auth policy review; accept it: keychain-auth policy seal"
            .to_owned();
    }
    let back = match copy(cx).exists() {
        // what it is worth is told by the review
        true => format!(
            "put its copy there and have that compared with the seal: {} && keychain-auth policy review",
            install(cx)
        ),
        false => "put it back from a backup".to_owned(),
    };
    format!("{back}; or {UNSEAL}")
}

/// How nothing needs to be put back.
pub(super) const UNSEAL: &str =
    "accept any config.json again, which forgets the sealed one: keychain-auth policy unseal";

/// How the copy of the sealed policy is put back, for who has compared it with the seal in the vault.
pub(super) fn put_sealed_back(cx: &Context) -> String {
    format!("put back what was sealed: {}", install(cx))
}

fn install(cx: &Context) -> String {
    format!("install -D -m 600 {} {}", word(copy(cx).path()), word(&cx.paths.config()))
}
