//! Packets from the witness.
#![no_main]

use keychain_auth_fuzz::laws::witness;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = witness::answer(bytes);
});
