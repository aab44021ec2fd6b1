//! JSON strings that are safe to show on a terminal.

/// Appends `text` as a JSON string, quotes included.
///
/// Beside what JSON asks for, control characters of both sets, line and paragraph separators, and the characters that
/// reorder text are escaped: a name in the log can't move a cursor, forge a line or show itself as another name.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // nearly every name is one run of characters that stand for themselves, and most of those are ASCII
    let plain =
        text.bytes().take_while(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')).count();
    let (plain, mut rest) = text.split_at_checked(plain).unwrap_or(("", text));
    out.extend_from_slice(plain.as_bytes());
    while let Some(at) = rest.find(|character| matches!(character, '"' | '\\') || misleads(character)) {
        let (plain, behind) = rest.split_at(at);
        out.extend_from_slice(plain.as_bytes());
        let mut behind = behind.chars();
        match behind.next() {
            Some('"') => out.extend_from_slice(b"\\\""),
            Some('\\') => out.extend_from_slice(b"\\\\"),
            Some(hidden) => out.extend_from_slice(format!("\\u{:04x}", u32::from(hidden)).as_bytes()),
            None => {}
        }
        rest = behind.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

/// All of these are in the basic plane, so that four digits name them.
fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
