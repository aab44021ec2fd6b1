//! Packets from the keeper to the broker.
#![no_main]

use keychain_auth_fuzz::laws::broker;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: &[u8]| {
    let _ = broker::question(packet);
});
