//! The whole corridor against a model: bytes → frame → caller → request → decision → store → reply.
//!
//! The input is a transcript. Each line begins with a letter that names who sends it; the rest is what is sent, byte
//! for byte. After every line the reply must be the one that the model gives.

use std::{collections::BTreeMap, sync::LazyLock};

use jiff::Timestamp;
use keychain_auth::{
    audit::Outcome,
    caller::{Check, Executable, Facts, Terms, verify},
    digest::Digest,
    policy::{Admitted, Denial, Policy, Standing, decide_change, decide_check, decide_query},
    store::{Memory, PendingChange, Store},
    wire::{Batch, Fitting, Frame, FrameBuffer, FrameError, Message, Nonce, Reason, Reply, Writer},
};
use serde_json::{Value, json};

use super::{
    Seen,
    contract::{self, Asked, Meaning},
    receipts::{logged, receipt},
    reply::{parse, result},
};
use crate::admitted::{DIGEST, honest_facts, observer};

/// Who may speak, and what the policy below lets them do.
pub const SPEAKERS: [Speaker; 10] = [
    Speaker {
        letter: b'a',
        read: &["one", "two", "a", "a:b"],
        write: &["one", "two", "a", "a:b"],
        search: true,
        ..NOBODY
    },
    Speaker { letter: b'r', read: &["one"], ..NOBODY },
    Speaker { letter: b'w', write: &["one", "two"], ..NOBODY },
    Speaker { letter: b's', read: &["one"], search: true, ..NOBODY },
    Speaker {
        letter: b'n',
        read: &["one"],
        write: &["one"],
        search: true,
        prefixes: Some(&["app/", "b"]),
        ..NOBODY
    },
    Speaker { letter: b't', stopped: Some("untrusted_caller"), ..NOBODY },
    Speaker { letter: b'j', read: &["one"], ..NOBODY },
    Speaker { letter: b'x', stopped: Some(STRANGER), ..NOBODY },
    Speaker { letter: b'h', stopped: Some(STRANGER), ..NOBODY },
    Speaker { letter: b'u', stopped: Some(STRANGER), ..NOBODY },
];

/// The same in the words of config.json: `t` and `j` are traced, `j` may be; `x` has expired, `h` has another hash, and
/// nobody speaks about `u`.
const CONFIG: &str = r#"{"protocol_version":"1","registered_binaries":[
 {"path":"/opt/a","hash":HASH,"allowed_read_services":["one","two","a","a:b"],"allowed_write_services":["one","two","a","a:b"],"can_search":true},
 {"path":"/opt/r","hash":HASH,"allowed_read_services":["one"]},
 {"path":"/opt/w","hash":HASH,"allowed_write_services":["one","two"],"can_search":false},
 {"path":"/opt/s","hash":HASH,"allowed_read_services":["one"],"can_search":true},
 {"path":"/opt/n","hash":HASH,"allowed_read_services":["one"],"allowed_write_services":["one"],"can_search":true,"allowed_target_prefixes":["app/","b"]},
 {"path":"/opt/t","hash":HASH,"allowed_read_services":["one"],"allowed_write_services":["one"],"can_search":true},
 {"path":"/opt/j","hash":HASH,"allowed_read_services":["one"],"relax":["traced"]},
 {"path":"/opt/x","hash":HASH,"allowed_read_services":["one"],"expires_at":"1969-12-31T23:59:59Z"},
 {"path":"/opt/h","hash":HASH,"allowed_read_services":["one"]}]}"#;

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    Policy::parse(CONFIG.replace("HASH", &format!("\"{DIGEST}\"")).as_bytes()).expect("a policy")
});

const STRANGER: &str = "unregistered_binary_pending_approval";
const NOBODY: Speaker =
    Speaker { letter: b'-', read: &[], write: &[], search: false, prefixes: None, stopped: None };

/// One client.
#[derive(Debug, Clone, Copy)]
pub struct Speaker {
    /// The first byte of its lines.
    pub letter: u8,
    read: &'static [&'static str],
    write: &'static [&'static str],
    search: bool,
    prefixes: Option<&'static [&'static str]>,
    /// The reason that it is told before anything else is looked at.
    stopped: Option<&'static str>,
}

/// What the services hold: the reference model.
#[derive(Default)]
struct Model(BTreeMap<(String, String), (String, BTreeMap<String, String>)>);

impl Model {
    fn answer(&mut self, who: &Speaker, asked: &Asked) -> Result<Vec<Value>, &'static str> {
        let (reads, writes) =
            (who.read.contains(&asked.service.as_str()), who.write.contains(&asked.service.as_str()));
        let action = asked.action.as_str();
        let allowed = match action {
            "read" | "search" => reads,
            "write" | "delete" => writes,
            _ => reads || writes,
        };
        let all_names = asked.targets.is_none();
        let inside = |name: &str| {
            who.prefixes.is_none_or(|prefixes| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        };
        if !allowed {
            return Err("service_not_allowed");
        }
        if (action == "search" || asked.prefix) && !who.search {
            return Err("action_not_in_policy");
        }
        let outside = asked.targets.iter().flatten().any(|name| !inside(name));
        if outside || (all_names && action == "search" && who.prefixes.is_some()) {
            return Err("target_not_allowed");
        }
        let names = match (&asked.targets, asked.prefix) {
            (Some(targets), false) => targets.clone(),
            (targets, _) => {
                let meant = |name: &str| {
                    targets.as_ref().is_none_or(|all| all.iter().any(|prefix| name.starts_with(prefix)))
                };
                let here = self.0.keys().filter(|(service, name)| *service == asked.service && meant(name));
                here.map(|(_, name)| name.clone()).collect()
            }
        };
        let mut results = Vec::new();
        for (name, at) in names.into_iter().zip(0..) {
            let place = (asked.service.clone(), name.clone());
            if action == "write" {
                self.0.insert(place, (asked.values[at].clone(), asked.attributes.clone()));
                continue;
            }
            let Some((value, attributes)) = self.0.get(&place) else { continue };
            if action == "check"
                || !asked.attributes.iter().all(|(name, value)| attributes.get(name) == Some(value))
            {
                continue;
            }
            if action == "delete" {
                self.0.remove(&place);
                results.push(result(&name, None, &BTreeMap::new()));
            } else {
                results.push(result(&name, (action == "read").then_some(value), attributes));
            }
        }
        Ok(results)
    }
}

/// Every reply of the corridor is the model's.
pub fn hold(transcript: &[u8]) -> Seen {
    let (store, mut model) = (Memory::new(), Model::default());
    let mut all_granted = true;
    for line in transcript.split_inclusive(|byte| *byte == b'\n') {
        let Some((letter, sent)) = line.split_first() else { continue };
        let Some(who) = SPEAKERS.iter().find(|speaker| speaker.letter == *letter) else { continue };
        let Some(frame) = frame_of(sent) else { continue };
        let expected = expectation(&mut model, who, &frame);
        let reply = parse(&corridor(&store, who, frame));
        all_granted &= compare(&reply, expected);
    }
    let (_, everything) = ask_everything(&mut model, &store);
    Seen::when(all_granted && everything)
}

/// The model's answer to what was sent.
enum Expected {
    Results(Vec<Value>),
    Reason(&'static str),
    Hello,
    Status,
}

fn expectation(model: &mut Model, who: &Speaker, frame: &Result<Frame, FrameError>) -> Expected {
    let Ok(frame) = frame else { return Expected::Reason("malformed_request") };
    if let Some(reason) = who.stopped {
        return Expected::Reason(reason);
    }
    match contract::read(frame.text()) {
        None => Expected::Reason("malformed_request"),
        Some(Meaning::Hello) => Expected::Hello,
        Some(Meaning::Status) => Expected::Status,
        // the daemon serves them to processes of its user before it asks who they are
        Some(Meaning::Lock | Meaning::Unlock(_) | Meaning::Seal(..)) => Expected::Reason("untrusted_caller"),
        Some(Meaning::Request(asked)) => {
            model.answer(who, &asked).map_or_else(Expected::Reason, Expected::Results)
        }
    }
}

/// Whether it was granted; the wrong reply breaks the law.
fn compare(reply: &Value, expected: Expected) -> bool {
    match expected {
        Expected::Results(results) => {
            assert_eq!(*reply, json!({"type": "RESPONSE", "status": "success", "results": results}));
            return true;
        }
        Expected::Reason(reason) => {
            assert_eq!(reply["reason"], reason, "{reply}");
            assert_ne!(reply["status"], "success");
            assert_eq!(reply.get("results"), None, "a refusal releases something");
            return false;
        }
        Expected::Hello => assert_eq!(reply["type"], "HELLO"),
        Expected::Status => assert_eq!(*reply, json!({"daemon_running": true})),
    }
    true
}

/// At the end everything is asked once more, so that no change stays unseen. Says how much there is and that it agrees.
fn ask_everything(model: &mut Model, store: &Memory) -> (usize, bool) {
    let who = &SPEAKERS[0];
    let mut agrees = true;
    for service in who.read {
        let line = json!({"type": "REQUEST", "action": "search", "service": service}).to_string();
        let frame = frame_of(line.as_bytes()).expect("a line");
        let expected = expectation(model, who, &frame);
        agrees &= compare(&parse(&corridor(store, who, frame)), expected);
    }
    (model.0.len(), agrees)
}

/// The bytes of one line as they pass the frame buffer, in two chunks.
fn frame_of(sent: &[u8]) -> Option<Result<Frame, FrameError>> {
    let writer = Writer { pid: 8, uid: 9 };
    let mut buffer = FrameBuffer::new();
    let (first, second) = sent.split_at(sent.len() / 2);
    for chunk in [first, second, b"\n"] {
        buffer.push(chunk, writer).expect("one writer");
        if let Some(frame) = buffer.next_frame() {
            return Some(frame);
        }
    }
    None
}

/// The order of the daemon's corridor, with a store that does not wait.
fn corridor(store: &Memory, who: &Speaker, frame: Result<Frame, FrameError>) -> Reply {
    match serve(store, who, frame) {
        Ok(reply) => reply,
        Err(reason) => {
            let outcome =
                if reason.as_str() == "malformed_request" { Outcome::Error } else { Outcome::Denied };
            Reply::refusal(reason, "what to do next", &receipt(outcome))
        }
    }
}

fn serve(store: &Memory, who: &Speaker, frame: Result<Frame, FrameError>) -> Result<Reply, Reason> {
    let frame = frame.map_err(|_| Reason::MalformedRequest)?;
    let message = Message::parse(frame.text());
    let admitted = &identify(who)?;
    let request = match message.map_err(|_| Reason::MalformedRequest)? {
        Message::Request(request) => request,
        Message::Hello => return Ok(Reply::hello("0", &Nonce::new([7; 32]))),
        Message::Status => return Ok(Reply::status(&json!({"daemon_running": true}))),
        Message::Lock | Message::Unlock(_) | Message::AskSeal(_) | Message::Seal(_) => {
            return Err(Reason::UntrustedCaller);
        }
    };
    match request.into_parts().1 {
        Batch::Query(query) => {
            let authorized = decide_query(admitted, query).map_err(reason)?;
            let committed = store.read(authorized).map_err(|_| Reason::InternalError)?;
            let fitting = Fitting::of(&committed).map_err(|_| Reason::ResponseTooLarge)?;
            Ok(Reply::released(&fitting, receipt(Outcome::Granted)))
        }
        Batch::Change(change) => {
            let change = decide_change(admitted, change).map_err(reason)?;
            let record = Box::new(|_: &[_]| br#"{"timestamp":"1970-01-01T00:00:00.000000000Z""#.to_vec());
            let mut done = store.commit(vec![PendingChange { change, record }]);
            let committed = done.pop().expect("one result").map_err(|_| Reason::InternalError)?;
            let entry = committed.outbox().expect("a change has a line");
            let _ = logged(entry);
            Ok(Reply::changed(&committed, entry))
        }
        Batch::Check(selection) => {
            decide_check(admitted.entry().permissions(), &selection).map_err(reason)?;
            Ok(Reply::allowed(receipt(Outcome::Granted)))
        }
    }
}

fn identify(who: &Speaker) -> Result<Admitted<'static>, Reason> {
    let honest = honest_facts();
    let path = format!("/opt/{}", char::from(who.letter));
    let facts = Facts {
        executable: Executable { path: path.clone(), ..honest.executable },
        digest: if who.letter == b'h' { Digest::new([0x66; 32]) } else { DIGEST },
        tracer: if matches!(who.letter, b't' | b'j') { 5 } else { 0 },
        ..honest
    };
    let now = Timestamp::UNIX_EPOCH;
    let Standing::Registered(entry) = POLICY.recognise(path.as_ref(), &facts.digest, now) else {
        return Err(Reason::UnregisteredBinary);
    };
    let terms = Terms { relax: &entry.relaxed().collect(), libraries: &[] };
    let caller = verify(&facts, &observer(), terms).map_err(|untrusted| {
        assert_eq!(untrusted.check, Check::Traced);
        Reason::UntrustedCaller
    })?;
    POLICY.admit(&caller, now).map_err(|_| Reason::UnregisteredBinary)
}

fn reason(denial: Denial) -> Reason {
    match denial {
        Denial::ServiceNotAllowed => Reason::ServiceNotAllowed,
        Denial::ActionNotInPolicy => Reason::ActionNotInPolicy,
        Denial::TargetNotAllowed => Reason::TargetNotAllowed,
    }
}
