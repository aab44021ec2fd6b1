//! What the daemon says of itself.

use std::path::Path;

use super::super::row::{Area, Row, State};
use crate::cli::{
    owner::TAKE_OUT,
    status_query::{
        AuditStatus, DaemonStatus, Found, KeychainState, PolicyState, Protection, RAISE_LOCKED, SecretMemory,
        VaultState,
    },
    untold::Untold,
    words::counted,
};

const OURS: &str = env!("CARGO_PKG_VERSION");
/// How a protection comes back.
const ENFORCE: &str =
    "stop it and start it with --hardening=enforce, which names what this system can't give";

pub(super) fn rows(found: &Found, start: &str, config: &Path) -> Vec<Row> {
    let row = |found: &str, means: &str| Row::ok(Area::Daemon, "daemon", found, means);
    match found {
        Found::Running(status) => running(status, config),
        Found::Nobody => vec![
            row("not running", "nobody gets a secret; its protections can be asked only while it runs")
                .but(State::Unknown, start),
        ],
        Found::Unwell(why) => vec![
            row("unwell", &format!("something listens at the socket, but {why}"))
                .but(State::Bad, "restart the daemon, or choose another socket with --socket"),
        ],
    }
}

fn running(status: &DaemonStatus, config: &Path) -> Vec<Row> {
    let mut rows = vec![version(status)];
    if let Some(theirs) = &status.config_path
        && Path::new(theirs) != config
    {
        let means = format!("the daemon reads {theirs}, and the commands edit {}", config.display());
        rows.push(
            Row::ok(Area::Daemon, "config path", "differs", means)
                .but(State::Warn, "run the commands with the daemon's HOME and XDG_CONFIG_HOME"),
        );
    }
    if status.protections.is_empty() {
        rows.push(
            Row::ok(Area::Daemon, "protections", "not told", "this daemon does not say what is in force")
                .but(State::Unknown, "stop it and start the newest version"),
        );
    }
    rows.extend(status.vault.as_ref().map(|found| vault(found, status.keychain.as_ref())));
    let source = status.vault.as_ref().map_or("", |vault| vault.key_source.as_str());
    rows.extend(status.policy.as_ref().map(|policy| seal(policy, source)));
    rows.extend(status.keychain.iter().flat_map(keychain));
    rows.extend(status.protections.iter().map(protection));
    rows.extend(status.memory.as_ref().map(memory));
    if let Some(audit) = &status.audit {
        rows.push(chain(audit));
    }
    rows.extend(status.missing.iter().map(|lacking| {
        Row::ok(Area::Daemon, "kernel", "lacks", lacking.as_str())
            .but(State::Warn, "a newer kernel gives the stronger check")
    }));
    rows
}

/// A program for notices that fails: its user waits for them in vain.
pub(super) fn untold(Untold { at, program, why }: &Untold) -> Row {
    let means = format!("{program} should have told of a stranger at {at}, and failed: {why}");
    Row::ok(Area::Daemon, "notices", "not given", means)
        .but(State::Warn, "mend the program that notify runs; the next notice that it gives ends this")
}

fn chain(audit: &AuditStatus) -> Row {
    let row = Row::ok(
        Area::Daemon,
        "audit log",
        format!("record {}", audit.seq),
        "each record is chained to the one before",
    );
    match &audit.changed {
        Some(what) => Row { means: format!("something was done to the log: {what}"), ..row }
            .but(State::Bad, "keychain-auth audit verify"),
        None => row,
    }
}

fn keychain(found: &KeychainState) -> Vec<Row> {
    let KeychainState { state, waiting, lost } = found;
    let waiting = counted(*waiting, "changed record waits", "changed records wait");
    let means = format!("the secrets rest in your keychain; {waiting} for it");
    let row = Row::ok(Area::Daemon, "keychain", state.as_str(), means);
    let row = match state.as_str() {
        "unlocked" => row,
        "unknown" => row.but(State::Unknown, "it is asked with the first request"),
        "locked" => row.but(State::Warn, "unlock it; until then every request is answered store_locked"),
        _ => row.but(State::Bad, "start your keychain (gnome-keyring, KWallet, KeePassXC) and unlock it"),
    };
    let mut rows = vec![row];
    if *lost > 0 {
        let means = counted(
            *lost,
            "secret can't be read: its item in the keychain is missing or was changed",
            "secrets can't be read: their items in the keychain are missing or were changed",
        );
        rows.push(Row::ok(Area::Daemon, "keychain items", format!("{lost} lost"), means).but(
            State::Bad,
            "put the items back from a backup of the keychain, or write these secrets anew; with the daemon stopped, keychain-auth vault verify names them",
        ));
    }
    rows
}

fn version(status: &DaemonStatus) -> Row {
    let pid = status.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
    let version = status.version.as_deref().unwrap_or("of unknown version");
    let row = Row::ok(
        Area::Daemon,
        "daemon",
        format!("running{pid}"),
        format!("it is version {version}, this command {OURS}"),
    );
    if version == OURS { row } else { row.but(State::Warn, "restart the daemon, so that both are the same") }
}

fn vault(vault: &VaultState, keychain: Option<&KeychainState>) -> Row {
    if let Some(extent) = vault.salvage.as_ref().filter(|_| vault.damaged == Some(false)) {
        let means = format!("served for reading only: {extent}");
        return Row::ok(Area::Daemon, "vault", vault.state.as_str(), means)
            .but(State::Warn, "start the daemon without --salvage");
    }
    if let Some(extent) = &vault.salvage {
        let means = format!("THE VAULT IS DAMAGED and served for reading only: {extent}");
        return Row::ok(Area::Daemon, "vault", vault.state.as_str(), means)
            .but(State::Bad, format!("stop the daemon, and restore the vault from a backup, or {TAKE_OUT}"));
    }
    let means = match keychain.and_then(KeychainState::refuses) {
        _ if vault.state == "locked" => {
            "the daemon has no key, and answers requests with store_locked".to_owned()
        }
        Some(why) => format!("the daemon has the key; {why}, and requests are answered store_locked"),
        None => "the daemon has the key, and serves".to_owned(),
    };
    Row::ok(Area::Daemon, "vault", vault.state.as_str(), means)
}

/// A seal is worth as much as the source of the key: who has the key can seal another policy.
fn seal(policy: &PolicyState, source: &str) -> Row {
    let row = |found: &str, means: &str| Row::ok(Area::Daemon, "policy seal", found, means);
    if !policy.sealed {
        return row(
            "not sealed",
            "whoever can write config.json grants what he likes; keychain-auth policy seal closes that",
        );
    }
    let weak = |means: &str| {
        row("sealed", means).but(
            State::Warn,
            "keychain-auth vault change-key-source --key passphrase, and since the old key may be known: keychain-auth vault rekey",
        )
    };
    match source {
        "file" => weak(
            "it stops mistakes only: every process of yours can read the key in vault.key, and seal what it likes",
        ),
        "keychain" => weak(
            "it stops what can't use your unlocked keychain; what can has the key, and can seal what it likes",
        ),
        "credential" => weak(
            "it stops what can't read the daemon's credential; systemd shows that to every process of the daemon's user",
        ),
        _ => row(
            "sealed",
            "no config.json is accepted that was not sealed by somebody who knows the passphrase",
        ),
    }
}

fn memory(memory: &SecretMemory) -> Row {
    let row = |means| Row::ok(Area::Daemon, "secrets in memory", memory.kept.as_str(), means);
    match memory.swappable() {
        Some(spilled) => row(spilled).but(State::Warn, RAISE_LOCKED),
        None => row("no request or reply was ever in memory that may be swapped"),
    }
}

fn protection(protection: &Protection) -> Row {
    let Protection { name, enforced, means } = protection;
    if *enforced {
        Row::ok(Area::Daemon, name, "in force", means)
    } else {
        let means = format!("it would mean: {means}");
        Row::ok(Area::Daemon, name, "not in force", means).but(State::Bad, ENFORCE)
    }
}
