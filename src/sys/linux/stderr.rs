//! Standard error that makes nobody wait: whoever reads it may be stopped, slow, or another process of the attacker's.
#![allow(unsafe_code)]

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd},
    sync::{
        OnceLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, Mode, OFlags, fstat},
    net::{SendAncillaryBuffer, SendFlags, sendmsg},
};

/// How standard error is written without a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// As it is: a file, or a pipe or terminal that was opened anew for this process alone.
    Plain,
    /// A socket, as journald gives: each write says that it does not wait.
    Socket,
    /// A pipe or terminal that may not be opened anew, as after a change of user. It is asked first, which is no promise: a
    /// process may write to the same pipe in between, and a terminal may have room, but not for the whole line. So once
    /// there is a thread for it, that one waits, and nobody else: see [`relay`].
    Asked,
}

/// Most lines that wait for that thread.
const RELAYED: usize = 16;

enum Relayed {
    Line(Vec<u8>),
    /// Everything before this was written.
    End(SyncSender<()>),
}

static HOW: OnceLock<How> = OnceLock::new();
static RELAY: OnceLock<SyncSender<Relayed>> = OnceLock::new();

/// Finds out what standard error is, and opens a pipe or terminal anew so that it never waits. The flag belongs to what is
/// open, and others have that open too: a shell must not find its terminal changed.
///
/// Called before the process has a second thread or a child, and before its sandbox.
pub fn prepare() {
    HOW.get_or_init(|| {
        let Ok(found) = fstat(io::stderr().as_fd()) else { return How::Plain };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Socket => How::Socket,
            FileType::Fifo | FileType::CharacterDevice if open_anew().is_err() => How::Asked,
            _ => How::Plain,
        }
    });
}

/// Writes what goes in at once. An error where nothing does.
pub fn write(bytes: &[u8]) -> io::Result<usize> {
    let stderr = io::stderr();
    match HOW.get().unwrap_or(&How::Asked) {
        How::Plain => Ok(rustix::io::write(stderr.as_fd(), bytes)?),
        // the one call for it that every process here may make
        How::Socket => Ok(sendmsg(
            stderr.as_fd(),
            &[IoSlice::new(bytes)],
            &mut SendAncillaryBuffer::default(),
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        )?),
        How::Asked if let Some(relay) = RELAY.get() => {
            let queued = relay.try_send(Relayed::Line(bytes.to_vec()));
            queued.map(|()| bytes.len()).map_err(|_| io::ErrorKind::WouldBlock.into())
        }
        How::Asked => {
            let mut fds = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
            if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(rustix::io::write(stderr.as_fd(), bytes)?)
        }
    }
}

/// The work of a thread that may wait for whoever reads standard error, where it can't be written without that. From now on
/// [`write`] only queues lines for it, and gives an error when too many wait.
///
/// Nobody may wait for the end of the thread: it has none while nobody reads.
pub fn relay() -> Option<impl FnOnce() + Send + 'static> {
    if HOW.get() != Some(&How::Asked) {
        return None;
    }
    let (queue, lines) = sync_channel(RELAYED);
    RELAY.set(queue).ok()?;
    Some(move || pass_on(&lines))
}

/// Waits until that thread has written what was queued, or for `patience`.
pub fn finish(patience: Duration) {
    let Some(relay) = RELAY.get() else { return };
    let (done, written) = sync_channel(1);
    if relay.try_send(Relayed::End(done)).is_ok() {
        let _ = written.recv_timeout(patience);
    }
}

fn pass_on(lines: &Receiver<Relayed>) {
    for relayed in lines {
        match relayed {
            Relayed::Line(line) => {
                let mut rest = line.as_slice();
                while let Ok(length @ 1..) =
                    rustix::io::retry_on_intr(|| rustix::io::write(io::stderr(), rest))
                {
                    rest = rest.get(length..).unwrap_or_default();
                }
            }
            Relayed::End(done) => drop(done.send(())),
        }
    }
}

fn open_anew() -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let anew = rustix::fs::open("/proc/self/fd/2", flags, Mode::empty())?;
    // SAFETY: the number of standard error is nobody's object; it stays open, and is another opening of the same file
    let result = unsafe { libc::dup3(anew.as_raw_fd(), libc::STDERR_FILENO, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
