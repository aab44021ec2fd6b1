//! Lines of the audit log.
#![no_main]

use keychain_auth_fuzz::laws::audit_line;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = audit_line::hold(bytes);
});
