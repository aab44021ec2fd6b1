//! The platform contract, and the only room with `unsafe` and `cfg(target_os)`.
//!
//! A platform offers:
//! - [`peer`]: who wrote each chunk on a local socket, who connected it, and a handle that pins that process;
//! - [`activation`] and [`notify`]: what a service manager passes and wants to be told;
//! - [`filesystem`]: whether somebody else than the kernel answers for what a file holds;
//! - [`locked`]: memory that is never swapped, dumped or left unwiped;
//! - [`stderr`]: standard error that makes nobody wait;
//! - [`process`]: a process that no other process of the same user can read, and that dies with its parent;
//! - [`trial`]: such a process for work that may end it.
//!
//! A power that a platform or kernel lacks is a value that the caller must look at, never a silent no-op.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub use linux::{activation, filesystem, locked, notify, peer, process, readiness, stderr, trap, trial};

#[cfg(not(target_os = "linux"))]
compile_error!(
    "keychain-auth runs on Linux; other platforms need their own implementation of the contract in src/sys"
);
