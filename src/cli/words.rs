//! An entry in words that several commands use.

pub(super) use super::text::counted;

use super::text::moment;
use crate::{
    caller::Check,
    name::{Service, TargetPrefix},
    policy::{Entry, Grant, Permissions},
};

/// Permissions, each as `read SERVICE`, `write SERVICE` or `search`.
pub(super) fn grant(grant: &Grant) -> impl Iterator<Item = String> {
    let read = grant.read.iter().map(|service| format!("read {service}"));
    let write = grant.write.iter().map(|service| format!("write {service}"));
    read.chain(write).chain(grant.search.then(|| "search".to_owned()))
}

/// The targets that an entry is restricted to; None when every target is allowed.
pub(super) fn targets(permissions: &Permissions) -> Option<String> {
    let prefixes: Vec<&str> = permissions.target_prefixes()?.iter().map(TargetPrefix::as_str).collect();
    Some(if prefixes.is_empty() { "none".to_owned() } else { format!("{}…", prefixes.join("…, ")) })
}

/// The services, or `nothing`.
pub(super) fn services<'s>(services: impl Iterator<Item = &'s Service>) -> String {
    let list: Vec<&str> = services.map(Service::as_str).collect();
    if list.is_empty() { "nothing".into() } else { list.join(", ") }
}

/// The names of the checks that an entry turns off.
pub(super) fn relaxed(entry: &Entry) -> Vec<&'static str> {
    entry.relaxed().map(Check::as_str).collect()
}

/// The end of an entry.
pub(super) fn end(entry: &Entry, now: jiff::Timestamp) -> Option<String> {
    let expired = if entry.expired(now) { " (expired)" } else { "" };
    entry.expires_at().map(|end| format!("{}{expired}", moment(end)))
}

/// What becomes possible when a check is turned off, one clause.
pub(super) fn left_open(check: Check) -> &'static str {
    match check {
        Check::DescriptorInherited => "a program that gets its connection handed over can ask in its name",
        Check::Traced => "whoever traces it with a debugger can ask in its name",
        Check::InjectedCode => {
            "code that others load into it, for example by LD_PRELOAD, can ask in its name"
        }
        Check::ForeignNamespace => {
            "a process that pretends to run it, from a user namespace of its own, can ask in its name"
        }
        Check::UnreadablePeer => "a file system that shows it and runs something else can ask in its name",
        _ => "nothing else becomes possible",
    }
}
