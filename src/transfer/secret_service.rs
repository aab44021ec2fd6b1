//! Items of the user's keychain over D-Bus (org.freedesktop.Secret.Service, as GNOME Keyring, KWallet and KeePassXC offer
//! it), found by their attributes as `secret-tool search` finds them.
//!
//! Nothing is unlocked and no prompt is opened: what is locked is told. The session is a plain one: who can listen on the
//! session bus can ask the keychain itself.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    time::Duration,
};

use tokio::{runtime::Builder, time::timeout};
use zbus::OwnedObjectPath;
use zeroize::Zeroize;

use super::{Sink, TransferError};
use crate::{
    desktop_keychain::{BusAddress, Keychain, Trouble},
    import::{MAX_SECRETS, Naming, ServiceItem, TooMuch, service_item},
    name::{Service, TargetPrefix},
    secret::Buffer,
};

/// Longest wait for one answer. A keychain with thousands of items takes its time to search them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Imports every item that has all of these attributes. `address` is that of the session bus.
pub fn secret_service(
    address: &BusAddress,
    attributes: &BTreeMap<String, String>,
    naming: &Naming,
    service: &Service,
    prefix: Option<&TargetPrefix>,
    sink: Sink<'_>,
) -> Result<(), TransferError> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| TransferError::Keychain(error.kind().to_string()))?;
    runtime.block_on(async {
        let keychain = within(Keychain::connect(address)).await?;
        let (mut found, locked) = search(&keychain, attributes).await?;
        let open = found.len();
        found.extend(locked);
        if found.len() > MAX_SECRETS {
            return Err(TooMuch.into());
        }
        for (index, path) in found.iter().enumerate() {
            let (label, attributes) = about(&keychain, path).await?;
            let secret = if index < open { Some(secret(&keychain, path).await?) } else { None };
            let item = ServiceItem { label, attributes, secret };
            sink(service_item(item, naming, service, prefix))?;
        }
        Ok(())
    })
}

/// The items that are unlocked, and those that are not.
async fn search(
    keychain: &Keychain,
    attributes: &BTreeMap<String, String>,
) -> Result<(Vec<OwnedObjectPath>, Vec<OwnedObjectPath>), TransferError> {
    let (mut unlocked, mut locked) = within(keychain.search(attributes)).await?;
    // the second of two equal names is refused: which one that is must not change from call to call
    unlocked.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    locked.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    Ok((unlocked, locked))
}

async fn about(
    keychain: &Keychain,
    item: &OwnedObjectPath,
) -> Result<(String, Vec<(String, String)>), TransferError> {
    let mut properties = within(keychain.properties(item)).await?;
    let label = properties.remove("Label").and_then(|label| String::try_from(label).ok());
    let attributes = properties.remove("Attributes");
    let attributes = attributes.and_then(|all| HashMap::<String, String>::try_from(all).ok());
    let mut attributes: Vec<_> = attributes.unwrap_or_default().into_iter().collect();
    attributes.sort();
    Ok((label.unwrap_or_default(), attributes))
}

async fn secret(keychain: &Keychain, item: &OwnedObjectPath) -> Result<Buffer, TransferError> {
    let mut value = within(keychain.secret(item)).await?;
    let secret = Buffer::from(value.as_slice());
    value.as_mut_slice().zeroize();
    Ok(secret)
}

/// No wait without an end.
async fn within<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, TransferError> {
    let said = match timeout(PATIENCE, work).await {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(Trouble::Unclear)) => "it said something that is not understood".to_owned(),
        Ok(Err(named)) => named.to_string(),
        Err(_) => "it does not answer in time".to_owned(),
    };
    Err(TransferError::Keychain(said))
}
