//! The locks and counters that threads of the daemon share in this room.
//!
//! With the feature `schedules`, in tests alone, they are those of a scheduler that plays orders of threads which a
//! machine would take days to come upon; see `trials/schedules.rs`.

#[cfg(not(all(test, feature = "schedules")))]
pub(super) use std::{
    sync::{
        Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64},
    },
    thread::sleep,
};

#[cfg(all(test, feature = "schedules"))]
pub(super) use shuttle::sync::{
    Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicBool, AtomicU64},
};

/// Lets the others go first: played time does not pass.
#[cfg(all(test, feature = "schedules"))]
pub(super) fn sleep(_: std::time::Duration) {
    shuttle::thread::yield_now();
}
