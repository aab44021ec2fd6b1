//! Bytes to lines, under any chunks.
#![no_main]

use keychain_auth_fuzz::laws::frames;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = frames::hold(bytes);
});
