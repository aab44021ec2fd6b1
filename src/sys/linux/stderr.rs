//! Standard error that makes nobody wait: whoever reads it may be stopped, slow, or another process of the attacker's.
#![allow(unsafe_code)]

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd},
    sync::OnceLock,
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
    /// A pipe or terminal that may not be opened anew, as after a change of user. It is asked first. What can still make us
    /// wait: a process that writes to the same pipe in between, and a terminal that has room, but not for the whole line.
    Asked,
}

static HOW: OnceLock<How> = OnceLock::new();

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
        How::Asked => {
            let mut fds = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
            if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(rustix::io::write(stderr.as_fd(), bytes)?)
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
