//! Arguments that several commands share.

use clap::Args;

use crate::{
    caller::Check,
    digest::Digest,
    name::{Service, TargetPrefix},
    policy::{Allowances, Relaxable},
};

/// The risks of a registration that the user takes on purpose.
#[derive(Args, Clone, Copy)]
pub(super) struct Risks {
    /// Register an interpreter or shell, and so trust whatever it runs
    #[arg(long)]
    allow_interpreter: bool,
    /// Register a program that gains rights when it is started
    #[arg(long)]
    allow_setuid: bool,
    /// Register a program that somebody else could replace
    #[arg(long)]
    allow_writable: bool,
    /// Register a program on FUSE or a network file system
    #[arg(long)]
    allow_foreign_filesystem: bool,
}

impl From<Risks> for Allowances {
    fn from(risks: Risks) -> Self {
        Self {
            interpreter: risks.allow_interpreter,
            setuid: risks.allow_setuid,
            writable: risks.allow_writable,
            foreign_filesystem: risks.allow_foreign_filesystem,
        }
    }
}

/// A service on the command line.
pub(super) fn service(text: &str) -> Result<Service, String> {
    Service::parse(text).map_err(|error| error.to_string())
}

/// The beginning of target names on the command line.
pub(super) fn prefix(text: &str) -> Result<TargetPrefix, String> {
    TargetPrefix::parse(text).map_err(|error| error.to_string())
}

/// An identity check on the command line, by its name.
pub(super) fn check(name: &str) -> Result<Check, String> {
    Check::parse(name).ok_or_else(|| {
        let relaxable = Check::ALL.into_iter().filter(|check| Relaxable::new(*check).is_ok());
        let names: Vec<&str> = relaxable.map(Check::as_str).collect();
        format!("not one of {}", names.join(", "))
    })
}

/// A whole hash, with or without `sha256:`. A part of one is not enough: another program whose hash begins alike is
/// found in minutes.
pub(super) fn digest(text: &str) -> Result<Digest, String> {
    let found = Digest::parse(text).or_else(|| Digest::parse(&format!("{}{text}", Digest::SCHEME)));
    found.ok_or_else(|| "a hash is sha256: and 64 hexadecimal digits".to_owned())
}
