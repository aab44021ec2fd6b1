//! Our own files: kind, owner, mode.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::super::facts::{Kind, OwnFile, Role, Seen};
use crate::paths::Paths;

pub(super) fn files(paths: &Paths) -> Vec<OwnFile> {
    let data = |name: &str| paths.data_dir.join(name);
    let mut files = vec![
        look(Role::ConfigFolder, paths.config_dir.clone()),
        look(Role::Config, paths.config()),
        look(Role::DataFolder, paths.data_dir.clone()),
        look(Role::Vault, data("vault.redb")),
        look(Role::Key, data("vault.key")),
        look(Role::Head, data("vault.head")),
        look(Role::AuditLog, paths.audit_log()),
        look(Role::AuditState, data("audit.state")),
        look(Role::Pending, paths.pending()),
    ];
    if let Some(folder) = paths.socket.parent().filter(|folder| folder.is_absolute()) {
        files.push(look(Role::SocketFolder, folder.to_owned()));
    }
    files.push(look(Role::Socket, paths.socket.clone()));
    let real = fs::canonicalize(paths.config()).ok();
    let linked = real.as_deref().and_then(Path::parent).filter(|folder| !same(folder, &paths.config_dir));
    if let Some(folder) = linked {
        files.insert(2, look(Role::LinkedFolder, folder.to_owned()));
    }
    files
}

fn same(one: &Path, other: &Path) -> bool {
    fs::canonicalize(other).is_ok_and(|other| one == other)
}

fn look(role: Role, path: PathBuf) -> OwnFile {
    // the daemon follows links on the way to the policy and the socket, and refuses one among its data
    let follows = matches!(role, Role::ConfigFolder | Role::Config | Role::LinkedFolder | Role::SocketFolder);
    let found = if follows { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
    let seen = match found {
        Ok(metadata) => Ok(Some(seen(&metadata))),
        // a link that leads nowhere is there
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(fs::symlink_metadata(&path).ok().map(|metadata| self::seen(&metadata)))
        }
        Err(error) => Err(error.kind()),
    };
    OwnFile { role, path, seen }
}

fn seen(metadata: &Metadata) -> Seen {
    let kind = metadata.file_type();
    let kind = if kind.is_dir() {
        Kind::Folder
    } else if kind.is_file() {
        Kind::File
    } else if kind.is_socket() {
        Kind::Socket
    } else if kind.is_symlink() {
        Kind::Link
    } else {
        Kind::Other
    };
    Seen { kind, uid: metadata.uid(), mode: metadata.mode() & 0o7777, names: metadata.nlink() }
}
