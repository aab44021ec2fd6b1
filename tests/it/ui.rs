//! What must not compile: the store without a decision, success without a commit, a secret that leaks.

use std::process::Command;

use crate::skip::skip;

/// The compiler whose words the `.stderr` files hold.
const WORDED_BY: &str = "rustc 1.95.";

#[test]
fn what_skips_a_room_of_the_corridor_does_not_compile() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().unwrap();
    if !version.stdout.starts_with(WORDED_BY.as_bytes()) {
        return skip("the expected words are those of another compiler");
    }
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/it/ui/*.rs");
}
