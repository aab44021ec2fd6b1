//! Changes of the vault's files while no daemon runs.
#![no_main]

use keychain_auth_fuzz::laws::vault_files;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|changes: &[u8]| {
    let _ = vault_files::hold(changes);
});
