//! Where the secrets rest: asked of the vault before it is opened, since the process that speaks to the keychain has to be
//! there before anything is open.

use std::{panic, path::Path, process::ExitCode};

use rustix::{
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, recv, send},
};

use super::start::StartError;
use crate::{
    store::{StoreError, StoreKind, Taken},
    sys::process,
};

/// Longest word for a finding, and some bytes that show a longer one.
const WORD: usize = 16;
/// There is no vault.
const NONE: &str = "none";
/// Somebody else works on the vault.
const IN_USE: &str = "in use";

/// The kind that a vault is pinned to, else the one that was asked for, else the vault's own file. A vault that is pinned to
/// another one than was asked for is an error that names both.
pub(super) fn choose(data_dir: &Path, asked: Option<StoreKind>) -> Result<StoreKind, StartError> {
    match (pinned(data_dir)?, asked) {
        (Some(pinned), Some(asked)) if pinned != asked => {
            Err(StoreError::OtherStore { pinned, asked }.into())
        }
        (Some(kind), _) | (None, Some(kind)) => Ok(kind),
        (None, None) => Ok(StoreKind::Vault),
    }
}

/// None where there is no vault, and where nothing can be read from it although nobody else has it: then the opening says
/// why.
///
/// Looked at without the folder's lock first, which a command may hold for a moment, or want: only what is written just now
/// is looked at a second time, with the lock.
fn pinned(data_dir: &Path) -> Result<Option<StoreKind>, StartError> {
    let system = |error: Errno| StartError::System { what: "a child", error: error.into() };
    let found = in_child(|| StoreKind::peek(data_dir)).map_err(system)?;
    let found = match found {
        Found::Nothing => {
            in_child(|| Taken::existing(data_dir).and_then(|taken| taken.store_kind())).map_err(system)?
        }
        found => found,
    };
    match found {
        Found::Kind(kind) => Ok(Some(kind)),
        Found::NoVault | Found::Nothing => Ok(None),
        Found::InUse => Err(StoreError::InUse.into()),
    }
}

/// What a child found.
enum Found {
    Kind(StoreKind),
    NoVault,
    InUse,
    /// It could not read the vault, or has ended over it.
    Nothing,
}

/// Looks in a child of its own: what is damaged badly enough makes the database's own code stop the process.
fn in_child(look: impl FnOnce() -> Result<Option<StoreKind>, StoreError>) -> Result<Found, Errno> {
    let child = process::spawn(|[channel]| {
        // its last words would be about pages
        panic::set_hook(Box::new(|_| {}));
        if process::close_all_but(&[channel]).is_err() {
            return ExitCode::FAILURE;
        }
        let word = match look() {
            Ok(Some(kind)) => kind.as_str(),
            Ok(None) => NONE,
            Err(StoreError::InUse) => IN_USE,
            Err(_) => return ExitCode::FAILURE,
        };
        match send(channel, word.as_bytes(), SendFlags::NOSIGNAL) {
            Ok(_) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        }
    });
    let child = child.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
    let [channel] = &child.channels;
    let mut word = [0; WORD];
    let told = retry_on_intr(|| recv(channel, word.as_mut_slice(), RecvFlags::empty()));
    let count = told.map_or(0, |(_, count)| count);
    child.wait();
    Ok(match str::from_utf8(word.get(..count).unwrap_or_default()) {
        Ok(NONE) => Found::NoVault,
        Ok(IN_USE) => Found::InUse,
        Ok(word) => word.parse().map_or(Found::Nothing, Found::Kind),
        Err(_) => Found::Nothing,
    })
}
