//! The challenge of `HELLO`: 32 random bytes that only the process that was verified has seen.

use data_encoding::HEXLOWER;
use subtle::ConstantTimeEq;

/// A challenge: 32 random bytes, 64 lower-case hexadecimal digits on the wire.
pub struct Nonce([u8; 32]);

impl Nonce {
    /// A nonce from 32 bytes of the kernel's randomness.
    pub const fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// Reads exactly 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self(HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()?))
    }

    /// Whether both are the same, in time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 digits.
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }
}
