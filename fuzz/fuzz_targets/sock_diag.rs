//! The kernel's answer about a socket.
#![no_main]

use keychain_auth_fuzz::laws::sock_diag;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = sock_diag::hold(bytes);
});
