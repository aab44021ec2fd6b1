//! Tests that can't run here say so by name, and fail where nothing may be skipped.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
};

/// Says that the running test is skipped and why. Under `KEYCHAIN_AUTH_NO_SKIP=1` that is a failure.
///
/// `KEYCHAIN_AUTH_SKIP_LOG` names a file where `scripts/test` collects the names.
pub fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or("unnamed").to_owned();
    assert!(
        std::env::var_os("KEYCHAIN_AUTH_NO_SKIP").is_none_or(|v| v != "1"),
        "{name} may not be skipped: {why}"
    );
    let line = format!("skipped {name}: {why}\n");
    // past the capture of the test harness: a skipped test must not look like a passed one
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(log) = std::env::var_os("KEYCHAIN_AUTH_SKIP_LOG")
        && let Ok(mut log) = OpenOptions::new().append(true).create(true).open(log)
    {
        let _ = log.write_all(line.as_bytes());
    }
}

/// The path of `program`, or None after having skipped the test.
pub fn need(program: &str) -> Option<std::path::PathBuf> {
    let found = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists());
    if found.is_none() {
        skip(&format!("{program} is not installed"));
    }
    found
}
