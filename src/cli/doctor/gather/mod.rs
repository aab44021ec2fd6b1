//! Looks at the machine. Changes nothing, decides nothing.

mod files;
mod programs;
mod system;

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::facts::{Counted, Facts, PolicyFacts, Seal, Unusable, Writers};
use crate::{
    cli::{
        acceptance::{Acceptance, Refused},
        context::Context,
        failure::Failure,
        sealing::copy,
        status_query::{Found, ask},
        untold::Untold,
    },
    policy::{Policy, Warning},
    store::Slot,
};

const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In such a folder, like /tmp, nobody can replace what belongs to somebody else.
const STICKY: u32 = 0o1000;

pub(super) fn gather(cx: &Context) -> Facts {
    let daemon = ask(&cx.paths.socket, cx.uid);
    let pid = match &daemon {
        Found::Running(status) => status.pid,
        _ => None,
    };
    let policy = cx.policy_source().current(cx.uid);
    let programs =
        policy.as_ref().map(|policy| programs::programs(policy, cx.uid, cx.now)).unwrap_or_default();
    let unusable = |failure: &Failure| Unusable {
        sentence: failure.sentence().to_owned(),
        advice: failure.advice().to_owned(),
    };
    let state = match (policy, Acceptance::of(&daemon, cx)) {
        (Err(error), _) => Err(unusable(&error.into())),
        (Ok(_), Acceptance::Refused(Refused { sentence, advice, .. })) => Err(Unusable { sentence, advice }),
        (Ok(policy), _) => Ok(counted(&policy)),
    };
    let key_source = Slot::peek(&cx.paths.data_dir).ok().flatten().map(|slot| slot.source());
    let seal = match daemon {
        Found::Running(_) => Seal::Told,
        _ if key_source.is_none() => Seal::Told,
        _ => Seal::Untold { copy: copy(cx).exists() },
    };
    Facts {
        uid: cx.uid,
        daemon,
        start: cx.start_command(),
        config: cx.paths.config(),
        system: system::system(pid),
        files: files::files(&cx.paths),
        key_source,
        policy: PolicyFacts { state, writers: writers(&cx.paths.config(), cx.uid), seal },
        programs,
        untold: Untold::read(&cx.paths.data_dir),
    }
}

/// The policy as a whole; what makes an entry match nothing is said with its program.
fn counted(policy: &Policy) -> Counted {
    let unusable = |warning: &&Warning| {
        let entry = warning.entry().checked_sub(1).and_then(|index| policy.entries().get(index));
        entry.and_then(|entry| entry.unusable()) == Some(warning.what())
    };
    let warnings = policy.warnings().iter().filter(|warning| !unusable(warning));
    Counted { entries: policy.entries().len(), warnings: warnings.map(Warning::to_string).collect() }
}

/// Who can change what the path of the policy leads to. A link is judged by where it lies and by what it leads to.
fn writers(config: &Path, uid: u32) -> Writers {
    let real = fs::canonicalize(config).ok();
    let paths = [Some(config), real.as_deref()];
    let place = paths.into_iter().flatten().find_map(|path| place_of_user(path, uid));
    place.map_or(Writers::RootOnly, |place| Writers::User(place.to_owned()))
}

/// The file, or the nearest folder above it, that the user `uid` can change without being root. What is missing is made
/// in the folder above it.
fn place_of_user(path: &Path, uid: u32) -> Option<&Path> {
    let changes = |found: &fs::Metadata| {
        let shared = found.mode() & WRITABLE_BY_OTHERS != 0 && found.mode() & STICKY == 0;
        uid != 0 && (found.uid() == uid || shared)
    };
    path.ancestors().find(|place| fs::metadata(place).is_ok_and(|found| changes(&found)))
}
