//! The vault's item in the desktop's keychain, asked for by a child of this program: the daemon itself may connect to
//! nothing once it is caged, and what D-Bus starts in a process must not be left in it.

use std::{
    io,
    process::{Command, Stdio},
    time::Duration,
};

use super::{
    KeyError,
    item::{ItemTask, LOCKED, NO_ITEM},
};
use crate::{
    child,
    secret::Buffer,
    store::{ItemId, MAX_SOURCE_SECRET, MIN_CREDENTIAL},
};

/// How long the keychain may take: a start or an unlock never hangs on it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs this very program, not what may lie under its name by now.
pub(super) fn ask(task: ItemTask, item: ItemId) -> Result<Buffer, KeyError> {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["keychain-item", task.as_str(), &item.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let done = child::run(&mut command, MAX_SOURCE_SECRET, PATIENCE).map_err(|error| {
        KeyError::Keychain(if error.kind() == io::ErrorKind::TimedOut {
            "it took longer than 5 seconds".to_owned()
        } else {
            error.kind().to_string()
        })
    })?;
    match done.status.code() {
        Some(0) if task == ItemTask::Forget || done.output.len() >= MIN_CREDENTIAL => Ok(done.output),
        Some(LOCKED) => Err(KeyError::KeychainLocked),
        Some(NO_ITEM) => Err(KeyError::NoItem),
        _ => Err(KeyError::Keychain("the Secret Service can't be used".to_owned())),
    }
}
