//! What a keychain is to the store: sealed items under keyed names, kept by another process.

use std::{fmt, str::FromStr, sync::Arc};

use super::{
    batch::StoreError,
    seal::{RecordKey, VaultId},
};

/// Items in the user's keychain. Every call may wait, within a limit of its own, and says
/// [`StoreError::KeychainLocked`] or [`StoreError::Unreachable`] rather than wait longer; none asks the user anything.
pub trait Items: Send + Sync {
    /// Whether items can be read and written now.
    fn ready(&self) -> Result<(), StoreError>;

    /// The records of a vault that have an item, each once, in any order.
    fn list(&self, vault: &VaultId) -> Result<Vec<RecordKey>, StoreError>;

    /// Hands the items of these records to `take`, in any order; none of a record that has none, and several where
    /// somebody else has made more. Ends with the first error of `take`.
    fn get(&self, vault: &VaultId, keys: &[RecordKey], take: Take<'_>) -> Result<(), StoreError>;

    /// Puts an item in place, over what is there. It rests in the keychain when this returns.
    fn put(&self, vault: &VaultId, key: &RecordKey, sealed: &[u8]) -> Result<(), StoreError>;

    /// Removes every item of a record; one that is not there is no error.
    fn delete(&self, vault: &VaultId, key: &RecordKey) -> Result<(), StoreError>;
}

/// What becomes of an item that was fetched: so that not all of them are in memory before the bounds of an answer count.
pub type Take<'t> = &'t mut dyn FnMut(&RecordKey, &[u8]) -> Result<(), StoreError>;

/// Most items that are asked for at once where all of a vault are gone through, so that each answer is soon there.
pub(super) const HANDFUL: usize = 64;

/// The ways to one keychain. Each is used by one thread, so that none waits for what another one asked.
#[derive(Clone)]
pub struct Keychain {
    /// For reads.
    pub reading: Arc<dyn Items>,
    /// To ask before a change whether it could be carried there.
    pub asking: Arc<dyn Items>,
    /// To bring there what was committed.
    pub carrying: Arc<dyn Items>,
}

impl Keychain {
    /// One way for everything, for who has one thread.
    pub fn by_one_way(items: Arc<dyn Items>) -> Self {
        Self { reading: Arc::clone(&items), asking: Arc::clone(&items), carrying: items }
    }

    /// One that can't be reached, for this reason.
    pub fn unreachable(why: impl Into<String>) -> Self {
        Self::by_one_way(Arc::new(Nobody(why.into())))
    }

    /// For who opens a vault and asks nothing of the keychain: names, key and audit log are in the vault's file.
    pub fn unasked() -> Self {
        Self::unreachable("nobody asks it here")
    }
}

/// Nobody is behind it, and why.
struct Nobody(String);

impl Nobody {
    fn refused<T>(&self) -> Result<T, StoreError> {
        Err(StoreError::Unreachable(self.0.clone()))
    }
}

impl Items for Nobody {
    fn ready(&self) -> Result<(), StoreError> {
        self.refused()
    }

    fn list(&self, _: &VaultId) -> Result<Vec<RecordKey>, StoreError> {
        self.refused()
    }

    fn get(&self, _: &VaultId, _: &[RecordKey], _: Take<'_>) -> Result<(), StoreError> {
        self.refused()
    }

    fn put(&self, _: &VaultId, _: &RecordKey, _: &[u8]) -> Result<(), StoreError> {
        self.refused()
    }

    fn delete(&self, _: &VaultId, _: &RecordKey) -> Result<(), StoreError> {
        self.refused()
    }
}

/// The way to the values of a vault, for who opens it.
#[derive(Clone)]
pub(super) enum Way {
    /// They rest in the vault's own file.
    OwnFile,
    /// They rest in this keychain.
    Items(Keychain),
    /// In the vault's own file, or else in this keychain: the vault says which.
    Either(Keychain),
}

impl Way {
    /// The keychain of a vault that is pinned so; none where it keeps its values itself.
    pub(super) fn to(self, pinned: StoreKind) -> Result<Option<Keychain>, StoreError> {
        match (self, pinned) {
            (Self::OwnFile | Self::Either(_), StoreKind::Vault) => Ok(None),
            (Self::Items(keychain) | Self::Either(keychain), StoreKind::Keychain) => Ok(Some(keychain)),
            (way, pinned) => Err(StoreError::OtherStore { pinned, asked: way.made() }),
        }
    }

    /// Of which kind a vault is that is made with it.
    pub(super) fn made(&self) -> StoreKind {
        if matches!(self, Self::Items(_)) { StoreKind::Keychain } else { StoreKind::Vault }
    }
}

/// Where the sealed values of a vault rest. Pinned when the vault is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// In the vault's own file.
    Vault,
    /// In the user's keychain, one item each.
    Keychain,
}

impl StoreKind {
    /// Its name, as on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::Keychain => "keychain",
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StoreKind {
    type Err = UnknownStore;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Self::Vault, Self::Keychain].into_iter().find(|kind| kind.as_str() == word).ok_or(UnknownStore)
    }
}

/// A word that names no store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of vault, keychain")]
pub struct UnknownStore;
