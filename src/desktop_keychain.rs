//! The desktop's keychain over D-Bus: org.freedesktop.Secret.Service, as gnome-keyring, KWallet and KeePassXC offer it.
//!
//! zbus is used directly, without a keyring library above it: locked collections must be told from empty ones, no prompt
//! may ever be opened, and many items are fetched with one call. The session is a plain one: who can listen on the session
//! bus can ask the keychain itself. No call here ends by itself; who calls sets its time.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    path::{Path, PathBuf},
};

use zbus::{
    Connection, DBusError, DynamicType, Message, OwnedObjectPath, OwnedVariant, Variant, connection::Builder,
};

const SERVICE: &str = "org.freedesktop.secrets";
const ROOT: &str = "/org/freedesktop/secrets";
const MANAGER: &str = "org.freedesktop.Secret.Service";
const COLLECTION: &str = "org.freedesktop.Secret.Collection";
const ITEM: &str = "org.freedesktop.Secret.Item";
const PEER: &str = "org.freedesktop.DBus.Peer";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// The keychain's own name for what [`Trouble::Locked`] says.
const IS_LOCKED: &str = "org.freedesktop.Secret.Error.IsLocked";
/// What keychains say of an item that is not there: the Secret Service's own name, and how libraries for D-Bus (GLib's, Qt's)
/// answer for a path that they don't serve.
const NOT_THERE: [&str; 3] = [
    "org.freedesktop.Secret.Error.NoSuchObject",
    "org.freedesktop.DBus.Error.UnknownObject",
    "org.freedesktop.DBus.Error.UnknownMethod",
];

/// A secret as it travels: session, parameters, value, content type.
type Secret = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

/// Where the session bus listens, in D-Bus's own form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusAddress(String);

/// The session bus of the environment that `var` reads: `DBUS_SESSION_BUS_ADDRESS`, else the socket `bus` in the runtime
/// folder. None if there is neither.
pub fn bus_address(var: impl Fn(&str) -> Option<OsString>) -> Option<BusAddress> {
    let set = |name| var(name).filter(|value| !value.is_empty());
    if let Some(address) = set("DBUS_SESSION_BUS_ADDRESS") {
        return address.into_string().ok().map(BusAddress);
    }
    let socket = PathBuf::from(set("XDG_RUNTIME_DIR")?).join("bus");
    let plain =
        |path: &&str| path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
    let there = Path::new(&socket).exists();
    socket.to_str().filter(plain).filter(|_| there).map(|path| BusAddress(format!("unix:path={path}")))
}

/// Why the keychain did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// The collection or an item is locked, or would ask its user something.
    #[error("{IS_LOCKED}")]
    Locked,
    /// Nothing is at the path that was asked, by the name of the error.
    #[error("{0}")]
    NotThere(String),
    /// An error by its name only: the words behind it are the keychain's own.
    #[error("{0}")]
    Named(String),
    /// What it answered has another form.
    #[error("an answer that can't be understood")]
    Unclear,
}

/// A connection to the keychain, with a session in which secrets travel.
pub(crate) struct Keychain {
    bus: Connection,
    session: OwnedObjectPath,
}

impl Keychain {
    pub(crate) async fn connect(address: &BusAddress) -> Result<Self, Trouble> {
        let bus = Builder::address(address.0.as_str()).build().await.map_err(trouble)?;
        // gnome-keyring (seen with 42.1) may handle the first call of a client before it knows the client, and aborts where that
        // is OpenSession: one in some hundreds to thousands, and everybody's keychain is gone. Far rarer once it has answered.
        let _ = call(&bus, ROOT, PEER, "Ping", &()).await;
        let opened = call(&bus, ROOT, MANAGER, "OpenSession", &("plain", Variant::from(""))).await?;
        let (_, session): (OwnedVariant, OwnedObjectPath) = read(&opened)?;
        Ok(Self { bus, session })
    }

    /// The items that have all of these attributes, in whichever collection: the unlocked ones, and the locked ones.
    pub(crate) async fn search<A>(
        &self,
        attributes: &A,
    ) -> Result<(Vec<OwnedObjectPath>, Vec<OwnedObjectPath>), Trouble>
    where
        A: serde::Serialize + DynamicType,
    {
        read(&self.call(ROOT, MANAGER, "SearchItems", attributes).await?)
    }

    /// The collection that new items go to, if it is unlocked.
    pub(crate) async fn collection(&self) -> Result<OwnedObjectPath, Trouble> {
        let named = self.call(ROOT, MANAGER, "ReadAlias", &"default").await?;
        let collection: OwnedObjectPath = read(&named)?;
        if collection.as_str() == "/" {
            return Err(Trouble::Named("the keychain has no default collection".to_owned()));
        }
        let locked = self.call(&collection, PROPERTIES, "Get", &(COLLECTION, "Locked")).await?;
        match bool::try_from(read::<OwnedVariant>(&locked)?) {
            Ok(false) => Ok(collection),
            Ok(true) => Err(Trouble::Locked),
            Err(error) => Err(trouble(error)),
        }
    }

    /// Makes an item. `replace`: over those that have the same attributes.
    pub(crate) async fn create(
        &self,
        collection: &OwnedObjectPath,
        (label, attributes): (&str, BTreeMap<&'static str, String>),
        secret: &[u8],
        replace: bool,
    ) -> Result<OwnedObjectPath, Trouble> {
        let properties = HashMap::from([
            ("org.freedesktop.Secret.Item.Label", Variant::from(label)),
            ("org.freedesktop.Secret.Item.Attributes", Variant::from(attributes)),
        ]);
        let body = (properties, (&self.session, Vec::<u8>::new(), secret, "text/plain"), replace);
        let made = self.call(collection, COLLECTION, "CreateItem", &body).await?;
        let (item, prompt): (OwnedObjectPath, OwnedObjectPath) = read(&made)?;
        self.dismiss(&prompt).await?;
        Ok(item)
    }

    pub(crate) async fn delete(&self, item: &OwnedObjectPath) -> Result<(), Trouble> {
        let prompt = self.call(item, ITEM, "Delete", &()).await?;
        self.dismiss(&read(&prompt)?).await
    }

    /// What an item holds. Whoever gets it wipes it.
    pub(crate) async fn secret(&self, item: &OwnedObjectPath) -> Result<Vec<u8>, Trouble> {
        let got = self.call(item, ITEM, "GetSecret", &self.session).await?;
        let ((_, _, value, _),): (Secret,) = read(&got)?;
        Ok(value)
    }

    /// What several items hold, with one call.
    pub(crate) async fn secrets(
        &self,
        items: Vec<&OwnedObjectPath>,
    ) -> Result<impl Iterator<Item = (OwnedObjectPath, Vec<u8>)> + use<>, Trouble> {
        let got = self.call(ROOT, MANAGER, "GetSecrets", &(items, &self.session)).await?;
        let secrets: HashMap<OwnedObjectPath, Secret> = read(&got)?;
        Ok(secrets.into_iter().map(|(path, (_, _, value, _))| (path, value)))
    }

    /// One property of an item.
    pub(crate) async fn property(&self, item: &OwnedObjectPath, name: &str) -> Result<OwnedVariant, Trouble> {
        read(&self.call(item, PROPERTIES, "Get", &(ITEM, name)).await?)
    }

    /// Everything that an item says about itself.
    pub(crate) async fn properties(
        &self,
        item: &OwnedObjectPath,
    ) -> Result<HashMap<String, OwnedVariant>, Trouble> {
        read(&self.call(item, PROPERTIES, "GetAll", &ITEM).await?)
    }

    /// An action that would ask the user something is not taken: nobody may wait within a request.
    async fn dismiss(&self, prompt: &OwnedObjectPath) -> Result<(), Trouble> {
        if prompt.as_str() == "/" {
            return Ok(());
        }
        self.call(prompt, "org.freedesktop.Secret.Prompt", "Dismiss", &()).await?;
        Err(Trouble::Locked)
    }

    async fn call<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<Message, Trouble>
    where
        B: serde::Serialize + DynamicType,
    {
        call(&self.bus, path, interface, method, body).await
    }
}

async fn call<B>(
    bus: &Connection,
    path: &str,
    interface: &str,
    method: &str,
    body: &B,
) -> Result<Message, Trouble>
where
    B: serde::Serialize + DynamicType,
{
    bus.call_method(Some(SERVICE), path, Some(interface), method, body).await.map_err(trouble)
}

fn read<T>(message: &Message) -> Result<T, Trouble>
where
    T: for<'m> zbus::wire::DynamicDeserialize<'m>,
{
    message.body().deserialize().map_err(trouble)
}

fn trouble(error: zbus::Error) -> Trouble {
    let name = match &error {
        zbus::Error::MethodError(name, ..) => name.to_string(),
        zbus::Error::FDO(error) => error.name().to_string(),
        zbus::Error::InputOutput(error) => error.kind().to_string(),
        zbus::Error::Connection(error, _) => format!("the session bus: {}", error.kind()),
        _ => return Trouble::Unclear,
    };
    match name.as_str() {
        IS_LOCKED => Trouble::Locked,
        not_there if NOT_THERE.contains(&not_there) => Trouble::NotThere(name),
        _ => Trouble::Named(name),
    }
}
