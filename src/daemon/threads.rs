//! The keeper's threads are all there before its list of system calls counts: none may be started afterwards.

use std::sync::{Arc, Barrier};

/// How many wait: writer, log-sync, strangers, and the one that started them.
const THREADS: usize = 4;

/// A meeting of all threads. Whoever has come here has made every system call that starting takes.
#[derive(Clone)]
pub(super) struct Started(Arc<Barrier>);

impl Started {
    pub(super) fn new() -> Self {
        Self(Arc::new(Barrier::new(THREADS)))
    }

    /// Waits for the others.
    pub(super) fn wait(&self) {
        self.0.wait();
    }
}
