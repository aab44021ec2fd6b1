//! What the witness saw of a process. Plain data: it decides nothing.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// One version of one file: when any of this changes, the bytes may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileKey {
    /// Device number of the filesystem.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last change of the content, in nanoseconds since 1970.
    pub modified: i64,
    /// Last change of content or inode, in nanoseconds since 1970.
    pub changed: i64,
}

/// The executable that a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Executable {
    /// Its path as the kernel tells it, without the mark of a deleted file. Lossy where it is not UTF-8.
    pub path: String,
    /// Whether `path` is exact: UTF-8, absolute, and in reach of this process's root. An inexact path matches no entry.
    pub exact: bool,
    /// Whether the file at the path has been deleted or replaced since the process began to run it.
    pub deleted: bool,
    /// The inode that runs.
    pub key: FileKey,
}

/// A namespace: device and inode of its entry in /proc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// How the process holds the client's end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Custody {
    /// It does not hold it: another process does.
    NotHeld,
    /// It holds it without close-on-exec: the descriptor may have crossed an exec.
    HeldAcrossExec,
    /// The connection belongs to another network namespace, as of a service with `PrivateNetwork=`: the kernel does not tell
    /// from here who holds it.
    Untold,
    /// Every descriptor it has of the connection is close-on-exec, but a seccomp filter of its own decides about its
    /// system calls: the supervisor of a filter can plant such descriptors in a process after its exec.
    HeldUnderFilter,
    /// Every descriptor it has of the connection is close-on-exec: none of them can have crossed an exec.
    HeldCloseOnExec,
}

/// A piece of executable memory that is neither the executable itself nor the kernel's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignCode {
    /// The mapped file, lossy; empty for memory without a file.
    pub path: String,
    /// The inode that is mapped, as far as the memory map tells it: sizes and times are 0 where the path does not lead
    /// to it any more.
    pub key: Option<FileKey>,
    /// SHA-256 of the mapped file, where it was asked for and the path still leads to it.
    pub digest: Option<Digest>,
}

/// Everything the full check needs, in the order in which it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The process that connected.
    pub pid: u32,
    /// Real, effective, saved and filesystem user id.
    pub uids: [u32; 4],
    /// What it runs.
    pub executable: Executable,
    /// SHA-256 of the very inode that it runs.
    pub digest: Digest,
    /// Whether the filesystem of the executable keeps files as they were written: false for FUSE and network filesystems.
    pub faithful_filesystem: bool,
    /// Who holds the client's end.
    pub custody: Custody,
    /// Whether the executable's inode is mapped executable. It is not when `/proc/P/exe` was forged.
    pub executable_mapped: bool,
    /// Executable memory that has no business there; at most 16 pieces are told.
    pub foreign_code: Vec<ForeignCode>,
    /// The process that traces it, 0 for none.
    pub tracer: u32,
    /// Its user namespace.
    pub user_namespace: Namespace,
    /// Its pid namespace.
    pub pid_namespace: Namespace,
    /// Its mount namespace: recorded, not judged, since services with `PrivateTmp=` have their own.
    pub mount_namespace: Namespace,
    /// Whether the executable was the same inode before and after everything else was looked at.
    pub executable_stable: bool,
    /// Whether the process and its address space were still the same after everything else was looked at.
    pub alive: bool,
    /// Size of the address space in pages before its mappings were looked at. Another size means other mappings.
    pub pages: u64,
}

/// A process that runs no executable of any entry: what the refusal, its record and the pending queue need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sighting {
    /// The process that connected.
    pub pid: u32,
    /// What it runs.
    pub executable: Executable,
    /// Its digest, where an earlier look has left it in the cache.
    pub digest: Option<Digest>,
    /// Its arguments, lossy, at most 32 of at most 256 bytes; they are masked before they are written anywhere.
    pub arguments: Vec<String>,
}
