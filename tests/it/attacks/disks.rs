//! Filesystems of the attacker's own, which tell of their files what they like. Root mounts them here as a desktop's
//! services do for its user.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Arena, Named, injection::preloaded, naive::Trust};
use crate::{
    skip::{need, skip},
    tools::{Link, compiled},
    world::{is_root, spawn},
};

/// A mounted filesystem, gone with this.
struct Disk(PathBuf);

impl Disk {
    fn mounted(mount: &Path, args: &[&str], place: &Path) -> Option<Self> {
        let mounted = Command::new(mount).args(args).arg(place).output().unwrap();
        mounted.status.success().then(|| Self(place.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_library_that_is_roots_on_the_users_own_disk_gets_nothing() {
    if !is_root() {
        return skip("only root can mount a filesystem");
    }
    let Some(mount) = need("mount") else { return };
    // beside folders of root only: under /tmp nothing would be trusted anyway
    let place = PathBuf::from(format!("/run/keychain-auth-test-{}", std::process::id()));
    fs::create_dir_all(&place).unwrap();
    let options = ["-t", "tmpfs", "-o", "nosuid,nodev,mode=0755", "own"];
    let disk = Disk::mounted(&mount, &options, &place);
    if disk.is_some() {
        let library = place.join("steal.so");
        fs::copy(compiled("attacks/steal.c", Link::Library), &library).unwrap();
        preloaded("LD_PRELOAD", |_| library.clone());
    } else {
        skip("the kernel can't mount a filesystem in memory");
    }
    drop(disk);
    let _ = fs::remove_dir(place);
}

/// On btrfs the memory map shows another device number than the file has, so path and inode number must do. A filesystem
/// of the attacker's own gives its files any inode number, and can lie over the tool's path when the tool runs.
#[test]
fn a_file_with_the_tools_number_mounted_over_its_path_is_not_taken_for_it() {
    if !is_root() {
        return skip("only root can mount a filesystem");
    }
    let (Some(mkfs), Some(mount)) = (need("mkfs.btrfs"), need("mount")) else { return };
    let mut arena = Arena::new(Link::Dynamic);
    let (image, place, own) =
        (arena.world.tmp("btrfs.img"), arena.world.root().join("disk"), arena.world.root().join("own"));
    fs::File::create(&image).unwrap().set_len(128 << 20).unwrap();
    assert!(Command::new(mkfs).arg("-q").arg(&image).output().unwrap().status.success());
    arena.world.folder(&place, 0o755);
    arena.world.folder(&own, 0o755);
    let Some(_disk) = Disk::mounted(&mount, &["-o", "loop", image.to_str().unwrap()], &place) else {
        return skip("the kernel can't mount btrfs");
    };
    let Some(_own) = Disk::mounted(&mount, &["-t", "tmpfs", "-o", "mode=0755", "own"], &own) else {
        return skip("the kernel can't mount a filesystem in memory");
    };
    arena.tool = arena.world.install("clients/client.c", Link::Dynamic, "disk/tool");
    let wanted = fs::metadata(&arena.tool).unwrap().ino();
    let evil = (0..10_000).map(|number| own.join(number.to_string())).find(|path| {
        fs::write(path, "").unwrap();
        fs::metadata(path).unwrap().ino() == wanted
    });
    let evil = evil.expect("numbers in memory begin low and are given in order");
    fs::write(&evil, fs::read(compiled("attacks/steal.c", Link::Library)).unwrap()).unwrap();
    arena.world.own(&evil, 0o755);
    arena.play(Trust::Path, &["injected_code", "executable_changed"], &[Named::Tool], |arena| {
        let tool = arena.tool.to_str().unwrap();
        let mut shell = arena.world.command(Path::new("/bin/sh"));
        shell.args([
            "-c",
            "exec 9<\"$1\"; echo open; read go; LD_PRELOAD=\"$1\" exec /proc/self/fd/9",
            "sh",
            tool,
        ]);
        shell.env("KA_SOCKET", arena.world.socket()).env("KA_REQUEST", Arena::request());
        let mut shell = spawn(shell.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut out = BufReader::new(shell.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "open\n");
        let over = Disk::mounted(&mount, &["--bind", evil.to_str().unwrap()], &arena.tool).unwrap();
        shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
        line.clear();
        out.read_line(&mut line).unwrap();
        shell.wait().unwrap();
        drop(over);
        line
    });
}
