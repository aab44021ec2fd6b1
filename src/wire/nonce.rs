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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_exactly_64_lower_case_digits() {
        let bytes: [u8; 32] = std::array::from_fn(|at| 0xf0 ^ at as u8);
        let nonce = Nonce::new(bytes);
        let text = nonce.to_hex();
        assert_eq!((text.len(), &text[..6]), (64, "f0f1f2"));
        let read = Nonce::parse(&text).unwrap();
        assert_eq!(read.as_bytes(), &bytes);
        assert!(read.matches(&nonce));
        for other in [&text[1..], &text[2..], &format!("{text}00"), &text.to_uppercase(), "", &"g".repeat(64)]
        {
            assert!(Nonce::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn one_bit_makes_another_nonce() {
        let nonce = Nonce::new([0; 32]);
        for at in [0, 31] {
            let mut bytes = [0; 32];
            bytes[at] = 0x80;
            assert!(!nonce.matches(&Nonce::new(bytes)));
        }
    }
}
