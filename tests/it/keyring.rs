//! A real gnome-keyring on a session bus of its own, both ended by the test that started them. Shared with the unit tests.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant, connection::Builder};

const PASSWORD: &str = "a password of the tests";
const SERVICE: &str = "org.freedesktop.secrets";
const ROOT: &str = "/org/freedesktop/secrets";
/// The collection that `--unlock` makes.
const LOGIN: &str = "/org/freedesktop/secrets/collection/login";
/// A session bus for whoever may enter its folder.
const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;
/// How long anything may take before the test fails. Long: machines are shared.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a keyring can be had here.
pub fn missing() -> Option<&'static str> {
    let there = |program: &&&str| {
        !["/usr/local/bin", "/usr/bin", "/bin"].iter().any(|folder| Path::new(folder).join(program).exists())
    };
    ["gnome-keyring-daemon", "dbus-daemon"].iter().find(there).copied()
}

/// A keyring with one collection, unlocked.
pub struct Keyring {
    folder: PathBuf,
    make: Box<dyn Fn(&Path) -> Command + Send + Sync>,
    bus: Child,
    keyring: Option<Child>,
}

impl Keyring {
    /// Starts a bus and a keyring whose files lie in `folder`, which is there. `make` gives a command that runs a program
    /// as the user of the keyring, with no environment.
    pub fn start(folder: &Path, make: impl Fn(&Path) -> Command + Send + Sync + 'static) -> Self {
        let socket = folder.join("bus");
        // a bus of its own that starts no keyring by itself
        let config = folder.join("bus.conf");
        fs::write(&config, CONFIG.replace("SOCKET", socket.to_str().unwrap())).unwrap();
        let mut command = make(Path::new("/usr/bin/dbus-daemon"));
        command.args(["--nofork", "--nopidfile"]).arg(format!("--config-file={}", config.display()));
        let bus = quiet(&mut command).spawn().unwrap();
        let mut keyring = Self { folder: folder.to_owned(), make: Box::new(make), bus, keyring: None };
        await_that("the bus listens", || UnixStream::connect(&socket).is_ok());
        keyring.start_again();
        keyring
    }

    /// What `DBUS_SESSION_BUS_ADDRESS` has to be.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.folder.join("bus").display())
    }

    /// A command that runs a program of the keyring's user with this bus.
    pub fn command(&self, program: &str) -> Command {
        let mut command = (self.make)(Path::new(program));
        command.env("DBUS_SESSION_BUS_ADDRESS", self.address()).env("XDG_RUNTIME_DIR", &self.folder);
        command.env("HOME", &self.folder).env("XDG_DATA_HOME", self.folder.join("data"));
        command
    }

    /// Starts the keyring, unlocked, after it was ended.
    pub fn start_again(&mut self) {
        assert!(self.keyring.is_none());
        let mut command = self.command("/usr/bin/gnome-keyring-daemon");
        command.args(["--foreground", "--unlock", "--components=secrets"]).stdin(Stdio::piped());
        let log = fs::OpenOptions::new().append(true).create(true).open(self.folder.join("keyring.log"));
        command.stdout(Stdio::null()).stderr(log.unwrap());
        let mut keyring = command.spawn().unwrap();
        keyring.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
        self.keyring = Some(keyring);
        await_that("the keyring is there and unlocked", || self.is_locked() == Some(false));
    }

    /// Ends the keyring as the kernel does when memory is short.
    pub fn kill(&mut self) {
        let mut keyring = self.keyring.take().unwrap();
        keyring.kill().unwrap();
        keyring.wait().unwrap();
    }

    /// Stops the keyring as a debugger does: it is there, and does not answer.
    pub fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.keyring.as_ref().unwrap().id().cast_signed();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Locks the collection.
    pub fn lock(&self) {
        self.talk(async |bus| {
            let collections = vec![zbus::ObjectPath::try_from(LOGIN)?];
            let method = ("org.freedesktop.Secret.Service", "Lock");
            bus.call_method(Some(SERVICE), ROOT, Some(method.0), method.1, &collections).await
        })
        .unwrap();
        await_that("the collection is locked", || self.is_locked() == Some(true));
    }

    /// Unlocks it without asking anybody.
    pub fn unlock(&self) {
        self.talk(async |bus| {
            let body = ("plain", Variant::from(""));
            let method = ("org.freedesktop.Secret.Service", "OpenSession");
            let opened = bus.call_method(Some(SERVICE), ROOT, Some(method.0), method.1, &body).await?;
            let (_, session): (OwnedVariant, OwnedObjectPath) = opened.body().deserialize()?;
            let secret = (session, Vec::<u8>::new(), PASSWORD.as_bytes().to_vec(), "text/plain");
            let body = (zbus::ObjectPath::try_from(LOGIN)?, secret);
            let interface = "org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface";
            bus.call_method(Some(SERVICE), ROOT, Some(interface), "UnlockWithMasterPassword", &body).await
        })
        .unwrap();
        await_that("the collection is unlocked", || self.is_locked() == Some(false));
    }

    fn is_locked(&self) -> Option<bool> {
        let property = self.talk(async |bus| {
            let body = ("org.freedesktop.Secret.Collection", "Locked");
            let interface = "org.freedesktop.DBus.Properties";
            bus.call_method(Some(SERVICE), LOGIN, Some(interface), "Get", &body).await
        });
        bool::try_from(property.ok()?.body().deserialize::<OwnedVariant>().ok()?).ok()
    }

    /// The paths of all items with these attributes.
    pub fn items(&self, attributes: &[(&str, &str)]) -> Vec<OwnedObjectPath> {
        let attributes: std::collections::BTreeMap<&str, &str> = attributes.iter().copied().collect();
        let found = self.talk(async |bus| {
            let interface = "org.freedesktop.Secret.Service";
            bus.call_method(Some(SERVICE), ROOT, Some(interface), "SearchItems", &attributes).await
        });
        let (unlocked, locked): (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) =
            found.unwrap().body().deserialize().unwrap();
        [unlocked, locked].concat()
    }

    /// Removes an item, as anybody of the same user can.
    pub fn remove(&self, item: &OwnedObjectPath) {
        self.talk(async |bus| {
            bus.call_method(Some(SERVICE), item, Some("org.freedesktop.Secret.Item"), "Delete", &()).await
        })
        .unwrap();
    }

    /// What an item holds.
    pub fn value(&self, item: &OwnedObjectPath) -> Vec<u8> {
        let interface = "org.freedesktop.Secret.Item";
        let got = self.in_session(async |bus, session| {
            bus.call_method(Some(SERVICE), item, Some(interface), "GetSecret", &session).await
        });
        let secret: ((OwnedObjectPath, Vec<u8>, Vec<u8>, String),) = got.body().deserialize().unwrap();
        secret.0.2
    }

    /// Changes what an item holds.
    pub fn set_value(&self, item: &OwnedObjectPath, value: &[u8]) {
        let interface = "org.freedesktop.Secret.Item";
        self.in_session(async |bus, session| {
            let body = ((session, Vec::<u8>::new(), value.to_vec(), "text/plain"),);
            bus.call_method(Some(SERVICE), item, Some(interface), "SetSecret", &body).await
        });
    }

    /// What an item is found by.
    pub fn attributes(&self, item: &OwnedObjectPath) -> HashMap<String, String> {
        let got = self.talk(async |bus| {
            let body = ("org.freedesktop.Secret.Item", "Attributes");
            let interface = "org.freedesktop.DBus.Properties";
            bus.call_method(Some(SERVICE), item, Some(interface), "Get", &body).await
        });
        let value: OwnedVariant = got.unwrap().body().deserialize().unwrap();
        value.try_into().unwrap()
    }

    /// Makes an item, beside those that are there.
    pub fn make(&self, attributes: &[(&str, &str)], value: &[u8]) {
        let attributes: HashMap<&str, &str> = attributes.iter().copied().collect();
        self.in_session(async |bus, session| {
            let properties = HashMap::from([
                ("org.freedesktop.Secret.Item.Label", Variant::from("an item of the tests")),
                ("org.freedesktop.Secret.Item.Attributes", Variant::from(attributes)),
            ]);
            let body = (properties, (session, Vec::<u8>::new(), value.to_vec(), "text/plain"), false);
            let interface = "org.freedesktop.Secret.Collection";
            bus.call_method(Some(SERVICE), LOGIN, Some(interface), "CreateItem", &body).await
        });
    }

    /// Makes another item that is the same.
    pub fn double(&self, item: &OwnedObjectPath) {
        let attributes = self.attributes(item);
        let attributes: Vec<(&str, &str)> =
            attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.make(&attributes, &self.value(item));
    }

    fn in_session(
        &self,
        work: impl AsyncFnOnce(&Connection, OwnedObjectPath) -> zbus::Result<zbus::Message>,
    ) -> zbus::Message {
        self.talk(async |bus| {
            let body = ("plain", Variant::from(""));
            let method = ("org.freedesktop.Secret.Service", "OpenSession");
            let opened = bus.call_method(Some(SERVICE), ROOT, Some(method.0), method.1, &body).await?;
            let (_, session): (OwnedVariant, OwnedObjectPath) = opened.body().deserialize()?;
            work(bus, session).await
        })
        .unwrap()
    }

    fn talk(
        &self,
        work: impl AsyncFnOnce(&Connection) -> zbus::Result<zbus::Message>,
    ) -> zbus::Result<zbus::Message> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let builder = Builder::address(self.address().as_str()).method_timeout(PATIENCE);
            let bus = builder.build().await?;
            // it must know a client before that opens a session: else it may abort
            let ping = ("org.freedesktop.DBus.Peer", "Ping");
            let _ = bus.call_method(Some(SERVICE), ROOT, Some(ping.0), ping.1, &()).await;
            work(&bus).await
        })
    }
}

impl Drop for Keyring {
    #[allow(clippy::print_stderr, reason = "told with the failure of the test")]
    fn drop(&mut self) {
        // what ended before it was told to is a finding of its own, whatever a test makes of it
        for (name, child) in [("keyring", self.keyring.as_mut()), ("bus", Some(&mut self.bus))]
            .into_iter()
            .filter_map(|(name, child)| Some((name, child?)))
        {
            if let Ok(Some(status)) = child.try_wait() {
                let said = fs::read_to_string(self.folder.join("keyring.log")).unwrap_or_default();
                eprintln!("the {name} of the test ended by itself, with {status}; the keyring said:\n{said}");
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A keyring of this process's own user in a folder of its own.
pub fn own(folder: &Path) -> Keyring {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    Keyring::start(folder, |program| {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8");
        command
    })
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn await_that(what: &str, mut ask: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !ask() {
        assert!(Instant::now() < until, "waited {PATIENCE:?} in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
