//! What can be seen of a vault without opening it: by commands that change nothing, and while somebody else holds it. Not
//! a byte of a file is written.

use std::path::Path;

use super::{
    batch::StoreError,
    disk::{self, EARLIER, VAULT_FILE},
    files::Folder,
    head::{HEAD_FILE, Head},
    key::VaultKey,
    keychain::{StoreKind, Way},
    names::NamesByService,
    scan::readers,
    seal::Sealer,
    seat::{STATE_FILE, Seat},
    slot::{KEY_FILE, Slot},
    source::KeyMaterial,
    taken::both,
    vault::missing,
};

impl Slot {
    /// Reads the slot of a data folder that somebody else may hold. None if there is no vault;
    /// [`StoreError::Missing`] where a file is gone whose partner is there.
    pub fn peek(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        let Some(folder) = Folder::existing(data_dir)? else { return Ok(None) };
        let slot = Self::load(&folder)?;
        match slot {
            None => without_key(&folder)?,
            Some(_) => without_vault(&folder).map(drop)?,
        }
        Ok(slot)
    }
}

impl StoreKind {
    /// Where the values of a vault rest, as its file says in clear, also while somebody else holds its folder: it takes no
    /// lock. None if there is no vault. Nothing is written.
    ///
    /// A file that is damaged badly enough ends the process, and so may one that is written at that moment.
    pub fn peek(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        Folder::existing(data_dir)?.map_or(Ok(None), |folder| store_kind(&folder))
    }
}

/// Refuses a folder without a key where something was sealed with one.
pub(super) fn without_key(folder: &Folder) -> Result<(), StoreError> {
    for name in [VAULT_FILE, HEAD_FILE, STATE_FILE] {
        if folder.stat(name)?.is_some() {
            return Err(missing(KEY_FILE, name));
        }
    }
    Ok(())
}

/// Whether there is a key only, as a crash leaves it while a vault is made. Refuses it where a head or the audit chain, which
/// both come after the vault, show that there was one: who removes the rest must not get an empty vault served.
pub(super) fn without_vault(folder: &Folder) -> Result<bool, StoreError> {
    if folder.stat(VAULT_FILE)?.is_some() {
        return Ok(false);
    }
    for later in [HEAD_FILE, STATE_FILE] {
        if folder.stat(later)?.is_some() {
            return Err(missing(VAULT_FILE, later));
        }
    }
    Ok(true)
}

/// Sees to it that the head, if there is one, was made with one of these keys. Where only the vault was, the head is what was
/// changed.
pub(super) fn head_fits(folder: &Folder, keys: &[&VaultKey]) -> Result<(), StoreError> {
    for key in keys {
        if Head::fits(folder, key)? {
            return Ok(());
        }
    }
    let db = disk::open_shadow(folder, true)?;
    match keys.iter().any(|key| disk::identify(&db, key).is_ok()) {
        true => Err(StoreError::Damaged("vault.head was changed, or is that of another vault")),
        false => Err(StoreError::WrongKey),
    }
}

/// Where the values of the vault rest. None if there is no vault.
///
/// The file is not checked first, which would take as long as opening it: one that is damaged badly enough ends the
/// process.
pub(super) fn store_kind(folder: &Folder) -> Result<Option<StoreKind>, StoreError> {
    if folder.stat(VAULT_FILE)?.is_none() {
        return Ok(None);
    }
    disk::store_kind(&disk::open_shadow(folder, false)?).map(Some)
}

/// Every name, by service, sorted. Everything is checked as when the vault is opened.
pub(super) fn names(
    folder: &Folder,
    slot: &Slot,
    material: &KeyMaterial,
    way: Way,
) -> Result<NamesByService, StoreError> {
    let (keys, _) = slot.open(material)?;
    if without_vault(folder)? {
        return Ok(Vec::new());
    }
    keys.fit(folder)?;
    let db = disk::open_shadow(folder, true)?;
    let (vault, key, other) = keys.identify(&db)?;
    let keys = both(&key, other.as_ref());
    let pinned = disk::store_kind(&db)?;
    // what can't be opened for writing is no ground for a dry run
    way.to(pinned)?;
    let disk = disk::load(db, &Sealer::new(&key, vault), pinned, readers())?;
    match Head::told(folder, &keys, vault)?.transpose()? {
        Some(reached) if disk.header.generation < reached => return Err(StoreError::Damaged(EARLIER)),
        None if disk.header.generation > 1 => return Err(missing(HEAD_FILE, VAULT_FILE)),
        _ => {}
    }
    if Seat::noted(folder, &keys, vault)? > disk.header.generation {
        return Err(StoreError::Damaged(EARLIER));
    }
    Ok(disk.names.all())
}
