//! What every command knows: the user, the time and where things are.

use std::{
    env, fs, io,
    path::{self, Path, PathBuf},
};

use jiff::Timestamp;

use super::failure::Failure;
use crate::{
    paths::Paths,
    policy::{PendingFile, PolicySource, Registry},
};

pub(super) struct Context {
    pub(super) paths: Paths,
    pub(super) uid: u32,
    pub(super) now: Timestamp,
}

impl Context {
    pub(super) fn new(socket: Option<&Path>) -> Result<Self, Failure> {
        let paths = Paths::new(|name| env::var_os(name), socket)?;
        Ok(Self { paths, uid: rustix::process::geteuid().as_raw(), now: Timestamp::now() })
    }

    pub(super) fn registry(&self) -> Registry {
        Registry::new(self.paths.config(), self.uid)
    }

    pub(super) fn policy_source(&self) -> PolicySource {
        PolicySource::new(self.paths.config())
    }

    pub(super) fn pending_file(&self) -> PendingFile {
        PendingFile::new(self.paths.pending(), self.uid)
    }
}

/// The path under which an entry would be found: links resolved, or as given when the program is gone.
pub(super) fn entry_path(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path::absolute(path),
        found => found,
    }
}
