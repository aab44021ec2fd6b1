//! The way of secrets between other programs and the owner of the vault: files, GnuPG, D-Bus, age. What the bytes mean is read
//! by [`import`](crate::import); what is done with the secrets is decided by the command.
//!
//! Everything secret is read into locked memory, bounded, and leaves it only encrypted, unless the user typed otherwise.
#![forbid(unsafe_code)]

mod age_file;
mod export_file;
mod pass_store;
mod secret_service;
mod source;

pub use age_file::{Opening, Sealing};
pub use export_file::ExportFile;
pub use pass_store::pass_store;
pub use secret_service::secret_service;
pub use source::{env_file, export_file, go_folder, one_value};

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    import::{Found, GoStoreError, SourceError, TooMuch},
    keys::KeyError,
};

/// Takes in each entry of a source as it is read.
pub type Sink<'s> = &'s mut dyn FnMut(Found) -> Result<(), TooMuch>;

/// Why a source could not be read, or an export not be written. No text holds a byte of a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The system refused a file or folder.
    #[error("{} can't be {what}: {error}", file.display())]
    Io {
        /// What was tried: `read` or `written`.
        what: &'static str,
        /// The file or folder.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file that is larger than it may be.
    #[error("{} is over {limit} bytes", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The most that is read.
        limit: usize,
    },
    /// The bytes break a rule of their format.
    #[error("{}, {error}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// Where, and which rule.
        error: SourceError,
    },
    /// More than one import takes.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    /// The store of the earlier system.
    #[error("{}: {error}", file.display())]
    GoStore {
        /// The file.
        file: PathBuf,
        /// Why.
        error: GoStoreError,
    },
    /// There is a file already.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// An age file that can't be opened.
    #[error("{} can't be decrypted: {why}", file.display())]
    Sealed {
        /// The file.
        file: PathBuf,
        /// Why.
        why: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// What was given as a recipient is none.
    #[error("{0}")]
    NoKey(String),
    /// What was given as a file of identities holds none that can be used.
    #[error("{0}")]
    NoIdentity(String),
    /// A name that the store of `pass` does not have.
    #[error("the store of pass has no entry and no folder {}", .0.display())]
    NoEntry(PathBuf),
    /// The passphrase of an export.
    #[error(transparent)]
    Passphrase(#[from] KeyError),
    /// A value that was asked for on the terminal.
    #[error("no value was typed: {0}")]
    NotTyped(String),
    /// Standard input ended without a byte, or holds an empty line.
    #[error("standard input holds no value")]
    NoValue,
    /// The keychain.
    #[error("the keychain can't be asked: {0}")]
    Keychain(String),
    /// A program that is needed is not there.
    #[error("the program {0} can't be started: {1}")]
    Program(&'static str, io::Error),
}

impl TransferError {
    /// One line of advice.
    pub fn advice(&self) -> String {
        match self {
            Self::Io { what: "written", .. } => {
                "choose a folder where you can write, with room for it".to_owned()
            }
            Self::Io { file, .. } => format!("ls -ld {}", crate::text::word(file)),
            Self::TooLarge { .. } => "is it the file that you mean? If so, import it in parts".to_owned(),
            Self::Malformed { .. } => {
                "correct the file there, then try again; nothing was imported".to_owned()
            }
            Self::TooMuch(_) => "import in parts".to_owned(),
            Self::GoStore { .. } => {
                "name the folder that holds both keychain.enc and the keychain.key that belongs to it"
                    .to_owned()
            }
            Self::Exists(_) => "choose another name, or move it away".to_owned(),
            Self::Sealed { advice, .. } => (*advice).to_owned(),
            Self::NoIdentity(_) => {
                "name the file that age-keygen wrote, with a line AGE-SECRET-KEY-1…; one that is encrypted itself is decrypted first: age --decrypt".to_owned()
            }
            Self::NoKey(_) => "make a pair with: age-keygen -o key.txt; it prints the recipient".to_owned(),
            Self::Passphrase(KeyError::NobodyToAsk) => {
                "give it with --export-passphrase-fd N, or by a program that KEYCHAIN_AUTH_ASKPASS names"
                    .to_owned()
            }
            Self::NoValue => {
                "see whether the program before the | failed; an empty value can be imported from an .env file: NAME=".to_owned()
            }
            Self::NotTyped(_) => {
                "try again, or give it on standard input: the program that has it, then | and this command"
                    .to_owned()
            }
            Self::Passphrase(error) => error.advice().to_owned(),
            Self::Keychain(_) => {
                "start it within the desktop session, so that DBUS_SESSION_BUS_ADDRESS is set".to_owned()
            }
            Self::NoEntry(_) => "see what there is: pass ls".to_owned(),
            Self::Program("gpg", _) => "install GnuPG, with which pass encrypts its entries".to_owned(),
            Self::Program(..) => "install it, or put it on the PATH".to_owned(),
        }
    }

    fn reading(file: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |error| Self::Io { what: "read", file: file.to_owned(), error }
    }

    fn writing(file: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |error| Self::Io { what: "written", file: file.to_owned(), error }
    }

    fn malformed(file: &Path) -> impl FnOnce(SourceError) -> Self + use<'_> {
        move |error| Self::Malformed { file: file.to_owned(), error }
    }
}
