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

/// Longest word for a kind, and some bytes that show a longer one.
const WORD: usize = 16;

/// The kind that a vault is pinned to, else the one that was asked for, else the vault's own file. A vault that is pinned to
/// another one than was asked for is an error that names both.
pub(super) fn choose(data_dir: &Path, asked: Option<StoreKind>) -> Result<StoreKind, StartError> {
    let pinned =
        pinned(data_dir).map_err(|error| StartError::System { what: "a child", error: error.into() })?;
    match (pinned, asked) {
        (Some(pinned), Some(asked)) if pinned != asked => {
            Err(StoreError::OtherStore { pinned, asked }.into())
        }
        (Some(kind), _) | (None, Some(kind)) => Ok(kind),
        (None, None) => Ok(StoreKind::Vault),
    }
}

/// None where there is no vault, and where it can't be told: then the opening says why.
///
/// Looks in a child of its own: what is damaged badly enough makes the database's own code stop the process.
fn pinned(data_dir: &Path) -> Result<Option<StoreKind>, Errno> {
    let child = process::spawn(|[channel]| {
        // its last words would be about pages
        panic::set_hook(Box::new(|_| {}));
        if process::close_all_but(&[channel]).is_err() {
            return ExitCode::FAILURE;
        }
        let kind = Taken::existing(data_dir).and_then(|taken| taken.store_kind());
        let Ok(Some(kind)) = kind else { return ExitCode::FAILURE };
        match send(channel, kind.as_str().as_bytes(), SendFlags::NOSIGNAL) {
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
    let word = word.get(..count).unwrap_or_default();
    Ok(str::from_utf8(word).ok().and_then(|word| word.parse().ok()))
}
