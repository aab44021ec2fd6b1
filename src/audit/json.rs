//! JSON strings that are safe to show on a terminal.

/// Appends `text` as a JSON string, quotes included.
///
/// Beside what JSON asks for, control characters of both sets, line and paragraph separators, and the characters that
/// reorder text are escaped: a name in the log can't move a cursor, forge a line or show itself as another name.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut buffer = [0; 4];
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            hidden if misleads(hidden) => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(hidden)).as_bytes())
            }
            shown => out.extend_from_slice(shown.encode_utf8(&mut buffer).as_bytes()),
        }
    }
    out.push(b'"');
}

/// All of these are in the basic plane, so that four digits name them.
fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
