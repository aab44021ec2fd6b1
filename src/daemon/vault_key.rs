//! Which key opens the vault at start, and how a vault gets its first one.

use std::{ffi::OsString, os::fd::AsFd, path::Path};

use tracing::dispatcher::{self, Dispatch};

use crate::{
    keys::{Asking, KeyError, forget_item},
    store::{KeyMaterial, KeySource, Keychain, Lockable, Salvage, StoreError, Taken, Vault},
    sys::trial,
};

use super::start::{Opening, StartError, system};

/// The vault, unlocked with the key of its source; or what is intact of it, where only that was asked for.
pub(super) fn open_store(
    data_dir: &Path,
    keychain: Option<Keychain>,
    opening: &Opening,
    var: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Lockable, StartError> {
    let asking = Asking { var, passphrase: opening.passphrase.as_ref().map(AsFd::as_fd) };
    if opening.salvage {
        let salvaged = salvage(data_dir, opening.source, &asking).map_err(StartError::of_salvage)?;
        return Ok(Lockable::salvaged(salvaged)?);
    }
    match open(data_dir, keychain, opening.source, &asking) {
        // nobody asked for a store, so that nobody can be told to ask for none
        Err(StartError::Store(StoreError::OtherStore { .. })) if opening.store.is_none() => {
            Err(StartError::Changed)
        }
        opened => Ok(Lockable::new(opened?)?),
    }
}

/// Opens the vault of the data folder, or makes it with a key from the source that was asked for, else from the first one
/// that is there. With a `keychain`, its secrets rest there. A vault that exists is never replaced because its source does not answer.
fn open(
    data_dir: &Path,
    keychain: Option<Keychain>,
    asked: Option<KeySource>,
    asking: &Asking<'_>,
) -> Result<Vault, StartError> {
    let mut taken = Taken::take(data_dir)?;
    if let Some(keychain) = keychain {
        taken = taken.in_keychain(keychain);
    }
    if let Some(slot) = taken.slot() {
        let pinned = slot.source();
        if let Some(asked) = asked.filter(|asked| *asked != pinned) {
            return Err(StoreError::OtherSource { pinned, asked }.into());
        }
        let material = asking.for_slot(slot)?;
        return Ok(taken.open(&material)?);
    }
    if let Err(error @ StoreError::Missing { .. }) = taken.source() {
        return Err(error.into());
    }
    let material = match asked {
        Some(source) => asking.for_new(source)?,
        None => asking.automatic()?,
    };
    create(taken, &material)
}

/// Opens what is intact of the vault, for reading only. None is made where there is none.
fn salvage(data_dir: &Path, asked: Option<KeySource>, asking: &Asking<'_>) -> Result<Salvage, StartError> {
    let taken = Taken::take(data_dir)?;
    let pinned = taken.source()?;
    if let Some(asked) = asked.filter(|asked| *asked != pinned) {
        return Err(StoreError::OtherSource { pinned, asked }.into());
    }
    let slot = taken.slot().ok_or(StoreError::Absent)?;
    let material = asking.for_slot(slot)?;
    survives(&taken, &material)?;
    Ok(taken.salvage(&material)?)
}

/// Tries to salvage in a child first: what is damaged badly enough ends it.
pub(crate) fn survives(taken: &Taken, material: &KeyMaterial) -> Result<(), StartError> {
    let survived = trial::in_child(|_| {
        // an error is told by the parent, who meets the same
        drop(dispatcher::with_default(&Dispatch::none(), || taken.try_salvage(material)));
        Some(b"survived".to_vec())
    });
    let survived = survived.map_err(system("a process"))?;
    if survived.is_empty() {
        return Err(StoreError::Damaged(StoreError::PAGES_LOST).into());
    }
    Ok(())
}

fn create(taken: Taken, material: &KeyMaterial) -> Result<Vault, StartError> {
    let made = taken.create(material);
    if let (Err(_), KeyMaterial::Keychain(item, _)) = (&made, material) {
        // nothing was made that it would open
        let _ = forget_item(*item);
    }
    let vault = made?;
    tracing::info!(
        "made a vault; its key comes from the source {}: {}",
        material.source(),
        material.source().means()
    );
    Ok(vault)
}

impl From<KeyError> for StartError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Store(error) => Self::Store(error),
            error => Self::Key(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{daemon::AuditSettings, store::StoreKind};

    /// Where the secrets rest is looked at before the vault is opened: a command may make one, or put another in its place,
    /// in between. Whoever named no store is not told that he named the wrong one.
    #[test]
    fn a_vault_of_another_kind_than_was_seen_a_moment_ago_is_not_opened_and_said_to_have_changed() {
        for made in [StoreKind::Vault, StoreKind::Keychain] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
            let keychain = |wanted| (wanted == StoreKind::Keychain).then(Keychain::unasked);
            let taken = Taken::take(dir.path()).unwrap();
            let taken = match keychain(made) {
                Some(keychain) => taken.in_keychain(keychain),
                None => taken,
            };
            taken.create(&KeyMaterial::File).unwrap().close().unwrap();
            let seen = if made == StoreKind::Vault { StoreKind::Keychain } else { StoreKind::Vault };
            let opened = |store| loop {
                let opening = Opening {
                    store,
                    source: None,
                    passphrase: None,
                    salvage: false,
                    audit: AuditSettings::default(),
                };
                match open_store(dir.path(), keychain(seen), &opening, &|_| None) {
                    // a child of another test has the lock for a moment
                    Err(StartError::Store(StoreError::InUse)) => std::thread::yield_now(),
                    opened => return opened.err(),
                }
            };
            assert!(matches!(opened(None), Some(StartError::Changed)), "{made}");
            let named = opened(Some(seen));
            assert!(matches!(named, Some(StartError::Store(StoreError::OtherStore { .. }))), "{named:?}");
        }
    }
}
