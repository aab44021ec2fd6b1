//! Secrets of other programs, and our own export.

use keychain_auth::{
    import::{ExportReader, Plan, dotenv, export_header, export_line},
    name::{Attributes, Service, Target},
    secret::{Buffer, SecretValue},
};
use proptest::{collection::vec, prelude::*, sample::select};
use secrecy::ExposeSecret;

use crate::{
    config,
    laws::imports::{env_file, export_lines, go_json},
};

fn secret(text: &str) -> SecretValue {
    SecretValue::from_buffer(Buffer::from(text.as_bytes())).expect("short text")
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn an_env_file_of_any_pieces_keeps_its_law(pieces in vec(select(vec![
        "A", "b_1", "=", " ", "\t", "\n", "\r\n", "\r", "#", "$", "${B}", "'", "\"", "`", "\\", "\\n", "\\'", "export ",
        "two words", "ä", "\u{a0}", "\u{feff}", "\0",
    ]), 0..40)) {
        env_file(pieces.concat().as_bytes());
    }

    #[test]
    fn a_value_in_single_quotes_is_imported_exactly(value in "[^'\\\\\r\u{0}-\u{8}\u{b}-\u{1f}\u{7f}]{0,60}") {
        let file = format!("FIRST=1\nNAME='{value}'\nLAST=2\n");
        let found = dotenv(file.as_bytes(), &Service::parse("s").unwrap(), None).unwrap();
        prop_assert_eq!(found.len(), 3);
        prop_assert_eq!(found[1].secret.as_ref().ok().unwrap().value.expose_secret(), value);
    }

    #[test]
    fn json_of_any_pieces_keeps_the_laws(pieces in vec(select(vec![
        "{", "}", "[", "\"a\"", "\"a:b\"", "\"a:b:c\"", "\"service\"", "\"target\"", "\"value\"", "\"attributes\"", ":", ",",
        " ", "\"s\"", "\"\\ud83d\\udd11\"", "\"\\ud800\"", "null", "1", "\"\\n\"", "\n",
    ]), 0..24)) {
        export_lines(pieces.concat().as_bytes());
        go_json(pieces.concat().as_bytes());
    }

    #[test]
    fn an_export_is_imported_exactly(records in vec((
        "[a-c:\"]{1,3}", "[^\\p{Cc}]{1,12}", any::<String>(), vec(("[a-c]", ".{0,9}"), 0..4),
    ), 0..12)) {
        let mut expected = std::collections::BTreeMap::new();
        for (service, target, value, pairs) in records {
            let mut attributes = Attributes::new();
            for (name, value) in pairs {
                // a name twice is left out
                let _ = attributes.insert(&name, &value);
            }
            expected.insert((Service::parse(&service).unwrap(), Target::parse(&target).unwrap()), (value, attributes));
        }
        let mut out = Vec::new();
        export_header(expected.len(), &mut out).unwrap();
        for ((service, target), (value, attributes)) in &expected {
            export_line(service, target, &secret(value), attributes, &mut out).unwrap();
        }
        let mut lines = out.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
        let mut reader = ExportReader::new(lines.next().unwrap()).unwrap();
        let mut plan = Plan::new();
        for line in lines {
            plan.add(reader.record(line).unwrap()).unwrap();
        }
        reader.finish().unwrap();
        prop_assert!(plan.refused().is_empty());
        let mut read = std::collections::BTreeMap::new();
        for (service, items, attributes) in plan.into_batches() {
            for item in items {
                let value = item.value.expose_secret().to_owned();
                read.insert((service.clone(), item.target), (value, attributes.clone()));
            }
        }
        prop_assert_eq!(read, expected);
    }
}
