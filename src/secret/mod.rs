//! Secrets in memory: one type for values, one for every buffer that values pass through. Neither has Clone, Debug,
//! Display or Serialize; both live in locked memory and are wiped on drop.
#![forbid(unsafe_code)]

mod buffer;

pub use buffer::Buffer;

use std::str;

use secrecy::ExposeSecret;

/// Longest value, in bytes of UTF-8: a TLS chain with its key fits, a file does not.
pub const MAX_VALUE: usize = 64 * 1024;

/// How much of the stack [`wipe_stack`] overwrites, in bytes: more than a cipher's frames take in a debug build.
const STACK: usize = 16 * 1024;

/// Overwrites the stack beneath the caller, where a cipher leaves the last block of a value, or its key's state. Called
/// where the frames that it is about have just returned.
#[inline(never)]
pub fn wipe_stack() {
    zeroize::zeroize_stack::<STACK>();
}

/// A secret's value: at most [`MAX_VALUE`] bytes of UTF-8, possibly none.
///
/// The length is as secret as the content: it is never logged.
pub struct SecretValue(Buffer);

impl SecretValue {
    /// Takes over `bytes` without copying them. None if they are too long or not UTF-8; they are wiped then.
    pub fn from_buffer(bytes: Buffer) -> Option<Self> {
        (bytes.len() <= MAX_VALUE && str::from_utf8(bytes.as_slice()).is_ok()).then_some(Self(bytes))
    }
}

impl ExposeSecret<str> for SecretValue {
    /// The text, for sealing and for the reply. Every use of this name is a place to review.
    fn expose_secret(&self) -> &str {
        // checked when it was made
        str::from_utf8(self.0.as_slice()).unwrap_or_default()
    }
}
