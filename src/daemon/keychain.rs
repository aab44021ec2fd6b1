//! The keeper's side of `--store keychain`: the broker, the thread that reads what rests in the keychain, and the one that
//! carries there what was committed. The event loop itself never waits for a keychain.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::oneshot,
};

use super::threads::Threads;
use crate::{
    broker::{Health, Lane},
    policy::Authorized,
    store::{Committed, Items, Keychain, Query, Store, StoreError},
    sys::{process::Child, readiness::watch},
};

/// Most reads that wait: beyond it clients are told that the daemon is overloaded.
const QUEUE: usize = 256;
/// How soon the keychain is tried again after it refused, at first and at most. Only while something waits for it.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Channels to the broker: for reads, for the question before a change, to carry, and one that tells of its end.
pub(super) const CHANNELS: usize = 4;

/// The keeper's ends of the channels to the broker.
pub(super) struct Broker {
    /// What the store asks.
    pub(super) keychain: Keychain,
    /// How the keychain was found when it was last asked.
    pub(super) health: Arc<Health>,
    life: OwnedFd,
}

impl Broker {
    /// Takes over the ends.
    pub(super) fn new(child: Child<CHANNELS>) -> Self {
        let [reading, asking, carrying, life] = child.channels;
        let health = Arc::new(Health::default());
        let way = |channel| Arc::new(Lane::new(channel, Arc::clone(&health))) as Arc<dyn Items>;
        let keychain = Keychain { reading: way(reading), asking: way(asking), carrying: way(carrying) };
        Self { keychain, health, life }
    }
}

/// What a daemon with its secrets in the keychain has in addition.
pub(super) struct KeychainLink {
    pub(super) reader: Reader,
    pub(super) health: Arc<Health>,
    pub(super) life: BrokerLife,
    pub(super) bell: Bell,
}

impl KeychainLink {
    /// Starts the threads. Called inside the runtime.
    pub(super) fn start(broker: Broker, store: &Arc<dyn Store>, threads: &mut Threads) -> io::Result<Self> {
        let reader = Reader::start(store.clone(), threads)?;
        let bell = Bell::hang(store.clone(), threads)?;
        let health = broker.health;
        Ok(Self { reader, health, life: BrokerLife::new(broker.life)?, bell })
    }
}

/// Tells when the broker has ended. Nothing travels on its channel.
pub(super) struct BrokerLife(AsyncFd<OwnedFd>);

impl BrokerLife {
    /// Takes over the channel. Called inside the runtime.
    fn new(channel: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&channel, true)?;
        Ok(Self(watch(channel, Interest::READABLE)?))
    }

    /// Returns when the broker is gone.
    pub(super) async fn ended(&self) -> io::Error {
        let read = |channel: &OwnedFd| Ok(rustix::io::read(channel, &mut [0; 1])?);
        match self.0.async_io(Interest::READABLE, read).await {
            Ok(_) => io::ErrorKind::UnexpectedEof.into(),
            Err(error) => error,
        }
    }
}

type Outcome = Result<Committed, StoreError>;

/// Hands queries to the thread that may wait for the keychain.
pub(super) struct Reader(SyncSender<(Authorized<Query>, oneshot::Sender<Outcome>)>);

/// The queue of the reading thread is full, or the thread is gone.
#[derive(Debug)]
pub(super) struct QueueFull;

impl Reader {
    /// Starts the thread. It ends when the reader is dropped.
    pub(super) fn start(store: Arc<dyn Store>, threads: &mut Threads) -> io::Result<Self> {
        let (sender, queue) = sync_channel::<(Authorized<Query>, oneshot::Sender<Outcome>)>(QUEUE);
        threads.start("keychain-read", move || {
            for (query, done) in queue {
                // for a client that is gone nothing is decrypted
                if !done.is_closed() {
                    let _ = done.send(store.read(query));
                }
            }
        })?;
        Ok(Self(sender))
    }

    /// Queues a query. The outcome arrives within 5 s; who gets it must look at its caller again.
    pub(super) fn queue(&self, query: Authorized<Query>) -> Result<oneshot::Receiver<Outcome>, QueueFull> {
        let (done, outcome) = oneshot::channel();
        match self.0.try_send((query, done)) {
            Ok(()) => Ok(outcome),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(QueueFull),
        }
    }
}

/// Rung after every commit. The carrying thread ends when all bells are gone; what waits then is carried after the next
/// start.
#[derive(Clone)]
pub(super) struct Bell(SyncSender<()>);

impl Bell {
    /// Starts the thread that carries what was committed to the keychain.
    pub(super) fn hang(store: Arc<dyn Store>, threads: &mut Threads) -> io::Result<Self> {
        let (bell, rung) = sync_channel(1);
        threads.start("keychain-carry", move || carry(&*store, &rung))?;
        Ok(Self(bell))
    }

    /// Says that there may be something to carry.
    pub(super) fn ring(&self) {
        // one that was not heard yet suffices
        let _ = self.0.try_send(());
    }
}

fn carry(store: &dyn Store, rung: &Receiver<()>) {
    let mut said = None;
    let mut pause = RETRY.0;
    loop {
        let carried = store.carry();
        if carried.is_ok() {
            said = None;
            pause = RETRY.0;
        }
        let ended = match carried {
            Ok(true) => rung.try_recv() == Err(TryRecvError::Disconnected),
            Ok(false) => rung.recv().is_err(),
            Err(error) => {
                if said.as_ref() != Some(&error) {
                    match store.waiting() {
                        0 => tracing::warn!("{error}; no change waits for it"),
                        1 => tracing::warn!("1 changed record waits for the keychain: {error}"),
                        count => tracing::warn!("{count} changed records wait for the keychain: {error}"),
                    }
                    said = Some(error);
                }
                let ended = rung.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected);
                pause = (pause * 2).min(RETRY.1);
                ended
            }
        };
        if ended {
            return;
        }
    }
}
