//! The order of a start, and what can be wrong with it.

use std::{
    cell::{Cell, RefCell},
    ffi::OsString,
    fs::DirBuilder,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::DirBuilderExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use rustix::{fs::Mode, process::umask};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task::{LocalSet, spawn_local},
};

use super::{
    admission::Admission,
    cage::Cage,
    house::House,
    identity::Shown,
    keychain::{Broker, KeychainLink},
    lines::CHUNK,
    listener::{Listener, passed_sockets, private_folder},
    lock::{Lock, LockError},
    locking::{Turn, event},
    policy_watch::{self, watch_policy},
    store_kind,
    strangers::{Pen, Strangers, queue, start_pen},
    sync::{AuditSettings, Durability, LogSync, keep_heads, write_gathered},
    threads::Threads,
    untaken::Untaken,
    vault_key,
    witness_link::WitnessLink,
    writer::Writer,
};
use crate::{
    audit::{AuditError, Event, Log, Outcome, Rotation},
    caller::{Namespace, Observer},
    desktop_keychain::bus_address,
    keys::KeyError,
    paths::Paths,
    policy::{PendingFile, PolicySource},
    sandbox::Hardening,
    secret::Buffer,
    store::{KeySource, Lockable, Seat, Store, StoreError, StoreKind},
    sys::{
        activation, locked,
        notify::Notice,
        peer::{PinError, pin},
        process::{self, Child},
    },
    wire::limits::MAX_CONNECTIONS,
};

/// Descriptors that are not connections: store, log, witness, runtime and room to read the policy.
const OTHER_DESCRIPTORS: u64 = 64;
/// With fewer there would be no room for a handful of clients.
const FEWEST_DESCRIPTORS: u64 = OTHER_DESCRIPTORS + 8 * PER_CONNECTION;
/// Descriptors of a connection: its socket, a pidfd, the caller's memory map and its size (or a stranger's executable), and
/// the socket again while a reply waits for its reader.
const PER_CONNECTION: u64 = 5;

/// Why the daemon did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another daemon holds the socket or the data folder.
    #[error("keychain-auth is already running{} on {}", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), .what.display())]
    Running {
        /// Its process.
        pid: Option<u32>,
        /// What it holds.
        what: PathBuf,
    },
    /// The socket can't be made.
    #[error("the socket {} can't be made: {error}", .path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A folder can't be made or read.
    #[error("the folder {} can't be used: {error}", .path.display())]
    Folder {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A folder belongs to somebody else, or others can write to it.
    #[error("{} is not a folder of yours that nobody else can write to", .path.display())]
    Exposed {
        /// Its path.
        path: PathBuf,
    },
    /// The store can't be opened. It is left as it is.
    #[error("the store can't be opened: {0}")]
    Store(#[from] StoreError),
    /// Nothing of the vault can be salvaged. It is left as it is.
    #[error("the vault can't be salvaged: {0}")]
    Unsalvageable(StoreError),
    /// The source of the vault's key gives none.
    #[error("the vault's key can't be had: {0}")]
    Key(KeyError),
    /// The audit log can't be opened.
    #[error("the audit log can't be opened: {0}")]
    Audit(#[from] AuditError),
    /// The process that looks at callers can't be started, or has ended.
    #[error("the witness process, which looks at callers, is gone: {0}")]
    Witness(io::Error),
    /// Too few descriptors may be open.
    #[error("only {0} descriptors may be open, and the daemon needs {FEWEST_DESCRIPTORS}")]
    Descriptors(u64),
    /// The process that speaks to the keychain can't be started, or has ended.
    #[error("the broker process, which speaks to the keychain, is gone: {0}")]
    Broker(io::Error),
    /// There is no session bus, over which the keychain is reached.
    #[error("secrets shall rest in the keychain, and there is no session bus to reach it")]
    NoBus,
    /// Protections that `--hardening=enforce` asks for can't be had.
    #[error("this system does not give every protection: {}", .0.join("; "))]
    Unprotected(Vec<String>),
    /// `--hardening=off` without the word that confirms it.
    #[error("a daemon without protections was asked for, and not confirmed")]
    Unconfirmed,
    /// Where the secrets rest had another answer a moment ago.
    #[error("the vault was changed while its store was looked at")]
    Changed,
    /// Anything else that the system refused.
    #[error("the system refused {what}: {error}")]
    System {
        /// What was asked.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
}

impl StartError {
    /// One line of advice.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Running { .. } => "use the daemon that runs, or stop it first",
            Self::Socket { .. } => "choose another path with --socket, at most 107 bytes long",
            Self::Folder { .. } => "make the folder, owned by you with mode 0700, or choose another place",
            Self::Exposed { .. } => "give it to yourself and run chmod 700 on it, or choose another place",
            Self::Key(error) => error.advice(),
            Self::Store(StoreError::OtherSource { .. }) => {
                "start it without --key, or change the source: keychain-auth vault change-key-source --key SOURCE"
            }
            Self::Store(StoreError::OtherStore { .. }) => {
                "start it without --store: it goes on where the secrets are; nothing was changed"
            }
            Self::Store(error) => error.advice(),
            Self::Unsalvageable(StoreError::OtherStore { .. }) => {
                "nothing was changed; --salvage reads values that rest in vault.redb, and these rest in the keychain; start it without --salvage, and if that refuses, restore vault.redb and vault.head together from a backup"
            }
            Self::Unsalvageable(_) => {
                "nothing was changed; restore vault.redb and vault.head together from a backup"
            }
            Self::Audit(_) => {
                "make room, or mend the owner and mode (0600) of the audit log and its folder (0700)"
            }
            Self::Witness(_) => "start the daemon again; if it happens again, look for what ends the process",
            Self::Descriptors(_) => "raise the limit: ulimit -n 1024, or LimitNOFILE=1024",
            Self::Broker(_) => "start the daemon again; if it happens again, look for what ends the process",
            Self::NoBus => {
                "start it within your session, where DBUS_SESSION_BUS_ADDRESS is set, or under dbus-run-session"
            }
            Self::Unprotected(_) => {
                "use a kernel that has them, or --hardening=best-effort and read in `keychain-auth status` what is missing"
            }
            Self::Unconfirmed => "for debugging only, set KEYCHAIN_AUTH_ALLOW_UNHARDENED=1 as well",
            Self::Changed => "another command worked on the vault; start the daemon again",
            Self::System { .. } => "see the README for what the daemon needs from the kernel",
        }
    }
}

/// How the daemon opens its vault.
#[derive(Debug)]
pub struct Opening {
    /// Where the secrets rest, as `--store` says: for a vault that is made, or to be sure of the one that is there.
    pub store: Option<StoreKind>,
    /// The source that was asked for with `--key`: for a vault that is made, or to be sure of the one that is there.
    pub source: Option<KeySource>,
    /// Where the passphrase can be read.
    pub passphrase: Option<OwnedFd>,
    /// Whether only what is intact of a damaged vault is served, and nothing changed.
    pub salvage: bool,
    /// How the audit log is kept.
    pub audit: AuditSettings,
}

/// Runs the daemon in the foreground until SIGINT or SIGTERM.
///
/// `var` reads the environment: it is asked before this process closes itself to others.
pub fn run(
    paths: Paths,
    hardening: Hardening,
    opening: Opening,
    var: impl Fn(&str) -> Option<OsString>,
) -> Result<(), StartError> {
    let system = |what| move |error| StartError::System { what, error };
    let notify_socket = var("NOTIFY_SOCKET");
    // before anything is opened, which could get the number of a descriptor that was announced and not passed
    let passed = match passed_sockets(&var) {
        Some(1) => Some(activation::first_socket().map_err(system("the socket that was passed to it"))?),
        _ => None,
    };
    let descriptors = process::raise_descriptor_limit();
    if descriptors < FEWEST_DESCRIPTORS {
        return Err(StartError::Descriptors(descriptors));
    }
    if hardening == Hardening::Off && var("KEYCHAIN_AUTH_ALLOW_UNHARDENED").is_none_or(|word| word != "1") {
        return Err(StartError::Unconfirmed);
    }
    // whatever mask it was started with: what the daemon makes is its user's, and usable for it
    umask(Mode::from_bits_truncate(0o077));
    let mut cage = Cage::begin(hardening).map_err(system("to close this process to others"))?;
    let bus = match store_kind::choose(&paths.data_dir, &opening)? {
        StoreKind::Keychain => Some(bus_address(&var).ok_or(StartError::NoBus)?),
        StoreKind::Vault => None,
    };
    // before any lock, secret or thread: the children must inherit none
    let witness = process::spawn(|[channel]| cage.witness(channel)).map_err(StartError::Witness)?;
    let broker = bus.map(|bus| process::spawn(|channels| cage.broker(&channels, bus)));
    let broker = broker.transpose().map_err(StartError::Broker)?.map(Broker::new);
    cage.drop_privileges();
    // behind the children, which shall not share it, and before the sandbox
    locked::prepare();
    let observer = observer().map_err(system("to tell this process's namespaces"))?;

    let folder =
        paths.socket.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    private_folder(folder, observer.uid)?;
    private_folder(&paths.data_dir, observer.uid)?;
    policy_folder(&paths.config_dir)?;
    let _socket_lock = lock(&paths.socket.with_added_extension("lock"), &paths.socket)?;
    let _data_lock = lock(&paths.data_dir.join("daemon.lock"), &paths.data_dir)?;

    let keychain = broker.as_ref().map(|broker| broker.keychain.clone());
    let store = Arc::new(vault_key::open_store(&paths.data_dir, keychain, &opening, &var)?);
    drop(opening.passphrase);
    let mut log = open_log(&store, &paths, opening.audit.rotation)?;
    let outbox = store.outbox()?;
    log.replay(&outbox)?;
    record_salvage(&store, &mut log, observer.uid)?;
    let listener = match passed {
        Some(socket) => Listener::activated(socket, &paths.socket)?,
        None => Listener::bind(&paths.socket)?,
    };
    let connections =
        usize::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS) / PER_CONNECTION).unwrap_or(usize::MAX);
    let policy_signs = policy_watch::signs(&paths);
    // everything is open: from here on the filesystem outside is gone
    if let Err(error) = cage.close(&paths) {
        listener.close();
        return Err(error);
    }
    let capacity = connections.min(MAX_CONNECTIONS);
    let vault = Arc::clone(&store);
    let begin = Beginning {
        paths,
        observer,
        store,
        log,
        witness,
        broker,
        cage,
        capacity,
        durability: opening.audit.durability,
        policy_signs,
    };
    let mut threads = Threads::new();
    let runtime =
        Builder::new_current_thread().enable_io().enable_time().build().map_err(system("an event loop"))?;
    let connections = LocalSet::new();
    let ended = connections.block_on(&runtime, serve(&mut threads, begin, &listener, notify_socket));
    listener.close();
    // ends every connection, and with the last of them the threads that work for them
    drop(connections);
    threads.wait_ended();
    if let Some(vault) = Arc::into_inner(vault) {
        vault.close()?;
    }
    ended
}

/// The log, with the key of its chain, compared with what the vault knows of it.
fn open_log(store: &Lockable, paths: &Paths, rotation: Rotation) -> Result<Log, StartError> {
    // a vault gives it once, and this is the only log
    let seat = store.take_seat().unwrap_or_else(Seat::nowhere);
    Ok(Log::open(&paths.audit_log(), seat, &store.audit_memory()?.head, rotation)?)
}

/// Says that a damaged vault is served, before any of it is.
fn record_salvage(store: &Lockable, log: &mut Log, uid: u32) -> Result<(), AuditError> {
    let Some(extent) = store.salvage() else { return Ok(()) };
    let mend = if extent.whole { "start" } else { "restore it from a backup, and start" };
    tracing::error!(
        "SALVAGE: the vault is served for reading only: {}; {mend} without --salvage",
        extent.words()
    );
    let own = std::env::current_exe().unwrap_or_default();
    let shown = Shown { pid: std::process::id(), uid, path: own.display().to_string(), digest: None };
    let event = event(&shown, Outcome::Granted, "");
    let detail = Some(format!("vault opened for salvage: {}", extent.words()).into());
    log.append(&Event { detail, ..event }).map(drop)
}

/// What the runtime begins with.
struct Beginning {
    paths: Paths,
    observer: Observer,
    store: Arc<Lockable>,
    log: Log,
    witness: Child,
    broker: Option<Broker>,
    cage: Cage,
    capacity: usize,
    durability: Durability,
    policy_signs: Option<OwnedFd>,
}

async fn serve(
    threads: &mut Threads,
    begin: Beginning,
    listener: &Listener,
    notify_socket: Option<OsString>,
) -> Result<(), StartError> {
    let system = |what| move |error| StartError::System { what, error };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("to watch signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("to watch signals"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(system("to watch signals"))?;
    let notice = Notice::prepare(notify_socket.as_deref());
    let [channel] = begin.witness.channels;
    let witness = WitnessLink::new(channel).map_err(StartError::Witness)?;
    let missing = missing();
    let pending = PendingFile::new(begin.paths.pending(), begin.observer.uid);
    let strangers = Strangers::default();
    let pen = Pen {
        file: pending,
        policy: PolicySource::new(begin.paths.config()),
        vault: Arc::clone(&begin.store),
    };
    let pen = start_pen(pen, &strangers, threads).map_err(system("a thread"))?;
    let log_sync = LogSync::start(begin.store.clone(), threads).map_err(system("a thread"))?;
    let store: Arc<dyn Store> = begin.store.clone();
    let keychain = match begin.broker {
        Some(broker) => Some(KeychainLink::start(broker, &store, threads).map_err(system("a thread"))?),
        None => None,
    };
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
        chunk: RefCell::new(Buffer::zeroed(CHUNK)),
        missing,
        recorded: RefCell::default(),
        gathering: Notify::new(),
        fault: RefCell::default(),
        protections,
        observer: begin.observer,
        paths: begin.paths,
    });
    spawn_local(queue(pen, Rc::clone(&house)));
    spawn_local(log_sync.run(Rc::clone(&house)));
    spawn_local(keep_heads(Rc::clone(&house)));
    spawn_local(write_gathered(Rc::clone(&house)));
    if let Some(signs) = begin.policy_signs {
        spawn_local(watch_policy(signs, Rc::clone(&house)));
    }
    let turned = Rc::clone(&house);
    spawn_local(async move {
        while hangup.recv().await.is_some() {
            turned.reopen_log();
        }
    });
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

/// The policy's folder, so that a policy that is made later lies within what the sandbox can see.
fn policy_folder(folder: &Path) -> Result<(), StartError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| StartError::Folder { path: folder.to_owned(), error })
}

fn lock(file: &Path, what: &Path) -> Result<Lock, StartError> {
    Lock::take(file).map_err(|error| match error {
        LockError::Held(pid) => StartError::Running { pid, what: what.to_owned() },
        LockError::Io(path, error) => StartError::Folder { path, error },
    })
}

fn observer() -> io::Result<Observer> {
    let own = |kind: &str| -> io::Result<Namespace> {
        let entry = rustix::fs::stat(format!("/proc/self/ns/{kind}"))?;
        Ok(Namespace { device: entry.st_dev, inode: entry.st_ino })
    };
    Ok(Observer {
        uid: rustix::process::geteuid().as_raw(),
        user_namespace: own("user")?,
        pid_namespace: own("pid")?,
        mount_namespace: own("mnt")?,
    })
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
