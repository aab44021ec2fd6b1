//! Edits of a chained audit log.
#![no_main]

use keychain_auth_fuzz::laws::audit_chain;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|edits: &[u8]| {
    let _ = audit_chain::hold(edits);
});
