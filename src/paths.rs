//! Where things live: the XDG folders, from an environment that is given as an argument.
#![forbid(unsafe_code)]

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Name of the folder in each XDG base folder.
pub const FOLDER: &str = "keychain-auth";

/// The files of one user's installation. Absolute paths; nothing is touched by computing them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Holds config.json; the daemon only reads it. 0700.
    pub config_dir: PathBuf,
    /// Holds the vault, its key file, audit.log and pending.json. 0700.
    pub data_dir: PathBuf,
    /// The socket where clients ask.
    pub socket: PathBuf,
}

/// Neither a home folder nor the XDG variables are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither HOME nor the XDG variables name an absolute folder")]
pub struct NoHome;

impl Paths {
    /// Paths from the environment `var`, and from `--socket` where it is given.
    ///
    /// As the XDG specification asks, a variable that is not absolute counts as unset.
    pub fn new(var: impl Fn(&str) -> Option<OsString>, socket: Option<&Path>) -> Result<Self, NoHome> {
        let folder = |name: &str| var(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let under = |name: &str, in_home: &str| {
            folder(name)
                .or_else(|| folder("HOME").map(|home| home.join(in_home)))
                .map(|base| base.join(FOLDER))
        };
        let config_dir = under("XDG_CONFIG_HOME", ".config").ok_or(NoHome)?;
        let data_dir = under("XDG_DATA_HOME", ".local/share").ok_or(NoHome)?;
        let socket = match socket {
            Some(path) => path.to_owned(),
            None => match var("KEYCHAIN_AUTH_SOCKET").filter(|path| !path.is_empty()) {
                Some(path) => PathBuf::from(path),
                None => under("XDG_RUNTIME_DIR", ".cache").ok_or(NoHome)?.join("agent.sock"),
            },
        };
        Ok(Self { config_dir, data_dir, socket })
    }

    /// The policy.
    pub fn config(&self) -> PathBuf {
        self.config_dir.join("config.json")
    }

    /// The queue of strangers that wait for approval.
    pub fn pending(&self) -> PathBuf {
        self.data_dir.join("pending.json")
    }

    /// What a daemon holds as long as it has the data folder.
    pub fn daemon_lock(&self) -> PathBuf {
        self.data_dir.join("daemon.lock")
    }

    /// The audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.data_dir.join("audit.log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(vars: &[(&str, &str)], socket: Option<&str>) -> Result<Paths, NoHome> {
        let find =
            |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        Paths::new(find, socket.map(Path::new))
    }

    #[test]
    fn the_socket_is_the_flag_then_the_variable_then_the_runtime_folder_then_the_cache() {
        let all = [("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/7"), ("KEYCHAIN_AUTH_SOCKET", "/env.sock")];
        let socket = |vars: &[(&str, &str)], flag| paths(vars, flag).map(|paths| paths.socket);
        assert_eq!(socket(&all, Some("/flag.sock")), Ok("/flag.sock".into()));
        assert_eq!(socket(&all, None), Ok("/env.sock".into()));
        assert_eq!(socket(&all[..2], None), Ok("/run/user/7/keychain-auth/agent.sock".into()));
        assert_eq!(socket(&all[..1], None), Ok("/h/.cache/keychain-auth/agent.sock".into()));
    }

    #[test]
    fn a_relative_xdg_variable_counts_as_unset_and_no_home_is_an_error() {
        let vars = [("HOME", "/h"), ("XDG_CONFIG_HOME", "relative")];
        assert_eq!(
            paths(&vars, None).map(|paths| paths.config()),
            Ok("/h/.config/keychain-auth/config.json".into())
        );
        assert_eq!(paths(&[("HOME", "relative")], None), Err(NoHome));
    }
}
