//! The wire: cut anywhere, spelled in any way, a line means the same; changed in any one place it is refused, and the
//! refusal repeats nothing.

use std::collections::BTreeMap;

use keychain_auth::{
    name::{MAX_ATTRIBUTE_VALUE, MAX_ATTRIBUTES, MAX_SERVICE, MAX_TARGET},
    wire::{FrameBuffer, FrameError, Message, Problem, Writer, limits::MAX_LINE},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use crate::laws::{
    contract::{Asked, Meaning},
    frames, reply, request,
};

/// A word that no error text has, to be found where it is echoed.
const MARKER: &str = "Xq7Zm2Kw";

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z/:]{1,8}", 1 => "[^\\p{Cc}]{1,20}"]
}

fn any_attributes() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(any_name(), "(?s).{0,8}", 0..4)
}

prop_compose! {
    /// A request that the contract allows.
    fn any_request()(
        action in select(vec!["read", "write", "delete", "search", "check"]),
        service in any_name(),
        prefix: bool,
        all_names: bool,
        targets in proptest::collection::btree_map(any_name(), "(?s).{0,20}", 1..6),
        attributes in any_attributes(),
        nonce in option::of("[0-9a-f]{64}"),
    ) -> Asked {
        let (writes, searches) = (action == "write", action == "search");
        let prefix = prefix && !writes;
        let all_names = all_names && !prefix && (searches || action == "check");
        let takes_attributes = writes || searches || (prefix && action != "check");
        let (names, values): (Vec<_>, Vec<_>) = targets.into_iter().unzip();
        Asked {
            action: action.to_owned(),
            service,
            prefix,
            targets: (!all_names).then_some(names),
            values: if writes { values } else { Vec::new() },
            attributes: if takes_attributes { attributes } else { BTreeMap::new() },
            nonce,
        }
    }
}

fn any_meaning() -> impl Strategy<Value = Meaning> {
    prop_oneof![
        1 => Just(Meaning::Hello),
        1 => Just(Meaning::Status),
        14 => any_request().prop_map(Meaning::Request),
    ]
}

/// A member and its value as they stand in a line.
type Member = (String, String);

fn members(meaning: &Meaning) -> Vec<Member> {
    request::members(meaning).into_iter().map(|(name, value)| (name, value.to_string())).collect()
}

fn line(members: &[Member]) -> String {
    let members: Vec<_> = members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", members.join(","))
}

/// The value in every other type of JSON.
fn retyped(value: &str) -> Vec<String> {
    let wrapped = [format!("[{value}]"), format!("{{\"x\":{value}}}")];
    let others = ["null", "true", "0", "-1.5e3", "{}", "[]", "[null]", "[[]]", "\"\""].map(str::to_owned);
    // an empty map of attributes is allowed
    others.into_iter().chain(wrapped).filter(|other| value.as_bytes()[0] != b'{' || other != "{}").collect()
}

fn bytes_of_lines() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => Just(b"\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        4 => "\\PC{0,6}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..4),
    ];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(crate::config(1024))]

    #[test]
    fn the_chunks_do_not_matter_only_who_wrote_them(
        stream in bytes_of_lines(), cuts in vec((1..9_usize, any::<bool>()), 1..80),
    ) {
        let (mut left, mut chunks) = (stream.len(), Vec::new());
        for (length, other) in cuts {
            let length = length.min(left);
            left -= length;
            // the kernel gives no empty chunk but the end of the stream
            if length > 0 {
                chunks.push((length, other));
            }
        }
        if left > 0 {
            chunks.push((left, false));
        }
        frames::cut_like(&stream, &chunks);
        chunks.iter_mut().for_each(|(_, other)| *other = false);
        frames::cut_like(&stream, &chunks);
    }

    #[test]
    fn what_a_client_means_is_what_is_understood_in_every_spelling(meaning in any_meaning()) {
        for spelling in request::spellings(&meaning) {
            let understood = Message::parse(&spelling).map(request::meaning_of);
            prop_assert_eq!(understood.as_ref(), Ok(&meaning));
        }
    }

    #[test]
    fn a_member_twice_is_refused_wherever_it_stands_and_however_it_is_spelled(
        meaning in any_meaning(), which: prop::sample::Index, place: prop::sample::Index, escaped: bool,
    ) {
        let mut members = members(&meaning);
        let (name, value) = members[which.index(members.len())].clone();
        let again = if escaped { "TWICE".to_owned() } else { name.clone() };
        members.insert(place.index(members.len() + 1), (again, value));
        let unit = name.encode_utf16().next().unwrap();
        let line = line(&members).replace("TWICE", &format!("\\u{unit:04x}{}", &name[1..]));
        prop_assert_eq!(Message::parse(&line).err().map(|error| error.problem), Some(Problem::DuplicateMember));
    }

    #[test]
    fn a_member_of_another_name_or_case_is_refused(
        meaning in any_meaning(), which: prop::sample::Index, other in "[a-z]{1,8}", instead: bool,
    ) {
        let known = ["type", "action", "service", "match", "targets", "values", "attributes", "nonce"];
        let members = members(&meaning);
        let at = which.index(members.len());
        let mut capital = members[at].0.clone();
        capital[..1].make_ascii_uppercase();
        for name in [capital, format!("{} ", members[at].0), format!("{}\0", members[at].0), other] {
            prop_assume!(!known.contains(&name.as_str()));
            let mut changed = members.clone();
            if instead { changed[at].0 = name } else { changed.push((name, members[at].1.clone())) }
            prop_assert!(Message::parse(&line(&changed)).is_err());
        }
    }

    #[test]
    fn a_member_of_another_type_is_refused(meaning in any_meaning(), which: prop::sample::Index) {
        let members = members(&meaning);
        let at = which.index(members.len());
        for value in retyped(&members[at].1) {
            let mut changed = members.clone();
            changed[at].1.clone_from(&value);
            prop_assert!(Message::parse(&line(&changed)).is_err(), "{} as {}", members[at].0, value);
        }
    }

    #[test]
    fn a_required_member_left_out_is_refused(meaning in any_request(), which: prop::sample::Index) {
        let members = members(&Meaning::Request(meaning.clone()));
        let at = which.index(members.len());
        let required = match members[at].0.as_str() {
            "type" | "action" | "service" | "values" => true,
            "targets" => meaning.prefix || matches!(meaning.action.as_str(), "read" | "write" | "delete"),
            // without it the attributes belong to no filter
            "match" => !meaning.attributes.is_empty() && meaning.action != "search",
            _ => false,
        };
        let mut rest = members.clone();
        rest.remove(at);
        prop_assert_eq!(Message::parse(&line(&rest)).is_err(), required);
    }

    #[test]
    fn anything_around_the_object_is_refused_but_white_space(meaning in any_meaning(), more in "\\PC{1,4}") {
        let line = line(&members(&meaning));
        for around in [format!("{line}{more}"), format!("{more}{line}"), format!("{line},"), format!("{line}\0")] {
            let space = more.trim_matches(' ').is_empty() && !around.ends_with([',', '\0']);
            prop_assert_eq!(Message::parse(&around).is_ok(), space);
        }
        for end in 0..line.len() {
            if line.is_char_boundary(end) {
                prop_assert!(Message::parse(&line[..end]).is_err(), "a line that was cut");
            }
        }
    }

    #[test]
    fn one_changed_byte_is_judged_as_the_contract_does_and_never_echoed(
        meaning in any_meaning(), at: prop::sample::Index, to: u8, spelling in 0..3_usize,
    ) {
        let mut bytes = request::spellings(&meaning)[spelling].clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = to;
        request::hold(&bytes);
    }

    #[test]
    fn what_is_refused_is_answered_without_a_byte_of_it(
        meaning in any_meaning(), at: prop::sample::Index, quoted: bool, text in "\\PC{0,30}",
    ) {
        let line = line(&members(&meaning));
        let at = (0..=at.index(line.len() + 1)).rev().find(|at| line.is_char_boundary(*at)).unwrap();
        let inserted = if quoted { format!("\"{MARKER}\"") } else { MARKER.to_owned() };
        for spoiled in [[&line[..at], &inserted, &line[at..]].concat(), format!("{MARKER}{text}")] {
            if let Err(error) = Message::parse(&spoiled) {
                request::says_no_more_than_the_rule(&error, &spoiled);
                let debug = format!("{error:?}");
                prop_assert!(!error.to_string().contains(MARKER) && !debug.contains(MARKER));
            }
        }
    }

    #[test]
    fn a_control_character_is_refused_raw_and_allowed_in_values_as_an_escape(
        control in 0..0x20_u8, before in "\\PC{0,4}", after in "\\PC{0,4}",
        member in select(vec!["values", "targets", "service", "nonce"]),
    ) {
        let control = char::from(control);
        let line = |inside: &str| {
            let place = |name: &str, usual: &str| if name == member { inside.to_owned() } else { usual.to_owned() };
            format!(
                r#"{{"type":"REQUEST","action":"write","service":"{}","targets":["{}"],"values":["{}"],"nonce":"{}"}}"#,
                place("service", "s"), place("targets", "t"), place("values", "v"), place("nonce", &"0".repeat(64)),
            )
        };
        let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let raw = line(&format!("{}{control}{}", quote(&before), quote(&after)));
        prop_assert_eq!(Message::parse(&raw).err().map(|error| error.problem), Some(Problem::RawControl));
        let escaped = line(&format!("{}\\u{:04x}{}", quote(&before), u32::from(control), quote(&after)));
        prop_assert_eq!(Message::parse(&escaped).is_ok(), member == "values");
    }

    #[test]
    fn every_limit_holds_to_the_byte(
        over in 0..2_usize, unit in select(vec!["x", "ü", "🔑"]), action in select(vec!["search", "write"]),
    ) {
        let long = |limit: usize| unit.repeat(limit / unit.len()) + &"y".repeat(over);
        let base = json!({"type": "REQUEST", "action": action, "service": "s", "targets": ["t"]});
        let with = |name: &str, value: Value| {
            let Value::Object(mut members) = base.clone() else { unreachable!() };
            if action == "write" {
                members.insert("values".into(), json!(["v"]));
            }
            members.insert(name.into(), value);
            Message::parse(&Value::Object(members).to_string()).is_ok()
        };
        let within = over == 0;
        prop_assert_eq!(with("service", json!(long(MAX_SERVICE))), within);
        prop_assert_eq!(with("targets", json!([long(MAX_TARGET)])), within);
        prop_assert_eq!(with("attributes", json!({long(64): ""})), within);
        prop_assert_eq!(with("attributes", json!({"n": long(MAX_ATTRIBUTE_VALUE)})), within);
        let attributes: Map<String, Value> = (0..MAX_ATTRIBUTES + over).map(|n| (n.to_string(), json!(""))).collect();
        prop_assert_eq!(with("attributes", Value::Object(attributes)), within);
        prop_assert_eq!(with("values", json!([long(65_536)])), within && action == "write");
        let many: Vec<_> = (0..1024 + over).map(|n| n.to_string()).collect();
        prop_assert_eq!(with("targets", json!(many)), within && action == "search");
    }

    #[test]
    fn records_of_any_text_are_one_line_of_json(
        records in vec((any_name(), "(?s).{0,20}", vec((any_name(), "(?s).{0,8}"), 0..3)), 0..6),
    ) {
        let written = records.iter().map(|(target, value, attributes)| {
            let attribute = |(name, value): &(String, String)| format!("\u{1f}{name}={value}");
            let attributes: String = attributes.iter().map(attribute).collect();
            format!("{target}\u{1f}{value}{attributes}")
        });
        reply::hold(written.collect::<Vec<_>>().join("\u{1e}").as_bytes());
    }
}

proptest! {
    #![proptest_config(crate::config(24))]

    #[test]
    fn a_line_is_too_long_one_byte_after_the_limit_under_any_chunks(
        over in 0..4_usize, chunk in prop_oneof![Just(1_usize << 16), 1000..200_000_usize],
        end in select(vec!["\n", "\r\n", ""]),
    ) {
        let stream = [vec![b'x'; MAX_LINE - 1 + over], end.as_bytes().to_vec()].concat();
        let mut buffer = FrameBuffer::new();
        let mut last = None;
        for part in stream.chunks(chunk) {
            buffer.push(part, Writer { pid: 1, uid: 1 }).unwrap();
            last = buffer.next_frame();
            if last.is_some() {
                break;
            }
        }
        let told = last.map(|frame| frame.map(|frame| frame.text().len()));
        let expected = match (over, end) {
            (0..=2, "") => None,
            (0 | 1, _) => Some(Ok(MAX_LINE - 1 + over)),
            _ => Some(Err(FrameError::TooLong)),
        };
        prop_assert_eq!(told, expected);
    }
}
