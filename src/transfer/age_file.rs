//! Encryption of exports: the age format, version 1, by the `age` crate; `age` and `rage` open the files too.
//!
//! The crate holds 64 KiB of plaintext at a time in ordinary memory, which the program's allocator wipes when it is freed.

use std::{
    io::{self, Read, Write},
    iter,
    path::Path,
};

use age::{
    DecryptError, Decryptor, Encryptor, scrypt,
    secrecy::SecretString,
    stream::{StreamReader, StreamWriter},
    x25519,
};

use super::{TransferError, source::read_whole};
use crate::{keys::KeyError, secret::Buffer};

/// How an age file begins.
const MAGIC: &[u8] = b"age-encryption.org/";
/// Cost of a passphrase, as a power of two: 256 MiB of memory, about a second. What `age` itself uses.
const WORK: u8 = 18;
/// Greatest cost that a file may ask for: a file that was made to cost hours is refused.
const MAX_WORK: u8 = 20;
/// Largest file of identities.
const MAX_IDENTITIES: usize = 1024 * 1024;

/// Who can open an export.
pub enum Sealing {
    /// Whoever has the identity of one of these recipients.
    Recipients(Vec<x25519::Recipient>),
    /// Whoever knows the passphrase.
    Passphrase(Buffer),
    /// Everybody who can read the file.
    Plain,
}

impl Sealing {
    /// Recipients from their text, `age1…`.
    pub fn to_recipients(texts: &[String]) -> Result<Self, TransferError> {
        let parse = |text: &String| {
            let parsed = text.parse::<x25519::Recipient>();
            parsed.map_err(|_| {
                TransferError::NoKey(format!("{} is no age recipient (age1…)", crate::text::plain(text)))
            })
        };
        Ok(Self::Recipients(texts.iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// Begins a file that only those can read.
    pub(super) fn wrap<W: Write>(&self, out: W) -> Result<Sealed<W>, io::Error> {
        let failed = |_| io::Error::other("the recipients can't be used together");
        let encryptor = match self {
            Self::Plain => return Ok(Sealed::Plain(out)),
            Self::Recipients(recipients) => {
                let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
                Encryptor::with_recipients(recipients).map_err(failed)?
            }
            Self::Passphrase(passphrase) => {
                let mut recipient = scrypt::Recipient::new(words(passphrase)?);
                recipient.set_work_factor(WORK);
                Encryptor::with_recipients(iter::once(&recipient as &dyn age::Recipient)).map_err(failed)?
            }
        };
        Ok(Sealed::Age(Box::new(encryptor.wrap_output(out)?)))
    }
}

/// The crate takes a string, which it wipes.
fn words(passphrase: &Buffer) -> io::Result<SecretString> {
    let text = std::str::from_utf8(passphrase.as_slice());
    let text = text.map_err(|_| io::Error::other("the passphrase is not text in UTF-8"))?;
    Ok(SecretString::from(text.to_owned()))
}

/// A file in the making.
pub(super) enum Sealed<W: Write> {
    Age(Box<StreamWriter<W>>),
    Plain(W),
}

impl<W: Write> Sealed<W> {
    /// Writes the end, without which nobody takes the file for whole.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Age(stream) => stream.finish(),
            Self::Plain(out) => Ok(out),
        }
    }
}

impl<W: Write> Write for Sealed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Age(stream) => stream.write(bytes),
            Self::Plain(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Age(stream) => stream.flush(),
            Self::Plain(out) => out.flush(),
        }
    }
}

/// What opens an export.
pub struct Opening<'a> {
    identities: Vec<x25519::Identity>,
    ask: &'a dyn Fn() -> Result<Buffer, KeyError>,
}

impl<'a> Opening<'a> {
    /// With the identities in these files, as `age-keygen` writes them. `ask` gives the passphrase of a file that has one.
    pub fn new(
        files: &[impl AsRef<Path>],
        ask: &'a dyn Fn() -> Result<Buffer, KeyError>,
    ) -> Result<Self, TransferError> {
        let mut identities = Vec::new();
        for file in files {
            identities_of(file.as_ref(), &mut identities)?;
        }
        Ok(Self { identities, ask })
    }

    /// Begins to read an export, encrypted or not.
    pub(super) fn open(
        &self,
        source: Box<dyn Read>,
        file: &Path,
    ) -> Result<Opened<Box<dyn Read>>, TransferError> {
        let mut source = source;
        let mut begin = Vec::with_capacity(MAGIC.len());
        source
            .by_ref()
            .take(MAGIC.len() as u64)
            .read_to_end(&mut begin)
            .map_err(TransferError::reading(file))?;
        let encrypted = begin == MAGIC;
        let source: Box<dyn Read> = Box::new(io::Cursor::new(begin).chain(source));
        if !encrypted {
            return Ok(Opened::Plain(source));
        }
        let failed = |error| refused(file, &error);
        let decryptor = Decryptor::new(source).map_err(failed)?;
        let stream = if decryptor.is_scrypt() {
            let passphrase = (self.ask)()?;
            let words = words(&passphrase).map_err(TransferError::reading(file))?;
            let mut identity = scrypt::Identity::new(words);
            identity.set_max_work_factor(MAX_WORK);
            decryptor.decrypt(iter::once(&identity as &dyn age::Identity)).map_err(failed)?
        } else if self.identities.is_empty() {
            return Err(TransferError::Sealed {
                file: file.to_owned(),
                why: "it is encrypted to recipients",
                advice: "name the file with your identity: --identity key.txt",
            });
        } else {
            let identities = self.identities.iter().map(|identity| identity as &dyn age::Identity);
            decryptor.decrypt(identities).map_err(failed)?
        };
        Ok(Opened::Age(Box::new(stream)))
    }
}

/// An export that is being read.
pub(super) enum Opened<R: Read> {
    Age(Box<StreamReader<R>>),
    Plain(R),
}

impl<R: Read> Opened<R> {
    /// Why reading broke off.
    pub(super) fn broken(&self, file: &Path, error: io::Error) -> TransferError {
        let changed = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
        match self {
            Self::Age(_) if changed => TransferError::Sealed {
                file: file.to_owned(),
                why: "it was cut or changed",
                advice: "get an intact copy; nothing was imported",
            },
            _ => TransferError::reading(file)(error),
        }
    }
}

impl<R: Read> Read for Opened<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Age(stream) => stream.read(bytes),
            Self::Plain(source) => source.read(bytes),
        }
    }
}

/// The identities in a file: one a line, beside comments.
fn identities_of(file: &Path, identities: &mut Vec<x25519::Identity>) -> Result<(), TransferError> {
    let bytes = read_whole(file, MAX_IDENTITIES)?;
    let none = |why: &str| TransferError::NoIdentity(format!("{} {why}", file.display()));
    if bytes.as_slice().starts_with(MAGIC) {
        return Err(none("is encrypted itself"));
    }
    let text = std::str::from_utf8(bytes.as_slice()).map_err(|_| none("holds no age identity"))?;
    let before = identities.len();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let identity =
            line.parse().map_err(|_| none(&format!("has no age identity in line {}", index + 1)))?;
        identities.push(identity);
    }
    if identities.len() == before { Err(none("holds no age identity")) } else { Ok(()) }
}

fn refused(file: &Path, error: &DecryptError) -> TransferError {
    let (why, advice) = match error {
        DecryptError::NoMatchingKeys => (
            "it is for other recipients",
            "name the file with the identity that belongs to it: --identity key.txt",
        ),
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => {
            ("the passphrase is another one", "try again with the passphrase of the export")
        }
        DecryptError::ExcessiveWork { .. } => {
            ("its passphrase costs more than is tried here", "decrypt it with age, and import what comes out")
        }
        DecryptError::InvalidMac | DecryptError::InvalidHeader => {
            ("its head was changed", "get an intact copy; nothing was imported")
        }
        DecryptError::Io(_) => ("it is cut short", "get an intact copy; nothing was imported"),
        _ => {
            ("it has a version of age that is unknown here", "decrypt it with age, and import what comes out")
        }
    };
    TransferError::Sealed { file: file.to_owned(), why, advice }
}
