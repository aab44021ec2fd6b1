//! config.json on disk, edited by the commands: under a lock, whole or not at all, never over a broken file.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    candidate::Candidate,
    document::Policy,
    draft::{Draft, DraftError, Grant, Registration},
    library::LibraryFile,
    lock::{FileLock, private_folder, replace},
    source::{MAX_CONFIG, PolicyError, judge, load},
    terms::{Lift, Lifted, Narrowed, Terms},
};
use crate::digest::Digest;

/// How long a command waits for another one's edit, which takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The editor of one config.json.
///
/// Where config.json is a symbolic link, the file that it leads to is replaced and the link stays.
pub struct Registry<'s> {
    config: PathBuf,
    uid: u32,
    seal: Option<Box<SealEdit<'s>>>,
}

/// Seals an edit of a sealed policy: what is there now, None if there is no file, and what shall be there. Where both are
/// the same, it only looks whether that is what was sealed.
pub type SealEdit<'s> = dyn Fn(Option<&[u8]>, &[u8]) -> Result<(), RegistryError> + Sync + 's;

/// Why config.json was not edited. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// What is there can't be trusted or read.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The edit makes no sense for what is there.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// Another command holds the lock for too long.
    #[error("another command has been editing {} for 5 seconds", .0.display())]
    Busy(PathBuf),
    /// The policy is sealed, and this edit could not be.
    #[error("{sentence}")]
    Unsealable {
        /// Why.
        sentence: String,
        /// What to do.
        advice: String,
    },
    /// The system did not let it be written.
    #[error("{} can't be written: {kind}", file.display())]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// The file would be larger than what the daemon reads.
    #[error("{} would be larger than 4 MiB", .0.display())]
    TooLarge(PathBuf),
}

impl<'s> Registry<'s> {
    /// The editor of the file at `config`, for the user `uid`. Nothing is touched yet.
    pub fn new(config: impl Into<PathBuf>, uid: u32) -> Self {
        Self { config: config.into(), uid, seal: None }
    }

    /// Has every edit sealed before it is made.
    pub fn sealed_by(self, seal: Box<SealEdit<'s>>) -> Self {
        Self { seal: Some(seal), ..self }
    }

    /// Registers an executable; a known path keeps its permissions and gets the new hash.
    pub fn register(&self, candidate: &Candidate, now: Timestamp) -> Result<Registration, RegistryError> {
        self.edit(|draft| draft.register(candidate.path(), candidate.digest(), candidate.size(), now))
    }

    /// Gives a known path its new hash.
    pub fn upgrade(&self, candidate: &Candidate, now: Timestamp) -> Result<Registration, RegistryError> {
        self.edit(|draft| draft.upgrade(candidate.path(), candidate.digest(), candidate.size(), now))
    }

    /// Registers an executable and adds permissions, in one edit.
    pub fn authorize(
        &self,
        candidate: &Candidate,
        grant: &Grant,
        now: Timestamp,
    ) -> Result<Registration, RegistryError> {
        self.edit(|draft| {
            let done = draft.register(candidate.path(), candidate.digest(), candidate.size(), now)?;
            draft.grant(candidate.path(), grant)?;
            Ok(done)
        })
    }

    /// Removes the entries of a path, or only the one with this hash. Returns how many.
    pub fn unregister(&self, path: &Path, only: Option<&Digest>) -> Result<usize, RegistryError> {
        self.edit(|draft| draft.unregister(path, only))
    }

    /// Adds permissions to a registered path, and sets its terms, in one edit.
    pub fn grant(&self, path: &Path, grant: &Grant, terms: &Terms) -> Result<Narrowed, RegistryError> {
        self.edit(|draft| {
            draft.grant(path, grant)?;
            draft.set_terms(path, terms)
        })
    }

    /// Takes permissions from a registered path, and lifts terms, in one edit. Returns what was not there.
    pub fn revoke(&self, path: &Path, grant: &Grant, lift: &Lift) -> Result<(Grant, Lifted), RegistryError> {
        self.edit(|draft| Ok((draft.revoke(path, grant)?, draft.lift_terms(path, lift)?)))
    }

    /// Lets a registered path map a library that its user can write.
    pub fn trust_library(&self, path: &Path, library: &LibraryFile) -> Result<(), RegistryError> {
        self.edit(|draft| draft.trust_library(path, library.path(), library.digest()))
    }

    /// Takes a library from a registered path.
    pub fn distrust_library(&self, path: &Path, library: &Path) -> Result<(), RegistryError> {
        self.edit(|draft| draft.distrust_library(path, library))
    }

    fn edit<T>(&self, edit: impl FnOnce(&mut Draft) -> Result<T, DraftError>) -> Result<T, RegistryError> {
        let _lock = self.lock()?;
        let loaded = load(&self.config, self.uid)?;
        let broken = |error| PolicyError::Broken { file: self.config.clone(), error };
        let before = match &loaded {
            Some(loaded) => Draft::parse(&loaded.bytes).map_err(broken)?,
            None => Draft::default(),
        };
        let there = loaded.as_ref().map(|loaded| loaded.bytes.as_slice());
        let seal = |after: &[u8]| self.seal.as_ref().map_or(Ok(()), |seal| seal(there, after));
        let mut draft = before.clone();
        let edited = edit(&mut draft);
        // of a sealed policy whose file is gone that is the first to say: nothing that it names is missing by itself
        if edited.is_err() && loaded.is_none() {
            seal(&[])?;
        }
        let done = edited?;
        if let (true, Some(loaded)) = (draft == before, &loaded) {
            // nothing is written; that it holds already is true only of what was sealed
            seal(&loaded.bytes)?;
            return Ok(done);
        }
        let bytes = draft.render();
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(RegistryError::TooLarge(self.config.clone()));
        }
        // what the daemon would refuse is never written
        Policy::parse(&bytes).map_err(broken)?;
        seal(&bytes)?;
        let target = loaded.map_or_else(|| self.config.clone(), |loaded| loaded.real);
        replace(&target, &bytes).map_err(|error| unwritable(&target, &error))?;
        Ok(done)
    }

    fn lock(&self) -> Result<FileLock, RegistryError> {
        let folder = self.config.parent().unwrap_or(Path::new("/"));
        private_folder(folder).map_err(|error| unwritable(folder, &error))?;
        let metadata = fs::metadata(folder).map_err(|error| unwritable(folder, &error))?;
        judge(&metadata, self.uid).map_err(|why| PolicyError::Untrusted { file: folder.into(), why })?;
        let path = folder.join("config.lock");
        let lock = FileLock::acquire(&path, PATIENCE).map_err(|error| unwritable(&path, &error))?;
        lock.ok_or_else(|| RegistryError::Busy(self.config.clone()))
    }
}

fn unwritable(file: &Path, error: &io::Error) -> RegistryError {
    RegistryError::Unwritable { file: file.into(), kind: error.kind() }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
