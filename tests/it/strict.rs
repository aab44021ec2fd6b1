//! What is no request: refused as `malformed_request`, recorded, and never echoed.

use std::fs;

use serde_json::{Value, json};

use crate::{
    client::{Client, Got, assert_refused},
    world::{Entry, World},
};

/// A line over the limit, as a flood would send it.
const NINE_MIB: usize = 9 << 20;
/// Stands in every refused request, as a secret would, and may stand nowhere else afterwards.
const MARKER: &str = "xMARKx51c9e07ax";

/// Whether the connection can be used after the refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Stays,
    Closes,
}

struct Bench {
    world: World,
    client: Client,
    pid: u32,
}

impl Bench {
    fn new() -> Self {
        let mut world = World::new();
        let tool = world.tool("tool");
        world.policy(&[Entry::all(&tool, &["s"])]);
        world.start();
        let mut client = Client::connected(&world, &tool);
        assert_eq!(client.write("s", &[("k", "v")])["status"], "success");
        let pid = client.pid();
        Self { world, client, pid }
    }

    /// Sends `bytes` (their line end included); the refusal, its record and the state after it are checked.
    #[track_caller]
    fn refuses(&mut self, what: &str, bytes: &[u8], then: Then) {
        let before = self.world.audit_of(self.pid).len();
        self.client.send(bytes);
        let Got::Line(reply) = self.client.recv() else { panic!("{what}: no reply") };
        assert_quiet(what, &reply);
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        assert_eq!(reply["reason"], "malformed_request", "{what}: {reply}");
        assert_refused(&reply, "error", "malformed_request");
        let record = crate::world::await_that(what, || self.world.audit_of(self.pid).get(before).cloned());
        assert_eq!(
            (&record["result"], &record["reason"]),
            (&json!("ERROR"), &json!("malformed_request")),
            "{what}"
        );
        assert_eq!((&record["service"], &record["targets"]), (&json!(""), &json!([])), "{what}: {record}");
        if then == Then::Closes {
            // bytes that nobody read may turn the end into a reset (ECONNRESET)
            assert!(
                matches!(self.client.recv(), Got::Eof | Got::Errno(104)),
                "{what}: the connection closes"
            );
            self.client.close();
            self.client.connect();
        }
        let alive = self.client.read("s", &["k"]);
        assert_eq!(alive["status"], "success", "{what}: the next request is served: {alive}");
        assert_eq!(self.world.audit_of(self.pid).len(), before + 2, "{what}: one record for each request");
    }

    #[track_caller]
    fn refuses_line(&mut self, what: &str, line: &str) {
        self.refuses(what, format!("{line}\n").as_bytes(), Then::Stays);
    }

    /// Ends the bench: no word of a refused request is in the daemon's log or in its files.
    fn nothing_echoed(self) {
        assert_quiet("the daemon's stderr", self.world.log().as_bytes());
        assert_quiet("audit.log", &fs::read(self.world.data().join("audit.log")).unwrap());
        let pending = fs::read(self.world.data().join("pending.json")).unwrap_or_default();
        assert_quiet("pending.json", &pending);
    }
}

#[track_caller]
fn assert_quiet(what: &str, bytes: &[u8]) {
    let found = bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes());
    assert!(!found, "{what} echoes the request");
}

/// A well-formed read of the marker's name, to be spoilt in one place.
fn read_line() -> String {
    format!(r#"{{"type":"REQUEST","action":"read","service":"{MARKER}","targets":["{MARKER}"]}}"#)
}

#[test]
fn members_must_be_known_single_and_of_their_type() {
    let mut bench = Bench::new();
    let line = read_line();
    let with = |member: &str| line.replacen('{', &format!("{{{member},"), 1);
    for (what, line) in [
        ("a duplicate type", with(r#""type":"REQUEST""#)),
        ("a duplicate service", with(r#""service":"s""#)),
        ("duplicate targets", with(r#""targets":["a"]"#)),
        ("a duplicate spelled with an escape", with(r#""\u0074ype":"REQUEST""#)),
        ("an unknown member", with(&format!(r#""{MARKER}":1"#))),
        ("an empty member", with(r#""":1"#)),
        ("a miscased member", line.replace("\"service\"", "\"Service\"")),
        ("a miscased duplicate", with(r#""Targets":["a"]"#)),
        ("a miscased type", line.replace("REQUEST", "Request")),
        ("a miscased action", line.replace("\"read\"", "\"READ\"")),
        ("a type with a blank", line.replace("REQUEST", "REQUEST ")),
        ("service null", line.replace(&format!("\"service\":\"{MARKER}\""), "\"service\":null")),
        ("service a number", line.replace(&format!("\"service\":\"{MARKER}\""), "\"service\":1")),
        ("service a list", line.replace(&format!("\"service\":\"{MARKER}\""), "\"service\":[\"s\"]")),
        ("targets null", line.replace(&format!("[\"{MARKER}\"]"), "null")),
        ("targets an object", line.replace(&format!("[\"{MARKER}\"]"), "{}")),
        ("a target null", line.replace("\"]}", "\",null]}")),
        ("a target a number", line.replace("\"]}", "\",1]}")),
        ("a target a list", line.replace("\"]}", "\",[\"a\"]]}")),
        ("match null", with(r#""match":null"#)),
        ("match true", with(r#""match":true"#)),
        ("values null in a read", with(r#""values":null"#)),
        ("attributes null", with(r#""attributes":null"#)),
        ("attributes a list", with(r#""attributes":[]"#)),
        ("an attribute a number", with(r#""attributes":{"a":1}"#)),
        ("an attribute null", with(r#""attributes":{"a":null}"#)),
        ("a duplicate attribute", with(r#""attributes":{"a":"1","a":"1"}"#)),
        ("nonce null", with(r#""nonce":null"#)),
        ("nonce too short", with(r#""nonce":"00""#)),
        ("nonce no hex", with(&format!(r#""nonce":"{}""#, "g".repeat(64)))),
        ("nonce a number", with(r#""nonce":1"#)),
    ] {
        assert_ne!(line, read_line(), "{what}");
        bench.refuses_line(what, &line);
    }
    bench.nothing_echoed();
}

#[test]
fn names_must_be_there_short_and_free_of_control_characters() {
    let mut bench = Bench::new();
    let line = read_line();
    let service =
        |text: &str| line.replace(&format!("\"service\":\"{MARKER}\""), &format!("\"service\":\"{text}\""));
    let target = |text: &str| line.replace(&format!("[\"{MARKER}\"]"), &format!("[\"{MARKER}\",\"{text}\"]"));
    let attribute = |name: &str, value: &str| {
        line.replace("\"]}", &format!("\"],\"attributes\":{{\"{name}\":\"{value}\"}}}}"))
    };
    for (what, line) in [
        ("an empty service", service("")),
        ("an empty target", target("")),
        ("an empty attribute name", attribute("", "x")),
        ("a service of 257 bytes", service(&"s".repeat(257))),
        ("a service of 129 two-byte letters", service(&"é".repeat(129))),
        ("a target of 1025 bytes", target(&"t".repeat(1025))),
        ("an attribute name of 65 bytes", attribute(&"n".repeat(65), "x")),
        ("an attribute value of 257 bytes", attribute("n", &"v".repeat(257))),
        ("an escaped NUL in a service", service("a\\u0000b")),
        ("an escaped NUL in a target", target("a\\u0000b")),
        ("an escaped newline in a target", target("a\\nb")),
        ("an escaped tab in a service", service("a\\tb")),
        ("an escaped escape in a target", target("\\u001b[2J")),
        ("DEL in a target", target("a\u{7f}b")),
        ("an escaped DEL in a service", service("a\\u007fb")),
        ("C1 in a target", target("a\u{9b}b")),
        ("an escaped C1 in a service", service("a\\u0085b")),
        ("an escaped control in an attribute name", attribute("a\\u0001b", "x")),
        ("a raw tab in a target", target("a\tb")),
        ("a raw escape character in a target", target("a\u{1b}b")),
        ("a lone high surrogate", target("\\ud800")),
        ("a lone low surrogate", target("\\udc00x")),
        ("surrogates in the wrong order", target("\\udc00\\ud800")),
        ("a high surrogate before a plain escape", target("\\ud800\\u0061")),
        ("an unknown escape", target("\\x41")),
        ("a short escape", target("\\u12")),
        ("the same target twice", target(MARKER)),
        ("the same target twice, once escaped", line.replace("\"]}", "\",\"a\",\"\\u0061\"]}")),
    ] {
        assert_ne!(line, read_line(), "{what}");
        bench.refuses_line(what, &line);
    }
    let mut raw_nul = read_line().into_bytes();
    let place = raw_nul.len() - 4;
    raw_nul[place] = 0;
    raw_nul.push(b'\n');
    bench.refuses("a raw NUL in a target", &raw_nul, Then::Stays);
    bench.nothing_echoed();
}

#[test]
fn a_lone_surrogate_in_a_value_is_refused() {
    let mut bench = Bench::new();
    let write = |value: &str| {
        format!(
            r#"{{"type":"REQUEST","action":"write","service":"s","targets":["{MARKER}"],"values":["{value}"]}}"#
        )
    };
    bench.refuses_line("a lone surrogate in a value", &write(&format!("{MARKER}\\udead")));
    bench.refuses_line("a value over 64 KiB", &write(&format!("{MARKER}{}", "v".repeat(64 << 10))));
    bench.refuses_line("an escaped value over 64 KiB", &write(&"\\u20ac".repeat((64 << 10) / 3 + 1)));
    let several = |targets: &str, values: &str| {
        format!(
            r#"{{"type":"REQUEST","action":"write","service":"s","targets":{targets},"values":{values}}}"#
        )
    };
    bench.refuses_line("fewer values than targets", &several(r#"["a","b"]"#, &format!(r#"["{MARKER}"]"#)));
    bench.refuses_line("more values than targets", &several(r#"["a"]"#, &format!(r#"["1","{MARKER}"]"#)));
    bench.refuses_line("a value null", &several(r#"["a","b"]"#, &format!(r#"["{MARKER}",null]"#)));
    bench.refuses_line("a value a number", &several(r#"["a","b"]"#, &format!(r#"["{MARKER}",1]"#)));
    bench
        .refuses_line("a target twice in a write", &several(r#"["a","a"]"#, &format!(r#"["{MARKER}","2"]"#)));
    assert_eq!(bench.client.read("s", &[MARKER, "a", "b"])["results"], json!([]), "nothing was written");
    // the last read named the marker itself: only the files and the log of refused requests count
    assert_quiet("the daemon's stderr", bench.world.log().as_bytes());
}

#[test]
fn json_must_be_whole_and_alone() {
    let mut bench = Bench::new();
    let line = read_line();
    for (what, line) in [
        ("an empty line", String::new()),
        ("blanks only", "   ".to_owned()),
        ("a word", MARKER.to_owned()),
        ("a string", format!("\"{MARKER}\"")),
        ("a list around it", format!("[{line}]")),
        ("two objects", format!("{line}{line}")),
        ("trailing bytes", format!("{line} x")),
        ("a trailing comma", line.replace("]}", "],}")),
        ("a cut object", line[..line.len() - 1].to_owned()),
        ("single quotes", line.replace('"', "'")),
        ("a comment", format!("{line}//{MARKER}")),
        ("NaN", line.replace("]}", "],\"nonce\":NaN}")),
        ("Infinity", line.replace("]}", "],\"nonce\":-Infinity}")),
        ("1e999", line.replace("]}", "],\"nonce\":1e999}")),
        ("a number of 100,000 digits", line.replace("]}", &format!("],\"nonce\":{}}}", "9".repeat(100_000)))),
        ("a leading zero", line.replace("]}", "],\"nonce\":01}")),
        ("a byte order mark", format!("\u{feff}{line}")),
        ("a no-break space before it", format!("\u{a0}{line}")),
        ("a carriage return in the middle", line.replace(",\"service", ",\r\r\"service\"x")),
    ] {
        bench.refuses_line(what, &line);
    }
    for (what, open, close) in [("lists", "[", "]"), ("objects", "{\"a\":", "}")] {
        let depth = 100_000;
        bench.refuses_line(&format!("100,000 open {what}"), &open.repeat(depth));
        bench.refuses_line(
            &format!("100,000 {what} as attributes"),
            &line
                .replace("]}", &format!("],\"attributes\":{}1{}}}", open.repeat(depth), close.repeat(depth))),
        );
    }
    bench.nothing_echoed();
}

#[test]
fn counts_are_bounded() {
    let mut bench = Bench::new();
    let targets: Vec<String> = (0..1025).map(|n| format!("{MARKER}{n}")).collect();
    let many = json!({"type": "REQUEST", "action": "read", "service": "s", "targets": targets});
    bench.refuses_line("1,025 targets", &many.to_string());
    let attributes: serde_json::Map<String, Value> =
        (0..17).map(|n| (format!("{MARKER}{n}"), json!("x"))).collect();
    let labelled = json!({"type": "REQUEST", "action": "search", "service": "s", "attributes": attributes});
    bench.refuses_line("17 attributes", &labelled.to_string());
    bench.nothing_echoed();
}

#[test]
fn hello_has_one_member() {
    let mut bench = Bench::new();
    for (what, line) in [
        ("an extra member", format!(r#"{{"type":"HELLO","x":"{MARKER}"}}"#)),
        ("a member of a request", format!(r#"{{"type":"HELLO","service":"{MARKER}"}}"#)),
        ("a duplicate type", r#"{"type":"HELLO","type":"HELLO"}"#.to_owned()),
        ("two types", r#"{"type":"HELLO","type":"REQUEST"}"#.to_owned()),
        ("a miscased type", r#"{"type":"Hello"}"#.to_owned()),
        ("a type null", r#"{"type":null}"#.to_owned()),
        ("an unknown type", format!(r#"{{"type":"{MARKER}"}}"#)),
    ] {
        bench.refuses_line(what, &line);
    }
    bench.nothing_echoed();
}

#[test]
fn bad_utf8_is_refused_and_closes_the_connection() {
    let mut bench = Bench::new();
    for (what, bytes) in [
        ("a stray continuation byte", &b"\x80"[..]),
        ("a cut sequence", b"\xe2\x82"),
        ("an overlong slash", b"\xc0\xaf"),
        ("an overlong NUL", b"\xc0\x80"),
        ("an overlong slash of three bytes", b"\xe0\x80\xaf"),
        ("an overlong slash of four bytes", b"\xf0\x80\x80\xaf"),
        ("an encoded high surrogate", b"\xed\xa0\x80"),
        ("an encoded low surrogate", b"\xed\xb0\x80"),
        ("an encoded surrogate pair", b"\xed\xa0\xbd\xed\xb8\x80"),
        ("a code point beyond Unicode", b"\xf4\x90\x80\x80"),
        ("a five-byte form", b"\xf8\x88\x80\x80\x80"),
        ("0xFE", b"\xfe"),
        ("0xFF", b"\xff"),
    ] {
        let line = read_line();
        let (head, tail) = line.split_at(line.len() - 3);
        bench.refuses(what, &[head.as_bytes(), bytes, tail.as_bytes(), b"\n"].concat(), Then::Closes);
    }
    bench.nothing_echoed();
}

#[test]
fn an_over_long_line_is_refused_and_closes_the_connection() {
    let mut bench = Bench::new();
    let long =
        |n: usize| read_line().replace(&format!("[\"{MARKER}\"]"), &format!("[\"{}\"]", "x".repeat(n)));
    bench.refuses("a line of 9 MiB", format!("{}\n", long(NINE_MIB)).as_bytes(), Then::Closes);
    bench.refuses("9 MiB without an end", long(NINE_MIB).as_bytes(), Then::Closes);
    bench.refuses("one byte over", format!("{}\n", " ".repeat((1 << 20) + 1)).as_bytes(), Then::Closes);
    bench.nothing_echoed();
}

#[test]
fn nothing_that_follows_a_closing_refusal_is_done() {
    let mut bench = Bench::new();
    let write = r#"{"type":"REQUEST","action":"write","service":"s","targets":["k"],"values":["later"]}"#;
    for broken in [&b"\"\xff\"\n"[..], &b" ".repeat((1 << 20) + 1), b"\xc0\x80\n"] {
        let mut client = Client::connected(&bench.world, &bench.world.root().join("bin/tool"));
        client.send(&[broken, b"\n", write.as_bytes(), b"\n"].concat());
        assert_refused(&client.recv().json(), "error", "malformed_request");
        assert!(matches!(client.recv(), Got::Eof | Got::Errno(104)), "one answer, then the end");
    }
    assert_eq!(bench.client.read("s", &["k"])["results"], json!([{"target": "k", "value": "v"}]));
}

#[test]
fn a_line_of_just_the_limit_is_read() {
    let mut bench = Bench::new();
    let line = r#"{"type":"REQUEST","action":"read","service":"s","targets":["k"]}"#;
    let padded = format!("{}{line}\n", " ".repeat((1 << 20) - line.len()));
    bench.client.send(padded.as_bytes());
    assert_eq!(bench.client.recv().json()["results"], json!([{"target": "k", "value": "v"}]));
}

#[test]
fn what_is_just_within_the_limits_is_served() {
    let mut bench = Bench::new();
    let attributes: serde_json::Map<String, Value> =
        (0..16).map(|n| (format!("{n:064}"), json!("€".repeat(85)))).collect();
    let (target, value) = ("t".repeat(1024), "v".repeat(64 << 10));
    let write = json!({"type": "REQUEST", "action": "write", "service": "s", "targets": [target], "values": [value],
        "attributes": attributes});
    assert_eq!(bench.client.request(&write)["status"], "success");
    let read = bench.client.read("s", &[&target]);
    assert_eq!(read["results"], json!([{"target": target, "value": value, "attributes": attributes}]));
}
