//! Command lines of strangers, for people to recognise them by: short, and without what may be a secret.
//!
//! A mask too many costs a word of comfort, a mask too few writes a password to the disk.

/// What stands for something that is not shown.
const MASK: &str = "***";
/// Longest argument shown, in characters.
const MAX_CHARACTERS: usize = 64;

/// Beginnings of tokens of well-known issuers, in lower case.
const TOKEN_PREFIXES: [&str; 28] = [
    "sk-",
    "sk_",
    "pk_",
    "rk_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xoxs-",
    "xapp-",
    "akia",
    "asia",
    "aiza",
    "ya29.",
    "eyj",
    "npm_",
    "pypi-",
    "hf_",
    "dop_v1_",
    "shpat_",
    "sg.",
    "age-secret-key-",
];
/// A token is longer than its prefix by at least this much.
const TOKEN_BODY: usize = 8;
/// Parts of the names of options whose value is a secret.
const SECRET_WORDS: [&str; 10] =
    ["pass", "pwd", "token", "secret", "key", "credential", "auth", "cookie", "bearer", "pin"];

/// One argument as it may be shown: control characters replaced, at most 64 characters, with `***` for what follows `=`,
/// a header's colon or an option like `--password`, for credentials in a URL, and for whatever looks like a token.
///
/// `previous` is the argument before, unmasked.
pub fn mask_argument(previous: Option<&str>, argument: &str) -> String {
    let text: String =
        argument.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if !text.is_empty() && previous.is_some_and(|option| takes_secret(option, &text)) {
        return MASK.to_owned();
    }
    let masked = match text.split_once('=') {
        Some((name, "")) => format!("{}=", mask_text(name)),
        Some((name, _)) => format!("{}={MASK}", mask_text(name)),
        None => mask_text(&text),
    };
    // what was too long to look like a token may look like one when it is cut
    let shown = cut(&masked);
    if shown == masked { shown } else { cut(&mask_text(&shown)) }
}

fn takes_secret(option: &str, value: &str) -> bool {
    let Some(name) = option.strip_prefix('-') else { return false };
    let name = name.trim_start_matches('-').to_ascii_lowercase();
    match name.as_str() {
        "p" => true,
        // user:password
        "u" | "user" => value.contains(':'),
        _ => !name.contains('=') && SECRET_WORDS.iter().any(|word| name.contains(word)),
    }
}

fn mask_text(text: &str) -> String {
    if let Some((name, value)) = text.split_once(':')
        && value.starts_with(' ')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    {
        return format!("{name}: {MASK}");
    }
    // `mysql -pPASSWORD`
    if text.starts_with("-p") && text.len() > 2 {
        return format!("-p{MASK}");
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        return match authority.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://{MASK}@{host}{}", mask_tokens(path)),
            None => format!("{scheme}://{}", mask_tokens(rest)),
        };
    }
    mask_tokens(text)
}

/// Masks the runs of token characters that look like tokens, and keeps what is between them.
fn mask_tokens(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let run = rest.find(|c| !is_token_character(c)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(run);
        shown.push_str(&mask_run(token));
        let between = after.find(is_token_character).unwrap_or(after.len());
        let (plain, next) = after.split_at(between);
        shown.push_str(plain);
        rest = next;
    }
    shown
}

fn is_token_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '_' | '-' | '.' | '~')
}

/// A run as a whole may be Base64, which has slashes; otherwise a run with slashes is a path, and each part counts alone.
fn mask_run(run: &str) -> String {
    let is_path = run.starts_with(['/', '.', '~']);
    if !is_path && run.len() >= 32 && mixed(run) || is_token(run) {
        return MASK.to_owned();
    }
    let parts: Vec<&str> = run.split('/').map(|part| if is_token(part) { MASK } else { part }).collect();
    parts.join("/")
}

fn is_token(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    // options begin with dashes, `--sk-…` would hide one
    let lower = lower.trim_start_matches('-');
    let known = TOKEN_PREFIXES.iter().any(|prefix| {
        lower.strip_prefix(prefix).is_some_and(|body| body.len() >= TOKEN_BODY && !body.contains('/'))
    });
    known || !part.contains('/') && looks_random(part.trim_start_matches('-'))
}

/// Long, and of a mixture that words don't have.
fn looks_random(part: &str) -> bool {
    let hex = part.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let unbroken = !part.contains(['-', '_', '.']);
    let turns = part.as_bytes().windows(2).filter(|pair| turns_class(pair)).count();
    match part.len() {
        0..16 => false,
        16..32 => mixed(part) && turns >= 4 || hex && digits(part) >= 4,
        _ => unbroken || mixed(part) || hex || turns * 3 >= part.len(),
    }
}

fn mixed(text: &str) -> bool {
    let has = |class: fn(&char) -> bool| text.chars().any(|c| class(&c));
    has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase) && has(char::is_ascii_digit)
}

fn digits(text: &str) -> usize {
    text.chars().filter(char::is_ascii_digit).count()
}

fn turns_class(pair: &[u8]) -> bool {
    let class = |byte: &u8| (byte.is_ascii_uppercase(), byte.is_ascii_lowercase(), byte.is_ascii_digit());
    matches!(pair, [first, second] if class(first) != class(second))
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_CHARACTERS {
        return text.to_owned();
    }
    text.chars().take(MAX_CHARACTERS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(argument: &str) -> String {
        mask_argument(None, argument)
    }

    #[test]
    fn what_follows_an_equals_sign_is_masked() {
        assert_eq!(mask("--password=hunter2"), "--password=***");
        assert_eq!(mask("NAME=a=b"), "NAME=***");
        assert_eq!(mask("--empty="), "--empty=");
    }

    #[test]
    fn the_argument_after_a_secret_option_is_masked() {
        for option in ["-p", "--password", "--api-key", "--auth_token", "--client-secret", "-passphrase"] {
            assert_eq!(mask_argument(Some(option), "hunter2"), "***", "{option}");
        }
        assert_eq!(mask_argument(Some("-u"), "alice:hunter2"), "***");
        assert_eq!(mask_argument(Some("-u"), "alice"), "alice");
        assert_eq!(mask_argument(Some("--output"), "table"), "table");
        assert_eq!(mask_argument(Some("--token=x"), "list"), "list", "the value was in the option already");
    }

    #[test]
    fn tokens_are_masked_wherever_they_stand() {
        for token in [
            "sk-proj-4567abcd",
            "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "AKIAIOSFODNN7EXAMPLE",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "fd7ecae9159e6f93a25178d3489fbffa7219917ca12567d5e42b156948",
            "9f86d081884c7d659a2feaa0c55ad015",
            "550e8400-e29b-41d4-a716-446655440000",
            "xK9fQ2mZ7pL4vR8tW3nB",
        ] {
            assert_eq!(mask(token), "***", "{token}");
            let shown = mask(&format!("run({token})"));
            assert_eq!(shown, "run(***)", "{token}");
        }
    }

    #[test]
    fn a_short_run_of_hexadecimal_digits_is_a_token_and_a_word_of_such_letters_is_none() {
        for token in ["5f3a9c01d2e4b786", "a1b2c3d4-e5f60718"] {
            assert_eq!(mask(token), "***", "{token}");
        }
        for word in ["deadbeef-facade-cafe", "feedfacedeadbeef12a"] {
            assert_eq!(mask(word), word);
        }
    }

    #[test]
    fn each_sign_of_a_token_is_enough_and_half_of_one_is_none() {
        let unbroken = "abcdefghijklmnopqrstuvwxyzabcdefgh";
        let mixed = "Production-environment-name-of-service-1";
        let hexadecimal = "aaaaaaaa-bbbbbbbb-cccccccc-dddddddd";
        let (turning, just_turning) = (format!("{}z", "z1-".repeat(11)), "zzzz-".repeat(7));
        for token in [unbroken, mixed, hexadecimal, &turning, &just_turning] {
            assert_eq!(mask(token), "***", "{token}");
        }
        for word in [
            "sk-a",
            "Ab1",
            "sk-one/two/three",
            "production/openai/organisation/project/keyname",
            "something-withlong-wordsand-fewturns-inbetween",
            "ThisIsACamelCaseName",
            "lowercase1with2digits",
        ] {
            assert_eq!(mask(word), word);
        }
    }

    #[test]
    fn credentials_in_urls_headers_and_short_options_are_masked() {
        assert_eq!(mask("https://alice:hunter2@example.org/x"), "https://***@example.org/x");
        assert_eq!(mask("https://a:p@ss@example.org"), "https://***@example.org");
        assert_eq!(mask("https://example.org/x?token=abc"), "https://example.org/x?token=***");
        assert_eq!(mask("Authorization: Bearer abc"), "Authorization: ***");
        assert_eq!(mask("X-Api-Key: abc"), "X-Api-Key: ***");
        assert_eq!(mask("-phunter2"), "-p***");
        assert_eq!(mask("-p"), "-p");
    }

    #[test]
    fn ordinary_words_paths_and_options_stay_readable() {
        for word in [
            "agentsecrets",
            "--verbose",
            "/usr/local/bin/agentsecrets",
            "/usr/lib/python3.11/site-packages",
            "list",
            "-n",
            "8080",
            "./target/debug/deps",
            "production/openai",
            "--output",
            "config.production.json",
            "https://example.org/path",
        ] {
            assert_eq!(mask(word), word);
        }
    }

    #[test]
    fn an_argument_is_cut_to_64_characters_after_masking() {
        let long = "word ".repeat(40);
        assert_eq!(mask(&long).chars().count(), 64);
        assert!(mask(&long).ends_with('…'));
        let late = format!("{}ghp_16C7e42F292c6912E7710c838347Ae178B4a", "x ".repeat(25));
        assert!(!mask(&late).contains("ghp_"), "a token at the cut does not leak its beginning");
        let hidden = format!("{}{}", "a1-".repeat(21), "w".repeat(300));
        assert_eq!(mask(&hidden), "***…", "what looks like a token only once it is cut");
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(mask("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
    }
}
