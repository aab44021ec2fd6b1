//! What was found, before anybody says what it means. Plain data.

use std::{io, path::PathBuf};

use crate::{
    caller::Check,
    cli::{status_query::Found, untold::Untold},
    digest::Digest,
    policy::{Distrust, Risk},
    store::KeySource,
};

/// Everything that the table is made of.
pub(super) struct Facts {
    /// The user whose installation it is.
    pub(super) uid: u32,
    pub(super) daemon: Found,
    /// How the daemon is started that answers there.
    pub(super) start: String,
    /// The policy that our own environment leads to.
    pub(super) config: PathBuf,
    pub(super) system: System,
    pub(super) files: Vec<OwnFile>,
    /// Where the vault's key comes from, where that can be read.
    pub(super) key_source: Option<KeySource>,
    pub(super) policy: PolicyFacts,
    pub(super) programs: Vec<Program>,
    /// The last notice that could not be given, where none was given since.
    pub(super) untold: Option<Untold>,
}

/// What the machine offers.
pub(super) struct System {
    /// The kernel's release, such as `6.12.3-arch1`.
    pub(super) kernel: String,
    /// The newest Landlock ABI that we know and the kernel has; none when it has none.
    pub(super) landlock: Option<u32>,
    /// Whether the kernel knows the seccomp action that the filter uses; none when it does not tell.
    pub(super) seccomp: Option<bool>,
    pub(super) memory: Memory,
    pub(super) yama: Yama,
    /// None when the kernel does not tell.
    pub(super) swaps: Option<Vec<Swap>>,
}

/// Memory that is kept out of swap.
pub(super) struct Memory {
    /// Whether the numbers are the daemon's; otherwise they are ours.
    pub(super) of_daemon: bool,
    /// How many bytes may be locked.
    pub(super) limit: Limit,
    /// How many KiB the daemon has locked, where that can be told.
    pub(super) locked: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Bytes(u64),
    Unlimited,
}

/// `kernel.yama.ptrace_scope`.
pub(super) enum Yama {
    Absent,
    Scope(u8),
    Unknown,
}

pub(super) struct Swap {
    pub(super) name: String,
    pub(super) kind: SwapKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SwapKind {
    /// Compressed memory.
    Memory,
    Encrypted,
    Unencrypted,
    /// A file, or a mapping whose ground can't be told simply.
    Unknown,
}

/// A file or folder that our daemon made or reads.
pub(super) struct OwnFile {
    pub(super) role: Role,
    pub(super) path: PathBuf,
    /// None when it is missing.
    pub(super) seen: Result<Option<Seen>, io::ErrorKind>,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    ConfigFolder,
    Config,
    /// The folder that a linked config.json leads to.
    LinkedFolder,
    DataFolder,
    Vault,
    Key,
    Head,
    AuditLog,
    /// The key of the log's chain.
    AuditState,
    Pending,
    SocketFolder,
    Socket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    pub(super) uid: u32,
    /// Permission bits, with set-uid, set-gid and sticky.
    pub(super) mode: u32,
    /// Hard links.
    pub(super) names: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
    Socket,
    Link,
    Other,
}

pub(super) struct PolicyFacts {
    pub(super) state: Result<Counted, Unusable>,
    pub(super) writers: Writers,
    pub(super) seal: Seal,
}

/// Whether the policy is sealed, where the daemon does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seal {
    /// The daemon tells; or there is no vault, and so no seal.
    Told,
    /// It lies in the vault, which no daemon has. Whether a copy of a sealed policy is there.
    Untold { copy: bool },
}

/// A policy that is in force.
pub(super) struct Counted {
    pub(super) entries: usize,
    /// What has no effect, each with its entry.
    pub(super) warnings: Vec<String>,
}

/// A policy that denies everything: why, and what to do.
pub(super) struct Unusable {
    pub(super) sentence: String,
    pub(super) advice: String,
}

/// Who can change the policy, by the file or by a folder on the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Writers {
    RootOnly,
    /// Any process of the user too, at this place.
    User(PathBuf),
}

/// An entry of the policy, and the file that it names.
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// None when config.json has no valid one.
    pub(super) digest: Option<Digest>,
    /// Why the entry matches nothing.
    pub(super) unusable: Option<&'static str>,
    /// The end, where it is over.
    pub(super) expired: Option<String>,
    pub(super) relaxed: Vec<Check>,
    pub(super) file: FileState,
    /// Ways in which others could speak through it.
    pub(super) risks: Vec<Risk>,
    /// Whether the user can replace it without being root.
    pub(super) replaceable: bool,
    pub(super) libraries: Vec<LibraryFacts>,
}

/// A file compared with the hash in the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileState {
    Same,
    Other,
    Gone,
    /// The entry names no file or no hash.
    Unasked,
    /// A sentence that says why it can't be compared.
    Unread(String),
}

pub(super) struct LibraryFacts {
    pub(super) path: PathBuf,
    pub(super) file: FileState,
    /// A place where others can change it.
    pub(super) exposed: Option<(PathBuf, Distrust)>,
}
