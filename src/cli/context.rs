//! What every command knows: the user, the time and where things are.

use std::{
    env, fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{self, Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    failure::{Failure, unusable_path},
    sealing::{seal_edit, seems_sealed},
    status_query::{DaemonStatus, Found, ask},
    text::word,
};
use crate::{
    keys::Asking,
    paths::Paths,
    policy::{PendingFile, PolicySource, Registry},
    sys::activation::named_descriptor,
};

pub(super) struct Context {
    pub(super) paths: Paths,
    pub(super) uid: u32,
    pub(super) now: Timestamp,
    /// `--socket`, where it was given.
    pub(super) asked_socket: Option<PathBuf>,
    /// Where a passphrase can be read, from `--passphrase-fd`.
    pub(super) passphrase: Option<OwnedFd>,
}

impl Context {
    pub(super) fn new(socket: Option<&Path>, passphrase_fd: Option<i32>) -> Result<Self, Failure> {
        let passphrase = passphrase_fd.map(|number| descriptor("--passphrase-fd", number)).transpose()?;
        let paths = Paths::new(|name| env::var_os(name), socket)?;
        let uid = rustix::process::geteuid().as_raw();
        Ok(Self { paths, uid, now: Timestamp::now(), asked_socket: socket.map(Path::to_owned), passphrase })
    }

    pub(super) fn registry(&self) -> Registry<'_> {
        let registry = Registry::new(self.paths.config(), self.uid);
        if seems_sealed(self) {
            return registry.sealed_by(Box::new(|before, after| seal_edit(self, before, after)));
        }
        registry
    }

    /// How the daemon is, where one runs that answers.
    pub(super) fn daemon(&self) -> Option<Box<DaemonStatus>> {
        match ask(&self.paths.socket, self.uid) {
            Found::Running(status) => Some(status),
            _ => None,
        }
    }

    pub(super) fn policy_source(&self) -> PolicySource {
        PolicySource::new(self.paths.config())
    }

    /// The path of the entry that a command line means: where it leads, or as given if only that is registered, since an
    /// entry written by hand may name a link.
    pub(super) fn entry_path(&self, path: &Path) -> Result<PathBuf, Failure> {
        let real = resolve(path).map_err(|error| unusable_path(path, &error))?;
        let given = path::absolute(path).unwrap_or_else(|_| real.clone());
        let registered = |path: &Path| {
            let policy = self.policy_source().current(self.uid);
            policy.is_ok_and(|policy| policy.knows_path(path))
        };
        Ok(if given != real && !registered(&real) && registered(&given) { given } else { real })
    }

    /// The command that starts the daemon which this one asks for.
    pub(super) fn start_command(&self) -> String {
        match &self.asked_socket {
            Some(socket) => format!("keychain-auth start --socket {}", word(socket)),
            None => "keychain-auth start".to_owned(),
        }
    }

    /// How a source of the vault's key is asked.
    pub(super) fn asking(&self) -> Asking<'_> {
        Asking { var: &|name| env::var_os(name), passphrase: self.passphrase.as_ref().map(AsFd::as_fd) }
    }

    pub(super) fn pending_file(&self) -> PendingFile {
        PendingFile::new(self.paths.pending(), self.uid)
    }
}

/// A descriptor that an option names, to read a passphrase from.
pub(super) fn descriptor(option: &str, number: i32) -> Result<OwnedFd, Failure> {
    let named = if number < 0 { Err(io::ErrorKind::NotFound.into()) } else { named_descriptor(number) };
    named.map_err(|error| {
        let unopened = number < 0 || error.raw_os_error() == Some(rustix::io::Errno::BADF.raw_os_error());
        let sentence = if unopened {
            format!("{option} {number}: no such descriptor is open")
        } else {
            format!("{option} {number} can't be used: {}", error.kind())
        };
        let number = number.max(3);
        Failure::new(
            sentence,
            format!("open it for the command, for example: {option} {number} {number}< <(pass show NAME)"),
        )
    })
}

/// Most links that are followed to a program that is gone: as many as the kernel follows.
const LINKS: usize = 40;

/// Where a path leads, links resolved; what is gone keeps its name below the folders that are there. So a program that
/// was registered as `/bin/x` is found by that name as `/usr/bin/x` also when it does not exist any more.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path::absolute(path)?;
    for _ in 0..LINKS {
        match fs::canonicalize(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        match (fs::read_link(&path), path.parent()) {
            (Ok(target), Some(folder)) => path = folder.join(target),
            _ => break,
        }
    }
    let there = path.ancestors().find_map(|folder| {
        let real = fs::canonicalize(folder).ok()?;
        Some(real.join(path.strip_prefix(folder).ok()?))
    });
    Ok(there.unwrap_or(path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_program_that_is_gone_is_found_through_the_links_that_led_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir(root.join("usr")).unwrap();
        symlink("usr", root.join("bin")).unwrap();
        symlink("bin/tool", root.join("link")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for name in ["bin/tool", "link", "usr/tool"] {
            assert_eq!(resolve(&root.join(name)).unwrap(), root.join("usr/tool"), "{name}");
        }
        assert_eq!(resolve(&root.join("bin/gone/tool")).unwrap(), root.join("usr/gone/tool"));
        fs::write(root.join("usr/tool"), "").unwrap();
        assert_eq!(resolve(&root.join("link")).unwrap(), root.join("usr/tool"));
        assert!(resolve(&root.join("loop")).is_err());
    }
}
