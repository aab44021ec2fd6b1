//! The pure rooms, each alone: what a request costs between its system calls. `scripts/bench --rooms` runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement fails by panicking")]

use std::{fs::Permissions, os::unix::fs::PermissionsExt};

use divan::{Bencher, black_box};
use jiff::Timestamp;
use keychain_auth::{
    audit::{self, Event, Outcome},
    chain::{Head, VerificationKey, link},
    name::{Attributes, Service, Target},
    policy::{Policy, decide_change, decide_query},
    secret::{Buffer, SecretValue},
    store::{Change, Names, PendingChange, Query, Selection, Store, Vault, WriteItem},
    wire::{Action, FrameBuffer, Message, Writer},
};
use zeroizing_alloc::ZeroAlloc;

#[path = "../proptests/admitted.rs"]
#[allow(dead_code, unreachable_pub, reason = "the properties use more of it")]
mod admitted;

/// As in the program: what is freed is wiped. Counts as well.
#[global_allocator]
static ALLOCATOR: divan::AllocProfiler<ZeroAlloc<std::alloc::System>> =
    divan::AllocProfiler::new(ZeroAlloc(std::alloc::System));

fn main() {
    divan::main();
}

fn target(number: usize) -> Target {
    Target::parse(&format!("prod/p{:02}/KEY_{number:06}", number % 100)).unwrap()
}

fn service() -> Service {
    Service::parse("bench").unwrap()
}

fn query(count: usize) -> Query {
    let names = Names::Exact((0..count).map(target).collect());
    Query { selection: Selection { service: service(), names, filter: Attributes::new() }, values: true }
}

fn line(count: usize) -> String {
    let names: Vec<String> = (0..count).map(|number| target(number).as_str().to_owned()).collect();
    format!(r#"{{"type":"REQUEST","action":"read","service":"bench","targets":{names:?}}}"#)
}

#[divan::bench(args = [1, 100])]
fn bytes_to_frame(bencher: Bencher<'_, '_>, targets: usize) {
    let line = line(targets) + "\n";
    bencher.bench(|| {
        let mut buffer = FrameBuffer::new();
        buffer.push(line.as_bytes(), Writer { pid: 1, uid: 1 }).unwrap();
        buffer.next_frame().unwrap().unwrap()
    });
}

#[divan::bench(args = [1, 100])]
fn parse(bencher: Bencher<'_, '_>, targets: usize) {
    let line = line(targets);
    bencher.bench(|| Message::parse(black_box(&line)).unwrap());
}

#[divan::bench]
fn admit_a_caller(bencher: Bencher<'_, '_>) {
    let (policy, caller) = (admitted::policy_for(&["bench"]), admitted::caller());
    bencher.bench(|| policy.admit(black_box(&caller), Timestamp::UNIX_EPOCH).is_ok());
}

#[divan::bench(args = [1, 100])]
fn decide(bencher: Bencher<'_, '_>, targets: usize) {
    let policy = admitted::policy_for(&["bench"]);
    let admitted = admitted::admit(&policy);
    bencher.with_inputs(|| query(targets)).bench_values(|query| decide_query(&admitted, query).unwrap());
}

/// Look-up, unsealing and the copy into locked memory.
#[divan::bench(args = [1, 10, 100])]
fn read_from_the_vault(bencher: Bencher<'_, '_>, targets: usize) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    let vault = Vault::open(folder.path()).unwrap();
    let policy: Policy = admitted::policy_for(&["bench"]);
    let admitted = admitted::admit(&policy);
    let value =
        |number: usize| SecretValue::from_buffer(Buffer::from(format!("{number:026}").as_bytes())).unwrap();
    let items = (0..1000).map(|number| WriteItem { target: target(number), value: value(number) }).collect();
    let change = Change::Write { service: service(), items, attributes: Attributes::new() };
    let change = decide_change(&admitted, change).unwrap();
    let written = vault.commit(vec![PendingChange { change, record: Box::new(|_| b"{}".to_vec()) }]);
    assert!(written.into_iter().all(|one| one.is_ok()));
    bencher
        .with_inputs(|| decide_query(&admitted, query(targets)).unwrap())
        .bench_values(|query| vault.read(query).unwrap());
}

fn event(targets: usize) -> Event {
    Event {
        timestamp: Timestamp::UNIX_EPOCH,
        action: audit::Action::Request(Action::Read),
        pid: 4711,
        binary_path: "/usr/local/bin/some-tool".into(),
        binary_hash: Some(admitted::DIGEST),
        service: Some(service()),
        targets: (0..targets).map(target).collect(),
        outcome: Outcome::Granted,
        reason: None,
        detail: None,
        uid: 1000,
        count: None,
    }
}

#[divan::bench(args = [1, 100])]
fn render_a_record(bencher: Bencher<'_, '_>, targets: usize) {
    let event = event(targets);
    bencher.bench(|| black_box(&event).render());
}

#[divan::bench(args = [1, 100])]
fn chain_a_record(bencher: Bencher<'_, '_>, targets: usize) {
    let (key, rendered, mut line) =
        (VerificationKey::generate().unwrap(), event(targets).render(), Vec::new());
    let (epoch, before) = (key.first(), Head { chain: key.chain(), ..Head::default() });
    bencher.bench_local(|| link(&epoch, &before, black_box(&rendered), &mut line));
}
