//! One line to one request.
#![no_main]

use keychain_auth_fuzz::laws::request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = request::hold(bytes);
});
