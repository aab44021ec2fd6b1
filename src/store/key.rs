//! The vault key: 256 random bits, and the file that holds them.
//!
//! No key of this room is ever used for two things: each use has its own sub-key, derived with its own label.

use std::{io, os::unix::fs::FileExt};

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::OFlags;
use secrecy::ExposeSecret;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::files::{FileError, Folder};
use crate::secret::Buffer;

/// Name of the key file in the data folder.
pub(super) const KEY_FILE: &str = "vault.key";
/// Name under which it is written before it is complete.
const DRAFT: &str = "vault.key.new";
/// Bytes of every key here.
const KEY_BYTES: usize = 32;
/// 64 hexadecimal digits and a newline: survives copying by hand, e-mail and password managers.
const FILE_BYTES: usize = 65;

/// A keyed hash.
pub(super) type Prf = Hmac<Sha256>;

/// The key of a vault: 32 random bytes. Wiped on drop; no Clone, no Debug of its content.
pub(super) struct VaultKey(Buffer);

impl VaultKey {
    /// A new key from the kernel's random numbers.
    pub(super) fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = Buffer::zeroed(KEY_BYTES);
        getrandom::fill(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    /// Takes over 32 bytes. None if there are more or less.
    pub(super) fn from_buffer(bytes: Buffer) -> Option<Self> {
        (bytes.len() == KEY_BYTES).then_some(Self(bytes))
    }

    /// The sub-key for one use: HMAC-SHA256(key, label ‖ 0 ‖ context). Labels have no zero byte.
    pub(super) fn derive(&self, label: &str, context: &[u8]) -> SubKey {
        let mut mac = keyed(self.0.as_slice());
        mac.update(label.as_bytes());
        mac.update(&[0]);
        mac.update(context);
        let mut output = mac.finalize().into_bytes();
        let key = SubKey(Buffer::from(output.as_slice()));
        output.as_mut_slice().zeroize();
        key
    }
}

/// A key for one use only.
pub(super) struct SubKey(Buffer);

impl ExposeSecret<[u8; KEY_BYTES]> for SubKey {
    fn expose_secret(&self) -> &[u8; KEY_BYTES] {
        // an HMAC-SHA256 has this length; a key of another one could not have been made
        self.0.as_slice().first_chunk().unwrap_or(&[0; KEY_BYTES])
    }
}

impl SubKey {
    /// The keyed hash of this key. Made anew for each use, so that no key rests outside locked memory.
    pub(super) fn prf(&self) -> Prf {
        keyed(self.expose_secret())
    }
}

fn keyed(key: &[u8]) -> Prf {
    // HMAC fills keys up to its block of 64 bytes with zeros; doing it here has no error case
    let mut block = Zeroizing::new([0; 64]);
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    Prf::new((&*block).into())
}

/// The key as a file: `vault.key` in the data folder, 0600, 64 lower-case hexadecimal digits and a newline.
pub(super) struct KeyFile;

impl KeyFile {
    /// Reads the key. None if there is no file; an error if it is not exactly a key, or not ours alone.
    pub(super) fn load(folder: &Folder) -> Result<Option<VaultKey>, FileError> {
        let Some(file) = folder.find(KEY_FILE, OFlags::empty())? else { return Ok(None) };
        // one byte more than a key file has, so that a longer file is seen
        let mut text = Zeroizing::new([0; FILE_BYTES + 1]);
        let mut length = 0;
        while let Some(rest) = text.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        let malformed =
            || FileError::Exposed(format!("{KEY_FILE} is not 64 hexadecimal digits and a newline"));
        let text = text.get(..length).ok_or_else(malformed)?;
        let digits = text.strip_suffix(b"\n").filter(|digits| digits.len() == 64).ok_or_else(malformed)?;
        let mut bytes = Buffer::zeroed(KEY_BYTES);
        HEXLOWER.decode_mut(digits, bytes.as_mut_slice()).map_err(|_| malformed())?;
        VaultKey::from_buffer(bytes).map(Some).ok_or_else(malformed)
    }

    /// Writes a key where none is. It is durable, name and content, when this returns.
    ///
    /// The file gets its name only when it is complete, so that a crash never leaves half a key under that name.
    pub(super) fn create(folder: &Folder, key: &VaultKey) -> Result<(), FileError> {
        folder.remove(DRAFT)?;
        let file = folder.create(DRAFT, OFlags::empty())?;
        let mut text = Zeroizing::new([b'\n'; FILE_BYTES]);
        if let Some(digits) = text.get_mut(..64) {
            HEXLOWER.encode_mut(key.0.as_slice(), digits);
        }
        file.write_all_at(text.as_slice(), 0)
            .and_then(|()| file.sync_all())
            .map_err(|error| failed(&error))?;
        folder.publish(DRAFT, KEY_FILE)
    }
}

fn failed(error: &io::Error) -> FileError {
    FileError::Io { name: KEY_FILE.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::store::files::scratch;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = scratch();
        let folder = Folder::open(dir.path()).unwrap();
        (dir, folder)
    }

    #[test]
    fn a_key_is_read_back_as_it_was_written_and_is_0600() {
        let (dir, folder) = folder();
        assert!(KeyFile::load(&folder).unwrap().is_none());
        let key = VaultKey::generate().unwrap();
        KeyFile::create(&folder, &key).unwrap();
        let path = dir.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read(&path).unwrap().len(), 65);
        let again = KeyFile::load(&folder).unwrap().unwrap();
        assert_eq!(again.0.as_slice(), key.0.as_slice());
        assert!(KeyFile::create(&folder, &key).is_err(), "a key is never overwritten");
    }

    #[test]
    fn a_key_that_is_exposed_or_malformed_is_an_error_and_left_alone() {
        let (dir, folder) = folder();
        let path = dir.path().join(KEY_FILE);
        let good = format!("{}\n", "0a".repeat(32));
        let private = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        let upper = good.to_uppercase();
        for bad in ["", "\n", &good[..64], &good[2..], &upper, &format!("{good}\n"), &format!("0a{good}")] {
            private(bad);
            assert!(KeyFile::load(&folder).is_err(), "{bad:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
        private(&good);
        assert!(KeyFile::load(&folder).unwrap().is_some());
        for mode in [0o640, 0o604, 0o700, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(KeyFile::load(&folder).is_err(), "{mode:o}");
        }
        private(&good);
        fs::hard_link(&path, dir.path().join("second")).unwrap();
        assert!(KeyFile::load(&folder).is_err(), "a second name");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("second", &path).unwrap();
        assert!(KeyFile::load(&folder).is_err(), "a symbolic link");
    }

    #[test]
    fn a_draft_left_by_a_crash_does_not_stop_the_next_key() {
        let (dir, folder) = folder();
        fs::write(dir.path().join(DRAFT), "half").unwrap();
        KeyFile::create(&folder, &VaultKey::generate().unwrap()).unwrap();
        assert!(!dir.path().join(DRAFT).exists());
    }

    #[test]
    fn sub_keys_differ_by_label_and_context() {
        let key = VaultKey::from_buffer(Buffer::from(&[7; 32][..])).unwrap();
        let (a, b, c) = (key.derive("a", b"x"), key.derive("b", b"x"), key.derive("a", b"y"));
        assert_ne!(a.expose_secret(), b.expose_secret());
        assert_ne!(a.expose_secret(), c.expose_secret());
        assert_eq!(a.expose_secret(), key.derive("a", b"x").expose_secret());
    }
}
