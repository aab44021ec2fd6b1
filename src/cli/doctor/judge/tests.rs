#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io;

use super::{
    super::{
        facts::{
            Counted, FileState, Kind, LibraryFacts, Limit, Memory, OwnFile, PolicyFacts, Program, Role, Seal,
            Seen, Swap, SwapKind, System, Unusable, Writers, Yama,
        },
        row::{Area, State},
    },
    *,
};
use crate::{
    caller::Check,
    cli::status_query::{DaemonStatus, Found, PolicyState, Protection, VaultState},
    digest::Digest,
    policy::{Distrust, Risk},
    store::KeySource,
};

const UID: u32 = 1000;

/// A machine where nothing is to be said.
fn healthy() -> Facts {
    Facts {
        uid: UID,
        daemon: running(|_| {}),
        start: "keychain-auth start".to_owned(),
        config: "/h/config.json".into(),
        system: System {
            kernel: "6.18.1-arch1".to_owned(),
            landlock: Some(7),
            seccomp: Some(true),
            memory: Memory { of_daemon: true, limit: Limit::Bytes(8 << 20), locked: Some(4096) },
            yama: Yama::Scope(1),
            swaps: Some(Vec::new()),
        },
        files: ROLES.into_iter().map(|(role, kind)| own(role, seen(kind))).collect(),
        key_source: Some(KeySource::File),
        policy: PolicyFacts {
            state: Ok(Counted { entries: 1, warnings: Vec::new() }),
            writers: Writers::RootOnly,
            seal: Seal::Told,
        },
        programs: vec![program()],
        untold: None,
    }
}

fn running(change: impl FnOnce(&mut DaemonStatus)) -> Found {
    let protection =
        |name: &str| Protection { name: name.to_owned(), enforced: true, means: "it helps".to_owned() };
    let mut status = DaemonStatus {
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        pid: Some(7),
        config_path: Some("/h/config.json".to_owned()),
        protections: ["landlock", "seccomp"].into_iter().map(protection).collect(),
        ..DaemonStatus::default()
    };
    change(&mut status);
    Found::Running(Box::new(status))
}

const ROLES: [(Role, Kind); 12] = [
    (Role::ConfigFolder, Kind::Folder),
    (Role::Config, Kind::File),
    (Role::LinkedFolder, Kind::Folder),
    (Role::DataFolder, Kind::Folder),
    (Role::Vault, Kind::File),
    (Role::Key, Kind::File),
    (Role::Head, Kind::File),
    (Role::AuditLog, Kind::File),
    (Role::AuditState, Kind::File),
    (Role::Pending, Kind::File),
    (Role::SocketFolder, Kind::Folder),
    (Role::Socket, Kind::Socket),
];

fn seen(kind: Kind) -> Seen {
    Seen { kind, uid: UID, mode: if kind == Kind::Folder { 0o700 } else { 0o600 }, names: 1 }
}

fn own(role: Role, seen: Seen) -> OwnFile {
    OwnFile { role, path: "/h/file".into(), seen: Ok(Some(seen)) }
}

fn program() -> Program {
    Program {
        path: "/usr/bin/tool".into(),
        digest: Some(Digest::new([1; 32])),
        unusable: None,
        expired: None,
        relaxed: Vec::new(),
        file: FileState::Same,
        risks: Vec::new(),
        replaceable: false,
        libraries: Vec::new(),
    }
}

/// The rows that are not ok on a machine that differs from a healthy one.
fn remarks(change: impl FnOnce(&mut Facts)) -> Vec<Row> {
    let mut facts = healthy();
    change(&mut facts);
    judge(&facts).into_iter().filter(|row| row.state != State::Ok).collect()
}

/// The only remark, by state and name.
#[track_caller]
fn remark(change: impl FnOnce(&mut Facts)) -> (State, String) {
    let rows = remarks(change);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    (rows[0].state, rows[0].name.clone())
}

fn of_program(change: impl FnOnce(&mut Program)) -> Vec<(State, String, String)> {
    let rows = remarks(|facts| change(&mut facts.programs[0]));
    rows.into_iter().map(|row| (row.state, row.found, row.advice.unwrap())).collect()
}

#[test]
fn a_healthy_machine_gets_no_remark_and_every_remark_has_advice() {
    assert_eq!(remarks(|_| {}), []);
    for row in judge(&healthy()) {
        assert!(row.advice.is_none() && !row.means.is_empty() && !row.found.is_empty(), "{row:?}");
    }
    let rows = remarks(|facts| {
        *facts = Facts {
            daemon: Found::Nobody,
            system: System {
                kernel: "5.4".to_owned(),
                landlock: None,
                seccomp: None,
                memory: Memory { of_daemon: false, limit: Limit::Bytes(64 << 10), locked: None },
                yama: Yama::Absent,
                swaps: None,
            },
            ..healthy()
        }
    });
    assert_eq!(rows.len(), 7);
    for row in rows {
        assert!(row.advice.is_some_and(|advice| !advice.is_empty() && !advice.contains('\n')));
    }
}

#[test]
fn a_protection_that_is_not_in_force_is_bad_and_one_that_the_kernel_lacks_is_to_be_looked_at() {
    let lacking = |facts: &mut Facts| {
        facts.daemon = running(|status| status.protections[1].enforced = false);
    };
    assert_eq!(remark(lacking), (State::Bad, "seccomp".to_owned()));
    let missing = |facts: &mut Facts| {
        facts.daemon = running(|status| status.missing.push("SO_PEERPIDFD".to_owned()));
    };
    assert_eq!(remark(missing), (State::Warn, "kernel".to_owned()));
}

#[test]
fn a_daemon_that_does_not_run_or_tell_is_unknown_and_a_stranger_on_its_socket_is_bad() {
    assert_eq!(remark(|facts| facts.daemon = Found::Nobody).0, State::Unknown);
    assert_eq!(remark(|facts| facts.daemon = Found::Unwell("it is mute")).0, State::Bad);
    let silent = |facts: &mut Facts| facts.daemon = running(|status| status.protections.clear());
    assert_eq!(remark(silent), (State::Unknown, "protections".to_owned()));
}

#[test]
fn a_daemon_of_another_version_or_with_another_policy_is_said() {
    let old = |facts: &mut Facts| facts.daemon = running(|status| status.version = Some("0.0.1".to_owned()));
    assert_eq!(remark(old), (State::Warn, "daemon".to_owned()));
    let elsewhere =
        |facts: &mut Facts| facts.daemon = running(|status| status.config_path = Some("/other".to_owned()));
    assert_eq!(remark(elsewhere), (State::Warn, "config path".to_owned()));
}

#[test]
fn a_kernel_below_what_enforce_asks_for_is_bad() {
    let kernel = |release: &str| {
        let rows = remarks(|facts| facts.system.kernel = release.to_owned());
        rows.first().map_or(State::Ok, |row| row.state)
    };
    assert_eq!(kernel("6.2.99"), State::Bad);
    assert_eq!(kernel("5.15.0-generic"), State::Bad);
    assert_eq!(kernel("6.3.0"), State::Warn);
    assert_eq!(kernel("6.5"), State::Ok);
    assert_eq!(kernel("7.0-rc1"), State::Ok);
    assert_eq!(kernel("unreadable"), State::Unknown);
    let landlock = |abi| remarks(|facts| facts.system.landlock = abi).first().map(|row| row.state);
    assert_eq!(
        (landlock(None), landlock(Some(2)), landlock(Some(3))),
        (Some(State::Bad), Some(State::Bad), None)
    );
    assert_eq!(remark(|facts| facts.system.seccomp = Some(false)).0, State::Bad);
}

#[test]
fn swap_matters_unless_it_is_memory_or_encrypted() {
    let state = |kinds: &[SwapKind]| {
        let swap = |kind: &SwapKind| Swap { name: "/dev/x".to_owned(), kind: *kind };
        let rows = remarks(|facts| facts.system.swaps = Some(kinds.iter().map(swap).collect()));
        rows.first().map_or(State::Ok, |row| row.state)
    };
    assert_eq!(state(&[SwapKind::Memory, SwapKind::Encrypted]), State::Ok);
    assert_eq!(state(&[SwapKind::Encrypted, SwapKind::Unknown]), State::Unknown);
    assert_eq!(state(&[SwapKind::Unknown, SwapKind::Unencrypted]), State::Warn);
}

#[test]
fn a_daemon_that_locks_no_memory_is_a_matter_only_where_there_is_swap() {
    let locked = |swaps, locked| {
        let rows = remarks(|facts| {
            facts.system.memory.locked = Some(locked);
            facts.system.swaps = Some(swaps);
        });
        rows.iter().any(|row| row.name == "memory locking")
    };
    let swap = || vec![Swap { name: "/swapfile".to_owned(), kind: SwapKind::Unknown }];
    assert!(locked(swap(), 0) && !locked(swap(), 64) && !locked(Vec::new(), 0));
    let small = |facts: &mut Facts| facts.system.memory.limit = Limit::Bytes(64 << 10);
    assert_eq!(remark(small), (State::Bad, "memory locking".to_owned()), "enforce would not start");
}

#[test]
fn no_file_of_ours_may_belong_to_somebody_else_or_be_written_by_others() {
    for (role, kind) in ROLES {
        let one = |seen| remark(|facts| facts.files = vec![own(role, seen)]).0;
        assert_eq!(one(Seen { uid: UID + 1, ..seen(kind) }), State::Bad, "{role:?}");
        for mode in [0o720, 0o702] {
            assert_eq!(one(Seen { mode, ..seen(kind) }), State::Bad, "{role:?}");
        }
        let other = if kind == Kind::Folder { Kind::File } else { Kind::Link };
        assert_eq!(one(Seen { kind: other, ..seen(kind) }), State::Bad, "{role:?}");
        let read = one(Seen { mode: seen(kind).mode | 0o044, ..seen(kind) });
        let harmless =
            matches!(role, Role::ConfigFolder | Role::Config | Role::LinkedFolder | Role::SocketFolder);
        assert_eq!(read, if harmless { State::Warn } else { State::Bad }, "{role:?}");
    }
}

#[test]
fn what_the_store_refuses_to_open_is_bad() {
    for role in [Role::Vault, Role::Key, Role::Head] {
        for strange in [
            Seen { uid: 0, ..seen(Kind::File) },
            Seen { mode: 0o400, ..seen(Kind::File) },
            Seen { names: 2, ..seen(Kind::File) },
        ] {
            assert_eq!(
                remark(|facts| facts.files = vec![own(role, strange)]).0,
                State::Bad,
                "{role:?} {strange:?}"
            );
        }
    }
    let of_root = Seen { uid: 0, mode: 0o644, ..seen(Kind::File) };
    assert_eq!(
        remarks(|facts| facts.files = vec![own(Role::Config, of_root)]),
        [],
        "root may own the policy, which its user must read"
    );
}

#[test]
fn a_missing_file_is_no_matter_but_those_of_a_vault_belong_together() {
    let without = |missing: &[Role]| {
        let rows = remarks(|facts| {
            for file in facts.files.iter_mut().filter(|file| missing.contains(&file.role)) {
                file.seen = Ok(None);
            }
        });
        rows.into_iter().map(|row| (row.state, row.name)).collect::<Vec<_>>()
    };
    assert_eq!(without(&ROLES.map(|(role, _)| role)), []);
    let bad = |name: &str| (State::Bad, name.to_owned());
    assert_eq!(without(&[Role::Key]), [bad("vault.key"), bad("key source")]);
    assert_eq!(without(&[Role::Vault]), [bad("vault.redb"), bad("key source")]);
    assert_eq!(without(&[Role::Head]), [bad("vault.head")]);
    assert_eq!(without(&[Role::Vault, Role::Head, Role::AuditState]), [bad("key source")], "a key alone");
    let unreadable = |facts: &mut Facts| {
        facts.files = vec![OwnFile {
            role: Role::Key,
            path: "/h/k".into(),
            seen: Err(io::ErrorKind::PermissionDenied),
        }];
    };
    assert_eq!(remark(unreadable), (State::Unknown, "vault.key".to_owned()));
}

#[test]
fn a_policy_that_denies_everything_is_bad_and_one_that_its_user_can_write_is_said() {
    let broken = |facts: &mut Facts| {
        facts.policy.state = Err(Unusable { sentence: "broken".into(), advice: "mend it".into() });
    };
    assert_eq!(remark(broken), (State::Bad, "policy".to_owned()));
    let mine = |facts: &mut Facts| facts.policy.writers = Writers::User("/h".into());
    assert_eq!(remark(mine), (State::Warn, "policy writers".to_owned()));
    let warned = |count: usize| {
        let warnings = vec!["entry 1: x".to_owned(); count];
        remarks(|facts| facts.policy.state = Ok(Counted { entries: 1, warnings })).len()
    };
    assert_eq!((warned(1), warned(20), warned(21), warned(10_000)), (1, 20, 21, 21));
}

#[test]
fn an_entry_that_matches_nothing_says_why() {
    let found =
        |change: fn(&mut Program)| of_program(change).into_iter().map(|(state, found, _)| (state, found));
    let only = |change: fn(&mut Program)| {
        let found: Vec<_> = found(change).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    };
    let warn = |found: &str| (State::Warn, found.to_owned());
    assert_eq!(only(|program| program.expired = Some("2020-01-01T00:00:00Z".into())), warn("expired"));
    assert_eq!(only(|program| program.file = FileState::Gone), warn("gone"));
    assert_eq!(only(|program| program.file = FileState::Other), warn("other hash"));
    assert_eq!(only(|program| program.file = FileState::Unread("x".into())).0, State::Unknown);
    let invalid = of_program(|program| {
        (program.digest, program.unusable, program.file) = (None, Some("bad hash"), FileState::Unasked);
    });
    assert_eq!(invalid.len(), 1);
    assert!(invalid[0].2.contains("keychain-auth upgrade /usr/bin/tool"), "{invalid:?}");
}

#[test]
fn an_older_hash_beside_the_present_one_is_told_from_a_changed_file() {
    let rows = remarks(|facts| {
        let digest = Some(Digest::new([2; 32]));
        facts.programs.push(Program { digest, file: FileState::Other, ..program() });
    });
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].found, "older hash");
    assert!(rows[0].advice.as_ref().unwrap().ends_with(&Digest::new([2; 32]).to_string()));
}

#[test]
fn each_relaxed_check_and_each_risk_has_its_row() {
    let rows = of_program(|program| {
        program.relaxed = vec![Check::Traced, Check::InjectedCode];
        program.risks = vec![
            Risk::Interpreter,
            Risk::Setuid,
            Risk::Folder { folder: "/opt/it's".into(), why: Distrust::Writable },
            Risk::ForeignFilesystem("NFS"),
        ];
    });
    let found: Vec<_> = rows.iter().map(|(state, found, _)| (*state, found.as_str())).collect();
    assert_eq!(
        found,
        [
            (State::Warn, "relaxed traced"),
            (State::Warn, "relaxed injected_code"),
            (State::Warn, "interpreter"),
            (State::Warn, "set-uid"),
            (State::Bad, "exposed"),
            (State::Warn, "network disk"),
        ]
    );
    assert_eq!(rows[4].2, r"chmod go-w '/opt/it'\''s', or install it elsewhere", "advice can be copied");
    assert_eq!(
        of_program(|program| program.risks = vec![Risk::File(Distrust::ForeignOwner)])[0].0,
        State::Bad
    );
}

#[test]
fn a_library_that_changed_is_told_and_one_that_others_can_write_is_bad() {
    let library = |file: FileState, exposed| {
        let library = LibraryFacts { path: "/h/l.so".into(), file, exposed };
        let rows = of_program(|program| program.libraries = vec![library]);
        rows.first().map(|(state, found, _)| (*state, found.clone()))
    };
    let found = |state, text: &str| Some((state, text.to_owned()));
    assert_eq!(library(FileState::Same, None), None);
    assert_eq!(library(FileState::Gone, None), found(State::Warn, "library gone"));
    assert_eq!(library(FileState::Other, None), found(State::Warn, "library changed"));
    let exposed = Some(("/h".into(), Distrust::Writable));
    assert_eq!(library(FileState::Same, exposed), found(State::Bad, "library exposed"));
}

#[test]
fn programs_that_their_user_can_replace_share_one_row() {
    let rows = remarks(|facts| {
        facts.programs = vec![
            Program { replaceable: true, ..program() },
            Program { path: "/h/b".into(), replaceable: true, ..program() },
        ];
    });
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].area, rows[0].state, rows[0].found.as_str()),
        (Area::Programs, State::Warn, "2 programs")
    );
    assert!(rows[0].means.contains("/usr/bin/tool, /h/b"));
}

#[test]
fn a_seal_is_said_to_be_worth_as_much_as_the_source_of_its_key() {
    let sealed = |source: &str| {
        let rows = remarks(|facts| {
            facts.daemon = running(|status| {
                status.policy = Some(PolicyState { sealed: true, ..PolicyState::default() });
                status.vault = Some(VaultState { key_source: source.to_owned(), ..VaultState::default() });
            });
        });
        rows.into_iter().map(|row| (row.state, row.means)).collect::<Vec<_>>()
    };
    let weak = [
        ("file", "every process of yours"),
        ("keychain", "unlocked keychain"),
        ("credential", "systemd shows"),
    ];
    for (source, word) in weak {
        let rows = sealed(source);
        assert!(
            rows.len() == 1 && rows[0].0 == State::Warn && rows[0].1.contains(word),
            "{source}: {rows:?}"
        );
    }
    assert_eq!(sealed("passphrase"), []);
    let untold = remark(|facts| facts.policy.seal = Seal::Untold { copy: true });
    assert_eq!(untold, (State::Unknown, "policy seal".to_owned()));
}
