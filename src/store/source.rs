//! Where the key of a vault comes from, and what a source gives: the secret under which the vault key is wrapped.

use std::{fmt, str::FromStr};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use secrecy::ExposeSecret;

use super::{
    batch::StoreError,
    key::{KEY_BYTES, SubKey, VaultKey},
};
use crate::secret::Buffer;

/// Shortest secret of a credential, in bytes: what holds 256 random bits in any usual writing is longer.
pub const MIN_CREDENTIAL: usize = 32;
/// Longest secret of any source, in bytes: far beyond any passphrase, and bounded.
pub const MAX_SOURCE_SECRET: usize = 4096;

/// Where the key of a vault comes from. Pinned when the vault is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeySource {
    /// A credential that the service manager hands to the daemon (`$CREDENTIALS_DIRECTORY/vault-key`).
    Credential,
    /// One item in the desktop's keychain (Secret Service).
    Keychain,
    /// A passphrase that somebody types.
    Passphrase,
    /// The key itself, in `vault.key`.
    File,
}

impl KeySource {
    /// All, in the order in which they are tried when a vault is made.
    pub const ALL: [Self; 4] = [Self::Credential, Self::Keychain, Self::Passphrase, Self::File];

    /// The word on the command line, in `vault.key` and in `status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Keychain => "keychain",
            Self::Passphrase => "passphrase",
            Self::File => "file",
        }
    }

    /// What opens a slot of it, in words.
    pub(super) const fn gives(self) -> &'static str {
        match self {
            Self::Credential => "the credential vault-key",
            Self::Keychain => "the vault's item in the keychain",
            Self::Passphrase => "this passphrase",
            Self::File => "what the file holds",
        }
    }

    /// What it means for the safety of the vault, one clause.
    pub const fn means(self) -> &'static str {
        match self {
            Self::Credential => {
                "the disk alone does not give the key; while the service runs, its user's processes can read the credential"
            }
            Self::Keychain => {
                "whoever may use your unlocked keychain has the key; a copied disk without its password does not"
            }
            Self::Passphrase => "the key is nowhere while the daemon is stopped or locked",
            Self::File => {
                "every process of yours can read the key; a copy of the whole data folder is a copy of the secrets"
            }
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of credential, keychain, passphrase, file")]
pub struct UnknownSource;

impl FromStr for KeySource {
    type Err = UnknownSource;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|source| source.as_str() == word).ok_or(UnknownSource)
    }
}

/// Names the vault's item in a keychain: random, so that two vaults never share one. Not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemId(pub(super) [u8; 16]);

impl ItemId {
    /// A name that no item has yet.
    pub fn generate() -> Result<Self, StoreError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// From 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// What a source gave: the secret that opens a slot of that source. No Clone, no Debug.
pub enum KeyMaterial {
    /// The content of the credential.
    Credential(Buffer),
    /// The content of the vault's item.
    Keychain(ItemId, Buffer),
    /// What was typed.
    Passphrase(Buffer),
    /// Nothing: the key lies in the slot.
    File,
}

impl KeyMaterial {
    /// Where it comes from.
    pub fn source(&self) -> KeySource {
        match self {
            Self::Credential(_) => KeySource::Credential,
            Self::Keychain(..) => KeySource::Keychain,
            Self::Passphrase(_) => KeySource::Passphrase,
            Self::File => KeySource::File,
        }
    }
}

/// What makes trying passphrases expensive. Stored beside the wrapped key, and believed only within bounds: whoever can
/// write the file must not be able to ask for all memory or for years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// KiB of memory.
    pub(super) memory: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
    pub(super) salt: [u8; 16],
}

impl Stretch {
    /// Least and most memory, in KiB: 8 MiB to 1 GiB.
    const MEMORY: std::ops::RangeInclusive<u32> = 8 * 1024..=1024 * 1024;
    /// With 1 GiB and 16 passes the slowest machine still answers within a minute.
    const PASSES: std::ops::RangeInclusive<u32> = 1..=16;
    const LANES: std::ops::RangeInclusive<u32> = 1..=8;

    /// RFC 9106's choice where memory is not plenty (64 MiB, 3 passes), with a new salt.
    pub(super) fn fresh() -> Result<Self, StoreError> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)?;
        Ok(Self { memory: 64 * 1024, passes: 3, lanes: 4, salt })
    }

    pub(super) fn bounded(self) -> Option<Self> {
        let within = Self::MEMORY.contains(&self.memory)
            && Self::PASSES.contains(&self.passes)
            && Self::LANES.contains(&self.lanes);
        within.then_some(self)
    }

    fn stretch(&self, passphrase: &[u8]) -> Result<Buffer, StoreError> {
        let failed = |error: argon2::Error| StoreError::Io(format!("Argon2id: {error}"));
        let params = Params::new(self.memory, self.passes, self.lanes, Some(KEY_BYTES)).map_err(failed)?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
        let mut blocks = Vec::new();
        // a machine without that memory is told so, and not killed
        blocks
            .try_reserve_exact(params.block_count())
            .map_err(|_| StoreError::Io("Argon2id: not enough memory".to_owned()))?;
        blocks.resize(params.block_count(), Block::default());
        let mut output = Buffer::zeroed(KEY_BYTES);
        let done = argon.hash_password_into_with_memory(
            passphrase,
            &self.salt,
            output.as_mut_slice(),
            blocks.as_mut_slice(),
        );
        // what the blocks hold was made from the passphrase
        blocks.iter_mut().for_each(zeroize::Zeroize::zeroize);
        done.map_err(failed)?;
        Ok(output)
    }
}

/// The key under which vault keys are wrapped, made from what a source gave.
pub(super) struct WrappingKey(SubKey);

impl WrappingKey {
    /// `stretch` for a passphrase only.
    pub(super) fn new(material: &KeyMaterial, stretch: Option<&Stretch>) -> Result<Option<Self>, StoreError> {
        let wrong = StoreError::WrongSecret(material.source());
        let key = match (material, stretch) {
            (KeyMaterial::File, _) => return Ok(None),
            (KeyMaterial::Passphrase(typed), Some(stretch)) => {
                if typed.is_empty() || typed.len() > MAX_SOURCE_SECRET {
                    return Err(wrong);
                }
                VaultKey::from_buffer(stretch.stretch(typed.as_slice())?).ok_or(wrong)?
            }
            (KeyMaterial::Credential(secret) | KeyMaterial::Keychain(_, secret), None) => {
                if !(MIN_CREDENTIAL..=MAX_SOURCE_SECRET).contains(&secret.len()) {
                    return Err(wrong);
                }
                VaultKey::digest(secret.as_slice())
            }
            _ => return Err(wrong),
        };
        Ok(Some(Self(key.derive("wrap vault key", material.source().as_str().as_bytes()))))
    }
}

impl ExposeSecret<[u8; KEY_BYTES]> for WrappingKey {
    fn expose_secret(&self) -> &[u8; KEY_BYTES] {
        self.0.expose_secret()
    }
}
