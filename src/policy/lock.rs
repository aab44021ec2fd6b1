//! One writer at a time, and a whole file or the old one.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;

/// How long to wait before the lock is tried again: short against a person's patience, long against the lock's price.
const RETRY: Duration = Duration::from_millis(5);

/// An exclusive flock on a file of its own. The file stays: removing it would let two holders lock two inodes.
#[derive(Debug)]
pub(super) struct FileLock {
    // closing the descriptor gives the lock back
    _file: File,
}

impl FileLock {
    /// Takes the lock at `path`, waiting at most `patience`. None when somebody else still holds it then.
    pub(super) fn acquire(path: &Path, patience: Duration) -> io::Result<Option<Self>> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(None),
                Err(TryLockError::WouldBlock) => thread::sleep(RETRY),
            }
        }
    }
}

/// Makes `folder` with its parents, for its user alone; an existing one stays as it is.
pub(super) fn private_folder(folder: &Path) -> io::Result<()> {
    // looked for first, since DirBuilder makes the system call in any case
    if folder.is_dir() { Ok(()) } else { DirBuilder::new().recursive(true).mode(0o700).create(folder) }
}

/// Replaces the file at `target`, which is no link, by one with `bytes` and mode 0600. Whoever reads sees the old file or
/// the new one, also after a power loss. The caller holds the lock, so the name of the draft is ours: what an
/// interrupted edit left there is removed.
pub(super) fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut draft_name = name.to_owned();
    draft_name.push(".new");
    let draft = folder.join(draft_name);
    // where it is in the way, making it anew says so
    let _ = fs::remove_file(&draft);
    let written = write_new(&draft, bytes).and_then(|()| fs::rename(&draft, target));
    if let Err(error) = written {
        // the error that matters is the first one
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

fn write_new(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_put_in_place_leaves_no_draft_and_what_is_there_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("config.json");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("inside"), "kept").unwrap();
        assert_eq!(replace(&target, b"new").unwrap_err().kind(), io::ErrorKind::IsADirectory);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, std::slice::from_ref(&target));
        assert_eq!(fs::read(target.join("inside")).unwrap(), b"kept");
    }

    #[test]
    fn the_root_of_all_folders_is_no_file_to_replace() {
        assert_eq!(replace(Path::new("/"), b"new").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_link_or_a_pipe_in_the_place_of_the_lock_is_neither_followed_nor_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (link, pipe) = (folder.path().join("link"), folder.path().join("pipe"));
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        for place in [&link, &pipe] {
            assert!(FileLock::acquire(place, Duration::ZERO).is_err());
        }
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn a_lock_is_waited_for_no_longer_than_it_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.lock");
        let held = FileLock::acquire(&path, Duration::ZERO).unwrap().unwrap();
        assert!(FileLock::acquire(&path, Duration::from_millis(20)).unwrap().is_none());
        thread::scope(|scope| {
            let waits = scope.spawn(|| FileLock::acquire(&path, Duration::from_secs(60)).unwrap().is_some());
            drop(held);
            assert!(waits.join().unwrap());
        });
    }
}
