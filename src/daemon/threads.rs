//! The keeper's threads are all there before its list of system calls counts: none may be started afterwards.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

use rustix::process::nice;

/// The keeper's threads beside the one of the event loop.
pub(super) struct Threads {
    here: Sender<()>,
    arrived: Receiver<()>,
    running: Vec<JoinHandle<()>>,
    /// How many more there are, which nobody waits for in the end.
    left: usize,
}

impl Threads {
    pub(super) fn new() -> Self {
        let (here, arrived) = channel();
        Self { here, arrived, running: Vec::new(), left: 0 }
    }

    /// Starts a thread. It never waits for the others, of which one may not come to be.
    pub(super) fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = self.spawn(name, || (), work)?;
        self.running.push(thread);
        Ok(())
    }

    /// Starts a thread that comes behind whatever else wants the processor, and ends with the process.
    pub(super) fn start_behind(
        &mut self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.spawn(name, behind, work)?;
        self.left += 1;
        Ok(())
    }

    /// Starts a thread that may wait for ever, and ends with the process.
    pub(super) fn start_unwaited(
        &mut self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.spawn(name, || (), work)?;
        self.left += 1;
        Ok(())
    }

    fn spawn(
        &self,
        name: &str,
        prepare: fn(),
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let here = self.here.clone();
        thread::Builder::new().name(name.into()).spawn(move || {
            prepare();
            let _ = here.send(());
            work();
        })
    }

    /// Waits until every thread has made all system calls that starting takes.
    pub(super) fn wait_started(&self) {
        // each sends once before it can end
        let _ = self.arrived.iter().take(self.running.len() + self.left).count();
    }

    /// Waits until every thread has ended, as each does when nobody can give it work any more.
    pub(super) fn wait_ended(self) {
        for thread in self.running {
            // a panic of a thread is on stderr already
            let _ = thread.join();
        }
    }
}

/// On Linux each thread has a nice value of its own.
fn behind() {
    // not the last of all: on a machine that is busy for long it still goes on; where it may not be, it takes turns
    let _ = nice(10);
}
