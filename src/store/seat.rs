//! `audit.state`: where the key of the audit chain's current epoch rests, sealed under a sub-key of the vault key.
//!
//! Not in the vault: redb never overwrites a page, so every old key would survive there. This file has one size for
//! ever and is overwritten in place, in two slots: the new epoch goes into one, and when the disk has it, into the other
//! one too, so that a power failure leaves a whole slot and nothing of the old key is left in the file.
//!
//! It stays open while the vault is locked: also then every request has its record.
//!
//! With each epoch it notes how many commits the vault had seen: a vault that is put back together with its head, to how
//! they were before this epoch, is behind it.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering},
};

use rustix::fs::OFlags;

use super::{
    disk::nonce,
    files::{FileError, Folder},
    key::{SubKey, VaultKey},
    seal::{NONCE, TAG, VaultId, open, seal},
    sync::AtomicU64,
};
use crate::{
    chain::{Epoch, Head, Ratchet},
    secret::Buffer,
};

/// Name of the file in the data folder.
pub(crate) const STATE_FILE: &str = "audit.state";
/// Turn, generation, time, number of an earlier record, key and head.
const PLAIN: usize = 8 + 8 + 8 + 8 + 32 + Head::BYTES;
const SLOT: usize = NONCE + PLAIN + TAG;
/// Slots lie in pages of their own: no write of one can tear the other.
const PLACES: [u64; 2] = [0, 4096];

/// The place of the audit chain's key.
pub struct Seat(Option<Place>);

struct Place {
    file: File,
    key: SubKey,
    vault: VaultId,
    /// How often it was written; the higher of two slots counts.
    turn: u64,
    /// How many commits the vault has seen, at least.
    generation: Arc<AtomicU64>,
}

/// The state is there and can't be used: it was changed, or belongs to another vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("audit.state can't be read with the key of this vault")]
pub struct Unreadable;

impl Seat {
    /// A seat that keeps nothing: every log that is opened with it begins a chain of its own. For models and tests.
    pub fn nowhere() -> Self {
        Self(None)
    }

    /// Opens the file, or makes an empty one.
    pub(super) fn open(folder: &Folder, key: SubKey, vault: VaultId) -> Result<Self, FileError> {
        let file = match folder.find(STATE_FILE, OFlags::empty())? {
            Some(file) => file,
            None => {
                let file = folder.create(STATE_FILE, OFlags::empty())?;
                folder.sync()?;
                file
            }
        };
        Ok(Self(Some(Place { file, key, vault, turn: 0, generation: Arc::default() })))
    }

    /// How many commits the vault had seen when an epoch was saved last, as far as it was loaded here.
    pub(super) fn generation(&self) -> u64 {
        self.0.as_ref().map_or(0, |place| place.generation.load(Ordering::Acquire))
    }

    /// Where the vault says how many there are by now. It never says fewer than before.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        self.0.as_ref().map(|place| Arc::clone(&place.generation)).unwrap_or_default()
    }

    /// As [`Seat::generation`], of a file that is only looked at, and lies under one of these keys. 0 where there is none
    /// that can be read.
    pub(super) fn noted(folder: &Folder, keys: &[&VaultKey], vault: VaultId) -> Result<u64, FileError> {
        if folder.stat(STATE_FILE)?.is_none() {
            return Ok(0);
        }
        let mut noted = 0;
        for key in keys {
            let mut seat = Self::open(folder, key.derive("audit state", &vault), vault)?;
            noted = noted.max(seat.load().map_or(0, |_| seat.generation()));
        }
        Ok(noted)
    }

    /// The epoch that was saved last. None where none ever was.
    pub fn load(&mut self) -> Result<Option<Epoch>, Unreadable> {
        let Some(place) = &mut self.0 else { return Ok(None) };
        let empty = place.file.metadata().is_ok_and(|file| file.len() == 0);
        let mut found: Option<(u64, u64, Epoch)> = None;
        for at in PLACES {
            let mut slot = [0; SLOT];
            let read = place.file.read_exact_at(&mut slot, at);
            let epoch = read.ok().and_then(|()| place.unsealed(&slot));
            if let Some((turn, generation, epoch)) = epoch
                && found.as_ref().is_none_or(|(other, ..)| turn > *other)
            {
                found = Some((turn, generation, epoch));
            }
        }
        match found {
            Some((turn, generation, epoch)) => {
                place.turn = turn;
                place.generation.fetch_max(generation, Ordering::AcqRel);
                Ok(Some(epoch))
            }
            None if empty => Ok(None),
            None => Err(Unreadable),
        }
    }

    /// Saves an epoch over the one before. Nothing of the one before is left in the file when this returns.
    ///
    /// After an error either of them may be there: who loads can go from the earlier to the later.
    pub fn save(&mut self, epoch: &Epoch) -> io::Result<()> {
        let Some(place) = &mut self.0 else { return Ok(()) };
        place.turn += 1;
        let slot = place.sealed(epoch)?;
        let first = usize::from(place.turn % 2 == 1);
        for at in [PLACES.get(first), PLACES.get(1 - first)].into_iter().flatten() {
            place.file.write_all_at(&slot, *at)?;
            place.file.sync_data()?;
        }
        Ok(())
    }
}

impl Place {
    fn context(&self) -> Vec<u8> {
        [b"audit state\0".as_slice(), &self.vault].concat()
    }

    fn sealed(&self, epoch: &Epoch) -> io::Result<Vec<u8>> {
        let mut slot = Buffer::with_capacity(SLOT);
        let nonce = nonce().map_err(io::Error::other)?;
        for part in [
            nonce.as_slice(),
            &self.turn.to_le_bytes(),
            &self.generation.load(Ordering::Acquire).to_le_bytes(),
            &epoch.began.to_le_bytes(),
            &epoch.previous.to_le_bytes(),
            epoch.ratchet.expose(),
            &epoch.before.to_bytes(),
            &[0; TAG],
        ] {
            slot.extend_from_slice(part);
        }
        let text = slot.as_mut_slice().get_mut(NONCE..).unwrap_or_default();
        seal(&self.key, &nonce, &self.context(), text).map_err(|_| io::Error::other("sealing failed"))?;
        Ok(slot.as_slice().to_vec())
    }

    fn unsealed(&self, slot: &[u8]) -> Option<(u64, u64, Epoch)> {
        let (nonce, sealed) = slot.split_first_chunk::<NONCE>()?;
        let plain = open(&self.key, nonce, &self.context(), sealed).ok()?;
        let (turn, rest) = plain.as_slice().split_first_chunk()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (began, rest) = rest.split_first_chunk()?;
        let (previous, rest) = rest.split_first_chunk()?;
        let (key, head) = rest.split_at_checked(32)?;
        let epoch = Epoch {
            ratchet: Ratchet::from_sealed(key)?,
            before: Head::from_bytes(head)?,
            previous: u64::from_le_bytes(*previous),
            began: i64::from_le_bytes(*began),
        };
        Some((u64::from_le_bytes(*turn), u64::from_le_bytes(*generation), epoch))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
pub(crate) mod tests {
    use std::fs;

    use super::*;
    use crate::{chain::VerificationKey, store::files::scratch};

    /// The seat in a folder, under a key that every test has.
    pub(crate) fn seat(folder: &std::path::Path) -> Seat {
        let key = VaultKey::from_buffer(Buffer::zeroed(32)).unwrap();
        Seat::open(&Folder::open(folder).unwrap(), key.derive("audit state", &[7; 16]), [7; 16]).unwrap()
    }

    pub(crate) fn epoch(number: u64) -> Epoch {
        let ratchet = (0..number).fold(VerificationKey::generate().unwrap().first(), |key, _| key.next());
        let before = Head { epoch: number, seq: number * 10, ..Head::default() };
        Epoch { ratchet, before, previous: number, began: 5 }
    }

    #[test]
    fn the_last_epoch_is_loaded_and_no_key_of_an_earlier_one_is_left() {
        let dir = scratch();
        let path = dir.path().join(STATE_FILE);
        assert!(seat(dir.path()).load().unwrap().is_none());
        let mut slots = Vec::new();
        for number in 0..4 {
            let (mut seat, epoch) = (seat(dir.path()), epoch(number));
            seat.load().unwrap();
            seat.save(&epoch).unwrap();
            let loaded = seat.load().unwrap().unwrap();
            assert_eq!(loaded.ratchet.expose(), epoch.ratchet.expose());
            assert_eq!((loaded.before, loaded.began), (epoch.before, 5));
            let bytes = fs::read(&path).unwrap();
            assert_eq!(bytes[..SLOT], bytes[4096..4096 + SLOT], "both slots hold the new one");
            assert!(slots.iter().all(|old: &Vec<u8>| !bytes.windows(SLOT).any(|window| window == old)));
            slots.push(bytes[..SLOT].to_vec());
        }
    }

    #[test]
    fn a_torn_slot_leaves_the_other_and_two_changed_ones_are_unreadable() {
        let dir = scratch();
        let path = dir.path().join(STATE_FILE);
        let first = epoch(1);
        seat(dir.path()).save(&first).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        for at in [9, 4096 + 9] {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            fs::write(&path, &torn).unwrap();
            assert_eq!(seat(dir.path()).load().unwrap().unwrap().before, first.before);
        }
        bytes[9] ^= 1;
        bytes[4096 + 9] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(seat(dir.path()).load().is_err());
        fs::write(&path, b"short").unwrap();
        assert!(seat(dir.path()).load().is_err());
    }
}
