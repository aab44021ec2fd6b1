//! The file of the vault's key: a bare key, or a key that is wrapped under its source; one form each.

use keychain_auth::store::{KeySource, Slot};

use super::Seen;

/// Taken exactly where a second reading takes it, with the same source.
pub fn hold(bytes: &[u8]) -> Seen {
    let expected = source(bytes);
    assert_eq!(Slot::parse(bytes).map(|slot| slot.source()), expected, "two readers differ");
    Seen::when(expected.is_some())
}

fn source(bytes: &[u8]) -> Option<KeySource> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let mut lines = text.split('\n').collect::<Vec<_>>();
    if lines[0] != "keychain-auth vault key 1" {
        let bare = lines.len() <= 2 && lines.iter().all(|line| is_hex(line, 32));
        return bare.then_some(KeySource::File);
    }
    // title, source, its parameters, "key …", and "next …" between two keys
    if lines.last()?.strip_prefix("next ").is_some_and(|digits| is_hex(digits, 72)) {
        lines.pop();
    }
    if !is_hex(lines.pop()?.strip_prefix("key ")?, 72) {
        return None;
    }
    match lines[1..] {
        ["source credential"] => Some(KeySource::Credential),
        ["source keychain", item] => is_hex(item.strip_prefix("item ")?, 16).then_some(KeySource::Keychain),
        ["source passphrase", argon] => {
            let (numbers, salt) = argon.strip_prefix("argon2id m=")?.split_once(' ')?;
            let (memory, rest) = numbers.split_once(",t=")?;
            let (passes, lanes) = rest.split_once(",p=")?;
            let within = number(memory).is_some_and(|it| (8 * 1024..=1024 * 1024).contains(&it))
                && number(passes).is_some_and(|it| (1..=16).contains(&it))
                && number(lanes).is_some_and(|it| (1..=8).contains(&it));
            (within && is_hex(salt, 16)).then_some(KeySource::Passphrase)
        }
        _ => None,
    }
}

fn is_hex(digits: &str, bytes: usize) -> bool {
    digits.len() == 2 * bytes && digits.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

/// A number without a sign or a zero in front.
fn number(digits: &str) -> Option<u32> {
    let value: u32 = digits.parse().ok()?;
    (value.to_string() == digits).then_some(value)
}
