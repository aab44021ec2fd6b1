//! What /proc says: no name that a process gives itself or its files changes what is read beside it.

use keychain_auth::witness::{
    CodeMapping, Mount, Status, parse_descriptor_flags, parse_maps, parse_mount_id, parse_mounts,
    parse_status,
};

use super::Seen;

/// Executable memory without a file, as the kernel writes it.
const ANONYMOUS: &[u8] = b"7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n";

/// A memory map: every line counts alone, so that nothing before or after it hides a mapping or makes one.
pub fn maps(maps: &[u8]) -> Seen {
    let lines: Vec<&[u8]> = maps.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let alone: Result<Vec<_>, _> = lines.iter().map(|line| parse_maps(line)).collect();
    let Ok(alone) = alone else {
        assert!(parse_maps(maps).is_err(), "a line that can't be read is passed over");
        return Seen::Refused;
    };
    let expected: Vec<CodeMapping> = alone.into_iter().flatten().collect();
    let code = parse_maps(maps).expect("every line can be read");
    assert_eq!(code, expected);
    for mapping in code.iter().filter(|mapping| mapping.is_kernel()) {
        assert_eq!(mapping.inode, 0, "a file is taken for the kernel's page");
        assert!(
            !mapping.name.starts_with("[anon"),
            "memory that a process named is taken for the kernel's page"
        );
    }
    for line in &lines {
        let executable = line.split(|byte| *byte == b' ').nth(1).is_some_and(|perms| perms.contains(&b'x'));
        assert_eq!(parse_maps(line).map(|code| code.len()), Ok(usize::from(executable)));
    }
    let hidden =
        |code: Vec<CodeMapping>| !code.iter().any(|mapping| mapping.inode == 0 && mapping.name.is_empty());
    for joined in [[maps, b"\n", ANONYMOUS].concat(), [ANONYMOUS, maps].concat()] {
        assert!(!hidden(parse_maps(&joined).expect("every line can be read")), "anonymous code is hidden");
    }
    Seen::Accepted
}

/// A status file: the first line, which the process chooses, and what follows the first match decide nothing.
pub fn status(status: &[u8]) -> Seen {
    let found = parse_status(status);
    let rest = status.iter().position(|byte| *byte == b'\n').map(|end| status.get(end..).unwrap_or_default());
    if let Some(rest) = rest {
        for name in [&b"Name:\tTracerPid:\t0"[..], b"Uid:\t0\t0\t0\t0", b"TracerPid:\t7", b""] {
            assert_eq!(parse_status(&[name, rest].concat()), found, "a process's name decides something");
        }
    } else {
        assert!(found.is_err(), "one line has no room for both");
    }
    let Ok(Status { tracer, uids, filters }) = found else { return Seen::Refused };
    // where the kernel told only that there is a filter, a later count would be the first
    let later = [status, b"\nTracerPid:\t4294967295\nUid:\t9\t9\t9\t9\nSeccomp:\t0\n"].concat();
    assert_eq!(parse_status(&later), found, "a later line wins");
    let said = |key: &str, values: &[u32]| {
        let values: Vec<_> = values.iter().map(u32::to_string).collect();
        format!("{key}:\t{}", values.join("\t"))
    };
    let again = format!(
        "Name:\tx\n{}\n{}\nSeccomp:\t2\n{}\n",
        said("TracerPid", &[tracer]),
        said("Uid", &uids),
        said("Seccomp_filters", &[filters])
    );
    assert_eq!(parse_status(again.as_bytes()), found);
    Seen::Accepted
}

/// A mount that asks whoever made it before a file on it opens, as the kernel writes it.
const FUSE: &[u8] = b"4095 1 0:4095 / /m rw - fuse.x x rw\n";

/// A table of mounts: every line counts alone, so that no name of a place, a source or a type hides another mount.
pub fn mountinfo(mounts: &[u8]) -> Seen {
    let lines: Vec<&[u8]> = mounts.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let all = parse_mounts(mounts);
    let alone: Vec<Vec<Mount>> = lines.iter().map(|line| parse_mounts(line)).collect();
    assert_eq!(all, alone.concat(), "a line changes what is read of another");
    for (line, read) in lines.iter().zip(&alone) {
        let [mount] = read.as_slice() else {
            assert!(read.is_empty(), "a line makes two mounts");
            continue;
        };
        let fields: Vec<_> = line.split(|byte| *byte == b' ').map(String::from_utf8_lossy).collect();
        let dash =
            fields.iter().skip(6).position(|field| field == "-").expect("a mount without its dash") + 6;
        assert_eq!(fields.get(dash + 1).map(AsRef::as_ref), Some(mount.kind.as_str()));
        let number = |field: &str| field.parse::<u64>().expect("a number that is none");
        assert_eq!(number(&fields[0]), mount.id);
        let (major, minor) = fields[2].split_once(':').expect("a device without a colon");
        assert_eq!((number(major), number(minor)), (mount.device.0.into(), mount.device.1.into()));
    }
    let silent = |mounts: Vec<Mount>| mounts.iter().any(|mount| mount.id == 4095 && mount.kind == "fuse.x");
    for joined in [[mounts, b"\n", FUSE].concat(), [FUSE, mounts].concat()] {
        assert!(silent(parse_mounts(&joined)), "a mount is hidden");
    }
    Seen::when(all.len() == lines.len())
}

/// The flags of a descriptor, in octal, and its mount: the first line of each name.
pub fn fdinfo(fdinfo: &[u8]) -> Seen {
    let place = parse_mount_id(fdinfo);
    if place.is_ok() {
        let later = [fdinfo, b"\nmnt_id:\t4095\n"].concat();
        assert_eq!(parse_mount_id(&later), place, "a later mount wins");
    }
    let first = fdinfo.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"flags:"));
    let Ok(flags) = parse_descriptor_flags(fdinfo) else { return Seen::Refused };
    let digits =
        std::str::from_utf8(first.expect("flags without their line")).expect("flags that are not text");
    let digits = digits.trim().as_bytes();
    let digits = digits.strip_prefix(b"+").unwrap_or(digits);
    let octal = digits.iter().fold(0_u64, |sum, digit| sum * 8 + u64::from(digit.wrapping_sub(b'0')));
    assert!(!digits.is_empty() && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
    assert_eq!(u64::from(flags), octal);
    let later = [fdinfo, b"\nflags:\t02000000\n"].concat();
    assert_eq!(parse_descriptor_flags(&later), Ok(flags), "a later line wins");
    Seen::Accepted
}
