//! `check`: what the daemon would answer to a program, from config.json and the file on disk; from the daemon itself only
//! whether it accepts that config.json.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    acceptance::Acceptance,
    args,
    context::Context,
    failure::{Failure, registering},
    list::LibraryJson,
    output::Output,
    text::{moment, word},
    words,
};
use crate::{
    name::{Attributes, Service, TargetPrefix},
    policy::{Denial, Entry, Measured, Policy, Standing, decide_check},
    store::{Names, Selection},
    wire::Reason,
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
    allowed_target_prefixes: Option<Vec<&'a str>>,
    expires_at: Option<String>,
    challenge: bool,
    relax: Vec<&'static str>,
    libraries: Vec<LibraryJson<'a>>,
    reason: Option<String>,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let measured = Measured::take(&args.path)?;
    let policy = cx.policy_source().current(cx.uid)?;
    let standing = policy.recognise(measured.path(), measured.digest(), cx.now);
    let entry = match standing {
        // the daemon compares the size before it hashes
        Standing::Registered(entry) if entry.size().is_none_or(|size| size == measured.size()) => Some(entry),
        Standing::Registered(_)
        | Standing::Expired
        | Standing::Unusable(_)
        | Standing::HashDiffers
        | Standing::Unknown => None,
    };
    let acceptance = Acceptance::ask(cx);
    let denied = acceptance.refusal().map(|(reason, failure)| (reason.to_owned(), failure));
    let refusal = denied.or_else(|| match entry {
        Some(entry) => {
            decide(entry, &args.service).err().map(|denial| not_allowed(denial, &args.service, &measured))
        }
        None => {
            let unregistered = Reason::UnregisteredBinary.as_str().to_owned();
            Some((unregistered, not_recognised(standing, &policy, &measured)))
        }
    });
    if args.json {
        out.json(&answer(args, &measured, entry, refusal.as_ref().map(|(reason, _)| reason.clone())));
    } else if let Some(entry) = entry
        && refusal.is_none()
    {
        out.line(&sentence(args, &measured, entry, cx));
    }
    if refusal.is_none() {
        acceptance.note(out);
    }
    refusal.map_or(Ok(()), |(_, failure)| Err(failure))
}

/// The same decision as the daemon's.
fn decide(entry: &Entry, service: &Service) -> Result<(), Denial> {
    let asked = Selection { service: service.clone(), names: Names::All, filter: Attributes::new() };
    decide_check(entry.permissions(), &asked)
}

fn not_allowed(denial: Denial, service: &Service, measured: &Measured) -> (String, Failure) {
    let reason = match denial {
        Denial::ServiceNotAllowed => Reason::ServiceNotAllowed,
        Denial::ActionNotInPolicy => Reason::ActionNotInPolicy,
        Denial::TargetNotAllowed => Reason::TargetNotAllowed,
    };
    let (path, program) = (measured.path().display(), word(measured.path()));
    let failure = match denial {
        Denial::TargetNotAllowed => Failure::new(
            format!("{path} is registered and may use {service}, but no target in it"),
            format!(
                "keychain-auth grant {program} --prefix PREFIX; for every target: keychain-auth grant {program} --all-targets"
            ),
        ),
        _ => Failure::new(
            format!("{path} is registered and may not use the service {service}"),
            format!("keychain-auth grant {program} --read {}", word(Path::new(service.as_str()))),
        ),
    };
    (reason.as_str().to_owned(), failure)
}

fn not_recognised(standing: Standing<'_>, policy: &Policy, measured: &Measured) -> Failure {
    let path = measured.path().display();
    match (standing, policy.fault(measured.path())) {
        (Standing::Expired, _) => Failure::new(
            format!("the registration of {path} has expired"),
            format!("give it more time: keychain-auth grant {} --expires 30d", word(measured.path())),
        ),
        (Standing::Unusable(what), _) | (_, Some(what)) => Failure::new(
            format!("{path} has an entry that matches nothing: {what}"),
            "correct the entry in config.json",
        ),
        (Standing::HashDiffers, None) if policy.with_path(measured.path()).all(unhashed) => Failure::new(
            format!(
                "{path} has an entry whose hash is none (sha256: and 64 hexadecimal digits), so it matches nothing"
            ),
            format!("if you trust the file as it is: keychain-auth upgrade {}", word(measured.path())),
        ),
        (Standing::Registered(_), None) => Failure::new(
            format!("{path} is registered with another size, so its entry matches nothing"),
            format!("if you trust the file as it is: keychain-auth upgrade {}", word(measured.path())),
        ),
        (Standing::HashDiffers, None) => Failure::new(
            format!("{path} is registered with another hash"),
            format!("if you have updated it: keychain-auth upgrade {}", word(measured.path())),
        ),
        _ => Failure::new(format!("{path} is not registered"), registering(measured.path())),
    }
}

fn unhashed(entry: &Entry) -> bool {
    entry.digest().is_none()
}

fn answer<'a>(
    args: &'a Args,
    measured: &Measured,
    entry: Option<&'a Entry>,
    reason: Option<String>,
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
        allowed_target_prefixes: permissions
            .and_then(|permissions| permissions.target_prefixes())
            .map(|prefixes| prefixes.iter().map(TargetPrefix::as_str).collect()),
        expires_at: entry.and_then(Entry::expires_at).map(moment),
        challenge: entry.is_some_and(Entry::challenge),
        relax: entry.map(words::relaxed).unwrap_or_default(),
        libraries: entry.map(Entry::libraries).unwrap_or_default().iter().map(LibraryJson::of).collect(),
        reason,
    }
}

fn sentence(args: &Args, measured: &Measured, entry: &Entry, cx: &Context) -> String {
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
    let path = measured.path().display();
    let terms = terms(entry, cx);
    let terms = if terms.is_empty() { String::new() } else { format!(" ({})", terms.join("; ")) };
    format!("{path} may use {}: {}{terms}", args.service, may.join(", "))
}

/// What restricts or widens the permission.
fn terms(entry: &Entry, cx: &Context) -> Vec<String> {
    let relaxed = words::relaxed(entry);
    let libraries = entry.libraries().iter().map(|library| library.path().display().to_string());
    let libraries: Vec<String> = libraries.collect();
    let terms = [
        words::targets(entry.permissions()).map(|targets| format!("targets: {targets}")),
        words::end(entry, cx.now).map(|end| format!("until: {end}")),
        entry.challenge().then(|| "challenge required".to_owned()),
        (!relaxed.is_empty()).then(|| format!("relaxed: {}", relaxed.join(", "))),
        (!libraries.is_empty()).then(|| format!("libraries: {}", libraries.join(", "))),
    ];
    terms.into_iter().flatten().collect()
}
