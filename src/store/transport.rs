//! What travels between the daemon and whoever has the vault's key: 32 bytes, sealed under a key that both make from the
//! vault key one way, and bound to what they are and to a nonce of the other side. A process that takes the daemon's
//! place, or listens, learns nothing from it, and what it hears counts for nothing a second time.

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use secrecy::ExposeSecret;

use super::{
    batch::StoreError,
    disk,
    key::{KEY_BYTES, SubKey, VaultKey},
    seal::{NONCE, TAG},
    slot::Slot,
    source::KeyMaterial,
};
use crate::secret::Buffer;

/// Bytes on their way: nonce, content, tag.
pub const CARRIED: usize = NONCE + KEY_BYTES + TAG;

/// What the content is.
#[derive(Clone, Copy)]
pub(super) enum Content {
    /// The vault key, for a locked daemon.
    Key,
    /// The seal of the policy that shall be, for the daemon.
    NewSeal,
    /// The seal of the policy that is, from the daemon.
    CurrentSeal,
}

/// The key under which it travels. Nothing of the vault key can be told from it.
pub(super) struct Transport(SubKey);

impl Transport {
    pub(super) fn of(key: &VaultKey) -> Self {
        Self(key.derive("unlock transport", b""))
    }

    /// The same again, for whoever goes on when its owner is gone.
    pub(super) fn again(&self) -> Self {
        Self(self.0.again())
    }

    pub(super) fn seal(
        &self,
        what: Content,
        nonce: &[u8; 32],
        content: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let failed = || StoreError::Io("sealing failed".to_owned());
        let mut carried = vec![0; CARRIED];
        let (place, body) = carried.split_first_chunk_mut::<NONCE>().ok_or_else(failed)?;
        *place = disk::nonce()?;
        let (text, tag) = body.split_last_chunk_mut::<TAG>().ok_or_else(failed)?;
        if text.len() != content.len() {
            return Err(failed());
        }
        text.copy_from_slice(content);
        *tag = XChaCha20Poly1305::new(self.0.expose_secret().into())
            .encrypt_inout_detached((&*place).into(), &context(what, nonce), (&mut *text).into())
            .map_err(|_| failed())?
            .into();
        Ok(carried)
    }

    pub(super) fn open(&self, what: Content, nonce: &[u8; 32], carried: &[u8]) -> Result<Buffer, StoreError> {
        let (place, body) = carried.split_first_chunk::<NONCE>().ok_or(StoreError::WrongKey)?;
        let (text, tag) = body.split_last_chunk::<TAG>().ok_or(StoreError::WrongKey)?;
        let mut content = Buffer::from(text);
        XChaCha20Poly1305::new(self.0.expose_secret().into())
            .decrypt_inout_detached(
                place.into(),
                &context(what, nonce),
                content.as_mut_slice().into(),
                tag.into(),
            )
            .map_err(|_| StoreError::WrongKey)?;
        Ok(content)
    }
}

/// Associated data, of one fixed length: what it is, and the nonce of the other side.
fn context(what: Content, nonce: &[u8; 32]) -> [u8; 33] {
    let number = match what {
        Content::Key => 1,
        Content::NewSeal => 2,
        Content::CurrentSeal => 3,
    };
    let mut context = [number; 33];
    for (to, from) in context.iter_mut().skip(1).zip(nonce) {
        *to = *from;
    }
    context
}

/// SHA-256 of the config.json that is accepted; zeros where any is.
pub type PolicySeal = [u8; 32];

/// Whoever could open the vault: speaks to the daemon as one who has its key.
pub struct KeyHolder {
    key: VaultKey,
    transport: Transport,
}

impl KeyHolder {
    /// Opens the slot with what its source gave.
    pub fn new(slot: &Slot, material: &KeyMaterial) -> Result<Self, StoreError> {
        let (keys, _) = slot.open(material)?;
        let transport = Transport::of(&keys.current);
        Ok(Self { key: keys.current, transport })
    }

    /// The vault key, sealed for a locked daemon that gave this nonce.
    pub fn carry_key(&self, nonce: &[u8; 32]) -> Result<Vec<u8>, StoreError> {
        self.transport.seal(Content::Key, nonce, self.key.bytes())
    }

    /// A seal for the policy, for a daemon that gave this nonce.
    pub fn carry_seal(&self, nonce: &[u8; 32], seal: &PolicySeal) -> Result<Vec<u8>, StoreError> {
        self.transport.seal(Content::NewSeal, nonce, seal)
    }

    /// The seal that the daemon has, in its answer to this nonce of ours. An error if another process made the answer.
    pub fn open_seal(&self, nonce: &[u8; 32], carried: &[u8]) -> Result<PolicySeal, StoreError> {
        let content = self.transport.open(Content::CurrentSeal, nonce, carried)?;
        content.as_slice().try_into().map_err(|_| StoreError::WrongKey)
    }
}
