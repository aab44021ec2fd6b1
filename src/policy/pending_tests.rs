#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::new(1_780_000_000 + second, 0).unwrap()
}

fn sighting(number: u8) -> Sighting {
    Sighting {
        times: 1,
        path: PathBuf::from(format!("/bin/{number}")),
        digest: Digest::new([number; 32]),
        pid: 7,
        command_line: CommandLine::masked([&b"tool"[..], b"--token=abc", b"--password", b"hunter2"]),
        action: Some(Action::Read),
        service: Some(Service::parse("aws").unwrap()),
        targets: vec![Target::parse("production/KEY").unwrap()],
    }
}

#[test]
fn a_stranger_seen_again_is_counted_and_its_latest_request_kept() {
    let mut queue = PendingQueue::default();
    queue.record(sighting(1), at(0));
    queue.record(Sighting { pid: 8, action: None, ..sighting(1) }, at(5));
    queue.record(Sighting { path: "/bin/other".into(), ..sighting(1) }, at(6));
    let all: Vec<_> = queue.iter().collect();
    assert_eq!(all.len(), 2, "one for a path and hash");
    assert_eq!((all[0].count(), all[0].first_seen(), all[0].last_seen()), (2, at(0), at(5)));
    assert_eq!((all[0].sighting().pid, all[0].sighting().action), (8, None));
}

#[test]
fn of_129_strangers_the_one_seen_longest_ago_leaves() {
    let mut queue = PendingQueue::default();
    for number in 0..128 {
        queue.record(sighting(number), at(number.into()));
    }
    queue.record(sighting(0), at(200));
    queue.record(sighting(128), at(201));
    assert_eq!(queue.len(), MAX_PENDING);
    let has = |number: u8| queue.with_digest(&Digest::new([number; 32])).count() == 1;
    assert!(has(0) && has(128) && !has(1) && has(2));
}

#[test]
fn a_stranger_is_forgotten_after_a_day_and_one_from_the_future_too() {
    let mut queue = PendingQueue::default();
    queue.record(sighting(1), at(0));
    queue.expire(at(24 * 3600));
    assert_eq!(queue.len(), 1);
    queue.expire(at(24 * 3600 + 1));
    assert!(queue.is_empty());
    queue.record(sighting(1), at(100_000));
    queue.expire(at(0));
    assert!(queue.is_empty());
}

#[test]
fn of_many_targets_eight_are_kept_and_the_others_counted() {
    let targets = (0..1024).map(|number| Target::parse(&format!("t{number}")).unwrap()).collect();
    let mut queue = PendingQueue::default();
    queue.record(Sighting { targets, ..sighting(1) }, at(0));
    let pending = queue.iter().next().unwrap();
    assert_eq!((pending.sighting().targets.len(), pending.targets_omitted()), (8, 1016));
    assert_eq!(PendingQueue::parse(&queue.render()), Some(queue));
}

#[test]
fn remove_takes_a_hash_at_every_path_or_at_one() {
    let mut queue = PendingQueue::default();
    queue.record(sighting(1), at(0));
    queue.record(Sighting { path: "/bin/other".into(), ..sighting(1) }, at(0));
    let digest = Digest::new([1; 32]);
    assert_eq!(queue.clone().remove(&digest, None), 2);
    assert_eq!(queue.remove(&digest, Some(Path::new("/bin/other"))), 1);
    assert_eq!(queue.remove(&Digest::new([9; 32]), None), 0);
    let left: Vec<_> = queue.iter().map(|pending| pending.sighting().path.clone()).collect();
    assert_eq!(left, [Path::new("/bin/1")]);
    assert!(!queue.is_empty());
}

#[test]
fn whoever_is_registered_is_no_stranger_any_more() {
    let mut queue = PendingQueue::default();
    queue.record(sighting(1), at(0));
    queue.record(sighting(2), at(0));
    let entry = format!(r#"{{"path":"/bin/1","hash":"sha256:{}"}}"#, "01".repeat(32));
    let config = format!(r#"{{"protocol_version":"1","registered_binaries":[{entry}]}}"#);
    queue.forget_registered(&Policy::parse(config.as_bytes()).unwrap(), at(1));
    let left: Vec<_> = queue.iter().map(|pending| pending.sighting().path.clone()).collect();
    assert_eq!(left, [Path::new("/bin/2")]);
}

#[test]
fn limits_hold_for_what_is_read_as_well() {
    let parsed = |path: usize, targets: usize| {
        let targets = (0..targets).map(|number| Target::parse(&format!("t{number}")).unwrap()).collect();
        let pending = Pending {
            sighting: Sighting { path: PathBuf::from("p".repeat(path)), targets, ..sighting(1) },
            targets_omitted: 0,
            count: 1,
            first_seen: at(0),
            last_seen: at(0),
        };
        let bytes = PendingQueue(vec![pending]).render();
        assert!(!String::from_utf8_lossy(&bytes).contains("omitted"), "none is left out");
        PendingQueue::parse(&bytes).is_some()
    };
    assert!(parsed(MAX_PATH, MAX_TARGETS));
    assert!(!parsed(MAX_PATH + 1, 1) && !parsed(1, MAX_TARGETS + 1));
}

#[test]
fn what_is_written_is_read_back_and_shows_no_secret() {
    let mut queue = PendingQueue::default();
    queue.record(sighting(1), at(0));
    queue.record(Sighting { action: None, service: None, targets: Vec::new(), ..sighting(2) }, at(1));
    let bytes = queue.render();
    let shown = queue.iter().next().unwrap().sighting().command_line.arguments().to_vec();
    assert_eq!(shown, ["tool", "--token=***", "--password", "***"]);
    assert_eq!(PendingQueue::parse(&bytes), Some(queue));
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("--token=***") && !text.contains("abc\"") && !text.contains("hunter2"));
}

#[test]
fn another_form_is_no_queue() {
    for text in ["", "[]", "{}", r#"{"pending":[{}]}"#, r#"{"pending":{}}"#, "{\"pending\":[]} x"] {
        assert_eq!(PendingQueue::parse(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn the_largest_queue_stays_below_the_size_that_is_read() {
    let mut queue = PendingQueue::default();
    let argument = "\"".repeat(64);
    for number in 0..128 {
        let mut large = sighting(number);
        large.path = PathBuf::from(format!("/{}{number:03}", "\u{1}".repeat(4092)));
        large.command_line = CommandLine::masked(std::iter::repeat_n(argument.as_bytes(), 1000));
        large.service = Some(Service::parse(&"\"".repeat(256)).unwrap());
        large.targets = vec![Target::parse(&"\"".repeat(1024)).unwrap(); 1024];
        queue.record(large, at(0));
    }
    assert_eq!(queue.len(), 128);
    assert!(queue.render().len() < 8 * 1024 * 1024);
}

#[test]
fn a_path_that_no_program_can_have_is_not_kept() {
    let mut queue = PendingQueue::default();
    let long = |length: usize| PathBuf::from(format!("/{}", "p".repeat(length - 1)));
    queue.record(Sighting { path: long(MAX_PATH + 1), ..sighting(1) }, at(0));
    assert!(queue.is_empty());
    queue.record(Sighting { path: long(MAX_PATH), ..sighting(1) }, at(0));
    assert_eq!(queue.len(), 1);
}
