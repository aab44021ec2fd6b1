//! Foreign text on a terminal: a program's path or argument must not move the cursor, colour the screen, or turn the
//! reading direction so that one name looks like another.

#![forbid(unsafe_code)]

use std::{borrow::Cow, fmt::Write as _, path::Path};

/// Characters that act instead of being read.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{61c}')
}

/// The text with every acting character written out, like `\u{1b}`.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// JSON with every acting character as `\u001b`: in JSON they stand in strings only, so the value is the same. Line feeds
/// and other white space between members stay.
pub fn plain_json(text: &str) -> Cow<'_, str> {
    let escaped = |c: char| acts(c) && !matches!(c, '\n' | '\t' | '\r');
    if !text.chars().any(escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if escaped(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // writing to a String does not fail
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// A path as a word of a shell's command line, so that advice can be copied whatever a stranger's program is called.
pub fn word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let harmless = |c: char| c.is_ascii_alphanumeric() || "/._+-@%,:=".contains(c);
    if !text.is_empty() && text.chars().all(harmless) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A number with the word for one or for several.
pub fn counted(count: u64, one: &str, several: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {several}") }
}

/// A moment as people compare it: UTC, to the second.
pub fn moment(time: jiff::Timestamp) -> String {
    time.round(jiff::Unit::Second).unwrap_or(time).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_would_act_on_a_terminal_is_written_out() {
        assert_eq!(plain("/bin/täst 日本"), "/bin/täst 日本");
        assert_eq!(plain("a\u{1b}[2Jb\n\u{9b}c\u{202e}d"), "a\\u{1b}[2Jb\\n\\u{9b}c\\u{202e}d");
    }

    #[test]
    fn a_path_in_advice_is_one_word_for_a_shell() {
        assert_eq!(word(Path::new("/usr/bin/tool-1.2")), "/usr/bin/tool-1.2");
        assert_eq!(word(Path::new("/tmp/a; rm -rf ~")), "'/tmp/a; rm -rf ~'");
        assert_eq!(word(Path::new("/tmp/it's")), r"'/tmp/it'\''s'");
    }

    #[test]
    fn json_keeps_its_value() {
        let text = "{\n  \"a\": \"x\u{9b}y\u{202e}\"\n}";
        let shown = plain_json(text);
        assert!(!shown.contains('\u{9b}'));
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&shown), value(text));
    }
}
