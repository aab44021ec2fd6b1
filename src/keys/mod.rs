//! Where the key of a vault comes from: a credential of the service manager, an item in the desktop's keychain, a
//! passphrase, a file. Gives [`KeyMaterial`]; what it opens is the store's affair.
//!
//! Knows the environment, the terminal and short-lived child processes; never the vault. Used before the daemon closes its
//! cage, and by the commands.
#![forbid(unsafe_code)]

mod credential;
mod item;
mod key_item;
mod keychain;
mod passphrase;

pub use item::{ItemTask, serve_item};

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::io::Errno;
use zeroize::Zeroize;

use crate::{
    desktop_keychain::bus_address,
    secret::Buffer,
    store::{ItemId, KeyMaterial, KeySource, MAX_SOURCE_SECRET, Slot, StoreError},
};

/// Shortest passphrase of a new vault or export, in bytes: shorter ones are tried out within hours at any price of one try.
pub const MIN_PASSPHRASE: usize = 8;

/// Why a source gives no key. Nothing was made or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The service manager passed no credential.
    #[error("there is no credential vault-key: {0}")]
    Credential(String),
    /// The keychain is there and locked.
    #[error("the keychain is locked")]
    KeychainLocked,
    /// The keychain holds no item of this vault.
    #[error("the keychain has no item of this vault")]
    NoItem,
    /// No keychain answers.
    #[error("no keychain answers: {0}")]
    Keychain(String),
    /// There is no way to ask for a passphrase.
    #[error("there is no terminal to ask for the passphrase")]
    NobodyToAsk,
    /// The program that should ask for it.
    #[error("the program that shall ask for the passphrase, {0}, can't be started: {1}")]
    Program(String, String),
    /// It was not given.
    #[error("no passphrase was given: {0}")]
    Passphrase(String),
    /// It was typed twice, differently.
    #[error("the two passphrases differ")]
    Differs,
    /// It is shorter than [`MIN_PASSPHRASE`].
    #[error("the passphrase has fewer than {MIN_PASSPHRASE} bytes")]
    TooShort,
    /// The random numbers of the system.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KeyError {
    /// One line of advice.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Credential(_) => {
                "let the service manager start it with LoadCredentialEncrypted=vault-key:… (a command through systemd-run), see docs/configuration.md"
            }
            Self::KeychainLocked => StoreError::KeychainLocked.advice(),
            Self::NoItem => {
                "use the keychain in which the vault was made; without its item the vault can't be opened"
            }
            Self::Keychain(_) => {
                "start it within the desktop session, so that DBUS_SESSION_BUS_ADDRESS is set"
            }
            Self::NobodyToAsk => {
                "give it with --passphrase-fd N, or by a program that KEYCHAIN_AUTH_ASKPASS names"
            }
            Self::Program(..) => {
                "correct KEYCHAIN_AUTH_ASKPASS or SSH_ASKPASS, or unset it to be asked on the terminal"
            }
            Self::Passphrase(_) | Self::Differs => "run the command once more, and type it again",
            Self::TooShort => "choose a longer one: several random words",
            Self::Store(_) => "look at the system's messages, then try again",
        }
    }
}

/// How a source is asked.
pub struct Asking<'a> {
    /// Reads the environment.
    pub var: &'a dyn Fn(&str) -> Option<OsString>,
    /// Where the passphrase can be read, from `--passphrase-fd`.
    pub passphrase: Option<BorrowedFd<'a>>,
}

impl Asking<'_> {
    /// What opens this slot.
    pub fn for_slot(&self, slot: &Slot) -> Result<KeyMaterial, KeyError> {
        Ok(match (slot.source(), slot.item()) {
            (KeySource::Keychain, Some(item)) => {
                KeyMaterial::Keychain(item, keychain::ask(ItemTask::Get, item)?)
            }
            (KeySource::Credential, _) => KeyMaterial::Credential(credential::read(self.var)?),
            (KeySource::Passphrase, _) => KeyMaterial::Passphrase(passphrase::ask(
                self.var,
                self.passphrase,
                passphrase::Purpose::Known,
            )?),
            _ => KeyMaterial::File,
        })
    }

    /// What a new slot shall be made with. A passphrase is asked for twice; an item of the keychain is made.
    pub fn for_new(&self, source: KeySource) -> Result<KeyMaterial, KeyError> {
        Ok(match source {
            KeySource::Credential => KeyMaterial::Credential(credential::read(self.var)?),
            KeySource::Keychain => {
                let item = ItemId::generate()?;
                KeyMaterial::Keychain(item, keychain::ask(ItemTask::Make, item)?)
            }
            KeySource::Passphrase => {
                let typed = passphrase::ask(self.var, self.passphrase, passphrase::Purpose::New)?;
                if typed.len() < MIN_PASSPHRASE {
                    return Err(KeyError::TooShort);
                }
                KeyMaterial::Passphrase(typed)
            }
            KeySource::File => KeyMaterial::File,
        })
    }

    /// The first source that is there, for a vault that is made without `--key`: a credential, the keychain if it is
    /// unlocked, else a file. Never a passphrase: a daemon that was set up without one must start without being asked, and
    /// whoever wants one says so.
    pub fn automatic(&self) -> Result<KeyMaterial, KeyError> {
        if credential::is_there(self.var) {
            return self.for_new(KeySource::Credential);
        }
        if bus_address(self.var).is_some()
            && let Ok(material) = self.for_new(KeySource::Keychain)
        {
            return Ok(material);
        }
        Ok(KeyMaterial::File)
    }
}

/// The passphrase of an export; that of a new one is asked for twice. It is another than the vault's, so that whoever gets
/// the export and its passphrase does not get the vault.
pub fn export_passphrase(
    var: &dyn Fn(&str) -> Option<OsString>,
    descriptor: Option<BorrowedFd<'_>>,
    new: bool,
) -> Result<Buffer, KeyError> {
    let purpose = if new { passphrase::Purpose::NewFile } else { passphrase::Purpose::File };
    let typed = passphrase::ask(var, descriptor, purpose)?;
    if new && typed.len() < MIN_PASSPHRASE { Err(KeyError::TooShort) } else { Ok(typed) }
}

/// A secret that a person types on the terminal, without echo, at most 4096 bytes. No program is asked: one that knows the
/// passphrase of the vault would give that.
pub fn typed_value() -> Result<Buffer, KeyError> {
    passphrase::on_terminal("Value of the secret: ")
}

/// Removes the item of a vault that has its key from elsewhere now. Best effort: the item opens nothing any more.
pub fn forget_item(item: ItemId) -> Result<(), KeyError> {
    keychain::ask(ItemTask::Forget, item).map(drop)
}

/// Everything that comes, up to one byte more than a secret may have, into locked memory.
fn read_to_end(source: impl AsFd) -> io::Result<Buffer> {
    let mut bytes = Buffer::with_capacity(MAX_SOURCE_SECRET + 1);
    let mut chunk = [0; 512];
    let ended = loop {
        if bytes.len() > MAX_SOURCE_SECRET {
            break Ok(());
        }
        match rustix::io::read(&source, &mut chunk) {
            Ok(0) => break Ok(()),
            Ok(count) => {
                let room = (MAX_SOURCE_SECRET + 1).saturating_sub(bytes.len());
                bytes.extend_from_slice(chunk.get(..count.min(room)).unwrap_or_default());
            }
            Err(Errno::INTR) => {}
            Err(error) => break Err(error.into()),
        }
    };
    chunk.zeroize();
    ended.map(|()| bytes)
}

fn words(error: &io::Error) -> String {
    error.kind().to_string()
}
