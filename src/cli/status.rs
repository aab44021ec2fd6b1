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
    let mut row = |name: &str, style, value: &str| {
        out.cells(&[(Style::Plain, &format!("{name:<16}")), (style, value)]);
    };
    let style = if report.daemon_running { Style::Good } else { Style::Bad };
    row("daemon_running", style, if report.daemon_running { "true" } else { "false" });
    row("version", Style::Plain, &report.version);
    row("mode", Style::Plain, &report.mode);
    row("config_path", Style::Plain, &report.config_path);
    row("socket_path", Style::Plain, &report.socket_path);
    row("data_path", Style::Plain, &report.data_path);
    row("requires_sudo", Style::Plain, if report.requires_sudo { "true" } else { "false" });
    if let Some(pid) = report.pid {
        row("pid", Style::Plain, &pid.to_string());
    }
    if let Some(connections) = report.connections {
        row("connections", Style::Plain, &connections.to_string());
    }
    match &report.store {
        Some(serde_json::Value::String(store)) => row("store", Style::Plain, store),
        Some(store) => row("store", Style::Plain, &store.to_string()),
        None => {}
    }
    if let Some(KeychainState { state, waiting }) = &report.keychain {
        let style = if state == "unlocked" || state == "unknown" { Style::Plain } else { Style::Bad };
        row("keychain", style, &format!("{state}, {waiting} changed records wait for it"));
    }
    if let Some(vault) = &report.vault {
        let style = if vault.state == "locked" { Style::Warn } else { Style::Plain };
        match &vault.salvage {
            Some(extent) => row("vault", Style::Bad, &format!("SALVAGED, for reading only: {extent}")),
            None => row("vault", style, &vault.state),
        }
        row("key_source", Style::Plain, &format!("{}: {}", vault.key_source, vault.key_means));
    }
    match &report.policy.message {
        Some(message) => row("policy", Style::Bad, &format!("every request is denied: {message}")),
        None => row(
            "policy",
            Style::Plain,
            &format!(
                "{}, {} {}{}",
                report.policy.state,
                report.policy.entries,
                if report.policy.entries == 1 { "entry" } else { "entries" },
                if report.policy.sealed { ", sealed" } else { "" }
            ),
        ),
    }
    let warnings = &report.policy.warnings;
    for warning in warnings.iter().take(MAX_WARNINGS) {
        row("warning", Style::Bad, warning);
    }
    if let Some(more @ 1..) = warnings.len().checked_sub(MAX_WARNINGS) {
        row("warning", Style::Bad, &format!("and {more} more: keychain-auth status --json"));
    }
    if let Some(audit) = &report.audit {
        row(
            "audit",
            Style::Plain,
            &format!("record {}, epoch {} of chain {}", audit.seq, audit.epoch, audit.chain),
        );
        if let Some(changed) = &audit.changed {
            row("audit changed", Style::Bad, changed);
        }
    }
    let (held, lacking): (Vec<_>, Vec<_>) = report.protections.iter().partition(|held| held.enforced);
    if report.daemon_running && !report.protections.is_empty() {
        let names: Vec<&str> = held.iter().map(|held| held.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        row("protections", if held.is_empty() { Style::Bad } else { Style::Good }, &names);
    }
    for protection in lacking {
        row("not in force", Style::Bad, &format!("{}: {}", protection.name, protection.means));
    }
    if let Some(spilled) = report.memory.as_ref().and_then(SecretMemory::swappable) {
        row("memory", Style::Warn, &format!("{spilled}; {RAISE_LOCKED}"));
    }
    for protection in &report.missing {
        row("missing", Style::Bad, protection);
    }
}
