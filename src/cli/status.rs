//! `status`: whether the daemon runs, and what is wrong with the policy.

use serde::Serialize;

use super::{
    acceptance::{Acceptance, Refused},
    context::Context,
    failure::Failure,
    output::{Output, Style},
    sealing::copy,
    status_query::{
        AuditStatus, DaemonStatus, Found, KeychainState, PolicyState, Protection, RAISE_LOCKED, SecretMemory,
        VaultState, ask,
    },
    words::counted,
};
use crate::{policy::Warning, store::Slot};

/// Most warnings shown to people: one screen.
const MAX_WARNINGS: usize = 20;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    daemon_running: bool,
    version: String,
    mode: String,
    config_path: String,
    socket_path: String,
    data_path: String,
    requires_sudo: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keychain: Option<KeychainState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vault: Option<VaultState>,
    policy: PolicyState,
    protections: Vec<Protection>,
    missing: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<SecretMemory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<AuditStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let found = ask(&cx.paths.socket, cx.uid);
    let report = report(&found, cx);
    if args.json {
        out.json(&report);
    } else {
        show(&report, out);
    }
    match found {
        Found::Running(_) => Ok(()),
        Found::Nobody => {
            let note = match &cx.asked_socket {
                Some(socket) => format!(
                    "No daemon listens at {}; to start one there: {}; one at another socket was not asked",
                    socket.display(),
                    cx.start_command()
                ),
                None => format!("The daemon does not run; start it with: {}", cx.start_command()),
            };
            out.note(&note);
            Ok(())
        }
        Found::Unwell(why) => Err(Failure::new(
            format!("something listens at {}, but {why}", cx.paths.socket.display()),
            "restart the daemon, or choose another socket with --socket",
        )),
    }
}

fn report(found: &Found, cx: &Context) -> Report {
    let nothing = DaemonStatus::default();
    let (running, problem, status) = match found {
        Found::Running(status) => (true, None, status.as_ref()),
        Found::Nobody => (false, None, &nothing),
        Found::Unwell(why) => (false, Some(*why), &nothing),
    };
    let or = |said: &Option<String>, local: &dyn Fn() -> String| said.clone().unwrap_or_else(local);
    Report {
        daemon_running: running,
        version: or(&status.version, &|| env!("CARGO_PKG_VERSION").to_owned()),
        mode: or(&status.mode, &|| "user".to_owned()),
        config_path: or(&status.config_path, &|| cx.paths.config().display().to_string()),
        socket_path: or(&status.socket_path, &|| cx.paths.socket.display().to_string()),
        data_path: or(&status.data_path, &|| cx.paths.data_dir.display().to_string()),
        requires_sudo: status.requires_sudo,
        pid: status.pid,
        connections: status.connections,
        store: status.store.clone(),
        keychain: status.keychain.clone(),
        vault: status.vault.clone().or_else(|| local_vault(cx)),
        policy: status.policy.clone().unwrap_or_else(|| local_policy(found, cx)),
        protections: status.protections.clone(),
        missing: status.missing.clone(),
        memory: status.memory.clone(),
        audit: status.audit.clone(),
        problem,
    }
}

/// The vault as its files show it.
fn local_vault(cx: &Context) -> Option<VaultState> {
    let source = Slot::peek(&cx.paths.data_dir).ok()??.source();
    Some(VaultState {
        // a daemon at its usual socket may have it open
        state: if cx.asked_socket.is_some() { "unknown" } else { "closed" }.to_owned(),
        key_source: source.to_string(),
        key_means: source.means().to_owned(),
        salvage: None,
        damaged: None,
    })
}

/// The policy as a daemon of this user would see it.
fn local_policy(found: &Found, cx: &Context) -> PolicyState {
    let sealed = copy(cx).exists();
    let error = |reason: Option<String>, message: String| PolicyState {
        state: "error".to_owned(),
        sealed,
        reason,
        message: Some(message),
        ..PolicyState::default()
    };
    let policy = match cx.policy_source().current(cx.uid) {
        Ok(policy) => policy,
        Err(broken) => return error(None, broken.to_string()),
    };
    if let Acceptance::Refused(Refused { reason, sentence, .. }) = Acceptance::of(found, cx) {
        return error(Some(reason), sentence);
    }
    PolicyState {
        state: "ok".to_owned(),
        sealed,
        entries: policy.entries().len() as u64,
        warnings: policy.warnings().iter().map(Warning::to_string).collect(),
        ..PolicyState::default()
    }
}

fn show(report: &Report, out: &mut Output) {
    show_daemon(report, out);
    show_secrets(report, out);
    show_policy(&report.policy, out);
    if let Some(audit) = &report.audit {
        show_audit(audit, out);
    }
    show_protections(report, out);
}

fn row(out: &mut Output, name: &str, style: Style, value: &str) {
    out.cells(&[(Style::Plain, &format!("{name:<16}")), (style, value)]);
}

fn show_daemon(report: &Report, out: &mut Output) {
    let style = if report.daemon_running { Style::Good } else { Style::Bad };
    row(out, "daemon_running", style, if report.daemon_running { "true" } else { "false" });
    let mut plain = |name, value: &str| row(out, name, Style::Plain, value);
    plain("version", &report.version);
    plain("mode", &report.mode);
    plain("config_path", &report.config_path);
    plain("socket_path", &report.socket_path);
    plain("data_path", &report.data_path);
    plain("requires_sudo", if report.requires_sudo { "true" } else { "false" });
    if let Some(pid) = report.pid {
        plain("pid", &pid.to_string());
    }
    if let Some(connections) = report.connections {
        plain("connections", &connections.to_string());
    }
}

/// Where the secrets rest, and who can open them.
fn show_secrets(report: &Report, out: &mut Output) {
    match &report.store {
        Some(serde_json::Value::String(store)) => row(out, "store", Style::Plain, store),
        Some(store) => row(out, "store", Style::Plain, &store.to_string()),
        None => {}
    }
    if let Some(KeychainState { state, waiting, lost }) = &report.keychain {
        let style = if state == "unlocked" || state == "unknown" { Style::Plain } else { Style::Bad };
        let waiting = counted(*waiting, "changed record waits", "changed records wait");
        row(out, "keychain", style, &format!("{state}, {waiting} for it"));
        if *lost > 0 {
            let lost = counted(*lost, "secret has lost its item", "secrets have lost their items");
            row(
                out,
                "keychain items",
                Style::Bad,
                &format!("{lost}; with the daemon stopped, keychain-auth vault verify names them"),
            );
        }
    }
    let Some(vault) = &report.vault else { return };
    match &vault.salvage {
        Some(extent) => {
            let style = if vault.damaged == Some(false) { Style::Warn } else { Style::Bad };
            row(out, "vault", style, &format!("SALVAGED, for reading only: {extent}"));
        }
        None => {
            let style = if vault.state == "locked" { Style::Warn } else { Style::Plain };
            row(out, "vault", style, &vault.state);
        }
    }
    row(out, "key_source", Style::Plain, &format!("{}: {}", vault.key_source, vault.key_means));
}

fn show_policy(policy: &PolicyState, out: &mut Output) {
    match &policy.message {
        Some(message) => row(out, "policy", Style::Bad, &format!("every request is denied: {message}")),
        None => {
            let entries = counted(policy.entries, "entry", "entries");
            let sealed = if policy.sealed { ", sealed" } else { "" };
            row(out, "policy", Style::Plain, &format!("{}, {entries}{sealed}", policy.state));
        }
    }
    for warning in policy.warnings.iter().take(MAX_WARNINGS) {
        row(out, "warning", Style::Bad, warning);
    }
    if let Some(more @ 1..) = policy.warnings.len().checked_sub(MAX_WARNINGS) {
        row(out, "warning", Style::Bad, &format!("and {more} more: keychain-auth status --json"));
    }
}

fn show_audit(audit: &AuditStatus, out: &mut Output) {
    let AuditStatus { seq, epoch, chain, .. } = audit;
    row(out, "audit", Style::Plain, &format!("record {seq}, epoch {epoch} of chain {chain}"));
    if let Some(changed) = &audit.changed {
        row(out, "audit changed", Style::Bad, changed);
    }
}

/// What holds, and what does not.
fn show_protections(report: &Report, out: &mut Output) {
    let (held, lacking): (Vec<_>, Vec<_>) = report.protections.iter().partition(|held| held.enforced);
    if report.daemon_running && !report.protections.is_empty() {
        let names: Vec<&str> = held.iter().map(|held| held.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        row(out, "protections", if held.is_empty() { Style::Bad } else { Style::Good }, &names);
    }
    for protection in lacking {
        row(out, "not in force", Style::Bad, &format!("{}: {}", protection.name, protection.means));
    }
    if let Some(spilled) = report.memory.as_ref().and_then(SecretMemory::swappable) {
        row(out, "memory", Style::Warn, &format!("{spilled}; {RAISE_LOCKED}"));
    }
    for protection in &report.missing {
        row(out, "missing", Style::Bad, protection);
    }
}
