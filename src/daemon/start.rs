//! The order of a start, and what can be wrong with it.

use std::{
    ffi::OsString,
    fs::DirBuilder,
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{fs::Mode, process::umask};

use super::{
    cage::{Cage, live_as_broker},
    identity::Shown,
    keychain::Broker,
    listener::{Listener, passed_sockets, private_folder},
    lock::{Lock, LockError},
    locking::event,
    policy_watch,
    serving::{self, Beginning},
    store_kind,
    sync::AuditSettings,
    vault_key,
};
use crate::{
    audit::{AuditError, Event, Log, Outcome, Rotation},
    caller::{Namespace, Observer},
    desktop_keychain::bus_address,
    keys::KeyError,
    paths::Paths,
    sandbox::Hardening,
    store::{KeySource, Lockable, Seat, Store, StoreError, StoreKind},
    sys::{activation, locked, process},
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
    /// The same of a damaged vault whose values rest in its own file, so that what is intact of it can be asked for.
    #[error("the store can't be opened: {0}")]
    Salvageable(StoreError),
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
    /// What was met while a vault was salvaged.
    pub(crate) fn of_salvage(self) -> Self {
        match self {
            Self::Store(error @ (StoreError::Damaged(_) | StoreError::OtherStore { .. })) => {
                Self::Unsalvageable(error)
            }
            error => error,
        }
    }

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
            Self::Salvageable(_) => {
                "nothing was changed; see what is damaged: keychain-auth vault verify; restore vault.redb, vault.head and audit.state together from a backup, or read what is intact, keychain-auth start --salvage, or take it out, keychain-auth vault export --salvage --output FILE"
            }
            Self::Unsalvageable(StoreError::OtherStore { .. }) => {
                "nothing was changed; --salvage reads values that rest in vault.redb, and these rest in the keychain; leave --salvage out, and if that is refused, restore vault.redb, vault.head and audit.state together from a backup"
            }
            Self::Unsalvageable(_) => {
                "nothing was changed; restore vault.redb, vault.head and audit.state together from a backup"
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
    let notify_socket = var("NOTIFY_SOCKET");
    // before anything is opened, which could get the number of a descriptor that was announced and not passed
    let passed = passed_socket(&var)?;
    let capacity = room_for_connections()?;
    if hardening == Hardening::Off && var("KEYCHAIN_AUTH_ALLOW_UNHARDENED").is_none_or(|word| word != "1") {
        return Err(StartError::Unconfirmed);
    }
    // whatever mask it was started with: what the daemon makes is its user's, and usable for it
    umask(Mode::from_bits_truncate(0o077));
    let mut cage = Cage::begin(hardening).map_err(system("to close this process to others"))?;
    let chosen = store_kind::choose(&paths.data_dir, &opening)?;
    let bus = match chosen.kind {
        StoreKind::Keychain => Some(bus_address(&var).ok_or(StartError::NoBus)?),
        StoreKind::Vault => None,
    };
    // before any lock, secret or thread: the children must inherit none
    let witness = process::spawn(|[channel]| cage.witness(channel)).map_err(StartError::Witness)?;
    let broker = bus.map(|bus| process::spawn(|channels| live_as_broker(&channels, bus, hardening)));
    let broker = broker.transpose().map_err(StartError::Broker)?.map(Broker::new);
    cage.drop_privileges();
    // behind the children, which shall not share it, and before the sandbox
    locked::prepare();
    let observer = observer().map_err(system("to tell this process's namespaces"))?;

    make_folders(&paths, observer.uid)?;
    let _socket_lock = lock(&paths.socket.with_added_extension("lock"), &paths.socket)?;
    let _data_lock = lock(&paths.daemon_lock(), &paths.data_dir)?;

    let keychain = broker.as_ref().map(|broker| broker.keychain.clone());
    let opened = vault_key::open_store(&paths.data_dir, keychain, &opening, &var);
    let store = Arc::new(opened.map_err(|error| chosen.salvageable(error))?);
    drop(opening.passphrase);
    let log = open_log(&store, &paths, opening.audit.rotation, observer.uid)?;
    let listener = match passed {
        Some(socket) => Listener::activated(socket, &paths.socket)?,
        None => Listener::bind(&paths.socket)?,
    };
    let policy_signs = policy_watch::signs(&paths);
    // everything is open: from here on the filesystem outside is gone
    if let Err(error) = cage.close(&paths) {
        listener.close();
        return Err(error);
    }
    let durability = opening.audit.durability;
    let vault = Arc::clone(&store);
    let begin =
        Beginning { paths, observer, store, log, witness, broker, cage, capacity, durability, policy_signs };
    let ended = serving::serve(begin, listener, notify_socket);
    if let Some(vault) = Arc::into_inner(vault) {
        vault.close()?;
    }
    ended
}

/// The socket that the service manager passed, if it passed one.
fn passed_socket(var: impl Fn(&str) -> Option<OsString>) -> Result<Option<OwnedFd>, StartError> {
    match passed_sockets(var) {
        Some(1) => activation::first_socket().map(Some).map_err(system("the socket that was passed to it")),
        _ => Ok(None),
    }
}

/// How many connections there may be at one time, as far as the limit of descriptors can be raised.
fn room_for_connections() -> Result<usize, StartError> {
    let descriptors = process::raise_descriptor_limit();
    if descriptors < FEWEST_DESCRIPTORS {
        return Err(StartError::Descriptors(descriptors));
    }
    let connections = descriptors.saturating_sub(OTHER_DESCRIPTORS) / PER_CONNECTION;
    Ok(usize::try_from(connections).unwrap_or(usize::MAX).min(MAX_CONNECTIONS))
}

/// The folders of socket, data and policy, made or checked.
fn make_folders(paths: &Paths, uid: u32) -> Result<(), StartError> {
    let of_socket = paths.socket.parent().filter(|folder| !folder.as_os_str().is_empty());
    private_folder(of_socket.unwrap_or(Path::new(".")), uid)?;
    private_folder(&paths.data_dir, uid)?;
    policy_folder(&paths.config_dir)
}

/// The log, with the key of its chain, compared with what the vault knows of it, and with every line that the vault has for
/// it.
fn open_log(store: &Lockable, paths: &Paths, rotation: Rotation, uid: u32) -> Result<Log, StartError> {
    // a vault gives it once, and this is the only log
    let seat = store.take_seat().unwrap_or_else(Seat::nowhere);
    let mut log = Log::open(&paths.audit_log(), seat, &store.audit_memory()?.head, rotation)?;
    log.replay(&store.outbox()?)?;
    record_salvage(store, &mut log, uid)?;
    Ok(log)
}

/// Says that a damaged vault is served, before any of it is.
fn record_salvage(store: &Lockable, log: &mut Log, uid: u32) -> Result<(), AuditError> {
    let Some(extent) = store.salvage() else { return Ok(()) };
    let mend = match extent.whole {
        true => "start without --salvage",
        false => "restore it from a backup, or take out what is intact: keychain-auth vault export --salvage",
    };
    tracing::error!("SALVAGE: the vault is served for reading only: {}; {mend}", extent.words());
    let own = std::env::current_exe().unwrap_or_default();
    let shown = Shown { pid: std::process::id(), uid, path: own.display().to_string(), digest: None };
    let event = event(&shown, Outcome::Granted, "");
    let detail = Some(extent.opened().into());
    log.append(&Event { detail, ..event }).map(drop)
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

/// An error of the system, for what was asked of it.
pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::System { what, error }
}
