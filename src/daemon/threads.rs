//! The keeper's threads are all there before its list of system calls counts: none may be started afterwards.

use std::{
    io,
    sync::{Arc, Barrier},
    thread::{self, JoinHandle},
};

/// How many wait: writer, log-sync, log-pack, strangers, and the one that started them.
const THREADS: usize = 5;
/// Those that wait for the keychain in addition: one reads, one carries.
const KEYCHAIN_THREADS: usize = 2;

/// The keeper's threads beside the one of the event loop.
pub(super) struct Threads {
    started: Arc<Barrier>,
    running: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn new(keychain: bool) -> Self {
        let threads = THREADS + if keychain { KEYCHAIN_THREADS } else { 0 };
        Self { started: Arc::new(Barrier::new(threads)), running: Vec::new() }
    }

    /// Starts a thread that waits for the others before it works.
    pub(super) fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let started = Arc::clone(&self.started);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            started.wait();
            work();
        })?;
        self.running.push(thread);
        Ok(())
    }

    /// Waits until every thread has made all system calls that starting takes.
    pub(super) fn wait_started(&self) {
        self.started.wait();
    }

    /// Waits until every thread has ended, as each does when nobody can give it work any more.
    pub(super) fn wait_ended(self) {
        for thread in self.running {
            // a panic of a thread is on stderr already
            let _ = thread.join();
        }
    }
}
