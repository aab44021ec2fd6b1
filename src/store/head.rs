//! `vault.head`: the vault's generation, kept outside the vault.
//!
//! A vault file, or a page of it, that is put back to an earlier state is consistent in itself. The head says how far
//! the vault had come: a vault behind its head is refused. It also tells a vault that was removed from one that was
//! never made. Who puts back the vault and the head together is not seen here; the audit log keeps the generation too.
//!
//! The head is written after each commit, in place and without waiting for the disk: after power loss it may be behind
//! the vault, which is fine, and never ahead of it.

use std::{fs::File, io, os::unix::fs::FileExt};

use hmac::Mac;
use rustix::fs::OFlags;

use super::{
    batch::StoreError,
    files::{FileError, Folder},
    key::{Prf, SubKey, VaultKey},
    seal::VaultId,
};

/// Name of the head in the data folder.
pub(super) const HEAD_FILE: &str = "vault.head";
const DRAFT: &str = "vault.head.new";
/// Generation, vault id, and their keyed hash.
const BYTES: usize = 8 + 16 + 32;

/// The open head of a vault.
pub(super) struct Head {
    file: File,
    key: SubKey,
    vault: VaultId,
}

impl Head {
    /// Opens the head of this vault. None if there is none.
    pub(super) fn find(folder: &Folder, key: &VaultKey, vault: VaultId) -> Result<Option<Self>, FileError> {
        let file = folder.find(HEAD_FILE, OFlags::empty())?;
        Ok(file.map(|file| Self { file, key: key.derive("vault head", &vault), vault }))
    }

    /// The generation that the head of this vault tells, if there is one. While a change of keys is not finished, it lies
    /// under the one or the other of them.
    pub(super) fn told(
        folder: &Folder,
        keys: &[&VaultKey],
        vault: VaultId,
    ) -> Result<Option<Result<u64, StoreError>>, FileError> {
        let mut told = None;
        for key in keys {
            told = Self::find(folder, key, vault)?.map(|head| head.generation());
            if let Some(Ok(_)) = told {
                break;
            }
        }
        Ok(told)
    }

    /// Whether the head, if there is one, was made with this key. Asked before the vault is opened, since opening with a
    /// foreign key could already write to it.
    pub(super) fn fits(folder: &Folder, key: &VaultKey) -> Result<bool, StoreError> {
        let Some(file) = folder.find(HEAD_FILE, OFlags::empty())? else { return Ok(true) };
        let mut bytes = [0; BYTES];
        let length = file.read_at(&mut bytes, 0).map_err(|error| StoreError::from(failed(&error)))?;
        // what is cut or changed is told apart once the vault says which one it is
        let Some((_, vault, _)) = bytes.get(..length).and_then(split) else { return Ok(true) };
        let head = Self { file, key: key.derive("vault head", vault), vault: *vault };
        Ok(head.generation().is_ok())
    }

    /// Makes the head of a new vault, durable with its name.
    pub(super) fn create(
        folder: &Folder,
        key: &VaultKey,
        vault: VaultId,
        generation: u64,
    ) -> Result<Self, FileError> {
        let head = Self::draft(folder, key, vault, generation)?;
        folder.publish(DRAFT, HEAD_FILE)?;
        Ok(head)
    }

    /// Makes a head with another key in place of the one that is there.
    pub(super) fn replace(
        folder: &Folder,
        key: &VaultKey,
        vault: VaultId,
        generation: u64,
    ) -> Result<Self, FileError> {
        let head = Self::draft(folder, key, vault, generation)?;
        folder.replace(DRAFT, HEAD_FILE)?;
        Ok(head)
    }

    fn draft(folder: &Folder, key: &VaultKey, vault: VaultId, generation: u64) -> Result<Self, FileError> {
        folder.remove(DRAFT)?;
        let file = folder.create(DRAFT, OFlags::empty())?;
        let head = Self { file, key: key.derive("vault head", &vault), vault };
        head.record(generation).and_then(|()| head.file.sync_all()).map_err(|error| failed(&error))?;
        Ok(head)
    }

    /// The generation that the vault had reached at least.
    pub(super) fn generation(&self) -> Result<u64, StoreError> {
        let mut bytes = [0; BYTES + 1];
        let length = self.file.read_at(&mut bytes, 0).map_err(|error| StoreError::from(failed(&error)))?;
        let damaged = StoreError::Damaged("vault.head was changed");
        let Some((generation, vault, hash)) = bytes.get(..length).and_then(split) else {
            return Err(damaged);
        };
        if *vault != self.vault {
            return Err(StoreError::Damaged("vault.head belongs to another vault"));
        }
        let number = u64::from_le_bytes(*generation);
        self.hash(number).verify_slice(hash).map_err(|_| damaged)?;
        Ok(number)
    }

    /// Notes that the vault has reached this generation.
    pub(super) fn record(&self, generation: u64) -> io::Result<()> {
        let hash = self.hash(generation).finalize().into_bytes();
        let bytes = [generation.to_le_bytes().as_slice(), &self.vault, hash.as_slice()].concat();
        // one small write within one sector: all of it or nothing
        self.file.write_all_at(&bytes, 0)
    }

    fn hash(&self, generation: u64) -> Prf {
        let mut mac = self.key.prf();
        mac.update(&generation.to_le_bytes());
        mac
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8; 8], &VaultId, &[u8; 32])> {
    let (generation, rest) = bytes.split_first_chunk()?;
    let (vault, hash) = rest.split_first_chunk()?;
    Some((generation, vault, hash.try_into().ok()?))
}

fn failed(error: &io::Error) -> FileError {
    FileError::Io { name: HEAD_FILE.to_owned(), reason: error.to_string() }
}
