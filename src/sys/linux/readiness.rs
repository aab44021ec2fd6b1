//! Descriptors that the event loop watches.
#![allow(unsafe_code)]

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers a non-blocking descriptor with the runtime of this thread. Called inside it.
///
/// Every event that `interest` names wakes the thread, whether somebody waits for it or not: a socket becomes writable
/// whenever its peer has read.
pub fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned and lent out only as a borrow, so it is not closed before it is deregistered
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}
