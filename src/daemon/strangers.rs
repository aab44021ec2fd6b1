//! Strangers on their way to the pending queue: hashed one at a time, written at most once a second.

use std::{
    fs::File,
    io,
    path::PathBuf,
    rc::Rc,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::sleep,
};

use super::{house::House, identity::Shown, identity::Unregistered, note::Note, threads::Started};
use crate::{
    policy::{CommandLine, PendingFile, PendingQueue, Sighting},
    wire::Action,
};

/// Most strangers that wait to be hashed or written. A flood loses its own later sightings, and nothing else.
const WAITING: usize = 64;
/// The queue's file is written at most once in this time.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a command may hold the queue's lock before this second's strangers are lost.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// Takes sightings from the corridor.
pub(super) struct Strangers(Sender<Seen>);

/// A sighting whose digest may still be missing.
pub(super) struct Seen {
    sighting: Unfinished,
    file: Option<File>,
}

struct Unfinished {
    shown: Shown,
    command_line: CommandLine,
    action: Option<Action>,
    service: Option<crate::name::Service>,
    targets: Vec<crate::name::Target>,
}

impl Strangers {
    /// The two ends: one for the corridor, one for [`queue`].
    pub(super) fn new() -> (Self, Receiver<Seen>) {
        let (seen, queue) = channel(WAITING);
        (Self(seen), queue)
    }

    /// Notes a stranger for the queue, unless it only asked whether it may.
    pub(super) fn saw(&self, stranger: Unregistered, shown: &Shown, note: &Note) {
        if note.action() == Some(Action::Check) || shown.path.is_empty() {
            return;
        }
        let sighting = Unfinished {
            shown: shown.clone(),
            command_line: CommandLine::masked(stranger.arguments.iter().map(String::as_bytes)),
            action: note.action(),
            service: note.service().cloned(),
            targets: note.targets().to_vec(),
        };
        // full: somebody floods, and the one who does is in the queue already
        let _ = self.0.try_send(Seen { sighting, file: stranger.file });
    }
}

/// Hashes and writes what the corridor saw, until the daemon ends.
pub(super) async fn queue(mut seen: Receiver<Seen>, pen: SyncSender<Vec<Sighting>>, house: Rc<House>) {
    while let Some(first) = seen.recv().await {
        let mut sightings: Vec<Sighting> = finished(first, &house).await.into_iter().collect();
        while let Ok(next) = seen.try_recv() {
            sightings.extend(finished(next, &house).await);
        }
        if !sightings.is_empty() && pen.try_send(sightings).is_err() {
            tracing::warn!("strangers could not be queued for approval: the disk is slow");
        }
        sleep(PERIOD).await;
    }
}

/// Starts the thread that writes the queue's file, since a sync to disk must not keep clients waiting.
pub(super) fn start_pen(file: PendingFile, started: Started) -> io::Result<SyncSender<Vec<Sighting>>> {
    let (pen, pages) = sync_channel::<Vec<Sighting>>(1);
    thread::Builder::new().name("strangers".into()).spawn(move || {
        started.wait();
        for sightings in pages {
            write(&file, sightings);
        }
    })?;
    Ok(pen)
}

fn write(file: &PendingFile, sightings: Vec<Sighting>) {
    let now = Timestamp::now();
    let record = |queue: &mut PendingQueue| {
        for sighting in sightings {
            queue.record(sighting, now);
        }
    };
    match file.update(LOCK_PATIENCE, now, record) {
        Ok((_, None)) => {}
        Ok((_, Some(_foreign))) => tracing::warn!("pending.json was not ours and has been replaced"),
        Err(error) => tracing::warn!("a stranger could not be queued for approval: {error}"),
    }
}

async fn finished(seen: Seen, house: &House) -> Option<Sighting> {
    let Seen { sighting, file } = seen;
    let digest = match (sighting.shown.digest, file) {
        (Some(digest), _) => digest,
        (None, Some(file)) => house.witness.fingerprint(&file).await.ok()?,
        (None, None) => return None,
    };
    Some(Sighting {
        path: PathBuf::from(sighting.shown.path),
        digest,
        pid: sighting.shown.pid,
        command_line: sighting.command_line,
        action: sighting.action,
        service: sighting.service,
        targets: sighting.targets,
    })
}
