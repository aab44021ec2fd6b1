//! What a command says when it does not do what it was asked: one sentence, and one line of advice.

use std::{io, path::Path};

use super::text::word;
use crate::{
    daemon::StartError,
    paths::NoHome,
    policy::{
        CandidateError, Distrust, DraftError, LibraryError, MeasureError, PendingError, PolicyError,
        RegistryError, Risk, runs_others,
    },
    transfer::TransferError,
};

/// What to do about a path that no entry has.
const LISTED: &str = "look at the path; keychain-auth list shows what is registered";

/// A sentence about what went wrong and a line about what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    sentence: String,
    advice: String,
}

impl Failure {
    pub(super) fn new(sentence: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), advice: advice.into() }
    }

    pub(super) fn sentence(&self) -> &str {
        &self.sentence
    }

    pub(super) fn advice(&self) -> &str {
        &self.advice
    }
}

impl From<NoHome> for Failure {
    fn from(error: NoHome) -> Self {
        Self::new(error.to_string(), "set HOME to your home folder")
    }
}

impl From<MeasureError> for Failure {
    fn from(error: MeasureError) -> Self {
        let advice = match &error {
            MeasureError::NotFound(_) => {
                "give the program's full path, for example \"$(command -v NAME)\"".to_owned()
            }
            MeasureError::NotAFile(_) => "name the program itself".to_owned(),
            MeasureError::NotExecutable(path) => format!("chmod +x {}", word(path)),
            MeasureError::Changing(_) => "wait until its installation is done, then try again".to_owned(),
            MeasureError::NotUtf8(_) => "give the program a path in UTF-8".to_owned(),
            MeasureError::Unreadable { file, .. } => format!("ls -l {}", word(file)),
        };
        Self::new(error.to_string(), advice)
    }
}

impl From<CandidateError> for Failure {
    fn from(error: CandidateError) -> Self {
        let sentence = error.to_string();
        let advice = match error {
            CandidateError::Unmeasured(error) => return error.into(),
            CandidateError::Refused { risk, path } => match risk {
                Risk::Interpreter | Risk::RenamedInterpreter(_) => {
                    "register the compiled tool instead, or add --allow-interpreter to trust whatever it runs"
                        .to_owned()
                }
                Risk::Script(_) => {
                    "register a compiled program that the script calls for its secrets".to_owned()
                }
                Risk::NotElf => {
                    "register the program that runs it, if you trust everything that program runs".to_owned()
                }
                Risk::Setuid => "add --allow-setuid if you trust everybody who can start it".to_owned(),
                Risk::File(Distrust::Writable) => {
                    format!("chmod go-w {}, or add --allow-writable", word(&path))
                }
                Risk::Folder { why: Distrust::Writable, folder } => {
                    format!("install it elsewhere or chmod go-w {}, or add --allow-writable", word(&folder))
                }
                Risk::ForeignFilesystem(_) => {
                    "copy it to a local disk, or add --allow-foreign-filesystem if you trust the server"
                        .to_owned()
                }
                _ => "install it where only you and root can write, or add --allow-writable".to_owned(),
            },
        };
        Self::new(sentence, advice)
    }
}

impl From<LibraryError> for Failure {
    fn from(error: LibraryError) -> Self {
        let advice = match &error {
            LibraryError::Unmeasured(MeasureError::NotFound(_)) => {
                "give the library's full path, as the refusal shows it".to_owned()
            }
            LibraryError::Unmeasured(error) => return error.clone().into(),
            LibraryError::NotElf(_) => "name the file that the refusal shows, as a rule NAME.so".to_owned(),
            LibraryError::Exposed { place, why: Distrust::Writable } => {
                format!("chmod go-w {}, or add --allow-writable", word(place))
            }
            LibraryError::Exposed { .. } => {
                "install it where only you and root can write, or add --allow-writable".to_owned()
            }
            LibraryError::ForeignFilesystem { .. } => {
                "copy it to a local disk, or add --allow-foreign-filesystem if you trust the server"
                    .to_owned()
            }
        };
        Self::new(error.to_string(), advice)
    }
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        let advice = match &error {
            PolicyError::Broken { .. } => {
                "correct the file there; until then every request is denied".to_owned()
            }
            PolicyError::Untrusted { file, why: Distrust::Writable } => {
                format!("chmod go-w {}", word(file))
            }
            PolicyError::Untrusted { file, why: Distrust::ForeignOwner } => {
                format!("chown \"$(id -un)\" {}", word(file))
            }
            PolicyError::Untrusted { file, .. } => format!("look at it: ls -l {}", word(file)),
            PolicyError::Unsealed { .. } => "see what changed: keychain-auth policy review".to_owned(),
            PolicyError::Unreadable { file, .. } => format!("ls -ld {}", word(file)),
        };
        Self::new(error.to_string(), advice)
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let sentence = error.to_string();
        let advice = match error {
            RegistryError::Policy(error) => return error.into(),
            RegistryError::Draft(DraftError::UnknownPath(path)) => {
                if !path.exists() {
                    return Self::new(format!("{sentence}, and there is no such file"), LISTED);
                }
                registering(&path)
            }
            RegistryError::Draft(DraftError::OtherHash(_)) => {
                "keychain-auth list shows the hashes of each program".to_owned()
            }
            RegistryError::Draft(DraftError::Ambiguous(path)) => {
                format!("keychain-auth unregister {} --hash HASH, for those you no longer need", word(&path))
            }
            RegistryError::Draft(DraftError::Unrestricted(path)) => {
                format!("name what it may use instead: keychain-auth grant {} --prefix PREFIX", word(&path))
            }
            RegistryError::Draft(DraftError::UnknownLibrary { .. }) => {
                "keychain-auth list shows the libraries of each program".to_owned()
            }
            RegistryError::Draft(DraftError::NotUtf8) => "give the program a path in UTF-8".to_owned(),
            RegistryError::Unsealable { ref advice, .. } => advice.clone(),
            RegistryError::Busy(_) => "try again when the other command has ended".to_owned(),
            RegistryError::Unwritable { file, .. } => {
                format!("look who may write there: ls -ld {}", word(file.parent().unwrap_or(&file)))
            }
            RegistryError::TooLarge(_) => {
                "keychain-auth unregister PATH, for programs you no longer use".to_owned()
            }
        };
        Self::new(sentence, advice)
    }
}

impl From<PendingError> for Failure {
    fn from(error: PendingError) -> Self {
        let advice = match &error {
            PendingError::Busy(_) => "try again".to_owned(),
            PendingError::Io { file, .. } => format!("ls -ld {}", word(file)),
        };
        Self::new(error.to_string(), advice)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(error.to_string(), error.advice())
    }
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        Self::new(error.to_string(), error.advice())
    }
}

/// How a program is registered that is not: one that runs what others write is refused without a word about it.
pub(super) fn registering(path: &Path) -> String {
    if runs_others(path) {
        return format!(
            "let a compiled program ask for the secret and register that, or, if you trust everything that it runs: keychain-auth register --allow-interpreter {}",
            word(path)
        );
    }
    format!("keychain-auth register {}", word(path))
}

/// Why nothing could be taken from a program: to register it first would be no advice.
pub(super) fn untaken(error: RegistryError) -> Failure {
    match error {
        RegistryError::Draft(error @ DraftError::UnknownPath(_)) => {
            Failure::new(format!("{error}, so there is nothing to take from it"), LISTED)
        }
        error => error.into(),
    }
}

/// A path that can't even be looked up.
pub(super) fn unusable_path(path: &std::path::Path, error: &io::Error) -> Failure {
    Failure::new(
        format!("{} can't be looked up: {}", path.display(), error.kind()),
        "give the program's full path",
    )
}
