//! The socket that a service manager passes to a daemon that it starts on demand.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::net::{AddressFamily, SocketType, sockopt};

/// Takes a descriptor that the command line names, once, before this process has opened anything itself. No child gets it.
pub fn named_descriptor(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: borrowed for this call only; a number under which nothing is open is an error of the kernel's
    let named = unsafe { BorrowedFd::borrow_raw(number) };
    let own = rustix::io::fcntl_dupfd_cloexec(named, FIRST)?;
    // the standard streams stay
    if number >= FIRST {
        // SAFETY: whoever started this process passed the descriptor for us; nothing in it knows the number
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
    Ok(own)
}

/// The first passed descriptor, as sd_listen_fds(3) fixes it.
const FIRST: i32 = 3;

/// Takes the first passed socket, once, if it is a listening Unix stream socket.
pub fn first_socket() -> io::Result<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // SAFETY: the manager passed descriptor 3 to this process, which opens nothing at that number itself before it has
    // read LISTEN_PID; it is taken once
    let socket = unsafe { OwnedFd::from_raw_fd(FIRST) };
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    let fits = sockopt::socket_domain(&socket)? == AddressFamily::UNIX
        && sockopt::socket_type(&socket)? == SocketType::STREAM
        && sockopt::socket_acceptconn(&socket)?;
    if fits { Ok(socket) } else { Err(io::ErrorKind::InvalidInput.into()) }
}
