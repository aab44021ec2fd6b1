//! The file of the vault's key.
#![no_main]

use keychain_auth_fuzz::laws::vault_key;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = vault_key::hold(bytes);
});
