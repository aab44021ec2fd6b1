//! The vault's key as one item of the desktop's keychain: found by the vault's own attribute, made, read and removed.

use std::{collections::BTreeMap, time::Duration};

use tokio::{runtime::Builder, time::timeout};
use zbus::OwnedObjectPath;
use zeroize::Zeroizing;

use super::item::ItemTask;
use crate::desktop_keychain::{self, BusAddress, Keychain};

/// What people see in their keychain's window.
const LABEL: &str = "keychain-auth: key of the vault";
/// The whole conversation; the parent waits a little longer.
const PATIENCE: Duration = Duration::from_millis(4500);

/// Why it was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Locked,
    NoItem,
    Failed,
}

impl From<desktop_keychain::Trouble> for Trouble {
    fn from(trouble: desktop_keychain::Trouble) -> Self {
        if trouble == desktop_keychain::Trouble::Locked { Self::Locked } else { Self::Failed }
    }
}

/// Does one task. `fresh` is the secret of an item that is made.
pub(super) fn run(
    address: &BusAddress,
    task: ItemTask,
    item: &str,
    fresh: &str,
) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    let runtime =
        Builder::new_current_thread().enable_io().enable_time().build().map_err(|_| Trouble::Failed)?;
    runtime.block_on(async {
        let work = async {
            let service = KeyItem { keychain: Keychain::connect(address).await?, item };
            match task {
                ItemTask::Get => service.get().await,
                ItemTask::Make => service.make(fresh).await,
                ItemTask::Forget => service.forget().await.map(|()| Zeroizing::default()),
            }
        };
        timeout(PATIENCE, work).await.unwrap_or(Err(Trouble::Failed))
    })
}

struct KeyItem<'a> {
    keychain: Keychain,
    item: &'a str,
}

impl KeyItem<'_> {
    async fn get(&self) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let path = self.find().await?.ok_or(Trouble::NoItem)?;
        Ok(Zeroizing::new(self.keychain.secret(&path).await?))
    }

    async fn make(&self, fresh: &str) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let collection = self.keychain.collection().await?;
        let about = (LABEL, self.attributes());
        self.keychain.create(&collection, about, fresh.as_bytes(), false).await?;
        // what was really stored is what opens the vault from now on
        self.get().await
    }

    async fn forget(&self) -> Result<(), Trouble> {
        let Some(path) = self.find().await? else { return Ok(()) };
        Ok(self.keychain.delete(&path).await?)
    }

    async fn find(&self) -> Result<Option<OwnedObjectPath>, Trouble> {
        let (unlocked, locked) = self.keychain.search(&self.attributes()).await?;
        match unlocked.into_iter().next() {
            Some(path) => Ok(Some(path)),
            None if locked.is_empty() => Ok(None),
            None => Err(Trouble::Locked),
        }
    }

    fn attributes(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([("application", "keychain-auth".to_owned()), ("vault-key", self.item.to_owned())])
    }
}
