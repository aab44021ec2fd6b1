//! Brings records to the disk within 200 ms, on a thread that may wait for it.

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use tokio::time::sleep;

use super::{house::House, threads::Threads};
use crate::{audit::Unsynced, store::Store};

/// How long a record may be in the kernel only before its sync begins; the rest of the 200 ms is the disk's.
const DELAY: Duration = Duration::from_millis(150);

/// How long the vault may be behind the log: an end of the log that is cut off later than that after its record shows.
const KEEP: Duration = Duration::from_secs(2);

/// Keeps the head of the log's chain in the vault a moment after each record. An idle daemon never wakes.
pub(super) async fn keep_heads(house: Rc<House>) {
    loop {
        house.unkept.notified().await;
        sleep(KEEP).await;
        house.writer.keep_audit();
    }
}

/// The thread that waits for the disk.
pub(super) struct LogSync(SyncSender<Unsynced>);

impl LogSync {
    /// Starts the thread. After each sync it tells the store which records it may forget.
    pub(super) fn start(store: Arc<dyn Store>, threads: &mut Threads) -> io::Result<Self> {
        let (sender, work) = sync_channel::<Unsynced>(1);
        threads.start("log-sync", move || {
            let mut lost = false;
            for unsynced in work {
                match unsynced.sync() {
                    Ok(logged) if !lost => store.settle(logged),
                    Ok(_) => {}
                    Err(error) => {
                        lost = true;
                        tracing::error!(
                            "{error}; records of the last moments may not survive a power failure"
                        );
                    }
                }
            }
        })?;
        Ok(Self(sender))
    }

    /// Asks for a sync a moment after each record. An idle daemon never wakes.
    pub(super) async fn run(self, house: Rc<House>) {
        loop {
            house.unsynced.notified().await;
            sleep(DELAY).await;
            let unsynced = house.log.borrow_mut().unsynced();
            let mut work = match unsynced {
                Ok(Some(unsynced)) => unsynced,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!("{error}");
                    continue;
                }
            };
            // the disk may be slower than the records come
            while let Err(TrySendError::Full(waiting)) = self.0.try_send(work) {
                work = waiting;
                sleep(DELAY).await;
            }
        }
    }
}
