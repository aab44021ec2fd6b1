//! Which files can be opened and read without a question to anybody's filesystem server.
//!
//! To ask the file's own filesystem what it is may take for ever already: FUSE lets its server answer `statfs`. So what
//! counts is whether this process's own mounts have it. Under a filesystem that only a mount namespace of the caller's has,
//! anything may lie; FUSE is what a user can mount without one, and it has its name.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::fs::{Stat, major, minor};

use super::procfs::{Mount, parse_mount_id, parse_mounts};

/// Most bytes of the list of mounts that are read: `fusermount` gives a user 1,000, each with a path of 4 KiB, which the
/// kernel may spell in four times as many.
const MAX_MOUNTS: u64 = 32 << 20;
/// Types of filesystems that ask a server, which may not answer. `fuse` stands for its subtypes (`fuse.sshfs`) too.
const ASKING: [&str; 13] = [
    "fuse", "fuseblk", "virtiofs", "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "coda",
    "autofs",
];

/// Whether the file behind this descriptor, of which `stat` is known, lies on a filesystem of this machine that this
/// process has mounted too. The descriptor keeps the filesystem: its numbers can't be given to another one meanwhile.
pub(super) fn is_local(file: BorrowedFd<'_>, stat: &Stat) -> bool {
    let Some(mounts) = read("/proc/self/mountinfo") else { return false };
    let mounts = parse_mounts(&mounts);
    let device = (major(stat.st_dev), minor(stat.st_dev));
    let found = mounts.iter().find(|mount| mount.device == device).or_else(|| {
        // btrfs and overlayfs have other device numbers in `stat`: there only the mount itself can be found
        let id = read(&format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
        let id = parse_mount_id(&id).ok()?;
        mounts.iter().find(|mount| mount.id == id)
    });
    found.is_some_and(|Mount { kind, .. }| !asks(kind))
}

/// Whether a filesystem of this type may ask a server.
fn asks(kind: &str) -> bool {
    ASKING.contains(&kind) || kind.starts_with("fuse.")
}

fn read(path: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(8192);
    let length = File::open(path).ok()?.take(MAX_MOUNTS + 1).read_to_end(&mut bytes).ok()?;
    (length as u64 <= MAX_MOUNTS).then_some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::fstat;

    use super::*;

    #[test]
    fn a_file_of_this_machine_is_local_and_memory_without_a_mount_is_not() {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(is_local(file.as_fd(), &fstat(&file).unwrap()));
        let memory = rustix::fs::memfd_create("m", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert!(!is_local(memory.as_fd(), &fstat(&memory).unwrap()));
    }

    #[test]
    fn fuse_is_told_by_its_name_whatever_stands_behind_it() {
        assert!(["fuse", "fuse.sshfs", "fuseblk", "nfs4", "virtiofs"].iter().all(|kind| asks(kind)));
        assert!(!["ext4", "btrfs", "overlay", "tmpfs", "fusectl"].iter().any(|kind| asks(kind)));
    }
}
