//! Items of the user's keychain over D-Bus (org.freedesktop.Secret.Service, as GNOME Keyring, KWallet and KeePassXC offer
//! it), found by their attributes as `secret-tool search` finds them.
//!
//! Nothing is unlocked and no prompt is opened: what is locked is told. The session is a plain one: who can listen on the
//! session bus can ask the keychain itself.

use std::{collections::BTreeMap, collections::HashMap, future::Future, time::Duration};

use tokio::{runtime::Builder, time::timeout};
use zbus::{Connection, DynamicType, Message, OwnedObjectPath, OwnedVariant, Variant, connection};
use zeroize::Zeroize;

use super::{Sink, TransferError};
use crate::{
    import::{MAX_SECRETS, Naming, ServiceItem, TooMuch, service_item},
    name::{Service, TargetPrefix},
    secret::Buffer,
};

const SERVICE: &str = "org.freedesktop.secrets";
const ROOT: &str = "/org/freedesktop/secrets";
const ITEM: &str = "org.freedesktop.Secret.Item";
/// Longest wait for one answer. A keychain with thousands of items takes its time to search them.
const PATIENCE: Duration = Duration::from_secs(30);

/// A secret as it travels: session, parameters, value, content type.
type Secret = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

/// Imports every item that has all of these attributes. `address` is that of the session bus.
pub fn secret_service(
    address: &str,
    attributes: &BTreeMap<String, String>,
    naming: &Naming,
    service: &Service,
    prefix: Option<&TargetPrefix>,
    sink: Sink<'_>,
) -> Result<(), TransferError> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| TransferError::Keychain(error.kind().to_string()))?;
    runtime.block_on(async {
        let keychain = Keychain::connect(address).await?;
        let (mut found, locked) = keychain.search(attributes).await?;
        let open = found.len();
        found.extend(locked);
        if found.len() > MAX_SECRETS {
            return Err(TooMuch.into());
        }
        for (index, path) in found.iter().enumerate() {
            let (label, attributes) = keychain.about(path).await?;
            let secret = if index < open { Some(keychain.secret(path).await?) } else { None };
            let item = ServiceItem { label, attributes, secret };
            sink(service_item(item, naming, service, prefix))?;
        }
        Ok(())
    })
}

struct Keychain {
    bus: Connection,
    session: OwnedObjectPath,
}

impl Keychain {
    async fn connect(address: &str) -> Result<Self, TransferError> {
        let bus = within(connection::Builder::address(address).build()).await?;
        let body = ("plain", Variant::from(""));
        let opened = call(&bus, ROOT, "org.freedesktop.Secret.Service", "OpenSession", &body).await?;
        let (_, session): (OwnedVariant, OwnedObjectPath) = read(&opened)?;
        Ok(Self { bus, session })
    }

    /// The items that are unlocked, and those that are not.
    async fn search(
        &self,
        attributes: &BTreeMap<String, String>,
    ) -> Result<(Vec<OwnedObjectPath>, Vec<OwnedObjectPath>), TransferError> {
        let found =
            call(&self.bus, ROOT, "org.freedesktop.Secret.Service", "SearchItems", attributes).await?;
        let (mut unlocked, mut locked): (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) = read(&found)?;
        // the second of two equal names is refused: which one that is must not change from call to call
        unlocked.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        locked.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        Ok((unlocked, locked))
    }

    async fn about(&self, path: &OwnedObjectPath) -> Result<(String, Vec<(String, String)>), TransferError> {
        let got = call(&self.bus, path, "org.freedesktop.DBus.Properties", "GetAll", &ITEM).await?;
        let mut properties: HashMap<String, OwnedVariant> = read(&got)?;
        let label = properties.remove("Label").and_then(|label| String::try_from(label).ok());
        let attributes = properties.remove("Attributes");
        let attributes = attributes.and_then(|all| HashMap::<String, String>::try_from(all).ok());
        let mut attributes: Vec<_> = attributes.unwrap_or_default().into_iter().collect();
        attributes.sort();
        Ok((label.unwrap_or_default(), attributes))
    }

    async fn secret(&self, path: &OwnedObjectPath) -> Result<Buffer, TransferError> {
        let got = call(&self.bus, path, ITEM, "GetSecret", &self.session).await?;
        let ((_, _, mut value, _),): (Secret,) = read(&got)?;
        let secret = Buffer::from(value.as_slice());
        value.as_mut_slice().zeroize();
        Ok(secret)
    }
}

async fn call<B>(
    bus: &Connection,
    path: &str,
    interface: &str,
    method: &str,
    body: &B,
) -> Result<Message, TransferError>
where
    B: serde::Serialize + DynamicType,
{
    within(bus.call_method(Some(SERVICE), path, Some(interface), method, body)).await
}

/// No wait without an end. Of what D-Bus says only the kind is told: its texts are the keychain's.
async fn within<T>(work: impl Future<Output = zbus::Result<T>>) -> Result<T, TransferError> {
    let trouble = |text: &str| TransferError::Keychain(text.to_owned());
    match timeout(PATIENCE, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(zbus::Error::MethodError(name, ..))) => Err(trouble(name.as_str())),
        Ok(Err(zbus::Error::InputOutput(error))) => Err(trouble(&error.kind().to_string())),
        Ok(Err(_)) => Err(trouble("it said something that is not understood")),
        Err(_) => Err(trouble("it does not answer in time")),
    }
}

fn read<T>(message: &Message) -> Result<T, TransferError>
where
    T: for<'m> zbus::wire::DynamicDeserialize<'m>,
{
    let understood = message.body().deserialize();
    understood.map_err(|_| TransferError::Keychain("it said something that is not understood".to_owned()))
}
