//! Which executables may be registered: those whose identity says who is calling.
//!
//! Every refusal is a way in which somebody else could speak through the registered file.

use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    interpreter::{is_interpreter, runs_others},
    measure::{MeasureError, Measured, Opened, hash},
    source::{Distrust, judge},
    stamp::Stamp,
};
use crate::{
    digest::Digest,
    sys::filesystem::{foreign, open},
};

/// Where interpreters live, to recognise one by its inode or bytes when it has got another name.
const USUAL_FOLDERS: [&str; 6] =
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"];
const SETUID_OR_SETGID: u32 = 0o6000;
/// Room for `vfs_ns_cap_data` of linux/capability.h (24 bytes) and for what may come after it.
const LONGEST_CAPABILITIES: usize = 64;
const STICKY: u32 = 0o1000;
/// The longest first line that the kernel reads of a script.
const SCRIPT_LINE: u64 = 256;

/// Risks that the user takes on purpose, one flag each. The default takes none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowances {
    /// `--allow-interpreter`.
    pub interpreter: bool,
    /// `--allow-setuid`.
    pub setuid: bool,
    /// `--allow-writable`.
    pub writable: bool,
    /// `--allow-foreign-filesystem`.
    pub foreign_filesystem: bool,
}

/// An executable that may be registered: measured, and without a risk that was not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate(Measured);

/// Why an executable is not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CandidateError {
    /// It can't be measured.
    #[error(transparent)]
    Unmeasured(#[from] MeasureError),
    /// A way in which somebody else could speak through it.
    #[error("{}: {risk}", path.display())]
    Refused {
        /// The canonical path.
        path: PathBuf,
        /// The risk, explained.
        risk: Risk,
    },
}

/// A way in which somebody else could speak through a registered file, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Risk {
    /// A known interpreter, shell, debugger or loader, by its name.
    #[error(
        "this program runs what others write, so registering it would trust every script and every user of it"
    )]
    Interpreter,
    /// An interpreter under another name.
    #[error("this is {} under another name, and registering it would trust every script", .0.display())]
    RenamedInterpreter(PathBuf),
    /// A text file with `#!`. No flag allows it, since such an entry would never match.
    #[error("this is a script for {0}, and the kernel shows {0} as the caller, never the script")]
    Script(String),
    /// Not an executable that the kernel loads itself. No flag allows it, since such an entry would never match.
    #[error("this is not an ELF executable, so another program would run it and be the caller")]
    NotElf,
    /// A setuid or setgid bit, or file capabilities.
    #[error(
        "it runs with rights that its caller does not have, so its caller could ask through it in another's name"
    )]
    Setuid,
    /// The file itself.
    #[error(
        "{0}, so somebody else could put another program in its place before it is registered or upgraded"
    )]
    File(Distrust),
    /// A folder above it.
    #[error("{}: {why}, so somebody else could replace the program or put a library beside it", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What speaks against it.
        why: Distrust,
    },
    /// FUSE or a network: whoever serves the file can show one content to us and another to the kernel.
    #[error("it lies on a {0} file system, whose server could show one file to the check and run another")]
    ForeignFilesystem(&'static str),
}

impl Candidate {
    /// Examines and measures the executable at `path`, links resolved, for the user `uid`. The first risk answers.
    pub fn examine(path: &Path, allowed: Allowances, uid: u32) -> Result<Self, CandidateError> {
        let opened = Opened::new(path)?;
        let refused = |risk| CandidateError::Refused { path: opened.path.clone(), risk };
        risk_of_content(&opened).map_err(refused)?;
        if !allowed.interpreter && runs_others(&opened.path) {
            return Err(refused(Risk::Interpreter));
        }
        if !allowed.setuid && gains_rights(&opened) {
            return Err(refused(Risk::Setuid));
        }
        if !allowed.writable {
            risk_of_place(&opened, uid).map_err(refused)?;
        }
        if !allowed.foreign_filesystem
            && let Some(kind) = foreign(&opened.file)
        {
            return Err(refused(Risk::ForeignFilesystem(kind)));
        }
        let inode = Stamp::of(&opened.metadata).inode();
        let measured = opened.measure()?;
        if !allowed.interpreter
            && let Some(twin) = twin(inode, &measured)
        {
            return Err(CandidateError::Refused {
                path: measured.path().into(),
                risk: Risk::RenamedInterpreter(twin),
            });
        }
        Ok(Self(measured))
    }

    /// The canonical path, absolute and UTF-8.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The hash of its bytes.
    pub fn digest(&self) -> &Digest {
        self.0.digest()
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.0.size()
    }
}

/// What the kernel would do with it.
fn risk_of_content(opened: &Opened) -> Result<(), Risk> {
    let mut head = Vec::new();
    // an unreadable head is not ELF
    let _ = (&opened.file).take(SCRIPT_LINE).read_to_end(&mut head);
    if let Some(line) = head.strip_prefix(b"#!") {
        return Err(Risk::Script(interpreter_of(line)));
    }
    if head.starts_with(b"\x7fELF") { Ok(()) } else { Err(Risk::NotElf) }
}

/// The interpreter that a `#!` line names; behind `env`, the program that env would look for.
fn interpreter_of(line: &[u8]) -> String {
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or("an unnamed interpreter");
    let behind_env = words.find(|word| !word.starts_with('-') && !word.contains('='));
    match behind_env {
        Some(word) if first.ends_with("/env") => word.to_owned(),
        _ => first.to_owned(),
    }
}

fn gains_rights(opened: &Opened) -> bool {
    // where the file system keeps no capabilities, or hides them, there is nothing to gain that we could see; those that it
    // has count, whatever is in them
    let mut capabilities = [0; LONGEST_CAPABILITIES];
    let found = match rustix::fs::fgetxattr(&opened.file, "security.capability", &mut capabilities) {
        Ok(_) => true,
        Err(error) => error == rustix::io::Errno::RANGE,
    };
    opened.metadata.mode() & SETUID_OR_SETGID != 0 || found
}

fn risk_of_place(opened: &Opened, uid: u32) -> Result<(), Risk> {
    let risk = |Exposed { place, why }| {
        if place == opened.path { Risk::File(why) } else { Risk::Folder { folder: place, why } }
    };
    closed_to_others(opened, uid).map_err(risk)
}

/// A file, or a folder on the way to it, that somebody else can change.
pub(super) struct Exposed {
    pub(super) place: PathBuf,
    pub(super) why: Distrust,
}

/// Whether nobody but `uid` and root can change the file or any folder on the way to it.
///
/// A sticky folder of root, like /tmp, is accepted higher up: nobody can rename or remove the next folder on the way
/// there, which is checked itself. It is refused as the folder of the file: others can put a library beside it.
pub(super) fn closed_to_others(opened: &Opened, uid: u32) -> Result<(), Exposed> {
    judge(&opened.metadata, uid).map_err(|why| Exposed { place: opened.path.clone(), why })?;
    for (height, folder) in opened.path.ancestors().skip(1).enumerate() {
        let exposed = |why| Exposed { place: folder.into(), why };
        let metadata = fs::metadata(folder).map_err(|_| exposed(Distrust::ForeignOwner))?;
        let sticky_of_root = metadata.mode() & STICKY != 0 && metadata.uid() == 0;
        if height > 0 && sticky_of_root {
            continue;
        }
        judge(&metadata, uid).map_err(exposed)?;
    }
    Ok(())
}

/// A known interpreter that is the same inode or has the same bytes: a hard link or a copy under an innocent name.
fn twin(inode: (u64, u64), measured: &Measured) -> Option<PathBuf> {
    let folders = USUAL_FOLDERS.iter().filter_map(|folder| fs::read_dir(folder).ok());
    let files =
        folders.flatten().flatten().filter(|file| file.file_name().to_str().is_some_and(is_interpreter));
    files.map(|file| file.path()).find(|path| {
        let Ok(metadata) = fs::metadata(path) else { return false };
        Stamp::of(&metadata).inode() == inode
            || metadata.len() == measured.size() && has_bytes(path, measured)
    })
}

fn has_bytes(path: &Path, measured: &Measured) -> bool {
    let real = fs::canonicalize(path);
    let digest = real.and_then(|real| open(&real)).and_then(|mut file| hash(&mut file));
    digest.is_ok_and(|digest| digest == *measured.digest())
}

#[cfg(test)]
#[path = "candidate_tests.rs"]
mod tests;
