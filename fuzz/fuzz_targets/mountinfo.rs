//! `/proc/P/mountinfo`.
#![no_main]

use keychain_auth_fuzz::laws::procfs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = procfs::mountinfo(bytes);
});
