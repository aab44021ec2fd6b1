//! The data folder, taken for this process: the step between a closed vault and an open one.

use std::{iter, path::Path, sync::atomic::Ordering};

use redb::Database;

use super::{
    batch::{RenderRecord, StoreError},
    disk,
    files::Folder,
    head::Head,
    key::VaultKey,
    keychain::{Keychain, StoreKind, Way},
    look,
    names::NamesByService,
    owned::{OwnedSalvage, OwnedVault},
    rekey::{self, Progress},
    salvage::Salvage,
    seal::VaultId,
    seat::Seat,
    slot::{Slot, SlotKeys},
    source::{KeyMaterial, KeySource, WrappingKey},
    vault::Vault,
    verify::{self, Findings},
};

/// A data folder that no other process can open a vault in, with what its `vault.key` says. Its key is not known yet.
pub struct Taken {
    folder: Folder,
    slot: Option<Slot>,
    way: Way,
}

impl Taken {
    /// Takes the folder, making it (0700) if it is not there. [`StoreError::InUse`] while a daemon or a command has it.
    pub fn take(data_dir: &Path) -> Result<Self, StoreError> {
        Self::of(Folder::open(data_dir)?)
    }

    /// As [`take`](Self::take), and [`StoreError::Absent`] where there is no folder: nothing is made.
    pub fn existing(data_dir: &Path) -> Result<Self, StoreError> {
        Self::of(Folder::existing(data_dir)?.ok_or(StoreError::Absent)?)
    }

    fn of(folder: Folder) -> Result<Self, StoreError> {
        folder.lock()?;
        let slot = Slot::load(&folder)?;
        Ok(Self { folder, slot, way: Way::OwnFile })
    }

    /// As [`StoreKind::peek`], while nobody else can change the file.
    pub fn store_kind(&self) -> Result<Option<StoreKind>, StoreError> {
        look::store_kind(&self.folder)
    }

    /// Every name that is there, by service, sorted, for who only looks: nothing is written, so it leaves no line.
    pub fn names(&self, material: &KeyMaterial) -> Result<NamesByService, StoreError> {
        self.source()?;
        let slot = self.slot.as_ref().ok_or(StoreError::Absent)?;
        look::names(&self.folder, slot, material, self.way.clone())
    }

    /// Opens, or makes, a vault whose values rest in the user's keychain. A vault that was made the other way is
    /// [`StoreError::OtherStore`].
    pub fn in_keychain(self, keychain: Keychain) -> Self {
        Self { way: Way::Items(keychain), ..self }
    }

    /// Opens a vault of either kind: one whose values rest in the user's keychain with this one.
    pub fn reaching(self, keychain: Keychain) -> Self {
        Self { way: Way::Either(keychain), ..self }
    }

    /// What `vault.key` says; None if there is none.
    pub fn slot(&self) -> Option<&Slot> {
        self.slot.as_ref()
    }

    /// Where the key comes from. [`StoreError::Absent`] where there is no vault and no file of one;
    /// [`StoreError::Missing`] where only the key is gone.
    pub fn source(&self) -> Result<KeySource, StoreError> {
        match &self.slot {
            Some(slot) => Ok(slot.source()),
            None => look::without_key(&self.folder).and(Err(StoreError::Absent)),
        }
    }

    /// Opens the vault. Everything in it is checked; see [`StoreError`] for what can be wrong.
    pub fn open(self, material: &KeyMaterial) -> Result<Vault, StoreError> {
        self.source()?;
        let Some(slot) = &self.slot else { return Err(StoreError::Absent) };
        Vault::open_in(self.folder, slot, material, self.way)
    }

    /// Makes key and vault, with the key wrapped under what `material` holds. The key is random in any case.
    ///
    /// Never beside a vault or head that was made with another key.
    pub fn create(self, material: &KeyMaterial) -> Result<Vault, StoreError> {
        if let Some(slot) = &self.slot {
            return Err(StoreError::Exists(slot.source()));
        }
        look::without_key(&self.folder)?;
        let key = VaultKey::generate().map_err(|error| StoreError::Io(error.to_string()))?;
        let (slot, _) = Slot::seal(material, &SlotKeys { current: key, next: None })?;
        slot.create(&self.folder)?;
        Vault::open_in(self.folder, &slot, material, self.way)
    }

    /// Opens the vault for its owner, who has the key and asks no daemon.
    pub fn open_owned(self, material: &KeyMaterial) -> Result<OwnedVault, StoreError> {
        self.open(material).map(OwnedVault::new)
    }

    /// Whether `material` opens the slot. Nothing is opened.
    pub fn try_key(&self, material: &KeyMaterial) -> Result<(), StoreError> {
        let slot = self.slot.as_ref().ok_or(StoreError::Absent)?;
        slot.open(material).map(drop)
    }

    /// Opens what is intact of a damaged vault, for reading only. Nothing of it is written.
    pub fn salvage(self, material: &KeyMaterial) -> Result<Salvage, StoreError> {
        self.source()?;
        let slot = self.slot.as_ref().ok_or(StoreError::Absent)?;
        Salvage::open(self.folder, slot, material)
    }

    /// As [`salvage`](Self::salvage), for the vault's owner.
    pub fn salvage_owned(self, material: &KeyMaterial) -> Result<OwnedSalvage, StoreError> {
        self.salvage(material).map(OwnedSalvage::new)
    }

    /// Whether [`Taken::salvage`] would succeed, without taking the folder.
    pub fn try_salvage(&self, material: &KeyMaterial) -> Result<(), StoreError> {
        self.source()?;
        let slot = self.slot.as_ref().ok_or(StoreError::Absent)?;
        Salvage::open(self.folder.try_clone()?, slot, material).map(drop)
    }

    /// Tries everything in the vault, and writes nothing. An error only where nothing can be tried.
    pub fn verify(&self, material: &KeyMaterial, progress: Progress<'_>) -> Result<Findings, StoreError> {
        self.source()?;
        let slot = self.slot.as_ref().ok_or(StoreError::Absent)?;
        verify::verify(&self.folder, slot, material, &self.way, progress)
    }

    /// Gives the vault another random key, and seals everything in it anew, in one transaction. Whatever moment this is
    /// interrupted at, the next opening finds the vault whole, with exactly one key that opens it.
    ///
    /// Values that rest in the keychain are in the vault's file after that, and wait to be
    /// [carried](OwnedVault::carry) there again.
    ///
    /// No process may hold the audit log meanwhile. `record` is the audit line of it.
    pub fn rekey(
        self,
        material: &KeyMaterial,
        record: RenderRecord,
        progress: Progress<'_>,
    ) -> Result<OwnedVault, StoreError> {
        self.source()?;
        rekey::rekey(self.folder, self.way, material, record, progress)
    }

    /// Gives the vault's key another source, or the same one with another secret. The slot is replaced as a whole.
    pub fn change_source(
        self,
        old: &KeyMaterial,
        new: &KeyMaterial,
        record: RenderRecord,
    ) -> Result<OwnedVault, StoreError> {
        self.source()?;
        rekey::change_source(self.folder, self.way, old, new, record)
    }
}

impl SlotKeys {
    /// Sees to it that the head, if there is one, was made with one of the keys.
    pub(super) fn fit(&self, folder: &Folder) -> Result<(), StoreError> {
        look::head_fits(folder, &both(&self.current, self.next.as_ref()))
    }

    /// Which vault it is, the one of the keys that it has, and the other one, while a change of keys is not finished.
    pub(super) fn identify(self, db: &Database) -> Result<(VaultId, VaultKey, Option<VaultKey>), StoreError> {
        match (disk::identify(db, &self.current), self.next) {
            (Err(StoreError::WrongKey), Some(next)) => {
                Ok((disk::identify(db, &next)?, next, Some(self.current)))
            }
            (vault, next) => Ok((vault?, self.current, next)),
        }
    }

    /// Which vault it is, and its key. Where a crash came in the middle of a change of keys, head and slot follow the
    /// vault now: its commit is what decided.
    pub(super) fn settle(
        self,
        db: &Database,
        folder: &Folder,
        slot: &Slot,
        wrapping: Option<&WrappingKey>,
    ) -> Result<(VaultId, VaultKey), StoreError> {
        let (vault, key, other) = self.identify(db)?;
        let Some(other) = other else { return Ok((vault, key)) };
        carry_seat(folder, &other, &key, vault)?;
        if !Head::fits(folder, &key)?
            && let Some(head) = Head::find(folder, &other, vault)?
        {
            Head::replace(folder, &key, vault, head.generation()?)?;
        }
        let keys = Self { current: key, next: None };
        slot.reseal(wrapping, &keys)?.replace(folder)?;
        Ok((vault, keys.current))
    }
}

/// The keys that what lies beside the vault may be under: the vault's own first.
pub(super) fn both<'k>(key: &'k VaultKey, other: Option<&'k VaultKey>) -> Vec<&'k VaultKey> {
    iter::once(key).chain(other).collect()
}

/// Seals the state of the audit chain under the key that the vault has now, if it lies under the other.
fn carry_seat(folder: &Folder, other: &VaultKey, key: &VaultKey, vault: VaultId) -> Result<(), StoreError> {
    let seat = |key: &VaultKey| Seat::open(folder, key.derive("audit state", &vault), vault);
    let (mut ours, mut theirs) = (seat(key)?, seat(other)?);
    if let Err(_unreadable) = ours.load()
        && let Ok(Some(epoch)) = theirs.load()
    {
        ours.counter().store(theirs.generation(), Ordering::Release);
        ours.save(&epoch).map_err(|error| StoreError::Io(error.to_string()))?;
    }
    Ok(())
}
