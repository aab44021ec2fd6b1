//! A vault that a running daemon can lock and unlock: locked, its key and every key made from it are gone from memory,
//! with all names, and its folder is free for commands that work on the files.
//!
//! What stays of the key while it is locked is the [`Transport`] key, made from it one way. Who unlocks shows that he has
//! the vault key by sealing it under that for a nonce of this daemon.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{
    batch::{
        AuditMemory, Committed, Outbox, OutboxEntry, PendingChange, Query, RenderRecord, Store, StoreError,
    },
    disk::{EARLIER, VAULT_FILE},
    files::Folder,
    key::VaultKey,
    keychain::{Keychain, StoreKind},
    salvage::{Extent, Salvage},
    seat::Seat,
    slot::{KEY_FILE, Slot},
    source::KeySource,
    sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard, sleep},
    transport::{Content, PolicySeal, Transport},
    vault::{Vault, kind, missing},
};
use crate::{
    chain::{Checkpoint, Head},
    policy::Authorized,
    secret::Buffer,
};

/// The vault of a daemon, open or locked.
pub struct Lockable {
    folder: Folder,
    /// Where the values rest, if not in the vault's own file.
    keychain: Option<Keychain>,
    state: RwLock<State>,
}

/// Either there is a vault, or what it left behind.
struct State {
    source: KeySource,
    /// Shared with those who wait for the keychain, so that they hold no lock that others wait for.
    vault: Option<Arc<Vault>>,
    /// False from an unlock on until the lines that commands left in the outbox are in the log: only then changes may
    /// follow them.
    serves: bool,
    rest: Option<Rest>,
    /// What is intact of a damaged vault, in place of a vault.
    salvage: Option<Arc<Salvage>>,
}

impl State {
    /// What travels between the daemon and whoever has the vault's key is sealed under it.
    fn transport(&self) -> Result<&Transport, StoreError> {
        match (&self.vault, &self.rest) {
            (Some(vault), _) => Ok(vault.transport()),
            (None, Some(rest)) => Ok(&rest.transport),
            (None, None) => Err(StoreError::Salvaged),
        }
    }
}

/// What a locked vault leaves behind.
struct Rest {
    transport: Transport,
    /// A vault that is put back to an earlier state meanwhile is noticed.
    generation: u64,
    count: u64,
    policy: PolicySeal,
    /// How far the log has come, and which epochs ended, since the last commit.
    noted: Mutex<AuditMemory>,
}

impl Lockable {
    /// Takes over an open vault.
    pub fn new(vault: Vault) -> Result<Self, StoreError> {
        let (folder, source, keychain) = (vault.folder()?, vault.source(), vault.keychain());
        let state = State { source, vault: Some(Arc::new(vault)), serves: true, rest: None, salvage: None };
        Ok(Self { folder, keychain, state: RwLock::new(state) })
    }

    /// Serves what is intact of a damaged vault. It can't be locked, and takes no change.
    pub fn salvaged(salvage: Salvage) -> Result<Self, StoreError> {
        let (folder, source, salvage) = (salvage.folder()?, salvage.source(), Some(Arc::new(salvage)));
        let state = State { source, vault: None, serves: false, rest: None, salvage };
        Ok(Self { folder, keychain: None, state: RwLock::new(state) })
    }

    /// How much of a damaged vault is served. None of a whole one.
    pub fn salvage(&self) -> Option<Extent> {
        self.state().salvage.as_ref().map(|salvage| salvage.extent())
    }

    /// Where the vault's key comes from.
    pub fn source(&self) -> KeySource {
        self.state().source
    }

    /// Whether the key is gone.
    pub fn is_locked(&self) -> bool {
        let state = self.state();
        state.vault.is_none() && state.salvage.is_none()
    }

    /// Whether requests are answered from it: it is not locked, nor being unlocked.
    pub fn serves(&self) -> bool {
        let state = self.state();
        state.serves || state.salvage.is_some()
    }

    /// How many secrets there are, or were when it was locked.
    pub fn count(&self) -> u64 {
        let state = self.state();
        let left = state.rest.as_ref().map_or(0, |rest| rest.count);
        let left = state.salvage.as_ref().map_or(left, |salvage| salvage.extent().intact);
        state.vault.as_ref().map_or(left, |vault| vault.count())
    }

    /// The place of the audit chain's key, once; see [`Vault::take_seat`].
    pub fn take_seat(&self) -> Option<Seat> {
        let state = self.state();
        let salvaged = state.salvage.as_ref().and_then(|salvage| salvage.take_seat());
        salvaged.or_else(|| state.vault.as_ref().and_then(|vault| vault.take_seat()))
    }

    /// Closes the vault and forgets its key. Waits for what is being committed; nothing of it is lost.
    ///
    /// It is locked also when closing fails: the file is whole in any case.
    pub fn lock(&self) -> Result<(), StoreError> {
        let mut state = self.state_mut();
        if state.salvage.is_some() {
            return Err(StoreError::Salvaged);
        }
        let Some(vault) = state.vault.take() else { return Ok(()) };
        state.serves = false;
        state.rest = Some(Rest {
            transport: vault.transport().again(),
            generation: vault.generation(),
            count: vault.count(),
            policy: vault.policy_seal(),
            noted: Mutex::new(vault.noted_audit()),
        });
        drop(state);
        let closed = alone(vault).close();
        self.folder.unlock()?;
        closed
    }

    /// Opens the vault with a key that was sealed by [`KeyHolder::carry_key`](super::KeyHolder::carry_key) for `nonce`. Everything is checked as at the first
    /// start, and that the vault is not older than it was when it was locked.
    ///
    /// Requests are answered with [`StoreError::Locked`] until [`Lockable::resume`]. An open vault stays as it is.
    pub fn unlock(&self, nonce: &[u8; 32], carried: &[u8]) -> Result<(), StoreError> {
        let key = self.carried(Content::Key, nonce, carried)?;
        let key = VaultKey::from_buffer(key).ok_or(StoreError::WrongKey)?;
        let generation = self.state().rest.as_ref().map(|rest| rest.generation);
        let Some(generation) = generation else { return Ok(()) };
        self.folder.lock()?;
        let opened = self.folder.try_clone().map_err(StoreError::from).and_then(|folder| {
            // a command may have given the key another source meanwhile
            let slot = Slot::load(&folder)?.ok_or_else(|| missing(KEY_FILE, VAULT_FILE))?;
            let vault = Vault::reopen_in(folder, slot.source(), &key, self.keychain.clone())?;
            if vault.generation() < generation {
                return Err(StoreError::Damaged(EARLIER));
            }
            Ok(vault)
        });
        let vault = match opened {
            Ok(vault) => vault,
            Err(error) => {
                self.folder.unlock()?;
                return Err(error);
            }
        };
        let mut state = self.state_mut();
        if let Some(rest) = state.rest.take() {
            vault.note_memory(rest.noted.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
        state.source = vault.source();
        state.vault = Some(Arc::new(vault));
        Ok(())
    }

    /// Whether a key for `nonce` is that of the vault, open or locked. Costs one short decryption: anybody may ask.
    pub fn fits(&self, nonce: &[u8; 32], carried: &[u8]) -> Result<(), StoreError> {
        self.carried(Content::Key, nonce, carried).map(drop)
    }

    /// Whether a new seal for `nonce` comes from whoever has the vault's key.
    pub fn seal_fits(&self, nonce: &[u8; 32], carried: &[u8]) -> Result<(), StoreError> {
        self.carried(Content::NewSeal, nonce, carried).map(drop)
    }

    fn carried(&self, what: Content, nonce: &[u8; 32], carried: &[u8]) -> Result<Buffer, StoreError> {
        self.state().transport()?.open(what, nonce, carried)
    }

    /// SHA-256 of the config.json that is accepted; zeros where any is. Known also while the vault is locked.
    pub fn policy_seal(&self) -> PolicySeal {
        let state = self.state();
        let left = state.rest.as_ref().map(|rest| rest.policy);
        let left = left.or_else(|| state.salvage.as_ref().map(|salvage| salvage.policy_seal()));
        let left = left.unwrap_or_default();
        state.vault.as_ref().map_or(left, |vault| vault.policy_seal())
    }

    /// Tells whoever has the vault's key which seal holds, sealed for a nonce of his.
    pub fn tell_policy_seal(&self, nonce: &[u8; 32]) -> Result<Vec<u8>, StoreError> {
        let seal = self.policy_seal();
        self.state().transport()?.seal(Content::CurrentSeal, nonce, &seal)
    }

    /// Takes a new seal for the policy from whoever has the vault's key. It is durable, with its line, when this returns.
    pub fn take_policy_seal(
        &self,
        nonce: &[u8; 32],
        carried: &[u8],
        record: RenderRecord,
    ) -> Result<OutboxEntry, StoreError> {
        self.serving(|vault| {
            let content = vault.transport().open(Content::NewSeal, nonce, carried)?;
            let seal = content.as_slice().try_into().map_err(|_| StoreError::WrongKey)?;
            vault.seal_policy(seal, record)
        })
    }

    /// Serves again: every line of the outbox is in the log.
    pub fn resume(&self) {
        let mut state = self.state_mut();
        state.serves = state.vault.is_some();
    }

    /// Closes the vault at the end of the daemon.
    pub fn close(self) -> Result<(), StoreError> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.vault.map_or(Ok(()), |vault| alone(vault).close())
    }

    /// Asks the vault that serves.
    fn serving<T>(&self, ask: impl FnOnce(&Vault) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let state = self.state();
        let vault = match &state.vault {
            Some(vault) if state.serves => Arc::clone(vault),
            None if state.salvage.is_some() => return Err(StoreError::Salvaged),
            _ => return Err(StoreError::Locked),
        };
        drop(state);
        ask(&vault)
    }

    /// What is served of a damaged vault.
    fn salvaging(&self) -> Option<Arc<Salvage>> {
        self.state().salvage.clone()
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Lockable {
    fn read(&self, query: Authorized<Query>) -> Result<Committed, StoreError> {
        match self.salvaging() {
            Some(salvage) => salvage.read(query),
            None => self.serving(|vault| vault.read(query)),
        }
    }

    fn commit(&self, changes: Vec<PendingChange>) -> Vec<Result<Committed, StoreError>> {
        let count = changes.len();
        self.serving(|vault| Ok(vault.commit(changes)))
            .unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect())
    }

    fn outbox(&self) -> Result<Outbox, StoreError> {
        match self.salvaging() {
            Some(salvage) => salvage.outbox(),
            None => self.state().vault.as_ref().map_or(Err(StoreError::Locked), |vault| vault.outbox()),
        }
    }

    fn settle(&self, id: u64) {
        // a line that is settled while the vault is locked is found in the log again when it is unlocked
        let _ = self.serving(|vault| {
            vault.settle(id);
            Ok(())
        });
    }

    fn note_audit(&self, head: Head, ended: Option<Checkpoint>) {
        let state = self.state();
        match (&state.vault, &state.rest) {
            (Some(vault), _) => vault.note_audit(head, ended),
            (None, Some(rest)) => {
                let mut noted = rest.noted.lock().unwrap_or_else(PoisonError::into_inner);
                noted.head = head;
                noted.checkpoints.extend(ended);
            }
            (None, None) => {}
        }
    }

    fn keep_audit(&self) -> Result<(), StoreError> {
        match self.serving(Vault::keep_audit) {
            // what was noted goes with the first commit after the unlock; a damaged vault takes nothing
            Err(StoreError::Locked | StoreError::Salvaged) => Ok(()),
            kept => kept,
        }
    }

    fn audit_memory(&self) -> Result<AuditMemory, StoreError> {
        match self.salvaging() {
            Some(salvage) => salvage.audit_memory(),
            None => self.state().vault.as_ref().map_or(Err(StoreError::Locked), |vault| vault.audit_memory()),
        }
    }

    fn kind(&self) -> StoreKind {
        kind(self.keychain.as_ref())
    }

    fn carry(&self) -> Result<bool, StoreError> {
        match self.serving(Vault::carry) {
            // what waits is carried after the unlock
            Err(StoreError::Locked | StoreError::Salvaged) => Ok(false),
            carried => carried,
        }
    }

    fn waiting(&self) -> usize {
        self.state().vault.as_ref().map_or(0, |vault| vault.waiting())
    }

    fn lost(&self) -> usize {
        self.state().vault.as_ref().map_or(0, |vault| vault.lost())
    }
}

/// The vault, when all who still ask it have their answer: less than 5 s, where the keychain lets them wait.
fn alone(mut vault: Arc<Vault>) -> Vault {
    loop {
        match Arc::try_unwrap(vault) {
            Ok(vault) => return vault,
            Err(shared) => vault = shared,
        }
        sleep(Duration::from_millis(1));
    }
}
