//! Which key opens the vault at start, and how a vault gets its first one.

use std::path::Path;

use crate::{
    keys::{Asking, KeyError, forget_item},
    store::{KeyMaterial, KeySource, Keychain, StoreError, Taken, Vault},
};

use super::start::StartError;

/// Opens the vault of the data folder, or makes it with a key from the source that was asked for, else from the first one
/// that is there. With a `keychain`, its secrets rest there. A vault that exists is never replaced because its source does not answer.
pub(super) fn open(
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
    if let Err(error @ StoreError::Missing(_)) = taken.source() {
        return Err(error.into());
    }
    let material = match asked {
        Some(source) => asking.for_new(source)?,
        None => asking.automatic()?,
    };
    create(taken, &material)
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
