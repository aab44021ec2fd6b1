//! The items of a vault in the user's keychain. What travels is sealed already, and every order has an end: the desk sets
//! it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use data_encoding::{BASE64, HEXLOWER};
use tokio::task::JoinSet;
use zbus::{OwnedObjectPath, OwnedVariant};

use super::protocol::{Key, VaultId};
use crate::desktop_keychain::{BusAddress, Keychain, Trouble};

/// What people see of an item in their keychain's window. It names no secret.
const LABEL: &str = "keychain-auth item";
/// The attribute by which everything of ours is found.
const APPLICATION: (&str, &str) = ("application", "keychain-auth");

/// How many items are asked at once what they are: one after the other, each would wait for whatever the keychain writes to
/// its disk for another lane in between.
const AT_ONCE: usize = 64;

/// The items of each record. More than one only if somebody else has made the others.
type Items = HashMap<Key, Vec<OwnedObjectPath>>;

/// The keychain, connected when it is needed and again after it was lost.
pub(super) struct SecretService {
    address: BusAddress,
    connected: RefCell<Option<Rc<Connected>>>,
}

struct Connected {
    keychain: Keychain,
    /// What was found last, for the vault that asked.
    items: RefCell<Option<(VaultId, Items)>>,
}

impl SecretService {
    pub(super) fn new(address: BusAddress) -> Self {
        Self { address, connected: RefCell::default() }
    }

    /// Whether items can be read and written now.
    pub(super) async fn ready(&self) -> Result<(), Trouble> {
        self.connected().await?.keychain.collection().await.map(drop)
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
        let connected = self.connected().await?;
        connected.keychain.collection().await?;
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
        let connected = self.connected().await?;
        let collection = connected.keychain.collection().await?;
        let about = (LABEL, attributes(&vault, Some(&key)));
        let item =
            connected.keychain.create(&collection, about, BASE64.encode(sealed).as_bytes(), true).await?;
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
        let connected = self.connected().await?;
        let mut gone = Vec::new();
        for item in connected.search(&vault, Some(&key)).await? {
            if there(connected.keychain.delete(&item).await)?.is_none() {
                gone.push(item);
            }
        }
        connected.are_not_listed(&vault, Some(&key), &gone).await?;
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
        let keychain = Keychain::connect(&self.address).await?;
        let connected = Rc::new(Connected { keychain, items: RefCell::default() });
        *self.connected.borrow_mut() = Some(Rc::clone(&connected));
        Ok(connected)
    }
}

impl Connected {
    /// The items of a vault, or of one record of it, in whichever collection they are.
    async fn search(&self, vault: &VaultId, key: Option<&Key>) -> Result<Vec<OwnedObjectPath>, Trouble> {
        let (unlocked, locked) = self.keychain.search(&attributes(vault, key)).await?;
        if !locked.is_empty() {
            return Err(Trouble::Locked);
        }
        // KeePassXC lists none of a collection that is locked: what it did not list would be taken for what is not there
        self.keychain.collection().await?;
        Ok(unlocked)
    }

    /// Notes which items there are of a vault.
    async fn find(self: &Rc<Self>, vault: VaultId) -> Result<(), Trouble> {
        let (mut items, mut gone) = (Items::new(), Vec::new());
        for some in self.search(&vault, None).await?.chunks(AT_ONCE) {
            let mut asked = JoinSet::new();
            for path in some.iter().cloned() {
                let connected = Rc::clone(self);
                asked.spawn_local(async move {
                    let attributes = connected.keychain.property(&path, "Attributes").await;
                    (path, there(attributes))
                });
            }
            while let Some(told) = asked.join_next().await {
                let (path, attributes) = told.map_err(|_| Trouble::Unclear)?;
                match attributes?.map(record_of) {
                    Some(Some(key)) => items.entry(key).or_default().push(path),
                    // what has another form is none of ours, whatever it says
                    Some(None) => {}
                    // another lane, or somebody else, may have removed it since it was listed
                    None => gone.push(path),
                }
            }
        }
        self.are_not_listed(&vault, None, &gone).await?;
        *self.items.borrow_mut() = Some((vault, items));
        Ok(())
    }

    /// What was not there when it was asked is gone only if it is not listed any more: a keychain that lists what it does not
    /// serve must not make records look missing, or removed.
    async fn are_not_listed(
        &self,
        vault: &VaultId,
        key: Option<&Key>,
        gone: &[OwnedObjectPath],
    ) -> Result<(), Trouble> {
        if gone.is_empty() {
            return Ok(());
        }
        let listed = self.search(vault, key).await?;
        if gone.iter().any(|path| listed.contains(path)) { Err(Trouble::Unclear) } else { Ok(()) }
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
        let secrets = self.keychain.secrets(wanted.keys().collect()).await?;
        // what is no base64 was not written by us; the keeper then finds no item of the right version
        let opened = |(path, value): (_, Vec<u8>)| Some((*wanted.get(&path)?, BASE64.decode(&value).ok()?));
        Ok(secrets.filter_map(opened).collect())
    }
}

/// The record that an item is of, by its attributes.
fn record_of(attributes: OwnedVariant) -> Option<Key> {
    let attributes = HashMap::<String, String>::try_from(attributes).ok()?;
    let key = HEXLOWER.decode(attributes.get("record")?.as_bytes()).ok()?;
    key.try_into().ok()
}

/// What was asked of an item, or none if it is not there.
fn there<T>(asked: Result<T, Trouble>) -> Result<Option<T>, Trouble> {
    match asked {
        Ok(said) => Ok(Some(said)),
        Err(Trouble::NotThere(_)) => Ok(None),
        Err(why) => Err(why),
    }
}

/// What marks an item of ours. Nothing of it tells a name.
fn attributes(vault: &VaultId, key: Option<&Key>) -> BTreeMap<&'static str, String> {
    let mut attributes =
        BTreeMap::from([(APPLICATION.0, APPLICATION.1.to_owned()), ("vault", HEXLOWER.encode(vault))]);
    attributes.extend(key.map(|key| ("record", HEXLOWER.encode(key))));
    attributes
}
