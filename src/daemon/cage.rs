//! The keeper's and the witness's protections, in the order of the start, and what may be missing.

use std::{fs, io, os::fd::BorrowedFd, path::Path, process::ExitCode};

use rustix::{fs::Mode, process::umask};

use super::{start::StartError, writer::Writer};
use crate::{
    broker,
    desktop_keychain::BusAddress,
    paths::{FOLDER, Paths},
    sandbox::{
        self, Applied, FilterError, Folders, Hardening, Keep, NEWEST_ABI, Protection, cage,
        cage_without_files, drop_privileges, filter,
    },
    sys::process,
    witness,
};

/// What was asked for, and what could not be had so far.
pub(super) struct Cage {
    hardening: Hardening,
    missing: Vec<String>,
    applied: Applied,
}

impl Cage {
    /// Closes this process and the files that it makes to others, whatever the level: nothing works without it.
    pub(super) fn begin(hardening: Hardening) -> io::Result<Self> {
        process::close_to_others()?;
        // no mode can be changed once the list of system calls is in force
        umask(Mode::from_raw_mode(0o077));
        let mut missing = Vec::new();
        if hardening != Hardening::Off
            && let Err(error) = process::refuse_executable_memory()
        {
            missing.push(format!("memory that can't be made executable (Linux 6.3): {error}"));
        }
        Ok(Self { hardening, missing, applied: Applied::default() })
    }

    /// The life of the witness: it drops its privileges and serves behind its own list.
    pub(super) fn witness(&self, channel: BorrowedFd<'_>) -> ExitCode {
        if process::close_all_but(&[channel]).is_err() {
            return ExitCode::FAILURE;
        }
        let protected = process::running_files_are_protected();
        if self.hardening == Hardening::Off {
            return witness::serve(channel, protected, || Ok::<(), FilterError>(()));
        }
        let root = rustix::process::geteuid().is_root();
        let missing = drop_privileges(if root { Keep::Looking } else { Keep::Nothing });
        if !missing.is_empty() && self.hardening == Hardening::Enforce {
            return ExitCode::FAILURE;
        }
        witness::serve(channel, protected, || match filter(&sandbox::witness()) {
            Err(error) if self.hardening == Hardening::Enforce => Err(error),
            _ => Ok(()),
        })
    }

    /// The keeper holds no capability.
    pub(super) fn drop_privileges(&mut self) {
        if self.hardening != Hardening::Off {
            self.missing.extend(drop_privileges(Keep::Nothing));
        }
    }

    /// Takes the filesystem away but for the daemon's own folders. Before any thread is started.
    pub(super) fn close(&mut self, paths: &Paths) -> Result<(), StartError> {
        if self.hardening == Hardening::Off {
            return Ok(());
        }
        let own = |folder: &Path| folder.file_name().is_some_and(|name| name == FOLDER);
        let folders = Folders {
            read: policy_folders(paths),
            change: paths.data_dir.clone(),
            remove: paths.socket.parent().filter(|folder| own(folder)).map(Path::to_owned),
        };
        let missing = cage(&folders, NEWEST_ABI);
        self.applied.landlock = missing.is_empty();
        self.missing.extend(missing);
        self.judge()
    }

    /// Allows only listed system calls from now on, on all threads, and asks a worker what is really in force.
    pub(super) fn lock(mut self, writer: &Writer) -> Result<Vec<Protection>, StartError> {
        if self.hardening != Hardening::Off {
            let filtered = filter(&sandbox::keeper());
            self.applied.seccomp = filtered.is_ok();
            self.missing.extend(filtered.err().map(|error| error.to_string()));
            self.judge()?;
        }
        for missing in &self.missing {
            tracing::warn!("could not be had: {missing}");
        }
        let protections = writer.probe(self.applied);
        if self.hardening == Hardening::Enforce {
            let lacking = protections.iter().filter(|protection| !protection.enforced);
            self.missing
                .extend(lacking.map(|one| format!("{}: {}{}", one.name, one.means, remedy(one.name))));
            if protections.is_empty() {
                self.missing.push("an answer about what is in force".to_owned());
            }
            self.judge()?;
        }
        Ok(protections)
    }

    fn judge(&mut self) -> Result<(), StartError> {
        match self.hardening {
            Hardening::Enforce if !self.missing.is_empty() => {
                Err(StartError::Unprotected(std::mem::take(&mut self.missing)))
            }
            _ => Ok(()),
        }
    }
}

/// The life of a broker: no privileges, no file, and its own list. It holds no secret that is not sealed.
pub(crate) fn live_as_broker(channels: &[BorrowedFd<'_>], bus: BusAddress, hardening: Hardening) -> ExitCode {
    if process::close_all_but(channels).is_err() {
        return ExitCode::FAILURE;
    }
    if hardening == Hardening::Off {
        return broker::serve(channels, bus, || Ok::<(), FilterError>(()));
    }
    let enforce = hardening == Hardening::Enforce;
    let mut missing = drop_privileges(Keep::Nothing);
    missing.extend(cage_without_files(NEWEST_ABI));
    if !missing.is_empty() && enforce {
        return ExitCode::FAILURE;
    }
    broker::serve(channels, bus, || match filter(&sandbox::broker()) {
        Err(error) if enforce => Err(error),
        _ => Ok(()),
    })
}

/// What would give a protection that the kernel offers and this process could not take.
fn remedy(name: &str) -> &'static str {
    if name == "locked_memory" { " (raise it: ulimit -l 8192, or LimitMEMLOCK=8M)" } else { "" }
}

/// The folder of config.json, and the one that a link there leads to.
fn policy_folders(paths: &Paths) -> Vec<std::path::PathBuf> {
    let mut folders = vec![paths.config_dir.clone()];
    if let Ok(target) = fs::canonicalize(paths.config())
        && let Some(folder) = target.parent()
        && folder != paths.config_dir
    {
        folders.push(folder.to_owned());
    }
    folders
}
