//! The vault in the hands of its owner, for commands that work on the files while no daemon holds them.

use std::path::PathBuf;

use jiff::Timestamp;

use super::{
    advice::{STOP, held, holder, numbered},
    context::Context,
    failure::Failure,
    output::Output,
    words::counted,
};
use crate::{
    audit::{self, Action, Event, Log, Outcome, Rotation},
    chain::VerificationKey,
    daemon::{Lock, LockError, salvageable},
    import::Batch,
    keys::KeyError,
    name::{Service, Target},
    paths::Paths,
    store::{
        AuditMemory, KeyMaterial, Keychain, MAX_REMOVED, NamesByService, Outbox, OwnedVault, PolicySeal,
        Record, RenderRecord, Seat, StoreError, Taken,
    },
    sys::{locked, process},
};

/// Most names of one [`Owner::read`]: with the longest values they still fit one answer of the store.
pub(super) const MAX_READ: usize = 128;

/// Most names of one record that names what is shown: as many as the record of a delete has, which fit a line however long
/// they are.
const MAX_NAMED: usize = MAX_REMOVED;

/// An open vault, and what its records say of who acts: this program, as this user, by which command.
///
/// Every read and write leaves a record in the vault, durable before a value is returned or with the change. [`close`]
/// brings the records to the audit log at once where no daemon runs; otherwise the daemon does it when it is unlocked.
///
/// [`close`]: Owner::close
pub(super) struct Owner {
    vault: OwnedVault,
    paths: Paths,
    uid: u32,
    /// The command, for the records' `detail`.
    command: String,
}

impl Owner {
    /// Opens the vault with its key. Where its values rest in the keychain, `keychain` is the [way](super::values::way)
    /// there. `command` is the words behind `keychain-auth`, such as `vault export`.
    pub(super) fn open(
        cx: &Context,
        keychain: Keychain,
        command: impl Into<String>,
    ) -> Result<Self, Failure> {
        let (taken, material) = opening(cx)?;
        let opened = taken.reaching(keychain).open_owned(&material);
        Ok(Self::over(opened.map_err(|error| unopened(cx, error))?, cx, command))
    }

    /// As [`open`](Self::open), for who needs no value: names, seal of the policy and memory of the log are in the vault's
    /// file also where the values rest in the keychain, which nobody asks then.
    pub(super) fn open_without_values(cx: &Context, command: impl Into<String>) -> Result<Self, Failure> {
        Self::open(cx, Keychain::unasked(), command)
    }

    /// Takes over a vault that is open already.
    pub(super) fn over(vault: OwnedVault, cx: &Context, command: impl Into<String>) -> Self {
        Self { vault, paths: cx.paths.clone(), uid: cx.uid, command: command.into() }
    }

    /// Every name that is there, by service, sorted.
    pub(super) fn names(&self) -> NamesByService {
        self.vault.names()
    }

    /// Reads at most [`MAX_READ`] names of a service, to hand them out; missing ones are left out. Its record is durable
    /// before a value is here.
    pub(super) fn read(&self, service: &Service, targets: Vec<Target>) -> Result<Vec<Record>, Failure> {
        Ok(self.vault.read(service, targets, self.record(Action::Export, service))?)
    }

    /// Makes records of names that are about to be shown, durable before this returns. A service with many has several.
    pub(super) fn record_names(&self, names: &[(Service, Vec<Target>)]) -> Result<(), Failure> {
        let record = |(service, targets): &(Service, Vec<Target>)| {
            let some = targets.chunks(MAX_NAMED).map(<[Target]>::to_vec);
            let record = |some: Vec<Target>| -> RenderRecord {
                let render = self.record(Action::List, service);
                Box::new(move |_| render(&some))
            };
            some.map(record).collect::<Vec<_>>()
        };
        Ok(self.vault.note_all(names.iter().flat_map(record).collect())?)
    }

    /// Makes a record that there was nothing to show: of this service, or at all. Durable before this returns.
    pub(super) fn record_nothing(&self, action: Action, service: Option<&Service>) -> Result<(), Failure> {
        let event = self.event(action, service.cloned());
        Ok(self.vault.note(Box::new(move |_| event.render()))?)
    }

    /// Puts several batches in place, all or none. Each has its record.
    pub(super) fn write(&self, batches: Vec<Batch>) -> Result<(), Failure> {
        let recorded = |(service, items, attributes)| {
            let record = self.record(Action::Import, &service);
            (service, items, attributes, record)
        };
        Ok(self.vault.write_all(batches.into_iter().map(recorded).collect())?)
    }

    /// Brings what was changed where the values rest. What does not arrive now is told, and is not lost.
    pub(super) fn carry(&self, out: &mut Output) {
        let carried = self.vault.carry(&mut |done, all| out.steps(done, all));
        out.end_progress();
        if let Err(error) = carried {
            let waiting = self.vault.waiting() as u64;
            let waits = counted(waiting, "changed secret waits", "changed secrets wait");
            out.note(&format!(
                "{waits} in the vault's own file, and the daemon brings them to the keychain: {}",
                error
            ));
        }
    }

    /// What the vault knows of the audit log.
    pub(super) fn audit_memory(&self) -> Result<AuditMemory, Failure> {
        Ok(self.vault.audit_memory()?)
    }

    /// Brings the records to the audit log, unless a daemon is there to do it, and closes the vault.
    pub(super) fn close(self) -> Result<(), Failure> {
        match Lock::take(&self.paths.daemon_lock()) {
            Ok(lock) => self.close_log(&lock, |_| Ok(())),
            // a locked daemon has the log; it takes the lines from the vault when it is unlocked
            Err(LockError::Held(_)) => Ok(self.vault.close()?),
            Err(error) => Err(unlockable(error)),
        }
    }

    /// The seal of the policy that holds.
    pub(super) fn policy_seal(&self) -> PolicySeal {
        self.vault.policy_seal()
    }

    /// Puts another in its place, durable with its record.
    pub(super) fn seal_policy(&self, cx: &Context, seal: PolicySeal) -> Result<(), Failure> {
        Ok(self.vault.seal_policy(seal, vault_record(cx, "another seal for the policy"))?)
    }

    /// Brings the records to the audit log, which no daemon has, and closes the vault.
    pub(super) fn close_alone(self, lock: &Lock) -> Result<(), Failure> {
        self.close_log(lock, |_| Ok(()))
    }

    /// Begins a new chain of the audit log, and closes the vault. Its key is nowhere but here then.
    pub(super) fn begin_chain(self, alone: &Lock) -> Result<VerificationKey, Failure> {
        let key = VerificationKey::generate().map_err(|error| StoreError::Io(error.to_string()))?;
        self.close_log(alone, |log| log.begin_chain(&key))?;
        Ok(key)
    }

    fn close_log(
        self,
        _alone: &Lock,
        act: impl FnOnce(&mut Log) -> Result<(), audit::AuditError>,
    ) -> Result<(), Failure> {
        let (outbox, memory) = (self.vault.outbox()?, self.vault.audit_memory()?);
        let mut log = open_log(&self.paths, self.vault.take_seat(), &memory, &outbox)?;
        act(&mut log)?;
        if let Some(unsynced) = log.unsynced()? {
            self.vault.settle(unsynced.sync()?);
        }
        for ended in log.take_ended() {
            self.vault.note_audit(log.head(), Some(ended));
        }
        self.vault.note_audit(log.head(), None);
        Ok(self.vault.close()?)
    }

    fn record(&self, action: Action, service: &Service) -> RenderRecord {
        let event = self.event(action, Some(service.clone()));
        Box::new(move |touched| event.render_with(touched))
    }

    fn event(&self, action: Action, service: Option<Service>) -> Event {
        owner_event(action, service, self.uid, &self.command)
    }
}

/// The audit log, which no daemon has, with what the vault knows of it and has for it.
pub(super) fn open_log(
    paths: &Paths,
    seat: Option<Seat>,
    memory: &AuditMemory,
    outbox: &Outbox,
) -> Result<Log, audit::AuditError> {
    let seat = seat.unwrap_or_else(Seat::nowhere);
    let mut log = Log::open(&paths.audit_log(), seat, &memory.head, Rotation::default())?;
    log.replay(outbox)?;
    Ok(log)
}

/// What a record says of who acts.
pub(super) fn owner_event(action: Action, service: Option<Service>, uid: u32, command: &str) -> Event {
    let detail = format!("by the owner of the vault, who gave its key: {command}");
    Event { service, ..own_event(action, uid, detail) }
}

/// Every name that is there, by service, sorted, for a command that only looks: it leaves no record, and not a byte of the
/// data folder is written.
pub(super) fn names(cx: &Context) -> Result<NamesByService, Failure> {
    let (taken, material) = opening(cx)?;
    let taken = taken.reaching(Keychain::unasked());
    let names = taken.names(&material);
    // its lock is free again for the look at what is left
    drop(taken);
    names.map_err(|error| unopened(cx, error))
}

/// The failure of whoever can't open the vault, with the way that is left to what is intact of it.
pub(super) fn unopened(cx: &Context, error: StoreError) -> Failure {
    let left = salvageable(&cx.paths.data_dir, &error);
    let failure = Failure::from(error);
    match left {
        true => Failure::new(failure.sentence(), format!("{}; or {TAKE_OUT}", failure.advice())),
        false => failure,
    }
}

/// The way to what is intact of a damaged vault.
pub(super) const TAKE_OUT: &str =
    "take out what is intact: keychain-auth vault export --salvage --output FILE";

/// Whether the vault is there and nobody has it: said before anybody is asked for a key or a secret.
pub(super) fn free(cx: &Context) -> Result<(), Failure> {
    take(cx)?.source()?;
    Ok(())
}

/// The vault, taken from whoever else would use it. Whoever has it is named.
pub(super) fn take(cx: &Context) -> Result<Taken, Failure> {
    Taken::existing(&cx.paths.data_dir).map_err(|error| {
        if error != StoreError::InUse {
            return error.into();
        }
        match holder(cx) {
            Some(pid) => held(cx, pid),
            None => error.into(),
        }
    })
}

/// The vault, taken from whoever else would use it, and what opens it.
pub(super) fn opening(cx: &Context) -> Result<(Taken, KeyMaterial), Failure> {
    let taken = take(cx)?;
    taken.source()?;
    let slot = taken.slot().ok_or(StoreError::Absent)?;
    let material = cx.asking().for_slot(slot)?;
    Ok((taken, material))
}

/// The record of an act on the whole vault.
pub(super) fn vault_record(cx: &Context, what: &'static str) -> RenderRecord {
    let event = own_event(audit::Action::Vault, cx.uid, what.to_owned());
    Box::new(move |_| event.render())
}

/// Sees to it that no daemon runs, as long as the result lives.
pub(super) fn alone(cx: &Context) -> Result<Lock, Failure> {
    // the folder first, where the lock lies
    let free = Taken::existing(&cx.paths.data_dir).map(drop);
    let lock = match &free {
        Ok(()) | Err(StoreError::InUse) => Lock::take(&cx.paths.daemon_lock()),
        Err(error) => return Err(error.clone().into()),
    };
    let lock = lock.map_err(unlockable)?;
    // another command has it
    free?;
    Ok(lock)
}

pub(super) fn own_event(action: audit::Action, uid: u32, detail: String) -> Event {
    Event {
        timestamp: Timestamp::now(),
        action,
        pid: std::process::id(),
        binary_path: std::env::current_exe().unwrap_or_else(|_| PathBuf::new()),
        binary_hash: None,
        service: None,
        targets: Vec::new(),
        outcome: Outcome::Granted,
        reason: None,
        detail: Some(detail.into()),
        uid,
        count: None,
    }
}

/// Closes this process to others before it holds a key or a secret: no dump, no tracing, locked memory. A command that
/// uses an [`Owner`] does it first.
pub(super) fn close_to_others() -> Result<(), Failure> {
    close_memory()?;
    locked::prepare();
    Ok(())
}

/// As [`close_to_others`], before there is memory for secrets.
pub(super) fn close_memory() -> Result<(), Failure> {
    process::close_to_others().map_err(|error| {
        Failure::new(
            format!("this process can't be closed to others: {error}"),
            "see the README for what is needed from the kernel",
        )
    })
}

fn unlockable(error: LockError) -> Failure {
    match error {
        LockError::Held(pid) => {
            Failure::new(format!("the daemon{} runs and has the audit log", numbered(pid)), STOP)
        }
        LockError::Io(path, error) => Failure::new(
            format!("{} can't be used: {error}", path.display()),
            "mend its owner and mode (0600)",
        ),
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error.to_string(), error.advice())
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Store(error) => error.into(),
            error => Self::new(error.to_string(), error.advice()),
        }
    }
}

impl From<audit::AuditError> for Failure {
    fn from(error: audit::AuditError) -> Self {
        Self::new(
            error.to_string(),
            "the records are safe in the vault; make room, or mend the owner and mode (0600) of the log",
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::fs;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::{
        name::Attributes,
        secret::{Buffer, SecretValue},
        store::{WriteItem, files::scratch},
    };

    fn context() -> (tempfile::TempDir, Context) {
        let dir = scratch();
        let home = dir.path().as_os_str().to_owned();
        let paths = Paths::new(|name| (name == "HOME").then(|| home.clone()), None).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        (dir, Context { paths, uid, now: Timestamp::now(), asked_socket: None, passphrase: None })
    }

    fn item(name: &str, value: &str) -> WriteItem {
        let value = SecretValue::from_buffer(Buffer::from(value.as_bytes())).unwrap();
        WriteItem { target: Target::parse(name).unwrap(), value }
    }

    #[test]
    fn what_an_owner_writes_and_reads_is_in_the_log_when_the_vault_is_closed() {
        let (_dir, cx) = context();
        assert_eq!(Owner::open_without_values(&cx, "vault export").err(), Some(StoreError::Absent.into()));
        Taken::take(&cx.paths.data_dir).unwrap().create(&KeyMaterial::File).unwrap().close().unwrap();
        let owner = Owner::open_without_values(&cx, "import env").unwrap();
        let busy = Owner::open_without_values(&cx, "vault export").err().unwrap();
        assert!(busy.advice().contains("the other command has ended"), "{busy:?}");
        let service = Service::parse("s").unwrap();
        let more = Service::parse("t").unwrap();
        let batches = vec![
            (service.clone(), vec![item("a", "VALUEMARK"), item("b", "2")], Attributes::new()),
            (more, vec![item("c", "3")], Attributes::new()),
        ];
        owner.write(batches).unwrap();
        assert_eq!(owner.names().len(), 2);
        let names = ["a", "missing"].map(|name| Target::parse(name).unwrap()).to_vec();
        let found = owner.read(&service, names).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].value.as_ref().unwrap().expose_secret(), "VALUEMARK");
        owner.close().unwrap();
        let log = fs::read_to_string(cx.paths.audit_log()).unwrap();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("chain=")).collect();
        assert_eq!(lines.len(), 3, "{log}");
        assert!(lines[0].contains(r#""action":"import""#) && lines[0].contains(r#""targets":["a","b"]"#));
        assert!(lines[1].contains(r#""service":"t""#));
        assert!(
            lines[2].contains(r#""action":"export""#) && lines[2].contains(r#""targets":["a","missing"]"#)
        );
        assert!(lines[2].contains("vault export") || lines[2].contains("import env"));
        assert!(!log.contains("VALUEMARK"));
    }

    #[test]
    fn beside_a_daemon_the_records_stay_in_the_vault_until_it_takes_them() {
        let (_dir, cx) = context();
        Taken::take(&cx.paths.data_dir).unwrap().create(&KeyMaterial::File).unwrap().close().unwrap();
        let daemon = Lock::take(&cx.paths.daemon_lock()).unwrap();
        let owner = Owner::open_without_values(&cx, "import env").unwrap();
        owner.write(vec![(Service::parse("s").unwrap(), vec![item("a", "1")], Attributes::new())]).unwrap();
        owner.close().unwrap();
        assert!(!cx.paths.audit_log().exists(), "the log is the daemon's");
        drop(daemon);
        Owner::open_without_values(&cx, "vault verify").unwrap().close().unwrap();
        let log = fs::read_to_string(cx.paths.audit_log()).unwrap();
        assert_eq!(log.lines().filter(|line| !line.contains("chain=")).count(), 1, "{log}");
    }
}
