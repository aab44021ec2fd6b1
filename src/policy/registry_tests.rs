#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeSet,
    os::unix::fs::{PermissionsExt, symlink},
    thread,
};

use rustix::process::geteuid;

use super::*;
use crate::{
    name::Service,
    policy::{Allowances, Distrust},
};

struct Setup {
    folder: tempfile::TempDir,
    registry: Registry<'static>,
}

fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new(folder.path().join("config/config.json"), uid());
    Setup { folder, registry }
}

fn uid() -> u32 {
    geteuid().as_raw()
}

fn now() -> Timestamp {
    "2026-05-21T10:34:02.5Z".parse().unwrap()
}

fn services(names: &[&str]) -> BTreeSet<Service> {
    names.iter().map(|name| Service::parse(name).unwrap()).collect()
}

impl Setup {
    fn config(&self) -> PathBuf {
        self.folder.path().join("config/config.json")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    fn policy(&self) -> Policy {
        Policy::parse(self.text().as_bytes()).unwrap()
    }

    /// An ELF file that is no interpreter; `salt` makes its bytes its own.
    fn tool(&self, name: &str, salt: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("\x7fELF{salt}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn candidate(&self, name: &str, salt: &str) -> Candidate {
        Candidate::examine(&self.tool(name, salt), Allowances::default(), uid()).unwrap()
    }

    fn write(&self, text: &str) {
        private_folder(self.config().parent().unwrap()).unwrap();
        fs::write(self.config(), text).unwrap();
        fs::set_permissions(self.config(), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn the_first_register_makes_a_private_folder_and_an_entry_that_allows_nothing() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    assert_eq!(setup.registry.register(&tool, now()).unwrap(), Registration::Added);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(setup.config().parent().unwrap()), 0o700);
    assert_eq!(mode(&setup.config()), 0o600);
    let policy = setup.policy();
    let entry = &policy.entries()[0];
    assert_eq!((entry.path(), entry.digest(), entry.size()), (tool.path(), Some(tool.digest()), Some(5)));
    assert_eq!(entry.permissions(), &crate::policy::Permissions::default());
    assert!(
        setup.text().contains("\"registered_at\": \"2026-05-21T10:34:02Z\"")
            || setup.text().contains("10:34:03Z")
    );
}

#[test]
fn a_known_path_keeps_its_permissions_and_gets_the_new_hash() {
    let setup = setup();
    let old = setup.candidate("tool", "1");
    let grant = Grant { read: services(&["aws"]), write: services(&["github"]), search: true };
    setup.registry.authorize(&old, &grant, now()).unwrap();
    assert_eq!(setup.registry.register(&old, now()).unwrap(), Registration::Unchanged);
    let before = setup.policy().entries()[0].permissions().clone();
    let new = setup.candidate("tool", "other bytes");
    assert_eq!(setup.registry.register(&new, now()).unwrap(), Registration::Rehashed);
    let policy = setup.policy();
    assert_eq!(policy.entries().len(), 1);
    assert_eq!(policy.entries()[0].digest(), Some(new.digest()));
    assert_eq!(policy.entries()[0].size(), Some(new.size()));
    assert_eq!(policy.entries()[0].permissions(), &before);
}

#[test]
fn upgrade_of_an_unknown_path_is_an_error_and_writes_nothing() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    let refused = setup.registry.upgrade(&tool, now());
    assert!(matches!(refused, Err(RegistryError::Draft(DraftError::UnknownPath(_)))));
    assert!(!setup.config().exists());
}

#[test]
fn the_same_bytes_may_be_registered_at_two_paths() {
    let setup = setup();
    let (a, b) = (setup.candidate("a", "same"), setup.candidate("b", "same"));
    setup.registry.register(&a, now()).unwrap();
    setup.registry.register(&b, now()).unwrap();
    let policy = setup.policy();
    assert!(policy.warnings().is_empty());
    assert_eq!(policy.entries().len(), 2);
}

#[test]
fn of_several_entries_for_a_path_none_is_chosen_by_chance() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    let path = tool.path().display();
    let entry = |digit: &str| format!(r#"{{"path":"{path}","hash":"sha256:{}"}}"#, digit.repeat(64));
    setup.write(&format!(
        r#"{{"protocol_version":"1","registered_binaries":[{},{}]}}"#,
        entry("a"),
        entry("b")
    ));
    let refused = setup.registry.register(&tool, now());
    assert!(matches!(refused, Err(RegistryError::Draft(DraftError::Ambiguous(_)))));
    let one = Digest::parse(&format!("sha256:{}", "a".repeat(64))).unwrap();
    let absent = Digest::parse(&format!("sha256:{}", "c".repeat(64))).unwrap();
    let refused = setup.registry.unregister(tool.path(), Some(&absent));
    assert!(matches!(refused, Err(RegistryError::Draft(DraftError::OtherHash(_)))));
    assert_eq!(setup.registry.unregister(tool.path(), Some(&one)).unwrap(), 1);
    let left = setup.text();
    assert!(!left.contains("aaaa") && left.contains("bbbb"), "{left}");
    assert_eq!(setup.registry.register(&tool, now()).unwrap(), Registration::Rehashed);
}

#[test]
fn unknown_members_and_the_order_of_all_members_survive_an_edit() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    let text = format!(
        r#"{{"zebra":[1,{{"deep":null}}],"registered_binaries":[{{"note":"mine","can_search":false,"path":"{}","hash":"sha256:{}","later":{{"x":1.5}}}}],"protocol_version":"1","alpha":true}}"#,
        tool.path().display(),
        "a".repeat(64)
    );
    setup.write(&text);
    setup.registry.register(&tool, now()).unwrap();
    let after = setup.text();
    let order: Vec<_> = [
        "zebra",
        "registered_binaries",
        "note",
        "can_search",
        "\"path\"",
        "\"hash\"",
        "later",
        "protocol_version",
        "alpha",
    ]
    .iter()
    .map(|name| after.find(name).unwrap())
    .collect();
    assert!(order.is_sorted(), "{after}");
    assert!(after.contains("1.5"));
}

#[test]
fn grant_and_revoke_touch_exactly_what_they_name() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    setup.registry.register(&tool, now()).unwrap();
    let grant = Grant { read: services(&["aws", "github"]), write: services(&["aws"]), search: true };
    let _ = setup.registry.grant(tool.path(), &grant, &Terms::default()).unwrap();
    let _ = setup.registry.grant(tool.path(), &grant, &Terms::default()).unwrap();
    assert_eq!(setup.text().matches("github").count(), 1, "granting twice is granting once");
    let part = Grant { read: services(&["aws"]), ..Grant::default() };
    let _ = setup.registry.revoke(tool.path(), &part, &Lift::default()).unwrap();
    let policy = setup.policy();
    let permissions = policy.entries()[0].permissions();
    assert_eq!(
        permissions.read_services().collect::<Vec<_>>(),
        services(&["github"]).iter().collect::<Vec<_>>()
    );
    assert!(permissions.writes(&Service::parse("aws").unwrap()) && permissions.can_search());
    let refused = setup.registry.grant(Path::new("/no/such/tool"), &grant, &Terms::default());
    assert!(matches!(refused, Err(RegistryError::Draft(DraftError::UnknownPath(_)))));
}

#[test]
fn revoke_says_what_no_entry_of_the_path_had() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    setup.registry.register(&tool, now()).unwrap();
    let grant = Grant { read: services(&["aws"]), search: true, ..Grant::default() };
    let _ = setup.registry.grant(tool.path(), &grant, &Terms::default()).unwrap();
    let (absent, _) = setup.registry.revoke(tool.path(), &grant, &Lift::default()).unwrap();
    assert_eq!(absent, Grant::default(), "it had all of it");
    let (absent, _) = setup.registry.revoke(tool.path(), &grant, &Lift::default()).unwrap();
    assert_eq!(absent, grant, "and has none of it now");
}

#[test]
fn unregister_removes_every_entry_of_the_path_and_no_other() {
    let setup = setup();
    let (a, b) = (setup.candidate("a", "1"), setup.candidate("b", "2"));
    setup.registry.register(&a, now()).unwrap();
    setup.registry.register(&b, now()).unwrap();
    assert_eq!(setup.registry.unregister(a.path(), None).unwrap(), 1);
    let policy = setup.policy();
    assert!(!policy.knows_path(a.path()) && policy.knows_path(b.path()));
    assert!(setup.registry.unregister(a.path(), None).is_err());
}

#[test]
fn a_broken_or_untrusted_file_is_never_overwritten() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    let broken = "{\n \"protocol_version\": \"1\",\n}";
    setup.write(broken);
    let error = setup.registry.register(&tool, now()).unwrap_err().to_string();
    assert_eq!(error, format!("{}:3:1: this is not valid JSON", setup.config().display()));
    assert_eq!(setup.text(), broken);
    setup.write(r#"{"protocol_version":"1"}"#);
    fs::set_permissions(setup.config(), fs::Permissions::from_mode(0o666)).unwrap();
    let refused = setup.registry.register(&tool, now());
    assert!(matches!(
        refused,
        Err(RegistryError::Policy(PolicyError::Untrusted { why: Distrust::Writable, .. }))
    ));
    assert_eq!(setup.text(), r#"{"protocol_version":"1"}"#);
}

#[test]
fn a_folder_that_others_can_write_is_not_used() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    private_folder(setup.config().parent().unwrap()).unwrap();
    fs::set_permissions(setup.config().parent().unwrap(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        setup.registry.register(&tool, now()),
        Err(RegistryError::Policy(PolicyError::Untrusted { why: Distrust::Writable, .. }))
    ));
    assert!(!setup.config().exists());
}

#[test]
fn an_edit_through_a_symbolic_link_replaces_its_target_and_keeps_the_link() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    private_folder(setup.config().parent().unwrap()).unwrap();
    let real = setup.folder.path().join("dotfile.json");
    symlink(&real, setup.config()).unwrap();
    let dangling = setup.registry.register(&tool, now());
    assert!(matches!(
        dangling,
        Err(RegistryError::Policy(PolicyError::Untrusted { why: Distrust::DanglingLink, .. }))
    ));
    fs::write(&real, r#"{"protocol_version":"1"}"#).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
    setup.registry.register(&tool, now()).unwrap();
    assert!(fs::symlink_metadata(setup.config()).unwrap().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().contains("sha256:"));
}

#[test]
fn eight_registrations_at_once_lose_nothing() {
    let setup = setup();
    let tools: Vec<_> = (0..8).map(|n| setup.candidate(&format!("tool{n}"), &n.to_string())).collect();
    thread::scope(|scope| {
        for tool in &tools {
            scope.spawn(|| setup.registry.register(tool, now()).unwrap());
        }
    });
    let policy = setup.policy();
    assert!(tools.iter().all(|tool| policy.knows_path(tool.path())));
    assert_eq!(policy.entries().len(), 8);
}

#[test]
fn what_an_interrupted_edit_left_behind_is_cleared_and_leaves_no_litter() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    setup.write(r#"{"protocol_version":"1"}"#);
    let left = setup.config().with_file_name("config.json.new");
    fs::write(&left, "half").unwrap();
    setup.registry.register(&tool, now()).unwrap();
    assert!(!left.exists());
    assert_eq!(setup.policy().entries().len(), 1);
}

/// What a seal was asked: what is there, and what shall be there.
type Asked = std::sync::Mutex<Vec<(Option<Vec<u8>>, Vec<u8>)>>;

/// The same registry, whose edits `asked` sees first; `seals` says whether they can be sealed.
fn sealed<'s>(setup: &Setup, asked: &'s Asked, seals: bool) -> Registry<'s> {
    Registry::new(setup.config(), uid()).sealed_by(Box::new(move |there, after| {
        asked.lock().unwrap().push((there.map(<[u8]>::to_vec), after.to_vec()));
        let refusal = || RegistryError::Unsealable { sentence: "no".into(), advice: "none".into() };
        if seals { Ok(()) } else { Err(refusal()) }
    }))
}

#[test]
fn an_edit_of_a_sealed_policy_is_sealed_before_it_is_written() {
    let setup = setup();
    let (a, b) = (setup.candidate("a", "1"), setup.candidate("b", "2"));
    let asked = Asked::default();
    sealed(&setup, &asked, true).register(&a, now()).unwrap();
    let first = setup.text().into_bytes();
    sealed(&setup, &asked, true).register(&b, now()).unwrap();
    let second = setup.text().into_bytes();
    assert_ne!(first, second);
    sealed(&setup, &asked, true).register(&b, now()).unwrap();
    let told = asked.into_inner().unwrap();
    let expected = [(None, first.clone()), (Some(first), second.clone()), (Some(second.clone()), second)];
    assert_eq!(told, expected, "an edit that changes nothing asks whether what is there was sealed");
}

#[test]
fn an_edit_that_can_not_be_sealed_leaves_the_file_as_it_is() {
    let setup = setup();
    let (a, b) = (setup.candidate("a", "1"), setup.candidate("b", "2"));
    let asked = Asked::default();
    let refused = |edited: Result<Registration, RegistryError>| {
        assert!(matches!(edited, Err(RegistryError::Unsealable { .. })), "{edited:?}");
    };
    refused(sealed(&setup, &asked, false).register(&a, now()));
    assert!(!setup.config().exists());
    setup.registry.register(&a, now()).unwrap();
    let before = setup.text();
    refused(sealed(&setup, &asked, false).register(&b, now()));
    refused(sealed(&setup, &asked, false).register(&a, now()));
    assert_eq!(setup.text(), before);
}

#[test]
fn that_a_sealed_policy_is_gone_is_said_before_that_its_entries_are() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    let asked = Asked::default();
    let gone = sealed(&setup, &asked, false).unregister(tool.path(), None);
    assert!(matches!(gone, Err(RegistryError::Unsealable { .. })), "{gone:?}");
    let unknown = sealed(&setup, &asked, true).unregister(tool.path(), None);
    assert!(matches!(unknown, Err(RegistryError::Draft(DraftError::UnknownPath(_)))), "{unknown:?}");
    assert_eq!(asked.into_inner().unwrap(), [(None, vec![]), (None, vec![])]);
    assert!(!setup.config().exists());
}

#[test]
fn a_library_is_trusted_by_path_and_hash_and_distrusted_again() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    setup.registry.register(&tool, now()).unwrap();
    let path = setup.tool("l.so", "library");
    let library = LibraryFile::candidate(&path, Allowances::default(), uid()).unwrap();
    setup.registry.trust_library(tool.path(), &library).unwrap();
    let policy = setup.policy();
    let [pinned] = policy.entries()[0].libraries() else { panic!("one library") };
    assert_eq!((pinned.path(), pinned.digest()), (library.path(), library.digest()));
    setup.registry.distrust_library(tool.path(), library.path()).unwrap();
    assert!(setup.policy().entries()[0].libraries().is_empty());
    let again = setup.registry.distrust_library(tool.path(), library.path());
    assert!(matches!(again, Err(RegistryError::Draft(DraftError::UnknownLibrary { .. }))));
}

#[test]
fn an_edit_that_would_make_the_file_too_large_to_be_read_is_refused() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    let head = r#"{"protocol_version":"1","comment":""#;
    let filled = |count: usize| format!("{head}{}\"}}", "x".repeat(count));
    setup.write(&filled(0));
    setup.registry.register(&tool, now()).unwrap();
    let most = MAX_CONFIG as usize;
    setup.write(&filled(most - setup.text().len()));
    setup.registry.register(&tool, now()).unwrap();
    assert!(setup.text().len() == most && setup.policy().knows_path(tool.path()), "as large as it may be");
    let full = filled(most - head.len() - 2);
    setup.write(&full);
    let refused = setup.registry.register(&tool, now());
    assert!(matches!(&refused, Err(RegistryError::TooLarge(file)) if *file == setup.config()), "{refused:?}");
    assert!(setup.text() == full, "the file that can be read stays");
}

#[test]
fn where_nothing_can_be_written_the_file_or_folder_in_the_way_is_named() {
    let setup = setup();
    let tool = setup.candidate("tool", "1");
    let folder = setup.config().parent().unwrap().to_owned();
    let in_the_way = |expected: &Path| {
        let refused = setup.registry.register(&tool, now());
        assert!(
            matches!(&refused, Err(RegistryError::Unwritable { file, .. }) if file == expected),
            "{refused:?}"
        );
    };
    fs::write(&folder, "a file").unwrap();
    in_the_way(&folder);
    fs::remove_file(&folder).unwrap();
    fs::create_dir_all(folder.join("config.lock")).unwrap();
    in_the_way(&folder.join("config.lock"));
    fs::remove_dir(folder.join("config.lock")).unwrap();
    fs::create_dir(folder.join("config.json.new")).unwrap();
    in_the_way(&setup.config());
    assert!(!setup.config().exists());
}
