//! Where the secrets rest: asked of the vault before it is opened, since the process that speaks to the keychain has to be
//! there before anything is open.

use std::{io, path::Path};

use super::start::{Opening, StartError, system};
use crate::{
    store::{StoreError, StoreKind, Taken},
    sys::{process, trial},
};

/// There is no vault.
const NONE: &str = "none";
/// Somebody else works on the vault.
const IN_USE: &str = "in use";

/// Where the secrets rest, or will.
pub(super) struct Chosen {
    pub(super) kind: StoreKind,
    /// Whether a vault is there that says so.
    pinned: bool,
}

impl Chosen {
    /// The error of a start, with the way that is left where the vault is damaged: only one that is known to keep its values
    /// itself can be salvaged.
    pub(super) fn salvageable(&self, error: StartError) -> StartError {
        match error {
            StartError::Store(error)
                if self.pinned && self.kind == StoreKind::Vault && error.may_leave_something() =>
            {
                StartError::Salvageable(error)
            }
            error => error,
        }
    }
}

/// Whether something can be read of a vault that could not be opened for this reason: only one that is known to keep its
/// values itself can be salvaged.
pub(crate) fn salvageable(data_dir: &Path, error: &StoreError) -> bool {
    error.may_leave_something() && matches!(pinned(data_dir), Ok(Some(StoreKind::Vault)))
}

/// The kind that a vault is pinned to, else the one that was asked for, else the vault's own file. A vault that is pinned to
/// another one than was asked for is an error that names both; one whose values rest in the keychain is not salvaged.
pub(super) fn choose(data_dir: &Path, opening: &Opening) -> Result<Chosen, StartError> {
    match (pinned(data_dir)?, opening.store) {
        (Some(pinned @ StoreKind::Keychain), _) if opening.salvage => {
            Err(StartError::Unsalvageable(StoreError::OtherStore { pinned, asked: StoreKind::Vault }))
        }
        (Some(pinned), Some(asked)) if pinned != asked => {
            Err(StoreError::OtherStore { pinned, asked }.into())
        }
        (Some(kind), _) => Ok(Chosen { kind, pinned: true }),
        (None, asked) => Ok(Chosen { kind: asked.unwrap_or(StoreKind::Vault), pinned: false }),
    }
}

/// None where there is no vault, and where nothing can be read from it although nobody else has it: then the opening says
/// why.
///
/// Looked at without the folder's lock first, which a command may hold for a moment, or want: only what is written just now
/// is looked at a second time, with the lock.
fn pinned(data_dir: &Path) -> Result<Option<StoreKind>, StartError> {
    let found = look(|| StoreKind::peek(data_dir)).and_then(|found| match found {
        Found::Nothing => look(|| Taken::existing(data_dir)?.store_kind()),
        found => Ok(found),
    });
    match found.map_err(system("a child"))? {
        Found::Kind(kind) => Ok(Some(kind)),
        Found::NoVault | Found::Nothing => Ok(None),
        Found::InUse => Err(StoreError::InUse.into()),
    }
}

/// What a child found.
enum Found {
    Kind(StoreKind),
    NoVault,
    InUse,
    /// It could not read the vault, or has ended over it.
    Nothing,
}

/// Looks in a child of its own, which ends over what is damaged badly enough.
fn look(at: impl FnOnce() -> Result<Option<StoreKind>, StoreError>) -> io::Result<Found> {
    let said = trial::in_child(|channel| {
        process::close_all_but(&[channel]).ok()?;
        let word = match at() {
            Ok(Some(kind)) => kind.as_str(),
            Ok(None) => NONE,
            Err(StoreError::InUse) => IN_USE,
            Err(_) => return None,
        };
        Some(word.as_bytes().to_vec())
    })?;
    Ok(match str::from_utf8(&said) {
        Ok(NONE) => Found::NoVault,
        Ok(IN_USE) => Found::InUse,
        Ok(word) => word.parse().map_or(Found::Nothing, Found::Kind),
        Err(_) => Found::Nothing,
    })
}
