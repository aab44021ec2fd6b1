//! The one thread that changes the store. Batches that arrive while it commits are committed together.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

use tokio::sync::oneshot;

use super::{keychain::Bell, threads::Threads};
use crate::{
    sandbox::{Applied, Protection, probe},
    store::{Committed, PendingChange, Store, StoreError},
};

/// Most batches that wait: beyond it clients are told that the daemon is overloaded.
const QUEUE: usize = 256;
/// Most batches of one transaction, so that the first does not wait for an endless last.
const GROUP: usize = 64;

type Outcome = Result<Committed, StoreError>;
type Waiting = oneshot::Sender<Outcome>;

enum Job {
    Change(PendingChange, Waiting),
    /// What was noted of the audit log; a change takes it along anyway.
    KeepAudit,
    /// Something that takes the whole store, after every change that was queued before it.
    Task(Task),
    Probe(Applied, SyncSender<Vec<Protection>>),
}

type Task = Box<dyn FnOnce() + Send>;

/// Hands changes to the writing thread.
pub(super) struct Writer(SyncSender<Job>);

/// The queue of the writing thread is full, or the thread is gone.
#[derive(Debug)]
pub(super) struct QueueFull;

impl Writer {
    /// Starts the thread. It ends when the writer is dropped and its last batch is committed.
    /// Each commit rings `bell`.
    pub(super) fn start(
        store: Arc<dyn Store>,
        bell: Option<Bell>,
        threads: &mut Threads,
    ) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        threads.start("writer", move || write(&*store, bell.as_ref(), &queue))?;
        Ok(Self(jobs))
    }

    /// What is in force for the thread that handles secrets on their way to the disk; it asks the kernel itself.
    pub(super) fn probe(&self, applied: Applied) -> Vec<Protection> {
        let (told, answer) = sync_channel(1);
        if self.0.send(Job::Probe(applied, told)).is_err() {
            return Vec::new();
        }
        answer.recv().unwrap_or_default()
    }

    /// Has what was noted of the audit log made durable. Where the queue is full, the changes in it do that.
    pub(super) fn keep_audit(&self) {
        let _ = self.0.try_send(Job::KeepAudit);
    }

    /// Does something on the writing thread, behind the changes that wait, and waits for its end.
    pub(super) async fn task<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, QueueFull> {
        let (done, outcome) = oneshot::channel();
        // who asked may be gone by then
        let job = Job::Task(Box::new(move || drop(done.send(task()))));
        self.0.try_send(job).map_err(|_| QueueFull)?;
        outcome.await.map_err(|_| QueueFull)
    }

    /// Queues a change. The outcome arrives when it is durable, whether or not somebody still waits for it.
    pub(super) fn queue(&self, change: PendingChange) -> Result<oneshot::Receiver<Outcome>, QueueFull> {
        let (done, outcome) = oneshot::channel();
        match self.0.try_send(Job::Change(change, done)) {
            Ok(()) => Ok(outcome),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(QueueFull),
        }
    }
}

fn write(store: &dyn Store, bell: Option<&Bell>, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut changes = Vec::new();
        let mut waiting = Vec::new();
        let mut keeps = false;
        let mut task = None;
        for job in std::iter::once(first).chain(queue.try_iter().take(GROUP - 1)) {
            match job {
                Job::Change(change, done) => {
                    changes.push(change);
                    waiting.push(done);
                }
                Job::KeepAudit => keeps = true,
                Job::Task(work) => {
                    task = Some(work);
                    break;
                }
                // asked once, by the start, which waits for it
                Job::Probe(applied, told) => drop(told.send(probe(applied))),
            }
        }
        if changes.is_empty()
            && keeps
            && let Err(error) = store.keep_audit()
        {
            tracing::warn!("the head of the audit log could not be kept: {error}");
        }
        for (outcome, done) in store.commit(changes).into_iter().zip(waiting) {
            // a client that is gone has its change all the same, and its record
            let _ = done.send(outcome);
        }
        if let Some(bell) = bell {
            bell.ring();
        }
        if let Some(work) = task {
            work();
        }
    }
}
