//! A world: folders of its own, the real daemon, the real command line, all as an ordinary user.

use std::{
    fs::{self, File, Permissions},
    os::unix::{fs as unix, fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::tools::{self, Link};

/// The ordinary user of a suite that root started; no account of that number needs to exist.
const ORDINARY: u32 = 23717;
/// Another ordinary user.
pub const STRANGE_UID: u32 = 23718;
/// How long anything may take before the test fails. Long: machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(30);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// Fails unless the exit code is 0; gives stdout.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.out, self.err);
        self.out
    }
}

/// One entry of config.json.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    pub path: PathBuf,
    pub read: Vec<String>,
    pub write: Vec<String>,
    pub search: bool,
    /// Further members, as they stand in the file.
    pub more: Vec<(String, Value)>,
}

impl Entry {
    /// Everything on `services`.
    pub fn all(path: &Path, services: &[&str]) -> Self {
        let services: Vec<String> = services.iter().map(|s| (*s).to_owned()).collect();
        Self {
            path: path.to_owned(),
            read: services.clone(),
            write: services,
            search: true,
            more: Vec::new(),
        }
    }

    fn to_json(&self) -> Value {
        let mut entry = json!({
            "path": self.path, "hash": tools::hash_of(&self.path), "registered_at": "2026-01-01T00:00:00Z",
            "allowed_read_services": self.read, "allowed_write_services": self.write, "can_search": self.search,
        });
        for (name, value) in &self.more {
            entry[name] = value.clone();
        }
        entry
    }
}

pub struct World {
    root: PathBuf,
    /// Who runs everything in it.
    uid: u32,
    daemon: Option<Child>,
    starts: u32,
    /// Further arguments of `start`.
    pub start_args: Vec<String>,
    /// Further variables of its environment.
    pub start_env: Vec<(String, String)>,
    /// A program and its arguments that becomes the daemon, whose command line follows.
    pub start_through: Vec<String>,
    /// Whether that program begins as the user of the suite, and not as the ordinary one.
    pub start_undropped: bool,
}

/// Whether the suite runs as root, which the tests about other users need.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The uid that daemon, command line and clients run as.
pub fn ordinary_uid() -> u32 {
    if is_root() { ORDINARY } else { rustix::process::geteuid().as_raw() }
}

impl World {
    /// Folders and programs; no daemon yet.
    pub fn new() -> Self {
        Self::of(ordinary_uid())
    }

    /// As [`new`](Self::new), for a user that has an account: a session bus serves no other.
    pub fn with_account() -> Self {
        // an account that every Debian has and nobody uses
        Self::of(if is_root() { 5 } else { ordinary_uid() })
    }

    /// As [`new`](Self::new), for root, who must run the suite.
    pub fn of_root() -> Self {
        Self::of(0)
    }

    fn of(uid: u32) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // short: a socket's path has 108 bytes
        let root = PathBuf::from(format!("/tmp/ka{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let world = Self {
            root,
            uid,
            daemon: None,
            starts: 0,
            start_args: Vec::new(),
            start_env: Vec::new(),
            start_through: Vec::new(),
            start_undropped: false,
        };
        for (folder, mode) in [("", 0o755), ("bin", 0o755), ("home", 0o700), ("run", 0o700), ("tmp", 0o700)] {
            world.folder(&world.root.join(folder), mode);
        }
        // another build of it, such as a package's, is tried by naming it
        let binary = std::env::var_os("KEYCHAIN_AUTH_BINARY")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_keychain-auth")), PathBuf::from);
        if fs::hard_link(&binary, world.binary()).is_err() {
            fs::copy(&binary, world.binary()).unwrap();
        }
        world
    }

    /// A world with a daemon that listens.
    pub fn started() -> Self {
        let mut world = Self::new();
        world.start();
        world
    }

    /// Makes a folder of the ordinary user.
    pub fn folder(&self, path: &Path, mode: u32) {
        fs::create_dir_all(path).unwrap();
        self.own(path, mode);
    }

    /// Gives a file to the ordinary user.
    pub fn own(&self, path: &Path, mode: u32) {
        if is_root() {
            unix::chown(path, Some(self.uid), Some(self.uid)).unwrap();
        }
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Who runs everything in this world.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn binary(&self) -> PathBuf {
        self.root.join("bin/keychain-auth")
    }

    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// A place for files of the test, of the ordinary user.
    pub fn tmp(&self, name: &str) -> PathBuf {
        self.root.join("tmp").join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.root.join("run/keychain-auth/agent.sock")
    }

    pub fn config(&self) -> PathBuf {
        self.home().join(".config/keychain-auth/config.json")
    }

    pub fn data(&self) -> PathBuf {
        self.home().join(".local/share/keychain-auth")
    }

    /// Everything that the daemons of this world wrote to stderr.
    pub fn log(&self) -> String {
        (1..=self.starts)
            .map(|n| String::from_utf8_lossy(&fs::read(self.log_file(n)).unwrap_or_default()).into_owned())
            .collect()
    }

    fn log_file(&self, start: u32) -> PathBuf {
        self.root.join(format!("daemon-{start}.log"))
    }

    /// `program` as the ordinary user, with this world's folders and nothing else of our environment.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = self.command_as(program, self.uid);
        command.current_dir(self.home());
        command
    }

    /// `program` as `uid`; the supplementary groups are dropped with it.
    pub fn command_as(&self, program: &Path, uid: u32) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
        command.env("HOME", self.home()).env("XDG_RUNTIME_DIR", self.root.join("run"));
        command.current_dir(&self.root).stdin(Stdio::null());
        if is_root() {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Runs `keychain-auth ARGS` to its end.
    pub fn cli<S: AsRef<str>>(&self, args: &[S]) -> Outcome {
        let mut command = self.command(&self.binary());
        command.args(args.iter().map(AsRef::as_ref));
        run(&mut command)
    }

    /// Starts the daemon and waits until it says on stderr where it listens.
    #[track_caller]
    pub fn start(&mut self) {
        if let Err(code) = self.try_start() {
            panic!("the daemon ended with {code:?} instead of listening: {}", self.log());
        }
    }

    /// Like [`start`](Self::start); the exit status if the daemon ends instead of listening.
    #[track_caller]
    pub fn try_start(&mut self) -> Result<(), ExitStatus> {
        assert!(self.daemon.is_none(), "one daemon in a world");
        self.starts += 1;
        let log = File::create(self.log_file(self.starts)).unwrap();
        let words: Vec<String> =
            self.start_through.iter().cloned().chain([self.binary().display().to_string()]).collect();
        let user = if self.start_undropped { rustix::process::geteuid().as_raw() } else { self.uid };
        let mut command = self.command_as(Path::new(&words[0]), user);
        command.current_dir(self.home());
        command.args(&words[1..]).arg("start").args(&self.start_args).envs(self.start_env.iter().cloned());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut daemon = spawn(&mut command);
        let said_so = format!("listening on {}", self.socket().display());
        let ended = await_that("the daemon listens or ends", || {
            if let Some(status) = daemon.try_wait().unwrap() {
                return Some(Err(status));
            }
            let said = fs::read_to_string(self.log_file(self.starts)).unwrap_or_default();
            said.contains(&said_so).then_some(Ok(()))
        });
        if ended.is_ok() {
            self.daemon = Some(daemon);
        }
        ended
    }

    /// The pid of the process that `start` started.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon").id()
    }

    /// Whether the daemon was started and not ended by this world.
    pub fn is_started(&self) -> bool {
        self.daemon.is_some()
    }

    /// The one child of the daemon.
    #[track_caller]
    pub fn witness(&self) -> u32 {
        let [witness] = self.children();
        witness
    }

    /// The children of the daemon, in the order of their start: the witness, and the broker where there is one.
    #[track_caller]
    pub fn children<const COUNT: usize>(&self) -> [u32; COUNT] {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).unwrap();
        let pids: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        pids.try_into().expect("as many children as the daemon has")
    }

    /// Ends the daemon as a service manager does.
    pub fn stop(&mut self) -> ExitStatus {
        self.end(Signal::TERM)
    }

    /// Ends the daemon as the kernel does when memory is short.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Sends `signal` to the daemon and waits for its end.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("a daemon");
        signal_child(&daemon, signal);
        wait_bounded(&mut daemon, "the daemon ends")
    }

    /// Waits until the daemon ends by itself.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        wait_bounded(&mut self.daemon.take().expect("a daemon"), "the daemon ends by itself")
    }

    /// A fresh copy of the scriptable client: an executable identity of its own.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.install("clients/client.c", Link::Static, &format!("bin/{name}"))
    }

    /// Compiles `source` and puts it at `place` in this world.
    pub fn install(&self, source: &str, link: Link, place: &str) -> PathBuf {
        let path = self.root.join(place);
        self.copy(&tools::compiled(source, link), &path);
        path
    }

    /// Copies an executable into the world, for the ordinary user.
    pub fn copy(&self, from: &Path, to: &Path) {
        fs::copy(from, to).unwrap();
        self.own(to, 0o755);
    }

    /// Writes config.json whole, as an editor would that renames its copy into place.
    pub fn policy(&self, entries: &[Entry]) {
        let entries: Vec<Value> = entries.iter().map(Entry::to_json).collect();
        self.policy_text(&json!({"protocol_version": "1", "registered_binaries": entries}).to_string());
    }

    /// Writes `text` as config.json, mode 0600.
    pub fn policy_text(&self, text: &str) {
        self.write(&self.config(), text.as_bytes());
    }

    /// Writes a file of the ordinary user, mode 0600, by rename; its folder is made 0700 if missing.
    pub fn write(&self, path: &Path, bytes: &[u8]) {
        let folder = path.parent().unwrap();
        if !folder.exists() {
            for missing in folder
                .ancestors()
                .take_while(|a| a.starts_with(&self.root) && !a.exists())
                .collect::<Vec<_>>()
                .iter()
                .rev()
            {
                fs::create_dir(missing).unwrap();
                self.own(missing, 0o700);
            }
        }
        let fresh = path.with_extension("new");
        fs::write(&fresh, bytes).unwrap();
        self.own(&fresh, 0o600);
        fs::rename(&fresh, path).unwrap();
    }

    /// config.json as it stands.
    pub fn read_policy(&self) -> Value {
        serde_json::from_slice(&fs::read(self.config()).unwrap()).unwrap()
    }

    /// The entry of `path` in config.json.
    pub fn entry(&self, path: &Path) -> Option<Value> {
        let policy = self.read_policy();
        let entries = policy["registered_binaries"].as_array().unwrap();
        entries.iter().find(|entry| entry["path"] == json!(path)).cloned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if thread::panicking() {
            eprintln!("--- stderr of the daemon ---\n{}", self.log());
        }
        if std::env::var_os("KEYCHAIN_AUTH_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// Runs a command to its end, bounded.
pub fn run(command: &mut Command) -> Outcome {
    let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let pid = child.id();
    let watchdog = Watchdog::new(pid);
    let output = child.wait_with_output().unwrap();
    drop(watchdog);
    Outcome {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Starts a process. Beside us another test may have forked while the file was still open for writing: then the
/// kernel says "text file busy" until that child has come to its exec.
pub fn spawn(command: &mut Command) -> Child {
    await_that("the program can be started", || match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => None,
        started => Some(started.unwrap()),
    })
}

/// Kills a process of ours that outlives its bound, so that no test hangs.
struct Watchdog(Option<std::sync::mpsc::Sender<()>>, Option<thread::JoinHandle<()>>);

impl Watchdog {
    fn new(pid: u32) -> Self {
        let (done, waits) = std::sync::mpsc::channel::<()>();
        let guard = thread::spawn(move || {
            if waits.recv_timeout(PATIENCE * 4) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                && let Some(pid) = Pid::from_raw(pid.cast_signed())
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        Self(Some(done), Some(guard))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.take());
        if let Some(guard) = self.1.take() {
            let _ = guard.join();
        }
    }
}

/// A process beside the world's daemon, which ends with the test that started it.
pub struct Guarded(pub Child);

impl Guarded {
    /// Sends `signal` and waits for the end, bounded.
    #[track_caller]
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        signal_child(&self.0, signal);
        wait_bounded(&mut self.0, "the process ends")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a child that has not been waited for.
fn signal_child(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Waits for the end of a child, bounded.
#[track_caller]
pub fn wait_bounded(child: &mut Child, what: &str) -> ExitStatus {
    await_that(what, || child.try_wait().unwrap())
}

/// Asks until there is an answer; fails after [`PATIENCE`].
#[track_caller]
pub fn await_that<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "waited {PATIENCE:?} in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
