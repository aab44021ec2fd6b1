//! Records in the words of other systems: Elastic Common Schema, the Open Cybersecurity Schema Framework, and ArcSight's
//! Common Event Format. docs/audit.md has the table.
//!
//! Pure: a record in, one line out. Nothing is added that the record does not say.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::query::RecordLine;

/// A form for other systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Elastic Common Schema 8.11, one JSON object a line.
    Ecs,
    /// OCSF 1.3, class 6003 (API Activity), one JSON object a line.
    Ocsf,
    /// CEF version 0, one line each.
    Cef,
}

/// One record in this form, without a newline.
pub fn export(record: &RecordLine, form: Form) -> String {
    match form {
        Form::Ecs => ecs(record).to_string(),
        Form::Ocsf => ocsf(record).to_string(),
        Form::Cef => cef(record),
    }
}

fn granted(record: &RecordLine) -> bool {
    record.result == "GRANTED"
}

fn ecs(record: &RecordLine) -> Value {
    let (category, kind) = match record.action.as_str() {
        "policy" => ("configuration", "change"),
        "write" => ("api", "change"),
        "delete" => ("api", "deletion"),
        _ => ("api", "access"),
    };
    let verdict = match record.result.as_str() {
        "GRANTED" => "allowed",
        "DENIED" => "denied",
        _ => "error",
    };
    let outcome = if granted(record) { "success" } else { "failure" };
    let mut event = json!({
        "kind": "event", "module": "keychain-auth", "dataset": "keychain-auth.audit", "category": [category],
        "type": [kind, verdict], "action": record.action, "outcome": outcome,
    });
    put(&mut event, "reason", record.reason.clone());
    put(&mut event, "sequence", record.seq);
    put(&mut event, "hash", record.mac.clone());
    let mut all = json!({"@timestamp": record.timestamp, "ecs": {"version": "8.11.0"}, "event": event});
    let mut process = json!({});
    put(&mut process, "pid", (record.pid != 0).then_some(record.pid));
    put(&mut process, "executable", filled(&record.binary_path));
    put(&mut process, "hash", sha256(record).map(|hash| json!({"sha256": hash})));
    put(&mut all, "process", object(process));
    put(&mut all, "user", record.uid.map(|uid| json!({"id": uid.to_string()})));
    let mut own = json!({});
    put(&mut own, "service", filled(&record.service));
    put(&mut own, "targets", (!record.targets.is_empty()).then(|| record.targets.clone()));
    put(&mut own, "detail", record.detail.clone());
    put(&mut own, "count", record.count);
    put(&mut all, "keychain_auth", object(own));
    all
}

fn ocsf(record: &RecordLine) -> Value {
    let activity = match record.action.as_str() {
        "read" | "search" => 2,
        "write" | "policy" => 3,
        "delete" => 4,
        _ => 99,
    };
    let mut api = json!({"operation": record.action});
    put(&mut api, "service", filled(&record.service).map(|name| json!({"name": name})));
    let mut file = json!({"type_id": 1});
    put(&mut file, "path", filled(&record.binary_path));
    put(&mut file, "name", filled(record.binary_path.rsplit('/').next().unwrap_or_default()));
    put(&mut file, "hashes", sha256(record).map(|hash| json!([{"algorithm_id": 3, "value": hash}])));
    let mut metadata = json!({
        "version": "1.3.0", "log_name": "audit.log",
        "product": {"name": "keychain-auth", "vendor_name": "keychain-auth", "version": env!("CARGO_PKG_VERSION")},
    });
    put(&mut metadata, "sequence", record.seq);
    let mut actor = json!({"process": {"pid": record.pid, "file": file}});
    put(&mut actor, "user", record.uid.map(|uid| json!({"uid": uid.to_string()})));
    let mut all = json!({
        "class_uid": 6003, "category_uid": 6, "activity_id": activity, "type_uid": 600_300 + activity,
        "severity_id": if granted(record) { 1 } else { 3 }, "status_id": if granted(record) { 1 } else { 2 },
        "time": record.when().map_or(0, |when| when.as_millisecond()),
        "metadata": metadata, "actor": actor, "api": api, "src_endpoint": {"name": "localhost"},
    });
    if activity == 99 {
        put(&mut all, "activity_name", Some(record.action.clone()));
    }
    put(&mut all, "status_code", record.reason.clone());
    put(&mut all, "status_detail", record.detail.clone());
    put(&mut all, "count", record.count);
    let secret = |name: &String| json!({"name": name, "type": "secret"});
    let targets: Vec<Value> = record.targets.iter().map(secret).collect();
    put(&mut all, "resources", (!targets.is_empty()).then_some(targets));
    all
}

fn cef(record: &RecordLine) -> String {
    let severity = match record.result.as_str() {
        "GRANTED" => 1,
        "DENIED" => 6,
        _ => 4,
    };
    let name = format!("{} {}", record.action, record.result.to_lowercase());
    let class = record.reason.as_deref().unwrap_or(&record.action);
    let mut line = format!(
        "CEF:0|keychain-auth|keychain-auth|{}|{}|{}|{severity}|",
        env!("CARGO_PKG_VERSION"),
        head(class),
        head(&name)
    );
    let mut fields: Vec<(&str, String)> = Vec::new();
    fields.extend(record.when().map(|when| ("rt", when.as_millisecond().to_string())));
    fields.push(("act", record.action.clone()));
    fields.push(("outcome", if granted(record) { "success" } else { "failure" }.to_owned()));
    fields.extend(record.reason.clone().map(|reason| ("reason", reason)));
    fields.extend(record.detail.clone().map(|detail| ("msg", detail)));
    fields.extend((record.pid != 0).then(|| ("spid", record.pid.to_string())));
    fields.extend(filled(&record.binary_path).map(|path| ("sproc", path)));
    fields.extend(sha256(record).map(|hash| ("fileHash", hash)));
    fields.extend(record.uid.map(|uid| ("suid", uid.to_string())));
    fields.extend(record.count.map(|count| ("cnt", count.to_string())));
    let labelled = |number: u8, kind: &str, label: &str, value: String| {
        [(format!("{kind}{number}Label"), label.to_owned()), (format!("{kind}{number}"), value)]
    };
    let mut own = Vec::new();
    own.extend(filled(&record.service).into_iter().flat_map(|it| labelled(1, "cs", "service", it)));
    if !record.targets.is_empty() {
        own.extend(labelled(2, "cs", "targets", record.targets.join(",")));
    }
    own.extend(record.mac.clone().into_iter().flat_map(|it| labelled(3, "cs", "mac", it)));
    own.extend(record.seq.into_iter().flat_map(|it| labelled(1, "cn", "seq", it.to_string())));
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(own);
    for (index, (name, value)) in fields.enumerate() {
        let space = if index == 0 { "" } else { " " };
        // writing to a string does not fail
        let _ = write!(line, "{space}{name}={}", extension(&value));
    }
    line
}

/// Text of a CEF header.
fn head(text: &str) -> String {
    one_line(&text.replace('\\', "\\\\").replace('|', "\\|"))
}

/// Text of a CEF extension.
fn extension(text: &str) -> String {
    one_line(&text.replace('\\', "\\\\").replace('=', "\\="))
}

/// A control character can't begin another line or field.
fn one_line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { format!("\\\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(shown).collect()
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn sha256(record: &RecordLine) -> Option<String> {
    record.binary_hash.strip_prefix("sha256:").map(str::to_owned)
}

fn object(value: Value) -> Option<Value> {
    (value != json!({})).then_some(value)
}

fn put(value: &mut Value, name: &str, member: Option<impl Into<Value>>) {
    if let (Value::Object(members), Some(member)) = (value, member) {
        let members: &mut Map<String, Value> = members;
        members.insert(name.to_owned(), member.into());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn record() -> RecordLine {
        RecordLine::parse(
            br#"{"timestamp":"2026-05-21T10:34:02.5Z","action":"read","pid":8412,"binary_path":"/opt/a b/x=y|z","binary_hash":"sha256:ab","service":"demo","targets":["a/KEY","b\nx=1"],"result":"DENIED","reason":"service_not_allowed","uid":1000,"count":3,"seq":7,"mac":"00"}"#,
        )
        .unwrap()
    }

    #[test]
    fn every_form_says_what_the_record_says() {
        let ecs = ecs(&record());
        assert_eq!(ecs["event"]["type"], json!(["access", "denied"]));
        assert_eq!((&ecs["process"]["pid"], &ecs["process"]["hash"]["sha256"]), (&json!(8412), &json!("ab")));
        assert_eq!(ecs["keychain_auth"]["targets"], json!(["a/KEY", "b\nx=1"]));
        let ocsf = ocsf(&record());
        assert_eq!(
            (&ocsf["type_uid"], &ocsf["status_id"], &ocsf["count"]),
            (&json!(600_302), &json!(2), &json!(3))
        );
        assert_eq!(ocsf["time"], json!(1_779_359_642_500_i64));
        assert_eq!(ocsf["resources"][0], json!({"name": "a/KEY", "type": "secret"}));
        let nothing = RecordLine::default();
        assert!(export(&nothing, Form::Ecs).len() > 10 && export(&nothing, Form::Ocsf).len() > 10);
    }

    #[test]
    fn a_name_can_not_begin_a_field_or_a_line_of_its_own() {
        let line = export(&record(), Form::Cef);
        assert!(line.starts_with("CEF:0|keychain-auth|keychain-auth|"), "{line}");
        assert!(
            line.contains("|service_not_allowed|read denied|6|rt=1779359642500 act=read outcome=failure"),
            "{line}"
        );
        assert!(line.contains(r"sproc=/opt/a b/x\=y|z fileHash=ab"), "{line}");
        assert!(line.contains(r"cs2=a/KEY,b\\u000ax\=1 cs3Label=mac"), "{line}");
        assert!(!line.contains('\n'));
    }
}
