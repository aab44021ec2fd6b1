//! The credential `vault-key` of systemd: a file that only this service sees, in memory, sealed on the disk.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{KeyError, read_to_end, words};
use crate::{
    secret::Buffer,
    store::{MAX_SOURCE_SECRET, MIN_CREDENTIAL},
};

const NAME: &str = "vault-key";

fn place(var: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = var("CREDENTIALS_DIRECTORY").filter(|folder| Path::new(folder).is_absolute())?;
    Some(Path::new(&folder).join(NAME))
}

/// Whether the service manager passed it.
pub(super) fn is_there(var: &dyn Fn(&str) -> Option<OsString>) -> bool {
    place(var).is_some_and(|path| path.is_file())
}

/// Its bytes as they are, 32 to 4096 of them. They must be random: nothing makes guessing them expensive.
pub(super) fn read(var: &dyn Fn(&str) -> Option<OsString>) -> Result<Buffer, KeyError> {
    let failed = |error: io::Error| KeyError::Credential(words(&error));
    let path =
        place(var).ok_or_else(|| KeyError::Credential("CREDENTIALS_DIRECTORY is not set".to_owned()))?;
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KeyError::Credential("CREDENTIALS_DIRECTORY has no such file".to_owned()),
        _ => failed(error),
    })?;
    let bytes = read_to_end(&file).map_err(failed)?;
    if bytes.len() < MIN_CREDENTIAL {
        return Err(KeyError::Credential(format!("it has fewer than {MIN_CREDENTIAL} bytes")));
    }
    if bytes.len() > MAX_SOURCE_SECRET {
        return Err(KeyError::Credential(format!("it has more than {MAX_SOURCE_SECRET} bytes")));
    }
    Ok(bytes)
}
