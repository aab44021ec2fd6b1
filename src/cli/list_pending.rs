//! `list-pending`: the programs that asked and are not registered.

use serde::Serialize;

use super::{
    acceptance::Acceptance,
    arrivals::await_arrivals,
    context::Context,
    failure::Failure,
    output::{Output, Style},
    text::moment,
};
use crate::{
    name::{Service, Target},
    policy::Pending,
};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    await_arrivals(cx, out);
    let (mut queue, foreign) = cx.pending_file().load(cx.now)?;
    // an edit that the daemon does not accept hides nobody
    if let (Ok(policy), None) = (cx.policy_source().current(cx.uid), Acceptance::ask(cx).refusal()) {
        queue.forget_registered(&policy, cx.now);
    }
    if let Some(foreign) = foreign {
        out.note(&format!("warning: {foreign}"));
    }
    if args.json {
        let pending: Vec<PendingJson> = queue.iter().map(json).collect();
        out.json(&Listing { pending });
        return Ok(());
    }
    if queue.is_empty() {
        out.note("No program waits for approval");
        return Ok(());
    }
    for pending in queue.iter() {
        show(pending, out);
    }
    out.note("To let one in: keychain-auth approve HASH; to forget it: keychain-auth deny HASH");
    Ok(())
}

fn show(pending: &Pending, out: &mut Output) {
    let sighting = pending.sighting();
    out.cells(&[(Style::Bold, &sighting.path.to_string_lossy())]);
    let mut row = |name: &str, value: &str| out.line(&format!("  {name:<8}{value}"));
    row("hash", &sighting.digest.to_string());
    row("process", &format!("{} {}", sighting.pid, sighting.command_line.arguments().join(" ")));
    let times = if pending.count() == 1 { "once" } else { &format!("{} times", pending.count()) };
    row(
        "seen",
        &format!("{times}, first {}, last {}", moment(pending.first_seen()), moment(pending.last_seen())),
    );
    if let Some(action) = sighting.action {
        let service = sighting.service.as_ref().map_or("an unnamed service", Service::as_str);
        row("asked", &format!("{} {service}{}", action.as_str(), targets(pending)));
    }
}

fn targets(pending: &Pending) -> String {
    let names: Vec<&str> = pending.sighting().targets.iter().map(Target::as_str).collect();
    match (names.is_empty(), pending.targets_omitted()) {
        (true, _) => String::new(),
        (false, 0) => format!(": {}", names.join(", ")),
        (false, more) => format!(": {} and {more} more", names.join(", ")),
    }
}

#[derive(Serialize)]
struct Listing<'q> {
    pending: Vec<PendingJson<'q>>,
}

#[derive(Serialize)]
struct PendingJson<'q> {
    path: String,
    hash: String,
    pid: u32,
    command_line: &'q [String],
    first_seen: String,
    last_seen: String,
    count: u64,
    action: Option<&'static str>,
    service: Option<&'q str>,
    targets: Vec<&'q str>,
    targets_omitted: u64,
}

fn json(pending: &Pending) -> PendingJson<'_> {
    let sighting = pending.sighting();
    PendingJson {
        path: sighting.path.to_string_lossy().into_owned(),
        hash: sighting.digest.to_string(),
        pid: sighting.pid,
        command_line: sighting.command_line.arguments(),
        first_seen: moment(pending.first_seen()),
        last_seen: moment(pending.last_seen()),
        count: pending.count(),
        action: sighting.action.map(|action| action.as_str()),
        service: sighting.service.as_ref().map(Service::as_str),
        targets: sighting.targets.iter().map(Target::as_str).collect(),
        targets_omitted: pending.targets_omitted(),
    }
}
