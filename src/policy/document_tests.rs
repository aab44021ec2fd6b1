#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use super::*;

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn config(entries: &str) -> String {
    format!(r#"{{"protocol_version":"1","registered_binaries":[{entries}]}}"#)
}

fn policy(entries: &str) -> Policy {
    Policy::parse(config(entries).as_bytes()).unwrap()
}

fn now() -> Timestamp {
    "2026-05-21T10:34:02Z".parse().unwrap()
}

fn service(name: &str) -> Service {
    Service::parse(name).unwrap()
}

fn warnings(policy: &Policy) -> Vec<&str> {
    policy.warnings().iter().map(Warning::what).collect()
}

fn standing<'p>(policy: &'p Policy, path: &str, hash: &str) -> Standing<'p> {
    policy.recognise(Path::new(path), &Digest::parse(hash).unwrap(), now())
}

#[test]
fn an_entry_matches_on_path_and_hash_and_nothing_else() {
    let policy = policy(&format!(r#"{{"path":"/bin/a","hash":"{A}","allowed_read_services":["aws"]}}"#));
    let Standing::Registered(entry) = standing(&policy, "/bin/a", A) else { panic!("not registered") };
    assert!(entry.permissions().reads(&service("aws")));
    assert!(!entry.permissions().writes(&service("aws")));
    assert!(!entry.permissions().reads(&service("AWS")), "services are case-sensitive");
    assert!(!entry.permissions().can_search());
    assert_eq!(standing(&policy, "/bin/a", B), Standing::HashDiffers);
    assert_eq!(standing(&policy, "/bin/b", A), Standing::Unknown);
    assert_eq!(standing(&Policy::empty(), "/bin/a", A), Standing::Unknown);
}

#[test]
fn the_58_digit_hash_of_the_quickstart_matches_nothing_and_is_a_warning_not_an_error() {
    let policy = policy(
        r#"{"path":"/bin/a","hash":"sha256:fd7ecae9159e6f93a25178d3489fbffa7219917ca12567d5e42b156948"}"#,
    );
    assert_eq!(warnings(&policy), [BAD_HASH]);
    assert_eq!(standing(&policy, "/bin/a", A), Standing::HashDiffers);
    assert!(!policy.candidate(Path::new("/bin/a"), 10), "nothing to compare a hash with");
    assert!(policy.knows_path(Path::new("/bin/a")));
    assert_eq!(policy.warnings()[0].to_string(), format!("entry 1 (/bin/a): {BAD_HASH}"));
}

#[test]
fn two_entries_with_the_same_path_and_hash_both_match_nothing() {
    let policy = policy(&format!(
        r#"{{"path":"/bin/a","hash":"{A}","allowed_read_services":["aws"]}},{{"path":"/bin/b","hash":"{A}"}},
           {{"path":"/bin/a","hash":"{A}","allowed_write_services":["aws"]}}"#
    ));
    assert_eq!(standing(&policy, "/bin/a", A), Standing::Unusable(TWICE));
    assert!(
        matches!(standing(&policy, "/bin/b", A), Standing::Registered(_)),
        "same bytes at two paths are fine"
    );
    assert_eq!(warnings(&policy), [TWICE, TWICE]);
}

#[test]
fn a_path_may_be_registered_with_several_hashes() {
    let policy = policy(&format!(
        r#"{{"path":"/bin/a","hash":"{A}","size":1}},{{"path":"/bin/a","hash":"{B}","size":2}}"#
    ));
    assert!(matches!(standing(&policy, "/bin/a", A), Standing::Registered(entry) if entry.size() == Some(1)));
    assert!(matches!(standing(&policy, "/bin/a", B), Standing::Registered(entry) if entry.size() == Some(2)));
    let candidate = |size| policy.candidate(Path::new("/bin/a"), size);
    assert!(candidate(1) && candidate(2) && !candidate(3));
}

#[test]
fn an_entry_without_size_is_worth_hashing_at_any_size() {
    let policy = policy(&format!(r#"{{"path":"/bin/a","hash":"{A}"}}"#));
    assert!(policy.candidate(Path::new("/bin/a"), 7));
    assert!(!policy.candidate(Path::new("/bin/b"), 7));
}

#[test]
fn what_an_entry_says_of_itself_is_told_as_it_stands_and_what_it_does_not_say_is_not() {
    let policy = policy(&format!(
        r#"{{"path":"/bin/a","hash":"{A}","registered_at":"2026-05-21T10:34:02Z","comment":"mine"}},{{"path":"/bin/b"}}"#
    ));
    let said: Vec<_> =
        policy.entries().iter().map(|entry| (entry.registered_at(), entry.comment(), entry.size())).collect();
    assert_eq!(said, [(Some(now()), Some("mine"), None), (None, None, None)]);
}

#[test]
fn an_entry_ends_at_the_very_second_of_its_expiry() {
    let at = |end: &str| {
        policy(&format!(r#"{{"path":"/bin/a","hash":"{A}","expires_at":"{end}"}}"#)).recognise(
            Path::new("/bin/a"),
            &Digest::parse(A).unwrap(),
            now(),
        ) == Standing::Expired
    };
    assert!(at("2026-05-21T10:34:02Z"));
    assert!(!at("2026-05-21T10:34:03Z"));
    assert!(at("2026-05-21T12:34:00+02:00"));
}

#[test]
fn an_expiry_that_is_no_time_disables_the_entry_instead_of_lasting_for_ever() {
    let policy = policy(&format!(r#"{{"path":"/bin/a","hash":"{A}","expires_at":"next week"}}"#));
    assert_eq!(standing(&policy, "/bin/a", A), Standing::Unusable(BAD_EXPIRY));
    assert_eq!(standing(&policy, "/bin/a", B), Standing::HashDiffers);
    assert_eq!(
        (policy.fault(Path::new("/bin/a")), policy.fault(Path::new("/bin/b"))),
        (Some(BAD_EXPIRY), None)
    );
    assert_eq!(warnings(&policy), [BAD_EXPIRY]);
}

#[test]
fn a_relative_path_matches_nothing() {
    let policy = policy(&format!(r#"{{"path":"bin/a","hash":"{A}"}}"#));
    assert_eq!(standing(&policy, "bin/a", A), Standing::Unusable(BAD_PATH));
    assert_eq!(warnings(&policy), [BAD_PATH]);
}

#[test]
fn no_prefix_list_allows_every_target_and_an_empty_one_allows_none() {
    let covers = |list: &str| {
        let policy = policy(&format!(r#"{{"path":"/bin/a","hash":"{A}"{list}}}"#));
        policy.entries()[0].permissions().covers("production/KEY")
    };
    assert!(covers(""));
    assert!(!covers(r#","allowed_target_prefixes":[]"#));
    assert!(covers(r#","allowed_target_prefixes":["staging/","production/"]"#));
    assert!(
        !covers(r#","allowed_target_prefixes":[""]"#),
        "an empty prefix would cover everything: it counts as none"
    );
}

#[test]
fn what_means_nothing_allows_nothing_and_is_said() {
    let policy = policy(&format!(
        r#"{{"path":"/bin/a","hash":"{A}","allowed_read_services":["","ok"],"allowed_target_prefixes":["a\u0000"],
            "relax":["injected_code","everything"],"libraries":[{{"path":"/l.so","hash":"x"}},{{"path":"/m.so","hash":"{B}"}}]}}"#
    ));
    let entry = &policy.entries()[0];
    assert_eq!(entry.permissions().read_services().collect::<Vec<_>>(), [&service("ok")]);
    assert_eq!(entry.permissions().target_prefixes(), Some(&[][..]));
    assert_eq!(entry.relaxed().collect::<Vec<_>>(), [Check::InjectedCode]);
    assert_eq!(entry.libraries().iter().map(Library::path).collect::<Vec<_>>(), [Path::new("/m.so")]);
    let mut expected = [BAD_SERVICE, BAD_PREFIX, BAD_CHECK, BAD_LIBRARY];
    expected.sort_unstable();
    assert_eq!(warnings(&policy), expected);
    assert!(matches!(standing(&policy, "/bin/a", A), Standing::Registered(_)), "the rest of the entry holds");
}

#[test]
fn an_unknown_member_has_no_effect_and_is_said_since_it_may_be_a_misspelt_restriction() {
    let policy = policy(&format!(
        r#"{{"path":"/bin/a","hash":"{A}","comment":"known"}},{{"path":"/bin/b","hash":"{A}","x":{{"deep":[1,null]}},"Expires_At":"2020-01-01T00:00:00Z"}}"#
    ));
    assert_eq!(
        warnings(&policy),
        [r#"this version does not know its members "x", "Expires_At", which restrict nothing"#]
    );
    assert_eq!(policy.warnings()[0].entry(), 2);
    assert!(matches!(standing(&policy, "/bin/b", A), Standing::Registered(_)));
}

#[test]
fn of_many_unknown_members_the_first_few_are_named_each_once() {
    let policy = policy(&format!(
        r#"{{"path":"/bin/a","hash":"{A}","u1":1,"u2":1,"u1":1,"u3":1,"u4":1,"u5":1,"u6":1}}"#
    ));
    let said = policy.warnings()[0].to_string();
    assert!(said.contains(r#""u1", "u2", "u3", "u4", which"#), "{said}");
}

#[test]
fn every_known_member_of_another_type_breaks_the_file() {
    for (member, what) in [
        (r#""can_search":"true""#, "can_search must be true or false"),
        (r#""can_search":null"#, "can_search must be true or false"),
        (r#""allowed_read_services":"aws""#, "allowed_read_services must be a list of strings"),
        (r#""allowed_write_services":[1]"#, "allowed_write_services must be a list of strings"),
        (r#""allowed_target_prefixes":null"#, "allowed_target_prefixes must be a list of strings"),
        (r#""expires_at":1"#, "expires_at must be a string"),
        (r#""registered_at":1"#, "registered_at must be a string"),
        (r#""comment":[]"#, "comment must be a string"),
        (r#""challenge":1"#, "challenge must be true or false"),
        (r#""relax":"traced""#, "relax must be a list of strings"),
        (r#""libraries":["/l.so"]"#, "a library must be an object"),
        (r#""libraries":[{"path":"/l.so"}]"#, "a library needs a path and a hash"),
        (r#""libraries":{}"#, "libraries must be a list of objects"),
        (r#""size":-1"#, "size must be a whole number of bytes"),
        (r#""size":1.5"#, "size must be a whole number of bytes"),
        (r#""hash":1"#, "hash must be a string"),
        (r#""challenge":true,"challenge":true"#, "challenge is given twice"),
        (r#""path":"/bin/b""#, "path is given twice"),
    ] {
        let error =
            Policy::parse(config(&format!(r#"{{"path":"/bin/a",{member}}}"#)).as_bytes()).unwrap_err();
        assert_eq!(error.what, what, "{member}");
    }
}

#[test]
fn the_frame_of_the_file_is_strict() {
    for (text, what) in [
        ("", "the JSON ends too early"),
        ("[]", "the file must hold one JSON object"),
        ("{}", "protocol_version is missing"),
        (r#"{"protocol_version":1}"#, "protocol_version must be the string \"1\""),
        (r#"{"protocol_version":"2"}"#, "protocol_version must be the string \"1\""),
        (r#"{"protocol_version":"1","protocol_version":"1"}"#, "protocol_version is given twice"),
        (
            r#"{"protocol_version":"1","registered_binaries":[],"registered_binaries":[]}"#,
            "registered_binaries is given twice",
        ),
        (
            r#"{"protocol_version":"1","registered_binaries":{}}"#,
            "registered_binaries must be a list of objects",
        ),
        (r#"{"protocol_version":"1","registered_binaries":[3]}"#, "an entry must be an object"),
        (r#"{"protocol_version":"1","registered_binaries":[{}]}"#, "an entry has no path"),
        (r#"{"protocol_version":"1"} x"#, "this is not valid JSON"),
        (r#"{"protocol_version":"1",}"#, "this is not valid JSON"),
        ("\u{feff}{}", "this is not valid JSON"),
    ] {
        assert_eq!(Policy::parse(text.as_bytes()).unwrap_err().what, what, "{text}");
    }
}

#[test]
fn a_fault_is_found_at_its_line_and_column_and_never_echoed() {
    let text = "{\n  \"protocol_version\": \"1\",\n  \"registered_binaries\": [{\"path\": \"/a\", \"can_search\": \"s3cr3t\"}]\n}";
    let error = Policy::parse(text.as_bytes()).unwrap_err();
    assert_eq!((error.line, error.column), (3, 63));
    assert!(!error.to_string().contains("s3cr3t"));
    let error = Policy::parse(b"{\n\"a\xff\": 1}").unwrap_err();
    assert_eq!((error.line, error.column, error.what), (2, 3, "the file is not UTF-8"));
    let error = Policy::parse(b"{\n\"abcd\xff\": 1}").unwrap_err();
    assert_eq!((error.line, error.column), (2, 6));
}

#[test]
fn a_hundred_thousand_levels_of_nesting_in_an_unknown_member_do_no_harm() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = format!(r#"{{"x":{deep},"protocol_version":"1"}}"#);
    assert!(Policy::parse(text.as_bytes()).is_ok_and(|policy| policy.entries().is_empty()));
}

#[test]
fn an_entry_that_matches_nothing_is_known_by_its_path_and_hash_all_the_same() {
    let policy = policy(&format!(
        r#"{{"path":"/bin/a","hash":"{A}","expires_at":"next week"}},{{"path":"/bin/b","hash":"{B}"}}"#
    ));
    let knows = |path: &str, hash: &str| policy.knows(Path::new(path), &Digest::parse(hash).unwrap());
    assert!(knows("/bin/a", A) && knows("/bin/b", B));
    assert!(!knows("/bin/a", B) && !knows("/bin/b", A) && !knows("/bin/c", A));
}

#[test]
fn a_library_may_have_members_that_this_version_does_not_know() {
    let policy = policy(&format!(
        r#"{{"path":"/bin/a","hash":"{A}","libraries":[{{"path":"/l.so","note":{{"deep":[1]}},"hash":"{B}"}}]}}"#
    ));
    let [library] = policy.entries()[0].libraries() else { panic!("one library") };
    assert_eq!((library.path(), library.digest().to_string().as_str()), (Path::new("/l.so"), B));
}

#[test]
fn a_line_end_within_a_string_is_a_fault_at_the_end_of_its_line() {
    let error = Policy::parse(b"{\n\"protocol_version\": \"1\n\"}").unwrap_err();
    assert_eq!((error.line, error.column, error.what), (2, 23, "this is not valid JSON"));
    let error = Policy::parse(b"{\"protocol_version\": \"1\n\"}").unwrap_err();
    assert_eq!((error.line, error.column), (1, 24));
}
