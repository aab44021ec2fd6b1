//! Tests over whole stores: one behaviour suite for every store, crashes, damage and disk errors for the vault.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::expect_used)]

use secrecy::ExposeSecret;
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{files::scratch, *};
use crate::{
    admitted::{admit, policy_for},
    name::{Attributes, Service, Target, TargetPrefix},
    policy::{Authorized, decide_change, decide_query},
    secret::{Buffer, SecretValue},
};

mod behaviour;
mod crash;
mod damage;
pub(crate) mod disk_errors;
mod keychain;
mod keychain_rekey;
mod lockable;
mod neighbours;
mod places;
mod readers;
mod rekey;
mod salvage;
#[cfg(feature = "schedules")]
mod schedules;
mod speed;
mod verify;

/// Opens a vault. A process that another test is just forking holds copies of every lock until it has executed, so a
/// vault that is in use is tried again for a while.
fn open_vault(dir: &Path) -> Result<Vault, StoreError> {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match Vault::open(dir) {
            Err(StoreError::InUse) if Instant::now() < until => thread::yield_now(),
            opened => return opened,
        }
    }
}

/// Takes a folder, as [`open_vault`] does.
fn open_taken(dir: &Path) -> Taken {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match Taken::take(dir) {
            Err(StoreError::InUse) if Instant::now() < until => thread::yield_now(),
            taken => return taken.unwrap(),
        }
    }
}

fn service(name: &str) -> Service {
    Service::parse(name).unwrap()
}

fn targets(names: &[&str]) -> Vec<Target> {
    names.iter().map(|name| Target::parse(name).unwrap()).collect()
}

fn prefixes(names: &[&str]) -> Names {
    Names::Prefix(names.iter().map(|name| TargetPrefix::parse(name).unwrap()).collect())
}

fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    let mut attributes = Attributes::new();
    for (name, value) in pairs {
        attributes.insert(name, value).unwrap();
    }
    attributes
}

fn selection(service_name: &str, names: Names, filter: &[(&str, &str)]) -> Selection {
    Selection { service: service(service_name), names, filter: attributes(filter) }
}

fn query(selection: Selection, values: bool) -> Authorized<Query> {
    let policy = policy_for(&[selection.service.as_str()]);
    decide_query(&admit(&policy), Query { selection, values }).unwrap()
}

fn secret(text: &str) -> SecretValue {
    SecretValue::from_buffer(Buffer::from(text.as_bytes())).unwrap()
}

/// A change whose audit line is `word` and the names it touched.
fn pending(word: &str, service: &Service, change: Change) -> PendingChange {
    let word = word.to_owned();
    let record = move |touched: &[Target]| {
        let names: Vec<&str> = touched.iter().map(Target::as_str).collect();
        format!("{word} {}", names.join(",")).into_bytes()
    };
    let policy = policy_for(&[service.as_str()]);
    PendingChange { change: decide_change(&admit(&policy), change).unwrap(), record: Box::new(record) }
}

fn write(name: &str, pairs: &[(&str, &str)], labels: &[(&str, &str)]) -> PendingChange {
    let items = pairs
        .iter()
        .map(|(target, value)| WriteItem { target: Target::parse(target).unwrap(), value: secret(value) })
        .collect();
    let service = service(name);
    pending(
        "write",
        &service,
        Change::Write { service: service.clone(), items, attributes: attributes(labels) },
    )
}

fn delete(selection: Selection) -> PendingChange {
    pending("delete", &selection.service.clone(), Change::Delete(selection))
}

fn commit_one(store: &dyn Store, change: PendingChange) -> Result<Committed, StoreError> {
    let mut results = store.commit(vec![change]);
    assert_eq!(results.len(), 1);
    results.pop().unwrap()
}

fn done(store: &dyn Store, change: PendingChange) {
    assert!(commit_one(store, change).unwrap().outbox().is_some());
}

/// The names and values of an answer; `-` where no value came.
fn words(answer: &Committed) -> Vec<String> {
    let word = |record: &Record| {
        let value = record.value.as_ref().map(|value| value.expose_secret().to_owned());
        format!("{}={}", record.target, value.as_deref().unwrap_or("-"))
    };
    answer.records().iter().map(word).collect()
}

fn read(store: &dyn Store, name: &str, names: Names) -> Result<Vec<String>, StoreError> {
    store.read(query(selection(name, names, &[]), true)).map(|answer| words(&answer))
}

fn lines(store: &dyn Store) -> Vec<String> {
    store.outbox().unwrap().lines.into_iter().map(|entry| String::from_utf8(entry.line).unwrap()).collect()
}

fn copy_dir(from: &Path) -> tempfile::TempDir {
    let to = scratch();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}
