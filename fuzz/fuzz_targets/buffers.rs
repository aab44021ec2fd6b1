//! Buffers for secrets.
#![no_main]

use keychain_auth_fuzz::laws::buffers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = buffers::hold(bytes);
});
