//! Sealing: records, outbox lines and the header, each bound to the place where it rests.
//!
//! Pure: keys and nonces are arguments. XChaCha20-Poly1305 with random 192-bit nonces, so that no counter can be
//! rewound by a restored backup. The associated data of every sealed part is its use, the format, the vault and its
//! place; each use has its own sub-key as well, derived for this vault alone. Bytes from another place, another use
//! or another vault never open.
//!
//! A record has two parts under one nonce and two keys: the **label** (service, target, attributes) and the
//! **value**, which is bound to its label's tag. Names can be listed without a value ever being decrypted.
//!
//! What a reader of the disk learns: how many records there are, when they change, which were written together, and their
//! sizes in steps (64 bytes, for larger values an eighth of the size at most).

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use hmac::Mac;
use zeroize::Zeroize;

use super::{
    key::{Prf, SubKey, VaultKey},
    label,
};
use crate::{
    name::{Attributes, Service, Target},
    secret::{Buffer, MAX_VALUE, SecretValue, wipe_stack},
};
use secrecy::ExposeSecret;

/// Layout of everything sealed. Part of all associated data.
pub(super) const FORMAT: u8 = 1;
/// Bytes of a nonce.
pub(super) const NONCE: usize = 24;
pub(super) const TAG: usize = 16;
/// Longest plaintext of an outbox line: 10 MiB of names, each byte escaped to two at most, and the rest of a line.
const MAX_LINE: usize = 24 * 1024 * 1024;
/// Smallest step of padded sizes.
const STEP: usize = 64;

/// Random bytes that name one vault for ever. In clear on the disk.
pub(super) type VaultId = [u8; 16];
/// Where a record rests: a keyed hash of its service and target, or [beside](super::place) that of another. Tells no name
/// without the key.
pub(super) type RecordKey = [u8; 32];
/// Makes two sealings of the same content differ. Never used twice.
pub(super) type Nonce = [u8; NONCE];
/// A keyed hash of a record's place and nonce; the XOR of all says which records, in which version, are there.
pub(super) type Fingerprint = [u8; 32];

/// What a record says about itself, apart from its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) service: Service,
    pub(super) target: Target,
    pub(super) attributes: Attributes,
}

/// The bytes were not sealed by this key for this place, or not for this use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unsealable;

#[derive(Clone, Copy)]
enum Use {
    Label = 1,
    Value = 2,
    Line = 3,
    Header = 4,
    Checkpoints = 5,
}

/// The keys of one vault, one for each use.
pub(super) struct Sealer {
    vault: VaultId,
    names: SubKey,
    versions: SubKey,
    label: SubKey,
    value: SubKey,
    line: SubKey,
    header: SubKey,
    checkpoints: SubKey,
}

impl Sealer {
    pub(super) fn new(key: &VaultKey, vault: VaultId) -> Self {
        Self {
            vault,
            names: key.derive("record name", &vault),
            versions: key.derive("record version", &vault),
            label: key.derive("seal label", &vault),
            value: key.derive("seal value", &vault),
            line: key.derive("seal outbox line", &vault),
            header: key.derive("seal header", &vault),
            checkpoints: key.derive("seal audit checkpoints", &vault),
        }
    }

    /// Where the record of a name rests that is written alone. Lengths go before the names: `a`+`b:c` and `a:b`+`c` never
    /// meet.
    pub(super) fn record_key(&self, service: &Service, target: &Target) -> RecordKey {
        let mut mac = self.names.prf();
        for part in [service.as_str(), target.as_str()] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    /// Stands for one version of one record in the vault's sum of records.
    pub(super) fn fingerprint(&self, at: &RecordKey, nonce: &Nonce) -> Fingerprint {
        self.fingerprints().of(at, nonce)
    }

    /// Many of them in a row. Whoever has made them all calls [`wipe_stack`].
    pub(super) fn fingerprints(&self) -> Fingerprints {
        Fingerprints(self.versions.prf())
    }

    /// Seals one record: nonce ‖ length of the label part ‖ label part ‖ value part.
    ///
    /// The plaintext is written once, into the buffer that becomes the ciphertext.
    pub(super) fn seal_record(
        &self,
        at: &RecordKey,
        nonce: &Nonce,
        label: &Label,
        value: &SecretValue,
    ) -> Result<Vec<u8>, Unsealable> {
        let sealed = self.write_record(at, nonce, label, value);
        wipe_stack();
        sealed
    }

    /// Leaves the stack to be wiped.
    #[inline(never)]
    fn write_record(
        &self,
        at: &RecordKey,
        nonce: &Nonce,
        label: &Label,
        value: &SecretValue,
    ) -> Result<Vec<u8>, Unsealable> {
        let label_room = bucket(label::encoded_len(label));
        let value_room = bucket(value.expose_secret().len() + 4);
        let mut sealed = Buffer::zeroed(NONCE + 4 + label_room + TAG + value_room + TAG);
        let (head, body) = sealed.as_mut_slice().split_at_mut_checked(NONCE + 4).ok_or(Unsealable)?;
        let (first, second) = body.split_at_mut_checked(label_room + TAG).ok_or(Unsealable)?;
        let (nonce_place, length_place) = head.split_at_mut_checked(NONCE).ok_or(Unsealable)?;
        nonce_place.copy_from_slice(nonce);
        length_place.copy_from_slice(&u32::try_from(label_room).map_err(|_| Unsealable)?.to_le_bytes());

        label::encode(label, first).ok_or(Unsealable)?;
        let tag = encrypted(&self.label, nonce, &self.context(Use::Label, at, &[0; TAG]), first)?;

        let secret = value.expose_secret().as_bytes();
        second.get_mut(..secret.len()).ok_or(Unsealable)?.copy_from_slice(secret);
        let length = u32::try_from(secret.len()).map_err(|_| Unsealable)?;
        second.get_mut(value_room - 4..value_room).ok_or(Unsealable)?.copy_from_slice(&length.to_le_bytes());
        encrypted(&self.value, nonce, &self.context(Use::Value, at, &tag), second)?;
        Ok(sealed.as_slice().to_vec())
    }

    /// What the record at this place says about itself, and the nonce of its version.
    pub(super) fn open_label(&self, at: &RecordKey, sealed: &[u8]) -> Result<(Label, Nonce), Unsealable> {
        let label = self.read_label(at, sealed);
        wipe_stack();
        label
    }

    /// As [`Sealer::open_label`], for many labels in a row: whoever has read them all calls [`wipe_stack`].
    pub(super) fn read_label(&self, at: &RecordKey, sealed: &[u8]) -> Result<(Label, Nonce), Unsealable> {
        self.read_label_in(&mut Buffer::default(), at, sealed)
    }

    /// As [`Sealer::read_label`], in memory that serves for the next one as well.
    pub(super) fn read_label_in(
        &self,
        plain: &mut Buffer,
        at: &RecordKey,
        sealed: &[u8],
    ) -> Result<(Label, Nonce), Unsealable> {
        let parts = Parts::of(sealed).ok_or(Unsealable)?;
        let context = self.context(Use::Label, at, &[0; TAG]);
        decrypted_in(plain, &self.label, &parts.nonce, &context, parts.label)?;
        Ok((label::decode(plain.as_slice()).ok_or(Unsealable)?, parts.nonce))
    }

    /// The value of the record at this place. It opens only together with the label it was sealed with.
    pub(super) fn open_value(&self, at: &RecordKey, sealed: &[u8]) -> Result<SecretValue, Unsealable> {
        let value = self.read_value(at, sealed);
        wipe_stack();
        value
    }

    /// As [`Sealer::open_value`], for many values in a row: whoever has read them all calls [`wipe_stack`].
    pub(super) fn read_value(&self, at: &RecordKey, sealed: &[u8]) -> Result<SecretValue, Unsealable> {
        let parts = Parts::of(sealed).ok_or(Unsealable)?;
        let tag = parts.label.last_chunk::<TAG>().ok_or(Unsealable)?;
        let context = self.context(Use::Value, at, tag);
        let mut plain = decrypted(&self.value, &parts.nonce, &context, parts.value)?;
        let length = u32::from_le_bytes(*plain.as_slice().last_chunk::<4>().ok_or(Unsealable)?) as usize;
        if length > MAX_VALUE || plain.len() != bucket(length + 4) {
            return Err(Unsealable);
        }
        plain.truncate(length);
        SecretValue::from_buffer(plain).ok_or(Unsealable)
    }

    /// Seals an outbox line for its number: nonce ‖ sealed, padded line. A line holds names.
    pub(super) fn seal_line(&self, id: u64, nonce: &Nonce, line: &[u8]) -> Result<Vec<u8>, Unsealable> {
        if line.len() > MAX_LINE {
            return Err(Unsealable);
        }
        let room = bucket(line.len() + 4);
        let mut sealed = vec![0; NONCE + room + TAG];
        let (head, body) = sealed.split_at_mut_checked(NONCE).ok_or(Unsealable)?;
        head.copy_from_slice(nonce);
        body.get_mut(..line.len()).ok_or(Unsealable)?.copy_from_slice(line);
        let length = u32::try_from(line.len()).map_err(|_| Unsealable)?;
        body.get_mut(room - 4..room).ok_or(Unsealable)?.copy_from_slice(&length.to_le_bytes());
        seal(&self.line, nonce, &self.context(Use::Line, &numbered(id), &[0; TAG]), body)?;
        Ok(sealed)
    }

    /// The outbox line of that number.
    pub(super) fn open_line(&self, id: u64, sealed: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE>().ok_or(Unsealable)?;
        let mut plain = open(&self.line, nonce, &self.context(Use::Line, &numbered(id), &[0; TAG]), body)?;
        let length = u32::from_le_bytes(*plain.as_slice().last_chunk::<4>().ok_or(Unsealable)?) as usize;
        if length > MAX_LINE || plain.len() != bucket(length + 4) {
            return Err(Unsealable);
        }
        plain.truncate(length);
        Ok(plain.as_slice().to_vec())
    }

    /// Seals the header: nonce ‖ sealed header.
    pub(super) fn seal_header(&self, nonce: &Nonce, header: &[u8]) -> Result<Vec<u8>, Unsealable> {
        self.seal_plain(&self.header, Use::Header, nonce, header)
    }

    /// The header.
    pub(super) fn open_header(&self, sealed: &[u8]) -> Result<Buffer, Unsealable> {
        self.open_plain(&self.header, Use::Header, sealed)
    }

    /// Seals the checkpoints of the audit log: nonce ‖ sealed checkpoints.
    pub(super) fn seal_checkpoints(&self, nonce: &Nonce, plain: &[u8]) -> Result<Vec<u8>, Unsealable> {
        self.seal_plain(&self.checkpoints, Use::Checkpoints, nonce, plain)
    }

    /// The checkpoints.
    pub(super) fn open_checkpoints(&self, sealed: &[u8]) -> Result<Buffer, Unsealable> {
        self.open_plain(&self.checkpoints, Use::Checkpoints, sealed)
    }

    fn seal_plain(
        &self,
        key: &SubKey,
        use_: Use,
        nonce: &Nonce,
        plain: &[u8],
    ) -> Result<Vec<u8>, Unsealable> {
        let mut sealed = vec![0; NONCE + plain.len() + TAG];
        let (head, body) = sealed.split_at_mut_checked(NONCE).ok_or(Unsealable)?;
        head.copy_from_slice(nonce);
        body.get_mut(..plain.len()).ok_or(Unsealable)?.copy_from_slice(plain);
        seal(key, nonce, &self.context(use_, &[0; 32], &[0; TAG]), body)?;
        Ok(sealed)
    }

    fn open_plain(&self, key: &SubKey, use_: Use, sealed: &[u8]) -> Result<Buffer, Unsealable> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE>().ok_or(Unsealable)?;
        open(key, nonce, &self.context(use_, &[0; 32], &[0; TAG]), body)
    }

    /// Associated data, of one fixed length so that no two uses can ever read as each other.
    fn context(&self, use_: Use, place: &[u8; 32], bound: &[u8; TAG]) -> [u8; 66] {
        let mut context = [0; 66];
        let mut rest = &mut context[..];
        for part in [&[use_ as u8, FORMAT][..], &self.vault, place, bound] {
            if let Some((here, behind)) = std::mem::take(&mut rest).split_at_mut_checked(part.len()) {
                here.copy_from_slice(part);
                rest = behind;
            }
        }
        context
    }
}

/// Makes fingerprints with one state of their key, which is wiped on drop.
pub(super) struct Fingerprints(Prf);

impl Fingerprints {
    /// Stands for one version of one record.
    pub(super) fn of(&self, at: &RecordKey, nonce: &Nonce) -> Fingerprint {
        let mut mac = self.0.clone();
        mac.update(at);
        mac.update(nonce);
        mac.finalize().into_bytes().into()
    }
}

/// A sealed record, taken apart.
struct Parts<'a> {
    nonce: Nonce,
    label: &'a [u8],
    value: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(sealed: &'a [u8]) -> Option<Self> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let label_room = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (label, value) = rest.split_at_checked(label_room.checked_add(TAG)?)?;
        Some(Self { nonce: *nonce, label, value })
    }
}

/// The first part of a sealed record: what it says about itself, and its version. None if it is no record.
pub(super) fn label_part(sealed: &[u8]) -> Option<&[u8]> {
    let value = Parts::of(sealed)?.value;
    sealed.get(..sealed.len() - value.len())
}

/// Whether the value of a sealed record is there as well.
pub(super) fn has_value(sealed: &[u8]) -> bool {
    label_part(sealed).is_some_and(|label| label.len() < sealed.len())
}

/// The nonce of a sealed record, without opening it.
pub(super) fn nonce_of(sealed: &[u8]) -> Option<&Nonce> {
    sealed.first_chunk()
}

fn numbered(id: u64) -> [u8; 32] {
    let mut place = [0; 32];
    for (to, from) in place.iter_mut().zip(id.to_le_bytes()) {
        *to = from;
    }
    place
}

/// The size to which `length` bytes are padded: steps of 64 bytes, and of an eighth for what is larger.
pub(super) fn bucket(length: usize) -> usize {
    let step = (length.next_power_of_two() / 16).max(STEP);
    length.next_multiple_of(step).max(STEP)
}

/// Encrypts `buffer` but for its last 16 bytes, which take the tag.
pub(super) fn seal(
    key: &SubKey,
    nonce: &Nonce,
    context: &[u8],
    buffer: &mut [u8],
) -> Result<[u8; TAG], Unsealable> {
    let tag = encrypted(key, nonce, context, buffer);
    wipe_stack();
    tag
}

/// As [`seal`], for several parts in a row: whoever has sealed them all calls [`wipe_stack`].
fn encrypted(
    key: &SubKey,
    nonce: &Nonce,
    context: &[u8],
    buffer: &mut [u8],
) -> Result<[u8; TAG], Unsealable> {
    let (text, place) = buffer.split_last_chunk_mut::<TAG>().ok_or(Unsealable)?;
    let sealed = encrypt(key, nonce, context, text);
    if sealed.is_err() {
        text.zeroize();
    }
    *place = sealed?;
    Ok(*place)
}

#[inline(never)]
fn encrypt(key: &SubKey, nonce: &Nonce, context: &[u8], text: &mut [u8]) -> Result<[u8; TAG], Unsealable> {
    let cipher = XChaCha20Poly1305::new(key.expose_secret().into());
    let tag = cipher.encrypt_inout_detached(nonce.into(), context, text.into());
    tag.map(Into::into).map_err(|_| Unsealable)
}

/// Decrypts a copy of `sealed` that is wiped by whoever drops it.
pub(super) fn open(key: &SubKey, nonce: &Nonce, context: &[u8], sealed: &[u8]) -> Result<Buffer, Unsealable> {
    let plain = decrypted(key, nonce, context, sealed);
    wipe_stack();
    plain
}

fn decrypted(key: &SubKey, nonce: &Nonce, context: &[u8], sealed: &[u8]) -> Result<Buffer, Unsealable> {
    let mut plain = Buffer::default();
    decrypted_in(&mut plain, key, nonce, context, sealed).map(|()| plain)
}

/// Decrypts into the place of what `plain` held before.
fn decrypted_in(
    plain: &mut Buffer,
    key: &SubKey,
    nonce: &Nonce,
    context: &[u8],
    sealed: &[u8],
) -> Result<(), Unsealable> {
    let (text, tag) = sealed.split_last_chunk::<TAG>().ok_or(Unsealable)?;
    plain.truncate(0);
    plain.extend_from_slice(text);
    decrypt(key, nonce, context, plain.as_mut_slice(), tag)
}

#[inline(never)]
fn decrypt(
    key: &SubKey,
    nonce: &Nonce,
    context: &[u8],
    text: &mut [u8],
    tag: &[u8; TAG],
) -> Result<(), Unsealable> {
    let cipher = XChaCha20Poly1305::new(key.expose_secret().into());
    cipher.decrypt_inout_detached(nonce.into(), context, text.into(), tag.into()).map_err(|_| Unsealable)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "seal_tests.rs"]
mod tests;
