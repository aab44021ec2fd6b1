//! Brings records to the disk on a thread that may wait for it: within 200 ms, or before the reply that needs them.

use std::{
    io,
    path::PathBuf,
    rc::Rc,
    str::FromStr,
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use super::{house::House, threads::Threads};
use crate::{
    audit::{FOLD_PERIOD, Rotation, Unsynced, pack},
    store::Store,
};

/// How long a record may be in the kernel only before its sync begins; the rest of the 200 ms is the disk's.
const DELAY: Duration = Duration::from_millis(150);
/// How long the vault may be behind the log: an end of the log that is cut off later than that after its record shows.
const KEEP: Duration = Duration::from_secs(2);
/// Most earlier files that wait to be packed: more than are kept, unless somebody chose so. What finds no place is packed
/// after a next start.
const PACKING: usize = 16;

/// How the audit log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditSettings {
    /// When a reply may leave.
    pub durability: Durability,
    /// When a file ends.
    pub rotation: Rotation,
}

/// How far a record must have come before its reply leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// In the kernel: it survives the death of the daemon. The disk has it within 200 ms.
    #[default]
    Written,
    /// On the disk: it survives the death of the machine. Replies that wait at the same time share one sync.
    Synced,
}

impl Durability {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Synced => "synced",
        }
    }
}

/// Neither `written` nor `synced`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("written or synced")]
pub struct UnknownDurability;

impl FromStr for Durability {
    type Err = UnknownDurability;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let known = [Self::Written, Self::Synced].into_iter().find(|it| it.as_str() == word);
        known.ok_or(UnknownDurability)
    }
}

/// What became of the records up to a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Synced {
    /// The disk has them.
    pub(super) up_to: u64,
    /// The disk may have lost them: a later success says nothing of what an earlier failure let go.
    pub(super) lost: u64,
}

impl Synced {
    fn tells_of(&self, seq: u64) -> bool {
        self.up_to.max(self.lost) >= seq
    }
}

/// Waits until the disk has a record. False when it may have lost it.
pub(super) async fn is_synced(mut synced: watch::Receiver<Synced>, seq: u64) -> bool {
    // the thread lives as long as the connections
    let told = synced.wait_for(|synced| synced.tells_of(seq)).await;
    told.is_ok_and(|synced| synced.lost < seq)
}

/// Keeps the head of the log's chain in the vault a moment after each record. An idle daemon never wakes.
pub(super) async fn keep_heads(house: Rc<House>) {
    loop {
        house.unkept.notified().await;
        sleep(KEEP).await;
        house.writer.keep_audit();
    }
}

/// Writes the refusals that were gathered, until none is left.
pub(super) async fn write_gathered(house: Rc<House>) {
    loop {
        house.gathering.notified().await;
        loop {
            sleep(FOLD_PERIOD).await;
            if !house.write_gathered(false) {
                break;
            }
        }
    }
}

/// The thread that waits for the disk, and the one that packs earlier files.
pub(super) struct LogSync {
    work: SyncSender<Unsynced>,
    packing: SyncSender<PathBuf>,
    synced: watch::Receiver<Synced>,
}

impl LogSync {
    /// Starts the threads. After each sync the store is told which records it may forget.
    pub(super) fn start(store: Arc<dyn Store>, threads: &mut Threads) -> io::Result<Self> {
        let (sender, work) = sync_channel::<Unsynced>(1);
        let (tell, synced) = watch::channel(Synced::default());
        threads.start("log-sync", move || {
            let mut lost = false;
            for unsynced in work {
                let seq = unsynced.seq();
                match unsynced.sync() {
                    Ok(logged) => {
                        if !lost {
                            store.settle(logged);
                        }
                        tell.send_modify(|synced| synced.up_to = seq);
                    }
                    Err(error) => {
                        lost = true;
                        tell.send_modify(|synced| synced.lost = seq);
                        tracing::error!(
                            "{error}; records of the last moments may not survive a power failure"
                        );
                    }
                }
            }
        })?;
        let (packing, files) = sync_channel::<PathBuf>(PACKING);
        // an end in the middle of a file leaves it as it is, for the next start
        threads.start_behind("log-pack", move || {
            for file in files {
                // one that is gone had to make room for newer ones
                if let Err(error) = pack(&file)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!("{} could not be packed and stays as it is: {error}", file.display());
                }
            }
        })?;
        Ok(Self { work: sender, packing, synced })
    }

    /// Tells which records the disk has.
    pub(super) fn synced(&self) -> watch::Receiver<Synced> {
        self.synced.clone()
    }

    /// Asks for a sync a moment after each record, or at once where replies wait for it. An idle daemon never wakes.
    pub(super) async fn run(mut self, house: Rc<House>) {
        // once, as every fault that clients can bring about again and again: a shortage of descriptors is one
        let mut told = String::new();
        loop {
            house.unsynced.notified().await;
            if house.durability == Durability::Written {
                sleep(DELAY).await;
            }
            for file in house.log.borrow_mut().take_unpacked() {
                if let Err(TrySendError::Full(file)) = self.packing.try_send(file) {
                    tracing::warn!("{} is packed after a next start: others wait for it", file.display());
                }
            }
            let unsynced = house.log.borrow_mut().unsynced();
            let mut work = match unsynced {
                Ok(Some(unsynced)) => unsynced,
                Ok(None) => continue,
                Err(error) => {
                    let fault = error.to_string();
                    if fault != told {
                        tracing::error!("{fault}");
                        told = fault;
                    }
                    continue;
                }
            };
            let seq = work.seq();
            // the disk may be slower than the records come
            while let Err(TrySendError::Full(waiting)) = self.work.try_send(work) {
                work = waiting;
                sleep(DELAY).await;
            }
            if house.durability == Durability::Synced {
                // what arrives meanwhile shares the next sync
                let _ = self.synced.wait_for(|synced| synced.tells_of(seq)).await;
            }
        }
    }
}
