//! Descriptors that the event loop watches.
#![allow(unsafe_code)]

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers a non-blocking descriptor with the runtime of this thread. Called inside it.
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    // SAFETY: the descriptor is owned and lent out only as a borrow, so it is not closed before it is deregistered
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}
