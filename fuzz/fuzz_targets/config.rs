//! config.json, and what is decided by it.
#![no_main]

use keychain_auth_fuzz::laws::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = config::hold(bytes);
});
