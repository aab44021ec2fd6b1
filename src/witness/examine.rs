//! One look at one process, in the order that leaves no gap between the checks.

use std::{
    fs::{self, File},
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::fstatfs;

use super::{
    custody::{SocketDiagnosis, custody, unseen},
    hashing::Fingerprints,
    libraries::Libraries,
    procfs::{parse_maps, parse_status},
    protocol::{Unseen, Watched},
};
use crate::{
    caller::{Executable, Facts, FileKey, Namespace, Sighting},
    digest::Digest,
    sys::peer::alive,
};

/// Most bytes of a memory map that are read: some 40,000 mappings, ten times what browsers have.
const MAX_MAPS: u64 = 4 << 20;
const MAX_STATUS: u64 = 16 << 10;
const MAX_ARGUMENTS: usize = 32;
const MAX_ARGUMENT: usize = 256;
/// Filesystems that may show other bytes to the reader than to the processor: FUSE and network filesystems.
const UNFAITHFUL: [u64; 9] = [
    0x6573_5546, // FUSE
    0x6969,      // NFS
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x517b,      // SMB
    0x0102_1997, // 9P
    0x00c3_6400, // Ceph
    0x5346_414f, // AFS
    0x7375_7245, // Coda
];

/// A process to look at.
pub(super) struct Subject {
    pub(super) pid: u32,
    /// Inode number of the daemon's end of the connection.
    pub(super) socket: u64,
    /// Pins the process that connected, where the kernel can.
    pub(super) pidfd: Option<OwnedFd>,
}

/// What is needed to look, and what is remembered between looks.
pub(super) struct Instruments<'a> {
    pub(super) diagnosis: &'a SocketDiagnosis,
    pub(super) libraries: &'a mut Libraries,
    pub(super) fingerprints: &'a Fingerprints,
}

impl Subject {
    fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.pid))
    }

    /// What it runs, and a descriptor of that inode where it can be read.
    pub(super) fn executable(&self) -> Result<(Executable, Option<File>), Unseen> {
        let link = self.proc().join("exe");
        let shown = fs::read_link(&link).map_err(unseen)?;
        let file = File::open(&link).ok();
        let metadata = match &file {
            Some(file) => file.metadata(),
            None => fs::metadata(&link),
        };
        let metadata = metadata.map_err(unseen)?;
        Ok((executable(&shown, &metadata), file))
    }

    /// The full look, at a process whose executable `key` has been hashed to `digest`.
    ///
    /// The order is the argument: the address space is pinned first and found unchanged last, and the executable is
    /// looked at before and after custody, so that an exec between any two looks is seen by the last ones.
    pub(super) fn look(
        &self,
        executable: Executable,
        digest: Digest,
        watched: &Watched,
        instruments: Instruments<'_>,
    ) -> Result<(Facts, File), Unseen> {
        let proc = self.proc();
        let pin = File::open(proc.join("maps")).map_err(unseen)?;
        let before = self.running()?;
        let peer = instruments.diagnosis.peer_of(self.socket)?;
        let custody = custody(&proc, peer)?;
        let mappings = parse_maps(&read_bounded(&pin, MAX_MAPS)?).map_err(|_| Unseen::Unreadable)?;
        let code =
            instruments.libraries.sort(&mappings, &before, &watched.libraries, instruments.fingerprints);
        let status = File::open(proc.join("status")).map_err(unseen)?;
        let (tracer, uids) =
            parse_status(&read_bounded(&status, MAX_STATUS)?).map_err(|_| Unseen::Unreadable)?;
        let namespaces = proc.join("ns");
        let facts = Facts {
            pid: self.pid,
            uids,
            digest,
            faithful_filesystem: faithful(&proc.join("exe"))?,
            custody,
            executable_mapped: code.executable_mapped,
            foreign_code: code.foreign,
            tracer,
            user_namespace: namespace(&namespaces.join("user"))?,
            pid_namespace: namespace(&namespaces.join("pid"))?,
            mount_namespace: namespace(&namespaces.join("mnt"))?,
            executable_stable: before == executable.key && self.running()? == before,
            alive: pin.read_at(&mut [0], 0).is_ok_and(|length| length > 0) && self.alive(),
            executable,
        };
        Ok((facts, pin))
    }

    /// What can be told of a process that runs nothing of interest.
    pub(super) fn sighting(&self, executable: Executable, digest: Option<Digest>) -> Sighting {
        Sighting { pid: self.pid, executable, digest, arguments: arguments(&self.proc()) }
    }

    fn running(&self) -> Result<FileKey, Unseen> {
        fs::metadata(self.proc().join("exe")).map(|file| file_key(&file)).map_err(unseen)
    }

    fn alive(&self) -> bool {
        self.pidfd.as_ref().is_none_or(|pidfd| alive(pidfd.as_fd()))
    }
}

/// This process's own namespace of a kind.
pub(crate) fn namespace(link: &Path) -> Result<Namespace, Unseen> {
    let entry = fs::metadata(link).map_err(unseen)?;
    Ok(Namespace { device: entry.dev(), inode: entry.ino() })
}

pub(super) fn file_key(file: &fs::Metadata) -> FileKey {
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    FileKey {
        device: file.dev(),
        inode: file.ino(),
        size: file.size(),
        modified: nanoseconds(file.mtime(), file.mtime_nsec()),
        changed: nanoseconds(file.ctime(), file.ctime_nsec()),
    }
}

fn executable(shown: &Path, metadata: &fs::Metadata) -> Executable {
    let lossy = shown.to_string_lossy();
    let key = file_key(metadata);
    // a file may really be called "x (deleted)": then its path leads to it
    let leads_to_it = |path: &Path| {
        fs::metadata(path).is_ok_and(|file| (file.dev(), file.ino()) == (key.device, key.inode))
    };
    let without_mark = lossy.strip_suffix(" (deleted)").filter(|_| !leads_to_it(shown));
    Executable {
        path: without_mark.unwrap_or(&lossy).to_owned(),
        exact: shown.to_str().is_some() && shown.is_absolute(),
        deleted: without_mark.is_some(),
        key,
    }
}

fn faithful(link: &Path) -> Result<bool, Unseen> {
    let file = File::open(link).map_err(unseen)?;
    let filesystem = fstatfs(&file).map_err(|_| Unseen::Unreadable)?;
    // the type is signed or not by architecture; its low 32 bits are the magic number
    Ok(!UNFAITHFUL.contains(&(filesystem.f_type as u64 & 0xffff_ffff)))
}

fn read_bounded(file: &File, limit: u64) -> Result<Vec<u8>, Unseen> {
    let mut bytes = Vec::with_capacity(8192);
    let length = file.take(limit + 1).read_to_end(&mut bytes).map_err(unseen)?;
    if length as u64 > limit { Err(Unseen::TooLarge) } else { Ok(bytes) }
}

fn arguments(proc: &Path) -> Vec<String> {
    let mut bytes = Vec::new();
    let limit = (MAX_ARGUMENTS * MAX_ARGUMENT) as u64;
    let read = File::open(proc.join("cmdline")).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    if read.is_err() || bytes.is_empty() {
        return Vec::new();
    }
    let whole = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
    whole
        .split(|byte| *byte == 0)
        .take(MAX_ARGUMENTS)
        .map(|argument| {
            String::from_utf8_lossy(argument.get(..MAX_ARGUMENT).unwrap_or(argument)).into_owned()
        })
        .collect()
}
