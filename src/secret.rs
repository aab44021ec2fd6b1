//! The one type for a secret's value. It has no Clone, Debug, Display or Serialize, and it is wiped on drop.
#![forbid(unsafe_code)]

use std::str;

use zeroize::Zeroizing;

/// Longest value, in bytes of UTF-8: a TLS chain with its key fits, a file does not.
pub const MAX_VALUE: usize = 64 * 1024;

/// A secret's value: at most [`MAX_VALUE`] bytes of UTF-8, possibly none, wiped when dropped.
///
/// The length is as secret as the content: it is never logged.
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// Takes over `bytes` without copying them. None if they are too long or not UTF-8; they are wiped then.
    pub fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        (bytes.len() <= MAX_VALUE && str::from_utf8(&bytes).is_ok()).then_some(Self(bytes))
    }

    /// The bytes, for sealing and for the reply. Every use of this name is a place to review.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}
