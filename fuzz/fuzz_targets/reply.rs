//! Records to replies.
#![no_main]

use keychain_auth_fuzz::laws::reply;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = reply::hold(bytes);
});
