//! The keeper's view of the filesystem: its policy to read, its data to change, nothing else.

use std::{error::Error, path::PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// The ABI below which `enforce` refuses to start: from it on the kernel controls every change of a file (Linux 6.2).
/// What newer ones add, on sockets and signals, the seccomp list denies anyway; it is asked for where it is there.
pub const REQUIRED_ABI: ABI = ABI::V3;

/// The newest ABI that is asked for.
pub const NEWEST_ABI: ABI = ABI::V7;

/// The ABIs that are tried, the one with most protections first.
const ABIS: [ABI; 5] = [NEWEST_ABI, ABI::V6, ABI::V5, ABI::V4, REQUIRED_ABI];

/// What the keeper may still reach.
#[derive(Debug, Clone)]
pub struct Folders {
    /// To read: the policy's folder, and the one that a linked config.json leads to.
    pub read: Vec<PathBuf>,
    /// To read and change files in: the data folder.
    pub change: PathBuf,
    /// To remove a file from: the socket's own folder, none when it is shared with other programs.
    pub remove: Option<PathBuf>,
}

/// Restricts this thread and all that it starts from now on, with the newest ABI that the kernel has, and none newer than
/// `newest`.
///
/// Returns what could not be had, in words; nothing is restricted then.
pub fn cage(folders: &Folders, newest: ABI) -> Vec<String> {
    restrict(newest, Scope::from_all, |ruleset| folders.allow(ruleset))
}

/// As [`cage`], for a process that needs no file at all. It may still connect to a socket, by path or by an abstract name:
/// which ones is beyond Landlock.
pub fn cage_without_files(newest: ABI) -> Vec<String> {
    restrict(newest, |abi| Scope::from_all(abi) & !Scope::AbstractUnixSocket, Ok)
}

fn restrict(
    newest: ABI,
    scope: impl Fn(ABI) -> BitFlags<Scope>,
    allow: impl FnOnce(RulesetCreated) -> Result<RulesetCreated, Box<dyn Error>>,
) -> Vec<String> {
    let offered = ABIS.into_iter().filter(|abi| *abi <= newest).find_map(|abi| ruleset(abi, scope(abi)).ok());
    let Some(ruleset) = offered else {
        return vec![format!(
            "Landlock ABI {} (Linux 6.2), without which files outside the daemon's folders stay in reach",
            REQUIRED_ABI as i32
        )];
    };
    match allow(ruleset).and_then(enforce) {
        Ok(()) => Vec::new(),
        Err(error) => vec![format!("Landlock: {error}")],
    }
}

/// Everything that this ABI controls is denied, or there is no ruleset.
fn ruleset(abi: ABI, scope: BitFlags<Scope>) -> Result<RulesetCreated, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))?;
    if abi >= ABI::V4 {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi))?;
    }
    if abi >= ABI::V6 {
        ruleset = ruleset.scope(scope)?;
    }
    ruleset.create()
}

impl Folders {
    fn allow(&self, mut ruleset: RulesetCreated) -> Result<RulesetCreated, Box<dyn Error>> {
        let reading = AccessFs::ReadFile | AccessFs::ReadDir;
        let changing =
            reading | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
        for folder in &self.read {
            ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(folder)?, reading))?;
        }
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(&self.change)?, changing))?;
        if let Some(folder) = &self.remove {
            ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(folder)?, AccessFs::RemoveFile))?;
        }
        Ok(ruleset)
    }
}

fn enforce(ruleset: RulesetCreated) -> Result<(), Box<dyn Error>> {
    let status = ruleset.restrict_self()?;
    if status.ruleset == RulesetStatus::FullyEnforced { Ok(()) } else { Err("only partly enforced".into()) }
}
