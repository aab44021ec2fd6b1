//! The tree of `pass`, decrypted by the user's own GnuPG: its agent asks for the passphrase as it does for `pass show`.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::{Sink, TransferError};
use crate::{
    child,
    import::{Found, MAX_SECRETS, PassLines, Refusal, pass_entry, pass_target},
    name::{Service, TargetPrefix},
    secret::MAX_VALUE,
};

/// How deep folders may lie within each other.
const MAX_DEPTH: usize = 32;
/// How long one entry may take: somebody may have to type a passphrase or touch a key.
const PATIENCE: Duration = Duration::from_secs(300);

/// Imports every entry of the store at `root`, or only one of them or those of one folder, in the order of their names.
pub fn pass_store(
    root: &Path,
    only: Option<&Path>,
    lines: PassLines,
    service: &Service,
    prefix: Option<&TargetPrefix>,
    sink: Sink<'_>,
) -> Result<(), TransferError> {
    let mut entries = Vec::new();
    match only {
        None => walk(root, 0, &mut entries, sink)?,
        Some(only) => {
            let inside = only.components().all(|part| matches!(part, Component::Normal(_)));
            let (folder, entry) = (root.join(only), root.join(only).with_added_extension("gpg"));
            if !inside || !(folder.is_dir() || entry.is_file()) {
                return Err(TransferError::NoEntry(only.to_owned()));
            }
            entries.extend(entry.is_file().then_some(entry));
            if folder.is_dir() {
                walk(&folder, 0, &mut entries, sink)?;
            }
        }
    }
    entries.sort();
    for file in entries {
        let path = file.strip_prefix(root).unwrap_or(&file);
        let refused = |why| Found { name: path.display().to_string(), place: None, secret: Err(why) };
        let found = match path.to_str().and_then(pass_target) {
            None => refused(Refusal::PathNotText),
            Some(name) => match decrypt(&file)? {
                Ok(content) => pass_entry(name, content.as_slice(), lines, service, prefix),
                Err(why) => Found { name: name.to_owned(), ..refused(why) },
            },
        };
        sink(found)?;
    }
    Ok(())
}

/// The files of entries below a folder. What begins with a dot is not an entry, as in `pass` itself.
fn walk(
    folder: &Path,
    depth: usize,
    entries: &mut Vec<PathBuf>,
    sink: Sink<'_>,
) -> Result<(), TransferError> {
    let listed = fs::read_dir(folder).map_err(TransferError::reading(folder))?;
    for entry in listed {
        let entry = entry.map_err(TransferError::reading(folder))?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let kind = entry.file_type().map_err(TransferError::reading(&path))?;
        if kind.is_dir() && depth < MAX_DEPTH {
            walk(&path, depth + 1, entries, sink)?;
        } else if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
            // followed, a link could lead in circles
            let why = if kind.is_dir() { Refusal::TooDeep } else { Refusal::Link };
            sink(Found { name: path.display().to_string(), place: None, secret: Err(why) })?;
        } else if path.as_os_str().as_encoded_bytes().ends_with(b".gpg") {
            if entries.len() == MAX_SECRETS {
                return Err(crate::import::TooMuch.into());
            }
            entries.push(path);
        }
    }
    Ok(())
}

/// The content of one entry. The words with which `pass` calls the program.
fn decrypt(file: &Path) -> Result<Result<crate::secret::Buffer, Refusal>, TransferError> {
    let run = |program: &str| {
        let mut command = Command::new(program);
        command.args(["--quiet", "--batch", "--use-agent", "--decrypt", "--"]).arg(file);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        child::run(&mut command, MAX_VALUE + 1, PATIENCE)
    };
    let done = match run("gpg2") {
        // a folder of PATH that can't be entered is told in place of a program that is nowhere
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            run("gpg")
        }
        done => done,
    };
    match done {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Ok(Err(Refusal::Undecryptable("gpg did not answer in time".to_owned())))
        }
        Err(error) => Err(TransferError::Program("gpg", error)),
        Ok(done) if done.output.len() > MAX_VALUE + 1 => Ok(Err(Refusal::TooLong)),
        Ok(done) if !done.status.success() => {
            let words = done.complaint.strip_prefix("gpg: ").unwrap_or(&done.complaint).to_owned();
            Ok(Err(Refusal::Undecryptable(words)))
        }
        Ok(done) => Ok(Ok(done.output)),
    }
}
