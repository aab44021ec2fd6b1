//! `check`: what the daemon would answer to a program, from config.json and the file on disk.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{args, context::Context, failure::Failure, output::Output, text::word};
use crate::{
    name::{Attributes, Service},
    policy::{Denial, Entry, Measured, Policy, Standing, decide_check},
    store::{Names, Selection},
};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The program; symbolic links are followed
    path: PathBuf,
    /// The service
    #[arg(value_parser = args::service)]
    service: Service,
    /// Print JSON; the exit code says the same
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    path: String,
    hash: String,
    service: &'a str,
    allowed: bool,
    registered: bool,
    read: bool,
    write: bool,
    search: bool,
    challenge: bool,
    relax: Vec<&'static str>,
    reason: Option<&'static str>,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let measured = Measured::take(&args.path)?;
    let policy = cx.policy_source().current(cx.uid)?;
    let standing = policy.recognise(measured.path(), measured.digest(), cx.now);
    let entry = match standing {
        Standing::Registered(entry) => Some(entry),
        Standing::Expired | Standing::HashDiffers | Standing::Unknown => None,
    };
    let refusal = match entry {
        Some(entry) => {
            decide(entry, &args.service).err().map(|denial| not_allowed(denial, &args.service, &measured))
        }
        None => Some(("unregistered_binary_pending_approval", not_recognised(standing, &policy, &measured))),
    };
    if args.json {
        out.json(&answer(args, &measured, entry, refusal.as_ref().map(|(reason, _)| *reason)));
    } else if let Some(entry) = entry
        && refusal.is_none()
    {
        out.line(&words(args, &measured, entry));
    }
    refusal.map_or(Ok(()), |(_, failure)| Err(failure))
}

/// The same decision as the daemon's.
fn decide(entry: &Entry, service: &Service) -> Result<(), Denial> {
    let asked = Selection { service: service.clone(), names: Names::All, filter: Attributes::new() };
    decide_check(entry.permissions(), &asked)
}

fn not_allowed(denial: Denial, service: &Service, measured: &Measured) -> (&'static str, Failure) {
    let reason = match denial {
        Denial::ServiceNotAllowed => "service_not_allowed",
        Denial::ActionNotInPolicy => "action_not_in_policy",
        Denial::TargetNotAllowed => "target_not_allowed",
    };
    let path = measured.path().display();
    let failure = Failure::new(
        format!("{path} is registered and may not use the service {service}"),
        format!("keychain-auth grant {} --read {}", word(measured.path()), word(Path::new(service.as_str()))),
    );
    (reason, failure)
}

fn not_recognised(standing: Standing<'_>, policy: &Policy, measured: &Measured) -> Failure {
    let path = measured.path().display();
    let unusable = policy.with_path(measured.path()).find_map(Entry::unusable);
    match (standing, unusable) {
        (Standing::Expired, _) => Failure::new(
            format!("the registration of {path} has expired"),
            "change expires_at in config.json, or unregister and register it again",
        ),
        (_, Some(what)) => Failure::new(
            format!("{path} has an entry that matches nothing: {what}"),
            "correct the entry in config.json",
        ),
        (Standing::HashDiffers, None) => Failure::new(
            format!("{path} is registered with another hash"),
            format!("if you have updated it: keychain-auth upgrade {}", word(measured.path())),
        ),
        _ => Failure::new(
            format!("{path} is not registered"),
            format!("keychain-auth register {}", word(measured.path())),
        ),
    }
}

fn answer<'a>(
    args: &'a Args,
    measured: &Measured,
    entry: Option<&Entry>,
    reason: Option<&'static str>,
) -> Answer<'a> {
    let permissions = entry.map(Entry::permissions);
    let read = permissions.is_some_and(|permissions| permissions.reads(&args.service));
    let write = permissions.is_some_and(|permissions| permissions.writes(&args.service));
    Answer {
        path: measured.path().to_string_lossy().into_owned(),
        hash: measured.digest().to_string(),
        service: args.service.as_str(),
        allowed: reason.is_none(),
        registered: entry.is_some(),
        read,
        write,
        search: (read || write) && permissions.is_some_and(|permissions| permissions.can_search()),
        challenge: entry.is_some_and(Entry::challenge),
        relax: entry.into_iter().flat_map(Entry::relaxed).map(|check| check.as_str()).collect(),
        reason,
    }
}

fn words(args: &Args, measured: &Measured, entry: &Entry) -> String {
    let permissions = entry.permissions();
    let mut may = Vec::new();
    if permissions.reads(&args.service) {
        may.push("read");
    }
    if permissions.writes(&args.service) {
        may.push("write");
    }
    if permissions.can_search() {
        may.push("search");
    }
    let relaxed: Vec<&str> = entry.relaxed().map(|check| check.as_str()).collect();
    let relaxed =
        if relaxed.is_empty() { String::new() } else { format!(" (relaxed: {})", relaxed.join(", ")) };
    format!("{} may use {}: {}{relaxed}", measured.path().display(), args.service, may.join(", "))
}
