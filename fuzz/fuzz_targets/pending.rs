//! pending.json.
#![no_main]

use keychain_auth_fuzz::laws::pending;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = pending::hold(bytes);
});
