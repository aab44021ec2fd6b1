//! The user's keychain over D-Bus: org.freedesktop.Secret.Service, as gnome-keyring, KWallet and KeePassXC offer it.
//!
//! zbus is used directly, without a keyring library above it: locked collections must be told from empty ones, no prompt
//! may ever be opened, many items are fetched with one call, and every call has an end. The session is a plain one:
//! what travels in it is sealed already.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    path::{Path, PathBuf},
    rc::Rc,
};

use data_encoding::{BASE64, HEXLOWER};
use zbus::{
    Connection, DBusError, DynamicType, Message, OwnedObjectPath, OwnedVariant, Variant, connection::Builder,
};

use super::protocol::{Key, VaultId};

const SERVICE: &str = "org.freedesktop.secrets";
const ROOT: &str = "/org/freedesktop/secrets";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// What people see of an item in their keychain's window. It names no secret.
const LABEL: &str = "keychain-auth item";
/// The attribute by which everything of ours is found.
const APPLICATION: (&str, &str) = ("application", "keychain-auth");

/// A secret as it travels: session, parameters, value, content type.
type Secret = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);
/// The items of each record. More than one only if somebody else has made the others.
type Items = HashMap<Key, Vec<OwnedObjectPath>>;

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

/// Why an order was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The collection or an item is locked, or would ask its user something.
    Locked,
    /// It can't be done now, for this reason.
    Failed(String),
}

/// The keychain, connected when it is needed and again after it was lost.
pub(super) struct SecretService {
    address: BusAddress,
    connected: RefCell<Option<Rc<Connected>>>,
}

struct Connected {
    bus: Connection,
    session: OwnedObjectPath,
    /// What was found last, for the vault that asked.
    items: RefCell<Option<(VaultId, Items)>>,
}

impl SecretService {
    pub(super) fn new(address: BusAddress) -> Self {
        Self { address, connected: RefCell::default() }
    }

    /// Whether items can be read and written now.
    pub(super) async fn ready(&self) -> Result<(), Trouble> {
        self.collection().await.map(drop)
    }

    /// The records of a vault that have an item.
    pub(super) async fn list(&self, vault: VaultId) -> Result<Vec<Key>, Trouble> {
        let connected = self.connected().await?;
        connected.find(vault).await?;
        let items = connected.items.borrow();
        Ok(items.iter().flat_map(|(_, items)| items.keys().copied()).collect())
    }

    /// The items of some records of a vault.
    pub(super) async fn get(&self, vault: VaultId, keys: &[Key]) -> Result<Vec<(Key, Vec<u8>)>, Trouble> {
        self.collection().await?;
        let connected = self.connected().await?;
        let known = connected.items.borrow().as_ref().is_some_and(|(of, _)| *of == vault);
        if known {
            let found = connected.secrets(keys).await?;
            if keys.iter().all(|key| found.iter().any(|(at, _)| at == key)) {
                return Ok(found);
            }
        }
        // an item that was known may have been made anew by somebody else, under another path
        connected.find(vault).await?;
        connected.secrets(keys).await
    }

    /// Puts an item in place.
    pub(super) async fn put(&self, vault: VaultId, key: Key, sealed: &[u8]) -> Result<(), Trouble> {
        let collection = self.collection().await?;
        let connected = self.connected().await?;
        let attributes = attributes(&vault, Some(&key));
        let properties = HashMap::from([
            ("org.freedesktop.Secret.Item.Label", Variant::from(LABEL)),
            ("org.freedesktop.Secret.Item.Attributes", Variant::from(attributes)),
        ]);
        let secret = (&connected.session, Vec::<u8>::new(), BASE64.encode(sealed).into_bytes(), "text/plain");
        let body = (properties, secret, true);
        let made =
            connected.call(&collection, "org.freedesktop.Secret.Collection", "CreateItem", &body).await?;
        let (item, prompt): (OwnedObjectPath, OwnedObjectPath) = read(&made)?;
        connected.dismiss(&prompt).await?;
        if let Some((of, items)) = &mut *connected.items.borrow_mut()
            && *of == vault
        {
            let paths = items.entry(key).or_default();
            if !paths.contains(&item) {
                paths.push(item);
            }
        }
        Ok(())
    }

    /// Removes every item of a record.
    pub(super) async fn delete(&self, vault: VaultId, key: Key) -> Result<(), Trouble> {
        self.collection().await?;
        let connected = self.connected().await?;
        for item in connected.search(&vault, Some(&key)).await? {
            let prompt = connected.call(&item, "org.freedesktop.Secret.Item", "Delete", &()).await?;
            connected.dismiss(&read(&prompt)?).await?;
        }
        if let Some((of, items)) = &mut *connected.items.borrow_mut()
            && *of == vault
        {
            items.remove(&key);
        }
        Ok(())
    }

    /// Forgets the connection: after a failure it may be that of a keychain that has ended.
    pub(super) fn disconnect(&self) {
        self.connected.borrow_mut().take();
    }

    async fn connected(&self) -> Result<Rc<Connected>, Trouble> {
        if let Some(connected) = &*self.connected.borrow() {
            return Ok(Rc::clone(connected));
        }
        let bus = Builder::address(self.address.0.as_str()).build().await.map_err(trouble)?;
        let body = ("plain", Variant::from(""));
        let opened = call(&bus, ROOT, "org.freedesktop.Secret.Service", "OpenSession", &body).await?;
        let (_, session): (OwnedVariant, OwnedObjectPath) = read(&opened)?;
        let connected = Rc::new(Connected { bus, session, items: RefCell::default() });
        *self.connected.borrow_mut() = Some(Rc::clone(&connected));
        Ok(connected)
    }

    /// The collection that new items go to, if it is unlocked.
    async fn collection(&self) -> Result<OwnedObjectPath, Trouble> {
        let connected = self.connected().await?;
        let named = connected.call(ROOT, "org.freedesktop.Secret.Service", "ReadAlias", &"default").await?;
        let collection: OwnedObjectPath = read(&named)?;
        if collection.as_str() == "/" {
            return Err(Trouble::Failed("the keychain has no default collection".to_owned()));
        }
        let body = ("org.freedesktop.Secret.Collection", "Locked");
        let property = connected.call(&collection, PROPERTIES, "Get", &body).await?;
        match bool::try_from(read::<OwnedVariant>(&property)?) {
            Ok(false) => Ok(collection),
            Ok(true) => Err(Trouble::Locked),
            Err(error) => Err(trouble(error)),
        }
    }
}

impl Connected {
    async fn call<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<Message, Trouble>
    where
        B: serde::Serialize + DynamicType,
    {
        call(&self.bus, path, interface, method, body).await
    }

    /// The items of a vault, or of one record of it, in whichever collection they are.
    async fn search(&self, vault: &VaultId, key: Option<&Key>) -> Result<Vec<OwnedObjectPath>, Trouble> {
        let body = attributes(vault, key);
        let found = self.call(ROOT, "org.freedesktop.Secret.Service", "SearchItems", &body).await?;
        let (unlocked, locked): (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) = read(&found)?;
        if locked.is_empty() { Ok(unlocked) } else { Err(Trouble::Locked) }
    }

    /// Notes which items there are of a vault.
    async fn find(&self, vault: VaultId) -> Result<(), Trouble> {
        let mut items = Items::new();
        for path in self.search(&vault, None).await? {
            let body = ("org.freedesktop.Secret.Item", "Attributes");
            let property = self.call(&path, PROPERTIES, "Get", &body).await?;
            let attributes = HashMap::<String, String>::try_from(read::<OwnedVariant>(&property)?);
            let key = attributes
                .ok()
                .and_then(|attributes| HEXLOWER.decode(attributes.get("record")?.as_bytes()).ok());
            // what has another form is none of ours, whatever it says
            if let Some(Ok(key)) = key.map(Key::try_from) {
                items.entry(key).or_default().push(path);
            }
        }
        *self.items.borrow_mut() = Some((vault, items));
        Ok(())
    }

    /// What the noted items of these records hold.
    async fn secrets(&self, keys: &[Key]) -> Result<Vec<(Key, Vec<u8>)>, Trouble> {
        let mut wanted: HashMap<OwnedObjectPath, Key> = HashMap::new();
        if let Some((_, items)) = &*self.items.borrow() {
            for key in keys {
                wanted.extend(items.get(key).into_iter().flatten().map(|path| (path.clone(), *key)));
            }
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let body = (wanted.keys().collect::<Vec<_>>(), &self.session);
        let got = self.call(ROOT, "org.freedesktop.Secret.Service", "GetSecrets", &body).await?;
        let secrets: HashMap<OwnedObjectPath, Secret> = read(&got)?;
        let opened = |(path, (_, _, value, _)): (OwnedObjectPath, Secret)| {
            // what is no base64 was not written by us; the keeper then finds no item of the right version
            Some((*wanted.get(&path)?, BASE64.decode(&value).ok()?))
        };
        Ok(secrets.into_iter().filter_map(opened).collect())
    }

    /// An action that would ask the user something is not taken: nobody may wait within a request.
    async fn dismiss(&self, prompt: &OwnedObjectPath) -> Result<(), Trouble> {
        if prompt.as_str() == "/" {
            return Ok(());
        }
        self.call(prompt, "org.freedesktop.Secret.Prompt", "Dismiss", &()).await?;
        Err(Trouble::Locked)
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

/// What marks an item of ours. Nothing of it tells a name.
fn attributes(vault: &VaultId, key: Option<&Key>) -> BTreeMap<&'static str, String> {
    let mut attributes =
        BTreeMap::from([(APPLICATION.0, APPLICATION.1.to_owned()), ("vault", HEXLOWER.encode(vault))]);
    attributes.extend(key.map(|key| ("record", HEXLOWER.encode(key))));
    attributes
}

/// An error by its name only: the words behind it are the keychain's own.
fn trouble(error: zbus::Error) -> Trouble {
    let name = match &error {
        zbus::Error::MethodError(name, ..) => name.to_string(),
        zbus::Error::FDO(error) => error.name().to_string(),
        zbus::Error::InputOutput(error) => error.kind().to_string(),
        zbus::Error::Connection(error, _) => format!("the session bus: {}", error.kind()),
        _ => "an answer that can't be understood".to_owned(),
    };
    if name == "org.freedesktop.Secret.Error.IsLocked" { Trouble::Locked } else { Trouble::Failed(name) }
}
