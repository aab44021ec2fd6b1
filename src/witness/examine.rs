//! One look at one process, in the order that leaves no gap between the checks.

use std::{
    ffi::OsStr,
    fs::File,
    io::Read,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, Stat, fstat, fstatfs, openat, readlinkat, statat};

use super::{
    custody::{Peer, SocketDiagnosis, custody, unseen},
    hashing::Fingerprints,
    libraries::Libraries,
    mounts,
    procfs::{Status, parse_maps, parse_statm, parse_status},
    protocol::Unseen,
    written::PageMap,
};
use crate::{
    caller::{Custody, Executable, Facts, FileKey, Namespace, Sighting},
    digest::Digest,
    sys::peer::alive,
};

/// Most bytes of a memory map that are read: some 40,000 mappings, ten times what browsers have.
const MAX_MAPS: u64 = 4 << 20;
/// Most bytes of a status file: a process may be in 65,536 groups.
const MAX_STATUS: u64 = 1 << 20;
/// Most threads of a process that are looked at.
const MAX_THREADS: usize = 1024;
/// What the kernel puts behind the path of a file that is not there any more.
pub(super) const DELETED: &str = " (deleted)";
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
    /// Inode number and cookie of the daemon's end of the connection.
    pub(super) socket: (u64, u64),
    /// Pins the process that connected, where the kernel can.
    pub(super) pidfd: Option<OwnedFd>,
    /// Its folder in /proc. Once open it stays that process's, whatever the number is given to next.
    folder: OwnedFd,
}

/// An executable that is held and was not opened yet: nobody's filesystem was asked anything.
pub(super) struct Held {
    /// What /proc shows.
    shown: PathBuf,
    /// Keeps the inode, and gives nothing to read.
    file: OwnedFd,
    /// What the kernel remembers of it.
    stat: Stat,
}

impl Held {
    /// Whether it can be opened and read without waiting for somebody.
    pub(super) fn is_local(&self) -> bool {
        // of a file that lost this name and has another, `executable` asks where the path leads, over whatever lies there
        let has_mark = self.shown.as_os_str().as_bytes().ends_with(DELETED.as_bytes());
        !(has_mark && self.stat.st_nlink > 0) && mounts::is_local(self.file.as_fd(), &self.stat)
    }

    /// Opens it, and not what the process may run by now.
    pub(super) fn open(self) -> Result<Running, Unseen> {
        let Self { shown, file: held, .. } = self;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(CWD, own(&held), flags, Mode::empty());
        let file = file.map(File::from).ok();
        let stat = match &file {
            Some(file) => fstat(file),
            None => statat(&held, "", AtFlags::EMPTY_PATH),
        };
        let faithful = file.as_ref().is_some_and(faithful);
        Ok(Running { executable: executable(&shown, &stat.map_err(unseen)?), file, faithful })
    }
}

/// An open executable.
pub(super) struct Running {
    pub(super) executable: Executable,
    /// Of the inode that runs; none where it can't be read.
    pub(super) file: Option<File>,
    /// Whether its filesystem shows the reader what the processor gets.
    pub(super) faithful: bool,
}

/// Descriptors by which the keeper sees later that a process is still the one that was looked at.
pub(super) struct Pin {
    /// Its memory map: reads nothing any more once it has another address space.
    pub(super) maps: OwnedFd,
    /// The size of its address space: another one once anything was mapped.
    pub(super) size: OwnedFd,
}

/// What is needed to look, and what is remembered between looks.
pub(super) struct Instruments<'a> {
    pub(super) diagnosis: &'a SocketDiagnosis,
    pub(super) libraries: &'a Libraries,
    /// Digests of files that may be written while they are mapped.
    pub(super) libraries_digests: &'a Fingerprints,
    pub(super) common_filters: u32,
    /// Size of a page in bytes.
    pub(super) page: u64,
}

/// How many seccomp filters every process here has, as in a container: those of the first process, which nobody can
/// choose, but no more than this process had before its own. A caller with more has filters that somebody gave it.
pub(super) fn common_filters() -> u32 {
    let filters = |path| {
        let file = File::open(path).ok()?;
        parse_status(&read_bounded(&file, MAX_STATUS).ok()?).ok().map(|status| status.filters)
    };
    filters("/proc/1/status").unwrap_or(0).min(filters("/proc/self/status").unwrap_or(0))
}

impl Subject {
    /// Opens the process's folder.
    pub(super) fn new(pid: u32, socket: (u64, u64), pidfd: Option<OwnedFd>) -> Result<Self, Unseen> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).map_err(unseen)?;
        Ok(Self { pid, socket, pidfd, folder })
    }

    /// What /proc shows it to run, lossy. Touches no file, so nobody can make it wait.
    pub(super) fn shown(&self) -> Result<String, Unseen> {
        let shown = readlinkat(&self.folder, "exe", Vec::with_capacity(256)).map_err(unseen)?;
        Ok(String::from_utf8_lossy(shown.as_bytes()).into_owned())
    }

    /// What it runs. Nobody can make this wait either.
    pub(super) fn executable(&self) -> Result<Held, Unseen> {
        let shown = readlinkat(&self.folder, "exe", Vec::with_capacity(256)).map_err(unseen)?;
        let shown = PathBuf::from(OsStr::from_bytes(shown.as_bytes()));
        let file =
            openat(&self.folder, "exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(unseen)?;
        // by its name: the kernel forgets the flag where there is none, and asks the filesystem
        let stat = statat(CWD, own(&file), AtFlags::STATX_DONT_SYNC).map_err(unseen)?;
        Ok(Held { shown, file, stat })
    }

    /// The full look, at a process whose executable has been hashed to `digest`.
    ///
    /// The order is the argument: the address space is pinned first and found unchanged last, and the executable is
    /// looked at before and after custody, so that an exec between any two looks is seen by the last ones.
    pub(super) fn look(
        &self,
        running: Running,
        digest: Digest,
        pinned: &[String],
        instruments: Instruments<'_>,
    ) -> Result<(Facts, Pin), Unseen> {
        let Running { executable, faithful, .. } = running;
        let pin = self.open("maps")?;
        let size = self.open("statm")?;
        let pages = pages_of(&size)?;
        // the kernel may lack it (CONFIG_PROC_PAGE_MONITOR), which is no sign of an end
        let mut written =
            PageMap::new(self.open("pagemap").map_err(|_| Unseen::Unreadable)?, instruments.page);
        let before = self.runs()?;
        let (inode, cookie) = self.socket;
        let custody = match instruments.diagnosis.peer_of(inode, cookie)? {
            Peer::Socket(peer) => custody(self.folder.as_fd(), peer)?,
            Peer::OfAnotherNetwork => Custody::Untold,
        };
        let mappings = parse_maps(&read_bounded(&pin, MAX_MAPS)?).map_err(|_| Unseen::Unreadable)?;
        let code = instruments.libraries.sort(
            &mappings,
            &executable,
            pinned,
            instruments.libraries_digests,
            &mut written,
        )?;
        let Status { tracer, uids, filters } = self.status()?;
        let custody = match custody {
            Custody::HeldCloseOnExec if filters > instruments.common_filters => Custody::HeldUnderFilter,
            custody => custody,
        };
        let facts = Facts {
            pid: self.pid,
            uids,
            digest,
            faithful_filesystem: faithful,
            custody,
            executable_mapped: code.executable_mapped,
            foreign_code: code.foreign,
            tracer: if tracer == 0 { self.tracer_of_a_thread()? } else { tracer },
            user_namespace: self.namespace("ns/user")?,
            pid_namespace: self.namespace("ns/pid")?,
            mount_namespace: self.namespace("ns/mnt")?,
            executable_stable: before == executable.key && self.runs()? == before,
            alive: pin.read_at(&mut [0], 0).is_ok_and(|length| length > 0) && self.alive(),
            pages,
            executable,
        };
        Ok((facts, Pin { maps: pin.into(), size: size.into() }))
    }

    /// What can be told of a process that runs nothing of interest.
    pub(super) fn sighting(&self, executable: Executable, digest: Option<Digest>) -> Sighting {
        Sighting { pid: self.pid, executable, digest, arguments: self.arguments() }
    }

    fn open(&self, name: &str) -> Result<File, Unseen> {
        let file = openat(&self.folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        file.map(File::from).map_err(unseen)
    }

    fn runs(&self) -> Result<FileKey, Unseen> {
        // it may run another file by now, whose filesystem is not to be asked
        let stat = statat(&self.folder, "exe", AtFlags::STATX_DONT_SYNC).map_err(unseen)?;
        Ok(file_key(&stat))
    }

    fn status(&self) -> Result<Status, Unseen> {
        parse_status(&read_bounded(&self.open("status")?, MAX_STATUS)?).map_err(|_| Unseen::Unreadable)
    }

    /// Who traces any thread but the first, 0 for nobody: such a tracer reads all memory as well.
    fn tracer_of_a_thread(&self) -> Result<u32, Unseen> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(&self.folder, "task", flags, Mode::empty()).map_err(unseen)?;
        let mut entries = Vec::with_capacity(4096);
        let mut entries = RawDir::new(&folder, entries.spare_capacity_mut());
        let mut seen = 0;
        while let Some(entry) = entries.next() {
            let name = entry.map_err(unseen)?.file_name().to_string_lossy().into_owned();
            if name.parse::<u32>().map_or(true, |thread| thread == self.pid) {
                continue;
            }
            seen += 1;
            if seen > MAX_THREADS {
                return Err(Unseen::TooLarge);
            }
            // a thread may end while we look
            let status = match self.open(&format!("task/{name}/status")) {
                Ok(file) => read_bounded(&file, MAX_STATUS),
                Err(why) => Err(why),
            };
            let status = match status {
                Err(Unseen::Gone) => continue,
                status => status?,
            };
            let Status { tracer, .. } = parse_status(&status).map_err(|_| Unseen::Unreadable)?;
            if tracer != 0 {
                return Ok(tracer);
            }
        }
        Ok(0)
    }

    fn namespace(&self, name: &str) -> Result<Namespace, Unseen> {
        let stat = statat(&self.folder, name, AtFlags::empty()).map_err(unseen)?;
        Ok(Namespace { device: stat.st_dev, inode: stat.st_ino })
    }

    fn arguments(&self) -> Vec<String> {
        let mut bytes = Vec::new();
        let limit = (MAX_ARGUMENTS * MAX_ARGUMENT) as u64;
        let Ok(file) = self.open("cmdline") else { return Vec::new() };
        if file.take(limit).read_to_end(&mut bytes).is_err() || bytes.is_empty() {
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

    fn alive(&self) -> bool {
        self.pidfd.as_ref().is_none_or(|pidfd| alive(pidfd.as_fd()))
    }
}

pub(super) fn file_key(stat: &Stat) -> FileKey {
    // the parts of a second are signed on some platforms and not on others
    let nanoseconds = |seconds: i64, rest: i128| {
        seconds.saturating_mul(1_000_000_000).saturating_add(i64::try_from(rest).unwrap_or_default())
    };
    FileKey {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec.into()),
        changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec.into()),
    }
}

fn executable(shown: &Path, stat: &Stat) -> Executable {
    let lossy = shown.to_string_lossy();
    let key = file_key(stat);
    // a file may really be called "x (deleted)": then its path leads to it
    let leads_to_it = || {
        stat.st_nlink > 0
            && rustix::fs::stat(shown)
                .is_ok_and(|found| (found.st_dev, found.st_ino) == (key.device, key.inode))
    };
    let without_mark = lossy.strip_suffix(DELETED).filter(|_| !leads_to_it());
    Executable {
        path: without_mark.unwrap_or(&lossy).to_owned(),
        exact: shown.to_str().is_some() && shown.is_absolute(),
        deleted: without_mark.is_some(),
        key,
    }
}

/// The name by which this process finds what a descriptor of its own holds.
fn own(held: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", held.as_raw_fd())
}

fn pages_of(statm: &File) -> Result<u64, Unseen> {
    let mut bytes = [0; 64];
    let length = statm.read_at(&mut bytes, 0).map_err(|_| Unseen::Gone)?;
    parse_statm(bytes.get(..length).unwrap_or_default()).map_err(|_| Unseen::Unreadable)
}

fn faithful(file: &File) -> bool {
    // the type is signed or not by architecture; its low 32 bits are the magic number
    fstatfs(file).is_ok_and(|filesystem| !UNFAITHFUL.contains(&(filesystem.f_type as u64 & 0xffff_ffff)))
}

fn read_bounded(file: &File, limit: u64) -> Result<Vec<u8>, Unseen> {
    let mut bytes = Vec::with_capacity(8192);
    let length = file.take(limit + 1).read_to_end(&mut bytes).map_err(|_| Unseen::Gone)?;
    if length as u64 > limit { Err(Unseen::TooLarge) } else { Ok(bytes) }
}
