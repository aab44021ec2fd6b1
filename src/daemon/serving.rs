//! From everything that is open to a daemon that serves, and its end.

use std::{
    cell::{Cell, RefCell},
    ffi::OsString,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    rc::Rc,
    sync::{Arc, mpsc::SyncSender},
};

use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    task::{LocalSet, spawn_local},
};

use super::{
    admission::Admission,
    cage::Cage,
    crowd::Crowd,
    house::House,
    keychain::{Broker, KeychainLink},
    lines::CHUNK,
    listener::Listener,
    locking::Turn,
    policy_watch::watch_policy,
    start::{StartError, system},
    strangers::{Page, Pen, Strangers, queue, start_pen},
    sync::{Durability, LogSync, keep_heads, write_gathered},
    threads::Threads,
    untaken::Untaken,
    witness_link::WitnessLink,
    writer::Writer,
};
use crate::{
    audit::Log,
    caller::Observer,
    paths::Paths,
    policy::{PendingFile, PolicySource},
    secret::Buffer,
    store::{Lockable, Store},
    sys::{
        notify::Notice,
        peer::{PinError, pin},
        process::{self, Child},
        stderr,
    },
};

/// What the runtime begins with.
pub(super) struct Beginning {
    pub(super) paths: Paths,
    pub(super) observer: Observer,
    pub(super) store: Arc<Lockable>,
    pub(super) log: Log,
    pub(super) witness: Child,
    pub(super) broker: Option<Broker>,
    pub(super) cage: Cage,
    pub(super) capacity: usize,
    pub(super) durability: Durability,
    pub(super) policy_signs: Option<OwnedFd>,
}

/// Serves until a signal or a fault ends it, and until every thread has ended that may have something to bring to an end.
pub(super) fn serve(
    begin: Beginning,
    listener: Listener,
    notify_socket: Option<OsString>,
) -> Result<(), StartError> {
    let mut threads = Threads::new();
    let runtime =
        Builder::new_current_thread().enable_io().enable_time().build().map_err(system("an event loop"))?;
    let connections = LocalSet::new();
    let served = serve_connections(&mut threads, begin, &listener, notify_socket);
    let ended = connections.block_on(&runtime, served);
    listener.close();
    // ends every connection, and with the last of them the threads that work for them
    drop(connections);
    threads.wait_ended();
    ended
}

async fn serve_connections(
    threads: &mut Threads,
    begin: Beginning,
    listener: &Listener,
    notify_socket: Option<OsString>,
) -> Result<(), StartError> {
    let watched = |kind| signal(kind).map_err(system("to watch signals"));
    let mut interrupt = watched(SignalKind::interrupt())?;
    let mut terminate = watched(SignalKind::terminate())?;
    let hangup = watched(SignalKind::hangup())?;
    let notice = Notice::prepare(notify_socket.as_deref());
    let house = move_in(threads, begin, hangup)?;
    house.note_chain();
    house.accept_sealed_policy();
    say_protections(&house);
    // a broken policy is said now, not only to the first client
    let _ = house.policy().await;
    tracing::info!("listening on {}", house.paths.socket.display());
    notice.ready();
    let ended = tokio::select! {
        error = house.witness.run() => Err(StartError::Witness(error)),
        error = house.broker_ended() => Err(StartError::Broker(error)),
        ended = listener.run(&house) => ended.map_err(system("to accept connections")),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    house.write_gathered(true);
    ended
}

/// Starts the threads, closes the cage behind the last of them, and gives them and all rooms to the house.
fn move_in(threads: &mut Threads, begin: Beginning, hangup: Signal) -> Result<Rc<House>, StartError> {
    if let Some(relay) = stderr::relay() {
        threads.start_unwaited("operator-log", relay).map_err(system("a thread"))?;
    }
    let [channel] = begin.witness.channels;
    let witness = WitnessLink::new(channel).map_err(StartError::Witness)?;
    let missing = missing();
    let strangers = Strangers::default();
    let pen = Pen {
        file: PendingFile::new(begin.paths.pending(), begin.observer.uid),
        policy: PolicySource::new(begin.paths.config()),
        vault: Arc::clone(&begin.store),
    };
    let pen = start_pen(pen, &strangers, threads).map_err(system("a thread"))?;
    let log_sync = LogSync::start(begin.store.clone(), threads).map_err(system("a thread"))?;
    let store: Arc<dyn Store> = begin.store.clone();
    let keychain = begin.broker.map(|broker| KeychainLink::start(broker, &store, threads));
    let keychain = keychain.transpose().map_err(system("a thread"))?;
    let bell = keychain.as_ref().map(|keychain| keychain.bell.clone());
    let writer = Writer::start(begin.store.clone(), bell, threads).map_err(system("a thread"))?;
    threads.wait_started();
    let protections = begin.cage.lock(&writer)?;
    let house = Rc::new(House {
        keychain,
        policy: RefCell::new(PolicySource::new(begin.paths.config())),
        watched: Cell::new(0),
        witness,
        writer,
        vault: Arc::clone(&begin.store),
        turn: Turn::default(),
        log: RefCell::new(begin.log),
        durability: begin.durability,
        synced: log_sync.synced(),
        unsynced: Notify::new(),
        checkpoints: RefCell::new(begin.store.audit_memory()?.checkpoints),
        unkept: Notify::new(),
        store: begin.store,
        admission: RefCell::new(Admission::new(begin.capacity)),
        strangers,
        unfinished: Cell::new(0),
        untaken: Untaken::default(),
        crowd: Crowd::default(),
        chunk: RefCell::new(Buffer::zeroed(CHUNK)),
        missing,
        recorded: RefCell::default(),
        gathering: Notify::new(),
        fault: RefCell::default(),
        protections,
        observer: begin.observer,
        paths: begin.paths,
    });
    begin_tasks(&house, pen, log_sync, begin.policy_signs, hangup);
    Ok(house)
}

/// What is done beside the connections, until the daemon ends.
fn begin_tasks(
    house: &Rc<House>,
    pen: SyncSender<Page>,
    log_sync: LogSync,
    policy_signs: Option<OwnedFd>,
    mut hangup: Signal,
) {
    spawn_local(queue(pen, Rc::clone(house)));
    spawn_local(log_sync.run(Rc::clone(house)));
    spawn_local(keep_heads(Rc::clone(house)));
    spawn_local(write_gathered(Rc::clone(house)));
    if let Some(signs) = policy_signs {
        spawn_local(watch_policy(signs, Rc::clone(house)));
    }
    let turned = Rc::clone(house);
    spawn_local(async move {
        while hangup.recv().await.is_some() {
            turned.reopen_log();
        }
    });
}

/// Says what holds, in one line, and what does not, one line each.
fn say_protections(house: &House) {
    let held: Vec<_> = house.protections.iter().filter(|held| held.enforced).map(|held| held.name).collect();
    tracing::info!(
        "protections in force: {}",
        if held.is_empty() { "none".to_owned() } else { held.join(", ") }
    );
    for lacking in house.protections.iter().filter(|held| !held.enforced) {
        tracing::warn!("not in force: {} ({})", lacking.name, lacking.means);
    }
    for lacking in &house.missing {
        tracing::warn!("this kernel lacks {lacking}");
    }
}

/// What this kernel can't do for us, in words for `status`.
fn missing() -> Vec<&'static str> {
    let mut missing = Vec::new();
    let pinned = UnixStream::pair().map_err(PinError::Io).and_then(|(here, _there)| pin(here.as_fd()));
    if matches!(pinned, Err(PinError::Unsupported)) {
        missing.push("SO_PEERPIDFD: callers are pinned by their address space only (Linux 6.5 has it)");
    }
    if !process::running_files_are_protected() {
        missing.push("write protection of running executables: digests are not remembered, and say nothing a moment later");
    }
    missing
}
