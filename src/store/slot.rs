//! `vault.key`: which source gives the vault's key, with which parameters, and the key wrapped under what it gives.
//!
//! For the source `file` it is the key itself: 64 hexadecimal digits and a line feed, which survive copying by hand,
//! e-mail and password managers. For every other source it is a text of a few lines; the vault key in it is sealed with
//! XChaCha20-Poly1305, and every other byte of the text is associated data, so that a changed one is noticed.
//!
//! While the vault gets a new key the slot holds both, until the vault is seen to have the new one. So a crash at any
//! moment leaves a slot whose keys include that of the vault.

use std::{io, os::unix::fs::FileExt};

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use data_encoding::HEXLOWER;
use rustix::fs::OFlags;
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::{
    batch::StoreError,
    files::{FileError, Folder},
    key::{KEY_BYTES, VaultKey},
    source::{ItemId, KeyMaterial, KeySource, Stretch, WrappingKey},
};
use crate::secret::Buffer;

/// Name of the slot in the data folder.
pub(super) const KEY_FILE: &str = "vault.key";
/// Name under which it is written before it is complete.
const DRAFT: &str = "vault.key.new";
/// The first line of a slot that is not a bare key.
const TITLE: &str = "keychain-auth vault key 1";
/// Longest slot, in bytes: its longest form has some 500.
const MAX_BYTES: usize = 1024;
const NONCE: usize = 24;
const TAG: usize = 16;
/// Bytes of a wrapped key: nonce, key, tag.
const WRAPPED: usize = NONCE + KEY_BYTES + TAG;
/// Digits of a bare key.
const DIGITS: usize = 2 * KEY_BYTES;

/// What the file says, its keys still wrapped.
pub struct Slot {
    pinned: Pinned,
    current: Held,
    next: Option<Held>,
}

/// The source with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pinned {
    Credential,
    Keychain(ItemId),
    Passphrase(Stretch),
    File,
}

enum Held {
    Bare(VaultKey),
    Wrapped([u8; WRAPPED]),
}

/// The keys that a slot held: the vault has one of them.
pub(super) struct SlotKeys {
    pub(super) current: VaultKey,
    pub(super) next: Option<VaultKey>,
}

impl Slot {
    /// Where the key comes from.
    pub fn source(&self) -> KeySource {
        self.pinned.source()
    }

    /// The vault's item in the keychain, for that source.
    pub fn item(&self) -> Option<ItemId> {
        if let Pinned::Keychain(item) = self.pinned { Some(item) } else { None }
    }

    /// Whether a change of the vault's key was begun and not finished.
    #[cfg(test)]
    pub(super) fn is_between_keys(&self) -> bool {
        self.next.is_some()
    }

    /// Reads the slot. None if there is no file; an error if it is not exactly a slot, or not ours alone.
    pub(super) fn load(folder: &Folder) -> Result<Option<Self>, StoreError> {
        let Some(file) = folder.find(KEY_FILE, OFlags::empty())? else { return Ok(None) };
        // one byte more than a slot has, so that a longer file is seen
        let mut text = Zeroizing::new([0; MAX_BYTES + 1]);
        let mut length = 0;
        while let Some(rest) = text.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&error).into()),
            }
        }
        let slot = text.get(..length).filter(|text| text.len() <= MAX_BYTES).and_then(Self::parse);
        slot.map(Some).ok_or(StoreError::KeyFile)
    }

    /// A slot for `material` with these keys, and the key that wraps them.
    pub(super) fn seal(
        material: &KeyMaterial,
        keys: &SlotKeys,
    ) -> Result<(Self, Option<WrappingKey>), StoreError> {
        let pinned = match material {
            KeyMaterial::Credential(_) => Pinned::Credential,
            KeyMaterial::Keychain(item, _) => Pinned::Keychain(*item),
            KeyMaterial::Passphrase(_) => Pinned::Passphrase(Stretch::fresh()?),
            KeyMaterial::File => Pinned::File,
        };
        let wrapping = WrappingKey::new(material, pinned.stretch())?;
        let slot = Self::with(pinned, wrapping.as_ref(), keys)?;
        Ok((slot, wrapping))
    }

    /// The same source and parameters with other keys.
    pub(super) fn reseal(&self, wrapping: Option<&WrappingKey>, keys: &SlotKeys) -> Result<Self, StoreError> {
        Self::with(self.pinned, wrapping, keys)
    }

    /// The keys, and the key that wraps them. An error if the material is of another source, or not the right one.
    pub(super) fn open(&self, material: &KeyMaterial) -> Result<(SlotKeys, Option<WrappingKey>), StoreError> {
        let (pinned, asked) = (self.source(), material.source());
        if pinned != asked {
            return Err(StoreError::OtherSource { pinned, asked });
        }
        if let (Pinned::Keychain(item), KeyMaterial::Keychain(given, _)) = (&self.pinned, material)
            && item != given
        {
            return Err(StoreError::WrongSecret(pinned));
        }
        let wrapping = WrappingKey::new(material, self.pinned.stretch())?;
        let open = |held: &Held, label| held.open(wrapping.as_ref(), &self.pinned, label);
        let current = open(&self.current, CURRENT)?;
        let next = self.next.as_ref().map(|next| open(next, NEXT)).transpose()?;
        Ok((SlotKeys { current, next }, wrapping))
    }

    /// Writes a slot where none is. It is durable, name and content, when this returns.
    ///
    /// The file gets its name only when it is complete, so that a crash never leaves half a key under that name.
    pub(super) fn create(&self, folder: &Folder) -> Result<(), FileError> {
        self.draft(folder)?;
        folder.publish(DRAFT, KEY_FILE)
    }

    /// Writes this slot in place of the one that is there: after a crash there is the one or the other, whole.
    pub(super) fn replace(&self, folder: &Folder) -> Result<(), FileError> {
        self.draft(folder)?;
        folder.replace(DRAFT, KEY_FILE)
    }

    fn draft(&self, folder: &Folder) -> Result<(), FileError> {
        folder.remove(DRAFT)?;
        let file = folder.create(DRAFT, OFlags::empty())?;
        file.write_all_at(self.render().as_slice(), 0)
            .and_then(|()| file.sync_all())
            .map_err(|error| failed(&error))
    }

    fn with(pinned: Pinned, wrapping: Option<&WrappingKey>, keys: &SlotKeys) -> Result<Self, StoreError> {
        let hold = |key: &VaultKey, label| Held::new(key, wrapping, &pinned, label);
        let current = hold(&keys.current, CURRENT)?;
        let next = keys.next.as_ref().map(|next| hold(next, NEXT)).transpose()?;
        Ok(Self { pinned, current, next })
    }

    /// A slot from the bytes of its file; one form only. Its keys stay wrapped.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok()?.strip_suffix('\n')?;
        let mut lines = text.split('\n');
        let first = lines.next()?;
        let (pinned, current, next) = if first == TITLE {
            let pinned = Pinned::parse(&mut lines)?;
            let wrapped =
                |line: &str, label| Some(Held::Wrapped(hex(line.strip_prefix(label)?.strip_prefix(' ')?)?));
            let current = wrapped(lines.next()?, CURRENT)?;
            let next = lines.next().map(|line| wrapped(line, NEXT).ok_or(())).transpose().ok()?;
            (pinned, current, next)
        } else {
            let next = lines.next().map(|line| bare(line).ok_or(())).transpose().ok()?;
            (Pinned::File, bare(first)?, next)
        };
        let slot = Self { pinned, current, next };
        // one form only: a number that is written in another way would be a changed byte that nobody notices
        (lines.next().is_none() && slot.render().as_slice() == [text.as_bytes(), b"\n"].concat())
            .then_some(slot)
    }

    fn render(&self) -> Buffer {
        let mut text = Buffer::with_capacity(MAX_BYTES);
        text.extend_from_slice(self.pinned.render().as_bytes());
        for (label, held) in [(CURRENT, Some(&self.current)), (NEXT, self.next.as_ref())] {
            let Some(held) = held else { continue };
            let bytes = match held {
                Held::Bare(key) => key.bytes(),
                Held::Wrapped(bytes) => {
                    text.extend_from_slice(label.as_bytes());
                    text.extend_from_slice(b" ");
                    bytes
                }
            };
            let mut digits = Zeroizing::new([0; 2 * WRAPPED]);
            if let Some(digits) = digits.get_mut(..2 * bytes.len()) {
                HEXLOWER.encode_mut(bytes, digits);
                text.extend_from_slice(digits);
            }
            text.extend_from_slice(b"\n");
        }
        text
    }
}

const CURRENT: &str = "key";
const NEXT: &str = "next";

impl Pinned {
    fn source(&self) -> KeySource {
        match self {
            Self::Credential => KeySource::Credential,
            Self::Keychain(_) => KeySource::Keychain,
            Self::Passphrase(_) => KeySource::Passphrase,
            Self::File => KeySource::File,
        }
    }

    fn stretch(&self) -> Option<&Stretch> {
        if let Self::Passphrase(stretch) = self { Some(stretch) } else { None }
    }

    /// The lines before the keys; nothing for a bare key.
    fn render(&self) -> String {
        match self {
            Self::File => String::new(),
            Self::Credential => format!("{TITLE}\nsource credential\n"),
            Self::Keychain(item) => format!("{TITLE}\nsource keychain\nitem {item}\n"),
            Self::Passphrase(Stretch { memory, passes, lanes, salt }) => format!(
                "{TITLE}\nsource passphrase\nargon2id m={memory},t={passes},p={lanes} {}\n",
                HEXLOWER.encode(salt)
            ),
        }
    }

    fn parse<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        let pinned = match lines.next()?.strip_prefix("source ")? {
            "credential" => Self::Credential,
            "keychain" => Self::Keychain(ItemId::parse(lines.next()?.strip_prefix("item ")?)?),
            "passphrase" => {
                let (numbers, salt) = lines.next()?.strip_prefix("argon2id ")?.split_once(' ')?;
                let mut numbers = numbers.split(',');
                let mut number = |name: &str| numbers.next()?.strip_prefix(name)?.parse().ok();
                let (memory, passes, lanes) = (number("m=")?, number("t=")?, number("p=")?);
                Self::Passphrase(Stretch { memory, passes, lanes, salt: hex(salt)? }.bounded()?)
            }
            _ => return None,
        };
        Some(pinned)
    }
}

impl Held {
    fn new(
        key: &VaultKey,
        wrapping: Option<&WrappingKey>,
        pinned: &Pinned,
        label: &str,
    ) -> Result<Self, StoreError> {
        let Some(wrapping) = wrapping else {
            let copy = VaultKey::from_buffer(Buffer::from(key.bytes()));
            return copy.map(Self::Bare).ok_or(unsealable());
        };
        let mut wrapped = [0; WRAPPED];
        let (nonce, body) = wrapped.split_first_chunk_mut::<NONCE>().ok_or(unsealable())?;
        getrandom::fill(nonce)?;
        let (text, place) = body.split_last_chunk_mut::<TAG>().ok_or(unsealable())?;
        text.copy_from_slice(key.bytes());
        let cipher = XChaCha20Poly1305::new(wrapping.expose_secret().into());
        let tag = cipher
            .encrypt_inout_detached((&*nonce).into(), &context(pinned, label), (&mut *text).into())
            .map_err(|_| unsealable())?;
        *place = tag.into();
        Ok(Self::Wrapped(wrapped))
    }

    fn open(
        &self,
        wrapping: Option<&WrappingKey>,
        pinned: &Pinned,
        label: &str,
    ) -> Result<VaultKey, StoreError> {
        let damaged = StoreError::KeyFile;
        let (bytes, wrapping) = match (self, wrapping) {
            (Self::Bare(key), _) => {
                return VaultKey::from_buffer(Buffer::from(key.bytes())).ok_or(damaged);
            }
            (Self::Wrapped(bytes), Some(wrapping)) => (bytes, wrapping),
            (Self::Wrapped(_), None) => return Err(damaged),
        };
        let (nonce, body) = bytes.split_first_chunk::<NONCE>().ok_or(damaged.clone())?;
        let (text, tag) = body.split_last_chunk::<TAG>().ok_or(damaged.clone())?;
        let mut key = Buffer::from(text);
        XChaCha20Poly1305::new(wrapping.expose_secret().into())
            .decrypt_inout_detached(
                nonce.into(),
                &context(pinned, label),
                key.as_mut_slice().into(),
                tag.into(),
            )
            .map_err(|_| StoreError::WrongSecret(pinned.source()))?;
        VaultKey::from_buffer(key).ok_or(damaged)
    }
}

/// Associated data of a wrapped key: all of the file that goes before the keys, and which of them it is.
fn context(pinned: &Pinned, label: &str) -> Vec<u8> {
    [pinned.render().as_bytes(), label.as_bytes()].concat()
}

fn hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let right = digits.len() == 2 * N && HEXLOWER.decode_mut(digits.as_bytes(), &mut bytes).is_ok();
    right.then_some(bytes)
}

fn bare(digits: &str) -> Option<Held> {
    let mut bytes = Buffer::zeroed(KEY_BYTES);
    if digits.len() != DIGITS {
        return None;
    }
    HEXLOWER.decode_mut(digits.as_bytes(), bytes.as_mut_slice()).ok()?;
    VaultKey::from_buffer(bytes).map(Held::Bare)
}

fn failed(error: &io::Error) -> FileError {
    FileError::Io { name: KEY_FILE.to_owned(), reason: error.to_string() }
}

fn unsealable() -> StoreError {
    StoreError::Io("sealing failed".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "slot_tests.rs"]
mod tests;
