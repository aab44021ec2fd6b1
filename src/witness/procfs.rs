//! Parsers for what /proc says of a process. Pure: bytes in, facts out. A process chooses many of these bytes itself
//! (its name, the names of its files), so nothing here trusts a field to end where it should.

use std::str;

/// A line of /proc that does not have the shape that the kernel documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a file in /proc has an unknown shape")]
pub struct ProcfsError;

/// An executable mapping, as `/proc/P/maps` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeMapping {
    /// Its first address, and the one behind its last.
    pub range: (u64, u64),
    /// Major and minor device number; 0:0 for memory without a file.
    pub device: (u32, u32),
    /// Inode number, 0 for memory without a file.
    pub inode: u64,
    /// Path or name in brackets, with `\012` for line feeds; lossy. Empty for anonymous memory.
    pub name: String,
}

impl CodeMapping {
    /// Whether it is the kernel's own code page. A process can name its memory only `[anon:…]`, never this.
    pub fn is_kernel(&self) -> bool {
        self.inode == 0 && matches!(self.name.as_str(), "[vdso]" | "[vsyscall]")
    }

    /// Whether its pages can tell whether they were written: those of a file, and the kernel's code page that each
    /// process has a mapping of. Memory without a file is the process's own anyway.
    pub(super) fn has_pages(&self) -> bool {
        self.inode != 0 || self.name == "[vdso]"
    }
}

/// The executable mappings of a `/proc/P/maps` file.
pub fn parse_maps(maps: &[u8]) -> Result<Vec<CodeMapping>, ProcfsError> {
    let mut code = Vec::new();
    for line in maps.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        // "start-end perms offset major:minor inode   name"; only the name can hold anything
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let (range, perms) = (field(fields.next())?, field(fields.next())?);
        let (_offset, device, inode) = (field(fields.next())?, field(fields.next())?, field(fields.next())?);
        if perms.len() != 4 {
            return Err(ProcfsError);
        }
        if !perms.contains('x') {
            continue;
        }
        let (from, to) = range.split_once('-').ok_or(ProcfsError)?;
        let address = |text| u64::from_str_radix(text, 16).map_err(|_| ProcfsError);
        let (major, minor) = device.split_once(':').ok_or(ProcfsError)?;
        let hex = |text| u32::from_str_radix(text, 16).map_err(|_| ProcfsError);
        let name = fields.next().unwrap_or_default().trim_ascii_start();
        code.push(CodeMapping {
            range: (address(from)?, address(to)?),
            device: (hex(major)?, hex(minor)?),
            inode: inode.parse().map_err(|_| ProcfsError)?,
            name: String::from_utf8_lossy(name).into_owned(),
        });
    }
    Ok(code)
}

/// What is wanted of a `/proc/P/status` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The process that traces it, 0 for none.
    pub tracer: u32,
    /// Real, effective, saved and filesystem user id.
    pub uids: [u32; 4],
    /// How many seccomp filters decide about its system calls. 1 where the kernel only tells that there is one
    /// (before 5.10).
    pub filters: u32,
}

/// Reads a `/proc/P/status` file. Every wanted line must be there.
pub fn parse_status(status: &[u8]) -> Result<Status, ProcfsError> {
    let (mut tracer, mut uids, mut mode, mut filters) = (None, None, None, None);
    // the process's name stands first and the kernel escapes line feeds in it; the first match of a key is the kernel's
    for line in status.split(|byte| *byte == b'\n').skip(1) {
        if let Some(value) = line.strip_prefix(b"TracerPid:\t") {
            tracer.get_or_insert(number(value)?);
        } else if let Some(value) = line.strip_prefix(b"Uid:\t") {
            let mut four = [0; 4];
            let mut parts = field(Some(value))?.split('\t');
            for uid in &mut four {
                *uid = parts.next().and_then(|part| part.parse().ok()).ok_or(ProcfsError)?;
            }
            uids.get_or_insert(four);
        } else if let Some(value) = line.strip_prefix(b"Seccomp:\t") {
            mode.get_or_insert(number(value)?);
        } else if let Some(value) = line.strip_prefix(b"Seccomp_filters:\t") {
            filters.get_or_insert(number(value)?);
        }
    }
    let mode = mode.ok_or(ProcfsError)?;
    Ok(Status {
        tracer: tracer.ok_or(ProcfsError)?,
        uids: uids.ok_or(ProcfsError)?,
        filters: filters.unwrap_or(u32::from(mode != 0)),
    })
}

fn number(value: &[u8]) -> Result<u32, ProcfsError> {
    field(Some(value))?.parse().map_err(|_| ProcfsError)
}

/// The size of the address space in pages, of a `/proc/P/statm` file. 0 for a process that has ended.
pub fn parse_statm(statm: &[u8]) -> Result<u64, ProcfsError> {
    field(statm.split(|byte| *byte == b' ').next())?.parse().map_err(|_| ProcfsError)
}

/// The open flags of a `/proc/P/fdinfo/N` file, which are in octal.
pub fn parse_descriptor_flags(fdinfo: &[u8]) -> Result<u32, ProcfsError> {
    let flags = fdinfo
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"flags:"))
        .ok_or(ProcfsError)?;
    u32::from_str_radix(field(Some(flags))?.trim(), 8).map_err(|_| ProcfsError)
}

/// A mount, as `/proc/P/mountinfo` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its number.
    pub id: u64,
    /// Major and minor device number of its filesystem.
    pub device: (u32, u32),
    /// Type of its filesystem, with a subtype behind a dot: `ext4`, `fuse.sshfs`. Lossy: a user chooses his own subtypes.
    pub kind: String,
}

/// The mounts of a `/proc/P/mountinfo` file. A line of another shape is left out: no mount may hide the others.
pub fn parse_mounts(mounts: &[u8]) -> Vec<Mount> {
    let lines = mounts.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    // "id parent major:minor root place options [tags…] - type source options"; the kernel escapes spaces
    let mount = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = number(fields.next().unwrap_or_default())?;
        let (major, minor) = field(fields.nth(1))?.split_once(':').ok_or(ProcfsError)?;
        let (major, minor) = (number(major.as_bytes())?, number(minor.as_bytes())?);
        // root, place and options could each be a dash
        let mut tags = fields.skip(3);
        tags.find(|tag| *tag == b"-").ok_or(ProcfsError)?;
        let kind = String::from_utf8_lossy(tags.next().ok_or(ProcfsError)?).into_owned();
        Ok::<_, ProcfsError>(Mount { id: id.into(), device: (major, minor), kind })
    };
    lines.filter_map(|line| mount(line).ok()).collect()
}

/// The mount that a file was opened on, of a `/proc/P/fdinfo/N` file.
pub fn parse_mount_id(fdinfo: &[u8]) -> Result<u64, ProcfsError> {
    let line = fdinfo.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"mnt_id:"));
    field(line)?.trim().parse().map_err(|_| ProcfsError)
}

fn field(bytes: Option<&[u8]>) -> Result<&str, ProcfsError> {
    bytes.and_then(|bytes| str::from_utf8(bytes).ok()).ok_or(ProcfsError)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn only_executable_mappings_count_and_a_name_may_hold_spaces() {
        let maps = b"55d0-55d1 r--p 00000000 fe:00 1311 /usr/bin/a b\n\
            55d1-55d2 r-xp 00001000 fe:00 1311                    /usr/bin/a b\n\
            7ffe-7fff rwxp 00000000 00:00 0 \n\
            7fff-8000 r-xp 00000000 00:00 0                        [vdso]\n";
        let code = parse_maps(maps).unwrap();
        assert_eq!(code.len(), 3);
        let (range, name) = ((0x55d1, 0x55d2), "/usr/bin/a b".to_owned());
        assert_eq!(code[0], CodeMapping { range, device: (0xfe, 0), inode: 1311, name });
        assert_eq!(code[1].name, "");
        assert!(code[2].is_kernel() && !code[1].is_kernel());
    }

    #[test]
    fn memory_that_a_process_named_itself_is_not_the_kernels() {
        let maps =
            b"7fff-8000 r-xp 00000000 00:00 0 [anon:[vdso]]\n7fff-8000 r-xp 00000000 fe:00 12 [vdso]\n";
        assert!(parse_maps(maps).unwrap().iter().all(|mapping| !mapping.is_kernel()));
    }

    #[test]
    fn a_process_name_that_looks_like_a_field_is_not_one() {
        let status = b"Name:\tTracerPid:\t0\nUmask:\t0022\nTracerPid:\t77\nUid:\t1000\t1000\t1000\t1000\nSeccomp:\t0\n";
        assert_eq!(parse_status(status), Ok(Status { tracer: 77, uids: [1000; 4], filters: 0 }));
        assert_eq!(parse_status(b"TracerPid:\t0\n"), Err(ProcfsError));
    }

    #[test]
    fn filters_are_counted_and_an_older_kernel_tells_only_that_there_is_one() {
        let filters = |lines: &str| {
            parse_status(format!("Name:\tx\nTracerPid:\t0\nUid:\t1\t1\t1\t1\n{lines}").as_bytes())
        };
        assert_eq!(filters("Seccomp:\t2\nSeccomp_filters:\t3\n").map(|status| status.filters), Ok(3));
        assert_eq!(filters("Seccomp:\t2\n").map(|status| status.filters), Ok(1));
        assert_eq!(filters(""), Err(ProcfsError), "a kernel that does not tell proves nothing");
    }

    #[test]
    fn a_mount_has_its_type_behind_the_tags_whatever_its_place_is_called() {
        let mounts = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            36 35 98:0 /a - rw master:1 shared:2 - fuse.\xff /dev/a\\040b rw\n\
            of another shape\n37 35 98:0 / /b rw\n38 35 8:1 / / rw - ext4 /dev/a rw\n";
        let parsed = parse_mounts(mounts);
        assert_eq!(parsed[0], Mount { id: 22, device: (0, 21), kind: "proc".into() });
        assert_eq!(parsed[1], Mount { id: 36, device: (98, 0), kind: "fuse.\u{fffd}".into() });
        assert_eq!(parsed[2], Mount { id: 38, device: (8, 1), kind: "ext4".into() });
        assert_eq!(parsed.len(), 3);
        assert_eq!(parse_mount_id(b"pos:\t0\nflags:\t012\nmnt_id:\t29\n"), Ok(29));
    }

    #[test]
    fn descriptor_flags_are_octal() {
        assert_eq!(parse_descriptor_flags(b"pos:\t0\nflags:\t02000002\nmnt_id:\t9\n"), Ok(0o2000002));
        assert_eq!(parse_descriptor_flags(b"pos:\t0\n"), Err(ProcfsError));
    }
}
