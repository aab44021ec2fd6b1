//! Files as they are: no link to another, nothing that has to be waited for, and no content that somebody else than this
//! kernel answers for.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

/// Opens for reading without following a link at the end, without waiting, and not for a child.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// The kind of file system that the file lies on, where whoever serves it can show one content to a reader and another to
/// the processor. None for a file system of this kernel's own; one that can't be told is not taken for one.
pub fn foreign(file: impl AsFd) -> Option<&'static str> {
    match rustix::fs::fstatfs(file) {
        // f_type is signed or not by architecture; its low 32 bits are the magic number
        Ok(filesystem) => kind(filesystem.f_type as u32),
        Err(_) => Some("unknown"),
    }
}

/// By the numbers of magic.h.
fn kind(magic: u32) -> Option<&'static str> {
    match magic {
        0x6573_5546 => Some("FUSE"),
        0x0000_6969 => Some("NFS"),
        0x0000_517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x0102_1997 => Some("9P"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x00c3_6400 => Some("Ceph"),
        0x7375_7245 => Some("Coda"),
        0x0000_564c => Some("NCP"),
        0x0bd0_0bd0 => Some("Lustre"),
        0x4750_4653 => Some("GPFS"),
        0x7461_636f => Some("OCFS2"),
        0x0116_1970 => Some("GFS2"),
        0x786f_4256 => Some("VirtualBox shared"),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn whatever_a_server_answers_for_is_foreign() {
        // as statfs(2) and the headers of those that it does not list have them
        for (magic, said) in [
            (0x6573_5546, "FUSE"),
            (0x6969, "NFS"),
            (0x517b, "SMB"),
            (0xff53_4d42, "SMB"),
            (0xfe53_4d42, "SMB"),
            (0x0102_1997, "9P"),
            (0x5346_414f, "AFS"),
            (0x6b41_4653, "AFS"),
            (0x00c3_6400, "Ceph"),
            (0x7375_7245, "Coda"),
            (0x564c, "NCP"),
            (0x0bd0_0bd0, "Lustre"),
            (0x4750_4653, "GPFS"),
            (0x7461_636f, "OCFS2"),
            (0x0116_1970, "GFS2"),
            (0x786f_4256, "VirtualBox shared"),
        ] {
            assert_eq!(kind(magic), Some(said), "{magic:#x}");
        }
    }

    #[test]
    fn the_file_systems_of_this_kernel_are_not_foreign() {
        // ext4, tmpfs, btrfs, XFS, overlayfs, ZFS, F2FS, proc
        for magic in
            [0xef53, 0x0102_1994, 0x9123_683e, 0x5846_5342, 0x794c_7630, 0x2fc1_2fc1, 0xf2f5_2010, 0x9fa0]
        {
            assert_eq!(kind(magic), None, "{magic:#x}");
        }
        assert_eq!(foreign(File::open("/proc/self/stat").unwrap()), None);
    }

    #[test]
    fn a_magic_number_with_its_highest_bit_set_is_known_where_the_field_is_signed() {
        assert_eq!(kind(i64::from(0xfe53_4d42_u32.cast_signed()) as u32), Some("SMB"));
    }
}
