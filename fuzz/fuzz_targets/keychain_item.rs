//! Items of a keychain.
#![no_main]

use keychain_auth_fuzz::laws::imports;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = imports::keychain_item(bytes);
});
