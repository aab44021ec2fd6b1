//! The socket where clients ask: private from the moment it exists, never taken from a daemon that lives.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, Permissions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use rustix::{
    fs::Mode,
    io::Errno,
    net::{SendFlags, SocketFlags, accept_with, send},
    process::umask,
};
use tokio::{
    io::Interest,
    task::{AbortHandle, spawn_local},
    time::sleep,
};

use super::{connection, house::House, start::StartError};
use crate::{
    paths::FOLDER,
    sys::{
        peer::{connected_by, name_writers, refuse_descriptors},
        readiness::watch,
    },
};

/// Connections that wait to be accepted.
const BACKLOG_PAUSE: Duration = Duration::from_millis(20);

/// The bound socket. Its file is removed by [`Self::close`].
pub(super) struct Listener {
    socket: OwnedFd,
    /// Path and inode of a socket file that we made; none when the service manager did.
    file: Option<(PathBuf, u64)>,
}

impl Listener {
    /// Binds `path`. The caller holds its lock, so a socket that is there is stale, unless a daemon of another kind
    /// answers on it.
    pub(super) fn bind(path: &Path) -> Result<Self, StartError> {
        let failed = |error| StartError::Socket { path: path.to_owned(), error };
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(failed(io::ErrorKind::AlreadyExists.into()));
            }
            if let Ok(other) = UnixStream::connect(path) {
                let pid = connected_by(other.as_fd()).ok().and_then(|(pid, _)| pid);
                return Err(StartError::Running { pid, what: path.to_owned() });
            }
            fs::remove_file(path).map_err(failed)?;
        }
        // this process has one thread yet: nobody else's files get this mask
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        let socket = OwnedFd::from(bound.map_err(failed)?);
        let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
        Self::ready(socket, Some((path.to_owned(), inode))).map_err(failed)
    }

    /// Takes over a socket that the service manager listens on.
    pub(super) fn activated(socket: OwnedFd, path: &Path) -> Result<Self, StartError> {
        Self::ready(socket, None).map_err(|error| StartError::Socket { path: path.to_owned(), error })
    }

    fn ready(socket: OwnedFd, file: Option<(PathBuf, u64)>) -> io::Result<Self> {
        name_writers(socket.as_fd())?;
        refuse_descriptors(socket.as_fd())?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket, file })
    }

    /// Accepts until the daemon ends.
    pub(super) async fn run(&self, house: &Rc<House>) -> io::Result<()> {
        let listener = watch(self.socket.try_clone()?, Interest::READABLE)?;
        loop {
            let accepted = listener
                .async_io(Interest::READABLE, |socket| {
                    Ok(accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
                })
                .await;
            match accepted {
                Ok(connection) => admit(connection, house),
                Err(error) if is_shortage(&error) => {
                    house.say_once("no descriptors or memory for another connection".into());
                    displace_oldest(house);
                    sleep(BACKLOG_PAUSE).await;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes the socket's file, if it is still ours.
    pub(super) fn close(self) {
        if let Some((path, inode)) = self.file
            && fs::symlink_metadata(&path).is_ok_and(|found| found.ino() == inode)
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes a folder, 0700 and ours, or checks the one that is there: others must not have been able to write to it.
///
/// A folder that carries our name is closed to readers as well, if it was not.
pub(super) fn private_folder(folder: &Path, uid: u32) -> Result<(), StartError> {
    let failed = |error| StartError::Folder { path: folder.to_owned(), error };
    match fs::symlink_metadata(folder) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    let found = fs::metadata(folder).map_err(failed)?;
    if !found.is_dir() || found.uid() != uid || found.permissions().mode() & 0o022 != 0 {
        return Err(StartError::Exposed { path: folder.to_owned() });
    }
    if folder.file_name().is_some_and(|name| name == FOLDER) && found.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(failed)?;
        tracing::warn!("{} could be read by others; its mode is 0700 now", folder.display());
    }
    Ok(())
}

/// The socket that the service manager passed to this process, by `LISTEN_PID` and `LISTEN_FDS`.
pub(super) fn passed_sockets(var: impl Fn(&str) -> Option<OsString>) -> Option<usize> {
    let number = |name: &str| var(name)?.to_str()?.parse::<usize>().ok();
    (number("LISTEN_PID")? == std::process::id() as usize).then(|| number("LISTEN_FDS"))?
}

/// Gives a connection a place and a task; when all places are taken, the oldest that has said nothing valid goes.
fn admit(connection: OwnedFd, house: &Rc<House>) {
    let Ok(peer) = connected_by(connection.as_fd()) else { return };
    let displaced = house.admission.borrow_mut().displaced();
    match displaced {
        Ok(None) => {}
        Ok(Some(oldest)) => oldest.close(house),
        Err(_) => {
            // every place is a registered caller's. A line fits into the buffer of a new connection
            if let Some(reply) = house.refuse_unseen(peer) {
                let _ = send(&connection, reply.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            }
            return;
        }
    }
    let id = house.admission.borrow_mut().admit();
    let task = spawn_local(connection::run(connection, peer, id, Rc::clone(house))).abort_handle();
    house.admission.borrow_mut().closed_by(id, Closer { task, peer });
}

fn displace_oldest(house: &House) {
    let displaced = house.admission.borrow_mut().oldest_unproven();
    if let Some(oldest) = displaced {
        oldest.close(house);
    }
}

/// Ends a connection for another's sake.
pub(super) struct Closer {
    task: AbortHandle,
    peer: (Option<u32>, u32),
}

impl Closer {
    pub(super) fn close(self, house: &House) {
        // its record; the answer has nobody to hear it any more
        let _ = house.refuse_unseen(self.peer);
        self.task.abort();
    }
}

fn is_shortage(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|shortage| error.raw_os_error() == Some(shortage.raw_os_error()))
}
