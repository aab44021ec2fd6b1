//! The JSON in the file store of the earlier system.
#![no_main]

use keychain_auth_fuzz::laws::imports;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = imports::go_json(bytes);
});
