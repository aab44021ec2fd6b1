//! One item of org.freedesktop.Secret.Service over D-Bus, as gnome-keyring, KWallet and KeePassXC offer it.
//!
//! zbus is used directly: a locked collection must be told from an empty one, and no prompt may ever be opened.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{runtime::Builder, time::timeout};
use zbus::{Connection, DynamicType, Message, OwnedObjectPath, OwnedVariant, Variant, connection};
use zeroize::Zeroizing;

use super::item::ItemTask;

const SERVICE: &str = "org.freedesktop.secrets";
const ROOT: &str = "/org/freedesktop/secrets";
/// What people see in their keychain's window.
const LABEL: &str = "keychain-auth: key of the vault";
/// The whole conversation; the parent waits a little longer.
const PATIENCE: Duration = Duration::from_millis(4500);

/// A secret as it travels: session, parameters, value, content type.
type Secret = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

/// Why it was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Locked,
    NoItem,
    Failed,
}

/// Where the session bus listens: `DBUS_SESSION_BUS_ADDRESS`, else the socket `bus` in the runtime folder.
pub fn bus_address(var: &dyn Fn(&str) -> Option<OsString>) -> Option<String> {
    let set = |name| var(name).filter(|value: &OsString| !value.is_empty());
    if let Some(address) = set("DBUS_SESSION_BUS_ADDRESS") {
        return address.into_string().ok();
    }
    let socket = PathBuf::from(set("XDG_RUNTIME_DIR")?).join("bus");
    let plain =
        |path: &&str| path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
    let there = Path::new(&socket).exists();
    socket.to_str().filter(plain).filter(|_| there).map(|path| format!("unix:path={path}"))
}

/// Does one task. `fresh` is the secret of an item that is made.
pub(super) fn run(
    address: String,
    task: ItemTask,
    item: &str,
    fresh: &str,
) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    let runtime =
        Builder::new_current_thread().enable_io().enable_time().build().map_err(|_| Trouble::Failed)?;
    runtime.block_on(async {
        let work = async {
            let bus =
                connection::Builder::address(address.as_str()).build().await.map_err(|_| Trouble::Failed)?;
            let service = Service { bus, item };
            match task {
                ItemTask::Get => service.get().await,
                ItemTask::Make => service.make(fresh).await,
                ItemTask::Forget => service.forget().await.map(|()| Zeroizing::default()),
            }
        };
        timeout(PATIENCE, work).await.unwrap_or(Err(Trouble::Failed))
    })
}

struct Service<'a> {
    bus: Connection,
    item: &'a str,
}

impl Service<'_> {
    async fn get(&self) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let (path, session) = (self.find().await?.ok_or(Trouble::NoItem)?, self.session().await?);
        let got = self.call(&path, "org.freedesktop.Secret.Item", "GetSecret", &session).await?;
        let ((_, _, value, _),): (Secret,) = read(&got)?;
        Ok(Zeroizing::new(value))
    }

    async fn make(&self, fresh: &str) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let (collection, session) = (self.collection().await?, self.session().await?);
        let properties = HashMap::from([
            ("org.freedesktop.Secret.Item.Label", Variant::from(LABEL)),
            ("org.freedesktop.Secret.Item.Attributes", Variant::from(self.attributes())),
        ]);
        let secret = (&session, Vec::<u8>::new(), fresh.as_bytes(), "text/plain");
        let body = (properties, secret, false);
        let made = self.call(&collection, "org.freedesktop.Secret.Collection", "CreateItem", &body).await?;
        let (_, prompt): (OwnedObjectPath, OwnedObjectPath) = read(&made)?;
        self.dismiss(&prompt).await?;
        // what was really stored is what opens the vault from now on
        self.get().await
    }

    async fn forget(&self) -> Result<(), Trouble> {
        let Some(path) = self.find().await? else { return Ok(()) };
        let prompt = self.call(&path, "org.freedesktop.Secret.Item", "Delete", &()).await?;
        self.dismiss(&read(&prompt)?).await
    }

    /// The collection that new items go to, if it is unlocked.
    async fn collection(&self) -> Result<OwnedObjectPath, Trouble> {
        let named = self.call(ROOT, "org.freedesktop.Secret.Service", "ReadAlias", &"default").await?;
        let collection: OwnedObjectPath = read(&named)?;
        if collection.as_str() == "/" {
            return Err(Trouble::Failed);
        }
        let body = ("org.freedesktop.Secret.Collection", "Locked");
        let property = self.call(&collection, "org.freedesktop.DBus.Properties", "Get", &body).await?;
        match bool::try_from(read::<OwnedVariant>(&property)?) {
            Ok(false) => Ok(collection),
            Ok(true) => Err(Trouble::Locked),
            Err(_) => Err(Trouble::Failed),
        }
    }

    async fn find(&self) -> Result<Option<OwnedObjectPath>, Trouble> {
        let body = self.attributes();
        let found = self.call(ROOT, "org.freedesktop.Secret.Service", "SearchItems", &body).await?;
        let (unlocked, locked): (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) = read(&found)?;
        match unlocked.into_iter().next() {
            Some(path) => Ok(Some(path)),
            None if locked.is_empty() => Ok(None),
            None => Err(Trouble::Locked),
        }
    }

    async fn session(&self) -> Result<OwnedObjectPath, Trouble> {
        let body = ("plain", Variant::from(""));
        let opened = self.call(ROOT, "org.freedesktop.Secret.Service", "OpenSession", &body).await?;
        let (_, session): (OwnedVariant, OwnedObjectPath) = read(&opened)?;
        Ok(session)
    }

    /// An action that would ask the user something is not taken.
    async fn dismiss(&self, prompt: &OwnedObjectPath) -> Result<(), Trouble> {
        if prompt.as_str() == "/" {
            return Ok(());
        }
        self.call(prompt, "org.freedesktop.Secret.Prompt", "Dismiss", &()).await?;
        Err(Trouble::Locked)
    }

    fn attributes(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([("application", "keychain-auth".to_owned()), ("vault-key", self.item.to_owned())])
    }

    async fn call<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<Message, Trouble>
    where
        B: serde::Serialize + DynamicType,
    {
        let called = self.bus.call_method(Some(SERVICE), path, Some(interface), method, body).await;
        called.map_err(|error| match &error {
            zbus::Error::MethodError(name, ..)
                if name.as_str() == "org.freedesktop.Secret.Error.IsLocked" =>
            {
                Trouble::Locked
            }
            _ => Trouble::Failed,
        })
    }
}

fn read<T>(message: &Message) -> Result<T, Trouble>
where
    T: for<'m> zbus::wire::DynamicDeserialize<'m>,
{
    message.body().deserialize().map_err(|_| Trouble::Failed)
}
