//! The one type for a secret's value. It has no Clone, Debug, Display or Serialize, and it is wiped on drop.
#![forbid(unsafe_code)]

use std::mem;

use zeroize::{Zeroize, Zeroizing};

/// Longest value, in bytes of UTF-8: a TLS chain with its key fits, a file does not.
pub const MAX_VALUE: usize = 64 * 1024;

/// A secret's value: at most [`MAX_VALUE`] bytes of UTF-8, possibly none, wiped when dropped.
///
/// The length is as secret as the content: it is never logged.
pub struct SecretValue(Zeroizing<String>);

impl SecretValue {
    /// Takes over `bytes` without copying them. None if they are too long or not UTF-8; they are wiped then.
    pub fn from_bytes(mut bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        if bytes.len() > MAX_VALUE {
            return None;
        }
        match String::from_utf8(mem::take(&mut *bytes)) {
            Ok(text) => Some(Self(Zeroizing::new(text))),
            Err(error) => {
                error.into_bytes().zeroize();
                None
            }
        }
    }

    /// The text, for sealing and for the reply. Every use of this name is a place to review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}
