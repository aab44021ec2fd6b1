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
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::{sync::Notify, time::sleep};

use super::{
    house::House, identity::Shown, identity::Unregistered, note::Note, sealing::accepted, threads::Threads,
};
use crate::{
    name::{Service, Target},
    policy::{CommandLine, PendingFile, PendingQueue, PolicySource, Sighting},
    store::Lockable,
    wire::Action,
};

/// Most strangers' paths that wait to be hashed and written at one time.
const WAITING: usize = 64;
/// The queue's file is written at most once in this time.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a command may hold the queue's lock before the strangers are written later.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// How long after a failed write the same strangers are written again.
const AGAIN: Duration = Duration::from_millis(500);

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
        let (mut page, mut told) = (Page { sightings, upto }, false);
        // who comes meanwhile waits where a path has one place
        while let Err(TrySendError::Full(unsent)) = pen.try_send(page) {
            if !told {
                tracing::warn!("strangers wait to be queued for approval: pending.json can't be written yet");
                told = true;
            }
            page = unsent;
            sleep(PERIOD).await;
        }
        sleep(PERIOD).await;
    }
}

/// Starts the thread that writes the queue's file, since a sync to disk must not keep clients waiting. What can't be
/// written is tried again until it is, or the daemon ends: only then does it count as written.
pub(super) fn start_pen(
    pen: Pen,
    strangers: &Strangers,
    threads: &mut Threads,
) -> io::Result<SyncSender<Page>> {
    let (sender, pages) = sync_channel::<Page>(1);
    let written = Arc::clone(&strangers.written);
    let mut pen = pen;
    threads.start("strangers", move || {
        for Page { sightings, upto } in pages {
            let mut told = false;
            while let Err(why) = pen.write(&sightings) {
                if !told {
                    tracing::warn!("a stranger could not be queued for approval, and is tried again: {why}");
                    told = true;
                }
                // nobody else has it any more: the daemon ends
                if Arc::strong_count(&written) == 1 {
                    return;
                }
                thread::sleep(AGAIN);
            }
            written.store(upto, Ordering::Release);
        }
    })?;
    Ok(sender)
}

/// What writes the queue's file.
pub(super) struct Pen {
    pub(super) file: PendingFile,
    /// Read by this thread for itself, under the seal that the vault has at that moment.
    pub(super) policy: PolicySource,
    pub(super) vault: Arc<Lockable>,
}

impl Pen {
    fn write(&mut self, sightings: &[Sighting]) -> Result<(), String> {
        // the list of system calls has none to make a folder with
        let gone = || "the data folder is gone".to_owned();
        if !self.file.has_folder() {
            return Err(gone());
        }
        let now = Timestamp::now();
        let record = |queue: &mut PendingQueue| {
            for sighting in sightings {
                queue.record(sighting.clone(), now);
            }
            // looked at under the queue's lock: a command registers first, and takes the program from the queue then
            self.policy.accept_only(accepted(self.vault.policy_seal()));
            if let Ok(policy) = self.policy.current(self.file.uid()) {
                queue.forget_registered(&policy, now);
            }
        };
        match self.file.update(LOCK_PATIENCE, now, record) {
            // a missing folder is no error of an update
            Ok(_) if !self.file.has_folder() => return Err(gone()),
            Ok((_, None)) => {}
            Ok((_, Some(_foreign))) => tracing::warn!("pending.json was not ours and has been replaced"),
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
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
