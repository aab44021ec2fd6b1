//! The one thread that changes the store. Batches that arrive while it commits are committed together.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel},
    },
};

use tokio::sync::oneshot;

use super::{keychain::Bell, threads::Threads};
use crate::{
    sandbox::{Applied, Protection, probe},
    store::{Committed, OutboxEntry, PendingChange, Store, StoreError},
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

/// What the log hears of a commit.
#[derive(Debug)]
pub(super) enum News {
    /// It is durable, with this line.
    Line(OutboxEntry),
    /// The store could not tell whether it is.
    Unknown,
}

impl News {
    /// None of a change that was not made.
    fn of<'a>(outcome: Result<Option<&'a OutboxEntry>, &'a StoreError>) -> Option<Self> {
        match outcome {
            Ok(line) => line.cloned().map(Self::Line),
            Err(StoreError::Unknown(_)) => Some(Self::Unknown),
            Err(_) => None,
        }
    }
}

type Task = Box<dyn FnOnce(&Sender<News>) + Send>;

/// Hands changes to the writing thread, and takes the audit lines of what was committed from it.
pub(super) struct Writer {
    jobs: SyncSender<Job>,
    news: Receiver<News>,
}

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
        // without a bound of its own: no change is queued before the lines of earlier ones were taken
        let (committed, news) = channel();
        threads.start("writer", move || write(&*store, bell.as_ref(), &queue, &committed))?;
        Ok(Self { jobs, news })
    }

    /// What is in force for the thread that handles secrets on their way to the disk; it asks the kernel itself.
    pub(super) fn probe(&self, applied: Applied) -> Vec<Protection> {
        let (told, answer) = sync_channel(1);
        if self.jobs.send(Job::Probe(applied, told)).is_err() {
            return Vec::new();
        }
        answer.recv().unwrap_or_default()
    }

    /// Has what was noted of the audit log made durable. Where the queue is full, the changes in it do that.
    pub(super) fn keep_audit(&self) {
        let _ = self.jobs.try_send(Job::KeepAudit);
    }

    /// Does something on the writing thread, behind the changes that wait, and waits for its end.
    pub(super) async fn task<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, QueueFull> {
        self.run(move |_| task()).await
    }

    /// Does something that commits an audit line, in the same way.
    pub(super) async fn commit(
        &self,
        task: impl FnOnce() -> Result<OutboxEntry, StoreError> + Send + 'static,
    ) -> Result<Result<OutboxEntry, StoreError>, QueueFull> {
        self.run(move |told| {
            let committed = task();
            if let Some(news) = News::of(committed.as_ref().map(Some)) {
                let _ = told.send(news);
            }
            committed
        })
        .await
    }

    /// What became of the next commit, in their order. It is here before the outcome of its change, and also when nobody
    /// waits for that any more.
    ///
    /// The log may say "every line up to this one is here" only because it gets them in this order: those who wait for their
    /// outcomes wake in any order, or not at all, and the store forgets what the log has.
    pub(super) fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Queues a change. The outcome arrives when it is durable, whether or not somebody still waits for it.
    pub(super) fn queue(&self, change: PendingChange) -> Result<oneshot::Receiver<Outcome>, QueueFull> {
        let (done, outcome) = oneshot::channel();
        match self.jobs.try_send(Job::Change(change, done)) {
            Ok(()) => Ok(outcome),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(QueueFull),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Sender<News>) -> T + Send + 'static,
    ) -> Result<T, QueueFull> {
        let (done, outcome) = oneshot::channel();
        // who asked may be gone by then
        let job = Job::Task(Box::new(move |told| drop(done.send(work(told)))));
        self.jobs.try_send(job).map_err(|_| QueueFull)?;
        outcome.await.map_err(|_| QueueFull)
    }
}

fn write(store: &dyn Store, bell: Option<&Bell>, queue: &Receiver<Job>, told: &Sender<News>) {
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
            if let Some(news) = News::of(outcome.as_ref().map(Committed::outbox)) {
                let _ = told.send(news);
            }
            // a client that is gone has its change all the same, and its record
            let _ = done.send(outcome);
        }
        if let Some(bell) = bell {
            bell.ring();
        }
        if let Some(work) = task {
            work(told);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        admitted::{admit, policy_for},
        name::{Attributes, Service, Target},
        policy::decide_change,
        secret::{Buffer, SecretValue},
        store::{Change, Memory, WriteItem},
    };

    fn write_of(name: &str) -> PendingChange {
        let service = Service::parse("s").unwrap();
        let value = SecretValue::from_buffer(Buffer::from(&b"v"[..])).unwrap();
        let items = vec![WriteItem { target: Target::parse(name).unwrap(), value }];
        let policy = policy_for(&["s"]);
        let change = Change::Write { service, items, attributes: Attributes::new() };
        let line = name.as_bytes().to_vec();
        PendingChange {
            change: decide_change(&admit(&policy), change).unwrap(),
            record: Box::new(move |_| line.clone()),
        }
    }

    /// The log says of the last line that it got that it has all before it too, and the store forgets those. A task that
    /// wakes first, as tokio's budget may let it, or one that was ended must not come between.
    #[test]
    fn lines_come_in_the_order_of_their_commits_whoever_wakes_first_or_is_gone() {
        let mut threads = Threads::new();
        let writer = Writer::start(Arc::new(Memory::new()), None, &mut threads).unwrap();
        let names = ["gone", "late", "first awake"];
        let [gone, late, first] = names.map(|name| writer.queue(write_of(name)).unwrap());
        drop(gone);
        assert!(first.blocking_recv().unwrap().is_ok());
        let news: Vec<_> = std::iter::from_fn(|| writer.news()).collect();
        let said = |at: usize| match news.get(at) {
            Some(News::Line(line)) => Some((line.id, line.line.as_slice())),
            _ => None,
        };
        assert_eq!(
            [said(0), said(1), said(2)],
            [(1, names[0]), (2, names[1]), (3, names[2])].map(|(id, name)| Some((id, name.as_bytes())))
        );
        assert!(late.blocking_recv().unwrap().is_ok());
        assert!(writer.news().is_none(), "each once");
        drop(writer);
        threads.wait_ended();
    }
}
