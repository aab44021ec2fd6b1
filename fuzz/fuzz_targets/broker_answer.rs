//! Packets from the broker to the keeper.
#![no_main]

use keychain_auth_fuzz::laws::broker;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: &[u8]| {
    let _ = broker::answer(packet);
});
