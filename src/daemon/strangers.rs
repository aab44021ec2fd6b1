//! Strangers on their way to the pending queue: hashed one at a time, written at most once a second.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs::File,
    io,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::{sync::Notify, time::sleep};

use super::{house::House, identity::Shown, identity::Unregistered, note::Note, threads::Threads};
use crate::{
    name::{Service, Target},
    policy::{CommandLine, PendingFile, PendingQueue, PolicySource, Sighting},
    wire::Action,
};

/// Most strangers' paths that wait to be hashed and written at one time.
const WAITING: usize = 64;
/// The queue's file is written at most once in this time.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a command may hold the queue's lock before this second's strangers are lost.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// Takes sightings from the corridor, and keeps one of each path until it is written: a stranger that comes back in a
/// loop is counted, and takes no place of another.
#[derive(Default)]
pub(super) struct Strangers {
    waiting: RefCell<HashMap<String, Seen>>,
    arrived: Notify,
    /// How many were noted since the start.
    seen: Cell<u64>,
    /// Up to which of them the file was written. The pen counts it.
    written: Arc<AtomicU64>,
}

/// How far the queue's file is behind, for `STATUS`: who asks for the queue waits until what was `seen` is `written`.
#[derive(Serialize)]
pub(super) struct QueueState {
    seen: u64,
    written: u64,
}

/// What one update of the file brings, and up to which sighting.
pub(super) struct Page {
    sightings: Vec<Sighting>,
    upto: u64,
}

/// A sighting whose digest may still be missing.
struct Seen {
    shown: Shown,
    command_line: CommandLine,
    action: Option<Action>,
    service: Option<Service>,
    targets: Vec<Target>,
    file: Option<File>,
    times: u64,
}

impl Strangers {
    /// Notes a stranger for the queue, unless it only asked whether it may.
    pub(super) fn saw(&self, stranger: Unregistered, shown: &Shown, note: &Note) {
        if note.action() == Some(Action::Check) || shown.path.is_empty() {
            return;
        }
        let mut waiting = self.waiting.borrow_mut();
        let times = match waiting.remove(&shown.path) {
            Some(earlier) => earlier.times + 1,
            None if waiting.len() < WAITING => 1,
            None => return,
        };
        let seen = Seen {
            shown: shown.clone(),
            command_line: CommandLine::masked(stranger.arguments.iter().map(String::as_bytes)),
            action: note.action(),
            service: note.service().cloned(),
            targets: note.targets().to_vec(),
            file: stranger.file,
            times,
        };
        waiting.insert(shown.path.clone(), seen);
        self.seen.set(self.seen.get() + 1);
        self.arrived.notify_one();
    }

    pub(super) fn state(&self) -> QueueState {
        QueueState { seen: self.seen.get(), written: self.written.load(Ordering::Acquire) }
    }
}

/// Hashes and writes what the corridor saw, until the daemon ends.
pub(super) async fn queue(pen: SyncSender<Page>, house: Rc<House>) {
    loop {
        house.strangers.arrived.notified().await;
        let (waiting, upto) = (house.strangers.waiting.take(), house.strangers.seen.get());
        let mut sightings = Vec::with_capacity(waiting.len());
        for seen in waiting.into_values() {
            sightings.extend(finished(seen, &house).await);
        }
        if pen.try_send(Page { sightings, upto }).is_err() {
            tracing::warn!("strangers could not be queued for approval: the disk is slow");
        }
        sleep(PERIOD).await;
    }
}

/// Starts the thread that writes the queue's file, since a sync to disk must not keep clients waiting.
pub(super) fn start_pen(
    file: PendingFile,
    mut policy: PolicySource,
    strangers: &Strangers,
    threads: &mut Threads,
) -> io::Result<SyncSender<Page>> {
    let (pen, pages) = sync_channel::<Page>(1);
    let written = Arc::clone(&strangers.written);
    threads.start("strangers", move || {
        for Page { sightings, upto } in pages {
            write(&file, &mut policy, sightings);
            written.store(upto, Ordering::Release);
        }
    })?;
    Ok(pen)
}

fn write(file: &PendingFile, policy: &mut PolicySource, sightings: Vec<Sighting>) {
    // the list of system calls has none to make a folder with
    if !file.has_folder() {
        return tracing::warn!("a stranger could not be queued for approval: the data folder is gone");
    }
    let now = Timestamp::now();
    let record = |queue: &mut PendingQueue| {
        for sighting in sightings {
            queue.record(sighting, now);
        }
        // looked at under the queue's lock: a command registers first, and takes the program from the queue then
        if let Ok(policy) = policy.current(file.uid()) {
            queue.forget_registered(&policy, now);
        }
    };
    match file.update(LOCK_PATIENCE, now, record) {
        Ok((_, None)) => {}
        Ok((_, Some(_foreign))) => tracing::warn!("pending.json was not ours and has been replaced"),
        Err(error) => tracing::warn!("a stranger could not be queued for approval: {error}"),
    }
}

async fn finished(seen: Seen, house: &House) -> Option<Sighting> {
    let digest = match (seen.shown.digest, &seen.file) {
        (Some(digest), _) => digest,
        (None, Some(file)) => house.witness.fingerprint(file).await.ok()?,
        (None, None) => return None,
    };
    Some(Sighting {
        path: PathBuf::from(seen.shown.path),
        digest,
        pid: seen.shown.pid,
        command_line: seen.command_line,
        action: seen.action,
        service: seen.service,
        targets: seen.targets,
        times: seen.times,
    })
}
