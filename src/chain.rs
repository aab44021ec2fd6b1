//! The chain of the audit log: a number and a keyed hash on every line, under a key that only goes forward.
//!
//! A line's hash is HMAC-SHA256(epoch key, "record" ‖ 0 ‖ chain ‖ epoch ‖ number ‖ hash before ‖ line up to it). The key
//! of the next epoch is a one-way function of this one, which is wiped then: who takes over the machine today can't
//! make the hashes of yesterday. Beside it runs a hash without a key over all lines, so that who knows its last value
//! can check a log without any key.
//!
//! Pure: randomness and time are arguments. The only secret here is the chain's own key; no secret of a user comes near.
#![forbid(unsafe_code)]

use std::fmt;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::secret::Buffer;

/// Bytes of a key, a keyed hash and a running hash.
const BYTES: usize = 32;
/// What stands between a rendered line and its number. Never within a string, where the quotes are escaped.
pub const SEQ: &[u8] = br#","seq":"#;
/// What stands between a line's number and its keyed hash.
const MAC: &[u8] = br#","mac":""#;
/// The end of a line, without its newline.
const END: &[u8] = br#""}"#;
/// A number that no log reaches: at a million records a second it takes 285 years. A line with such a one is not ours.
pub const NO_NUMBER: u64 = 1 << 53;

/// A record's keyed hash.
pub type Mac = [u8; BYTES];
/// A running hash over lines.
pub type Hash = [u8; BYTES];
type Prf = Hmac<Sha256>;

/// Which chain: follows from its verification key, and tells nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChainId([u8; 8]);

impl ChainId {
    /// Reads 16 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        hex(text).map(Self)
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// The initial key of a chain, from which every later key follows: whoever has it can check every hash, and make them.
/// It is shown once and kept off the machine. Wiped on drop.
pub struct VerificationKey(Buffer);

impl VerificationKey {
    /// A new key from the kernel's random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = Buffer::zeroed(BYTES);
        getrandom::fill(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    /// Reads 64 hexadecimal digits; spaces around them are allowed. None if it is anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits = text.trim_ascii();
        if digits.len() != 2 * BYTES {
            return None;
        }
        let mut bytes = Buffer::zeroed(BYTES);
        HEXLOWER.decode_mut(digits, bytes.as_mut_slice()).ok()?;
        Some(Self(bytes))
    }

    /// 64 hexadecimal digits, for its owner to write down.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER.encode(self.0.as_slice()))
    }

    /// The chain that it begins.
    pub fn chain(&self) -> ChainId {
        let mut mac = keyed(self.0.as_slice());
        mac.update(b"chain\0");
        let bytes = mac.finalize().into_bytes();
        ChainId(bytes.first_chunk().copied().unwrap_or_default())
    }

    /// The key of epoch 0.
    pub fn first(&self) -> Ratchet {
        derive(self.0.as_slice(), b"first epoch\0")
    }
}

/// The key of one epoch. It gives the next one, never the one before. Wiped on drop.
pub struct Ratchet(Buffer);

impl Ratchet {
    /// The key of the epoch after this one.
    pub fn next(&self) -> Self {
        derive(self.0.as_slice(), b"next epoch\0")
    }

    /// The keyed hash of a record: its number and all that stands before its hash, bound to the record before.
    pub fn mac(&self, before: &Head, seq: u64, body: &[u8]) -> Mac {
        let mut mac = keyed(self.0.as_slice());
        mac.update(b"record\0");
        mac.update(&before.chain.0);
        mac.update(&before.epoch.to_le_bytes());
        mac.update(&seq.to_le_bytes());
        mac.update(&before.mac);
        mac.update(body);
        mac.finalize().into_bytes().into()
    }

    /// The bytes, to be sealed.
    pub(crate) fn expose(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Takes over a key that was sealed. None if it has another length.
    pub(crate) fn from_sealed(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == BYTES).then(|| Self(Buffer::from(bytes)))
    }
}

/// How far a chain has come: what the next line is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The chain.
    pub chain: ChainId,
    /// Its epoch.
    pub epoch: u64,
    /// The number of the last record; 0 before the first.
    pub seq: u64,
    /// The keyed hash of the last record.
    pub mac: Mac,
    /// SHA-256(the same before ‖ last line), from zeros on: the hash of the whole log so far.
    pub digest: Hash,
}

impl Head {
    /// Its length in bytes.
    pub const BYTES: usize = 8 + 8 + 8 + BYTES + BYTES;

    /// The head after a line, given without its newline, whose number and hash were read from it.
    pub fn after(&self, line: &[u8], seq: u64, mac: Mac) -> Self {
        Self { seq, mac, digest: running(&self.digest, line), ..*self }
    }

    /// For the vault.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let numbers = [self.epoch, self.seq].into_iter().flat_map(u64::to_le_bytes);
        let all = self.chain.0.into_iter().chain(numbers).chain(self.mac).chain(self.digest);
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        bytes
    }

    /// From the vault.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (chain, rest) = bytes.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let (mac, digest) = rest.split_first_chunk()?;
        Some(Self {
            chain: ChainId(*chain),
            epoch: u64::from_le_bytes(*epoch),
            seq: u64::from_le_bytes(*seq),
            mac: *mac,
            digest: digest.try_into().ok()?,
        })
    }
}

/// The hash of the log at the end of an epoch, kept in the vault, so that a change is found within its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last record of the epoch.
    pub seq: u64,
    /// The running hash after it.
    pub digest: Hash,
}

/// An epoch that began: its key, and where it stands in the chain.
pub struct Epoch {
    /// Its key.
    pub ratchet: Ratchet,
    /// The head before its first record, with its own number: what its first record is bound to.
    pub before: Head,
    /// The number of the first record of the epoch that ended; 0 where none did, or nobody knows.
    pub previous: u64,
    /// When it began, in seconds since 1970.
    pub began: i64,
}

/// A line taken apart: all before its hash, its number, its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linked<'l> {
    /// The line up to its hash.
    pub body: &'l [u8],
    /// Its number.
    pub seq: u64,
    /// Its keyed hash.
    pub mac: Mac,
}

impl<'l> Linked<'l> {
    /// Takes a line, without its newline, apart. None if it does not end like ours: its number and its hash, and in this
    /// very spelling.
    pub fn of(line: &'l [u8]) -> Option<Self> {
        let rest = line.strip_suffix(END)?;
        let (rest, digits) = rest.split_last_chunk::<{ 2 * BYTES }>()?;
        let mac = hex(std::str::from_utf8(digits).ok()?)?;
        let body = rest.strip_suffix(MAC)?;
        let number = std::str::from_utf8(number_of(body)?).ok()?;
        let seq = number.parse().ok().filter(|seq| *seq < NO_NUMBER)?;
        // one number has one spelling
        (number == u64::to_string(&seq)).then_some(Self { body, seq, mac })
    }
}

/// Writes a line, with its newline: what was rendered, its number, its keyed hash. Returns the head after it.
pub fn link(epoch: &Ratchet, before: &Head, rendered: &[u8], line: &mut Vec<u8>) -> Head {
    let seq = before.seq.saturating_add(1);
    line.clear();
    line.extend_from_slice(rendered);
    line.extend_from_slice(SEQ);
    line.extend_from_slice(seq.to_string().as_bytes());
    let mac = epoch.mac(before, seq, line);
    line.extend_from_slice(MAC);
    line.extend_from_slice(HEXLOWER.encode(&mac).as_bytes());
    line.extend_from_slice(END);
    let after = before.after(line, seq, mac);
    line.push(b'\n');
    after
}

/// Whether a keyed hash is that of the line, compared in constant time.
pub fn fits(epoch: &Ratchet, before: &Head, line: &Linked<'_>) -> bool {
    subtle::ConstantTimeEq::ct_eq(epoch.mac(before, line.seq, line.body).as_slice(), &line.mac).into()
}

/// The running hash after a line, given without its newline.
pub fn running(before: &Hash, line: &[u8]) -> Hash {
    Sha256::new_with_prefix(before).chain_update(line).finalize().into()
}

/// Bytes from exactly as many lower-case hexadecimal digits.
pub fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).ok()?;
    Some(bytes)
}

/// The digits at the end of a body, behind [`SEQ`]; possibly none.
fn number_of(body: &[u8]) -> Option<&[u8]> {
    let digits = body.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (rendered, number) = body.split_at_checked(body.len().checked_sub(digits)?)?;
    rendered.ends_with(SEQ).then_some(number)
}

fn derive(key: &[u8], label: &[u8]) -> Ratchet {
    let mut mac = keyed(key);
    mac.update(label);
    let mut output = mac.finalize().into_bytes();
    let next = Ratchet(Buffer::from(output.as_slice()));
    output.as_mut_slice().zeroize();
    next
}

fn keyed(key: &[u8]) -> Prf {
    // HMAC fills keys up to its block of 64 bytes with zeros; doing it here has no error case
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    Prf::new((&*block).into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key() -> VerificationKey {
        VerificationKey::parse("0b".repeat(32).as_bytes()).unwrap()
    }

    #[test]
    fn a_line_is_taken_apart_as_it_was_linked_and_only_its_own_epoch_and_place_fit() {
        let (first, second) = (key().first(), key().first().next());
        let before = Head { chain: key().chain(), epoch: 0, seq: 6, ..Head::default() };
        let mut line = Vec::new();
        let after = link(&first, &before, br#"{"a":",\"seq\":9","#, &mut line);
        let bare = line.strip_suffix(b"\n").unwrap();
        let linked = Linked::of(bare).unwrap();
        assert_eq!((linked.seq, linked.mac), (7, after.mac));
        assert!(fits(&first, &before, &linked));
        assert!(!fits(&second, &before, &linked));
        for elsewhere in [
            Head { epoch: 1, ..before },
            Head { mac: [1; 32], ..before },
            Head { chain: ChainId::default(), ..before },
        ] {
            assert!(!fits(&first, &elsewhere, &linked));
        }
        assert!(!fits(&first, &before, &Linked { seq: 8, ..linked }));
        assert_eq!(after, before.after(bare, 7, after.mac));
    }

    #[test]
    fn a_number_or_hash_in_another_spelling_is_none() {
        let mac = "ab".repeat(32);
        let line = |seq: &str, mac: &str| format!(r#"{{"x":1,"seq":{seq},"mac":"{mac}"}}"#).into_bytes();
        assert!(Linked::of(&line("7", &mac)).is_some());
        for seq in ["", "07", "+7", "-7", "7.0", " 7", "9007199254740992", "99999999999999999999"] {
            assert_eq!(Linked::of(&line(seq, &mac)), None, "{seq}");
        }
        for mac in ["", "ab", &mac.to_uppercase(), &format!("{mac}ab")] {
            assert_eq!(Linked::of(&line("7", mac)), None, "{mac}");
        }
    }

    #[test]
    fn a_head_survives_the_vault_and_a_key_its_paper() {
        let head = Head { chain: key().chain(), epoch: 3, seq: 9, mac: [1; 32], digest: [2; 32] };
        assert_eq!(Head::from_bytes(&head.to_bytes()), Some(head));
        assert_eq!(Head::from_bytes(&head.to_bytes()[1..]), None);
        let paper = format!(" {}\n", *key().reveal());
        assert_eq!(VerificationKey::parse(paper.as_bytes()).unwrap().chain(), key().chain());
        assert!(VerificationKey::parse(b"").is_none() && VerificationKey::parse(&[b'0'; 66]).is_none());
        assert_ne!(key().first().expose(), key().first().next().expose());
        assert_eq!(ChainId::parse(&key().chain().to_string()), Some(key().chain()));
    }

    #[test]
    fn the_running_hash_is_that_of_all_lines_so_far_in_their_order() {
        // printf '%064d' 0 | xxd -r -p, then a; and the same of that and b
        let first = hex("41a0370c3d9f42773a59e8e01651911cf43b1e3f66944cbb690029debc4eb647").unwrap();
        let second = hex("abccbe9b24d2bbd3aa1360d605147a841dd051130131c6929d6004e1ae4796e8").unwrap();
        assert_eq!(running(&[0; 32], b"a"), first);
        assert_eq!(running(&first, b"b"), second);
        let head = Head::default().after(b"a", 1, [1; 32]).after(b"b", 2, [2; 32]);
        assert_eq!(head, Head { seq: 2, mac: [2; 32], digest: second, ..Head::default() });
    }
}
