//! `list`: the registered programs and what each may do.

use serde::Serialize;

use super::{
    acceptance::Acceptance,
    context::Context,
    failure::Failure,
    output::{Output, Style},
    text::moment,
    words,
};
use crate::{
    name::{Service, TargetPrefix},
    policy::{Entry, Library, Policy, Warning},
};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let policy = cx.policy_source().current(cx.uid)?;
    let acceptance = Acceptance::ask(cx);
    acceptance.note(out);
    if args.json {
        out.json(&listing(&policy, &acceptance, cx));
        return Ok(());
    }
    if policy.entries().is_empty() {
        out.note("No program is registered; begin with: keychain-auth register PATH");
    }
    for entry in policy.entries() {
        show(entry, cx, out);
    }
    for warning in policy.warnings() {
        out.note(&format!("warning: {warning}"));
    }
    Ok(())
}

fn show(entry: &Entry, cx: &Context, out: &mut Output) {
    let permissions = entry.permissions();
    out.cells(&[(Style::Bold, &entry.path().to_string_lossy())]);
    match entry.digest() {
        Some(digest) => row(out, "hash", Style::Faint, &digest.to_string()),
        None => row(out, "hash", Style::Bad, "invalid: matches nothing"),
    }
    row(out, "read", Style::Plain, &words::services(permissions.read_services()));
    row(out, "write", Style::Plain, &words::services(permissions.write_services()));
    row(out, "search", Style::Plain, if permissions.can_search() { "yes" } else { "no" });
    if let Some(targets) = words::targets(permissions) {
        row(out, "targets", Style::Plain, &targets);
    }
    if let Some(end) = words::end(entry, cx.now) {
        row(out, "expires", if entry.expired(cx.now) { Style::Bad } else { Style::Plain }, &end);
    }
    if entry.challenge() {
        row(out, "challenge", Style::Plain, "required");
    }
    let relaxed = words::relaxed(entry);
    if !relaxed.is_empty() {
        row(out, "relaxed", Style::Bad, &relaxed.join(", "));
    }
    for library in entry.libraries() {
        row(out, "library", Style::Plain, &format!("{} {}", library.path().display(), library.digest()));
    }
    if let Some(comment) = entry.comment() {
        row(out, "comment", Style::Plain, comment);
    }
    if let Some(what) = entry.unusable() {
        row(out, "problem", Style::Bad, what);
    }
}

fn row(out: &mut Output, name: &str, style: Style, value: &str) {
    out.cells(&[(Style::Plain, &format!("  {name:<10}")), (style, value)]);
}

#[derive(Serialize)]
struct Listing<'p> {
    /// Whether the daemon goes by this; null where none runs to say so.
    in_force: Option<bool>,
    entries: Vec<EntryJson<'p>>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct EntryJson<'p> {
    path: &'p std::path::Path,
    hash: Option<String>,
    size: Option<u64>,
    registered_at: Option<String>,
    allowed_read_services: Vec<&'p str>,
    allowed_write_services: Vec<&'p str>,
    can_search: bool,
    allowed_target_prefixes: Option<Vec<&'p str>>,
    expires_at: Option<String>,
    expired: bool,
    challenge: bool,
    relax: Vec<&'static str>,
    libraries: Vec<LibraryJson<'p>>,
    comment: Option<&'p str>,
    problem: Option<&'static str>,
}

#[derive(Serialize)]
pub(super) struct LibraryJson<'p> {
    path: &'p std::path::Path,
    hash: String,
}

impl<'p> LibraryJson<'p> {
    pub(super) fn of(library: &'p Library) -> Self {
        Self { path: library.path(), hash: library.digest().to_string() }
    }
}

fn listing<'p>(policy: &'p Policy, acceptance: &Acceptance, cx: &Context) -> Listing<'p> {
    let in_force = match acceptance {
        Acceptance::InForce => Some(true),
        Acceptance::Refused(_) => Some(false),
        Acceptance::Untold { .. } => None,
    };
    let entries = policy.entries().iter().map(|entry| entry_json(entry, cx)).collect();
    Listing { in_force, entries, warnings: policy.warnings().iter().map(Warning::to_string).collect() }
}

fn entry_json<'p>(entry: &'p Entry, cx: &Context) -> EntryJson<'p> {
    let permissions = entry.permissions();
    EntryJson {
        path: entry.path(),
        hash: entry.digest().map(ToString::to_string),
        size: entry.size(),
        registered_at: entry.registered_at().map(moment),
        allowed_read_services: permissions.read_services().map(Service::as_str).collect(),
        allowed_write_services: permissions.write_services().map(Service::as_str).collect(),
        can_search: permissions.can_search(),
        allowed_target_prefixes: permissions
            .target_prefixes()
            .map(|prefixes| prefixes.iter().map(TargetPrefix::as_str).collect()),
        expires_at: entry.expires_at().map(moment),
        expired: entry.expired(cx.now),
        challenge: entry.challenge(),
        relax: words::relaxed(entry),
        libraries: entry.libraries().iter().map(LibraryJson::of).collect(),
        comment: entry.comment(),
        problem: entry.unusable(),
    }
}
