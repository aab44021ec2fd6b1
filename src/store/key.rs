//! The vault key: 256 random bits. [`slot`](super::slot) is the file that holds it.
//!
//! No key of this room is ever used for two things: each use has its own sub-key, derived with its own label.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::secret::Buffer;

/// Bytes of every key here.
pub(super) const KEY_BYTES: usize = 32;

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

    /// A key that depends on every byte of a secret that is random already.
    pub(super) fn digest(secret: &[u8]) -> Self {
        let mut mac = keyed(&[0; KEY_BYTES]);
        mac.update(secret);
        let mut output = mac.finalize().into_bytes();
        let key = Self(Buffer::from(output.as_slice()));
        output.as_mut_slice().zeroize();
        key
    }

    /// The key's bytes, to be wrapped or written to a key file.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_slice()
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
    /// The same key again, for whoever goes on when its owner is gone.
    pub(super) fn again(&self) -> Self {
        Self(Buffer::from(self.0.as_slice()))
    }

    /// The keyed hash of this key. Made anew for each use, or for each reading of all labels, so that no key rests outside
    /// locked memory.
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sub_keys_differ_by_label_and_context() {
        let key = VaultKey::from_buffer(Buffer::from(&[7; 32][..])).unwrap();
        let (a, b, c) = (key.derive("a", b"x"), key.derive("b", b"x"), key.derive("a", b"y"));
        assert_ne!(a.expose_secret(), b.expose_secret());
        assert_ne!(a.expose_secret(), c.expose_secret());
        assert_eq!(a.expose_secret(), key.derive("a", b"x").expose_secret());
    }
}
