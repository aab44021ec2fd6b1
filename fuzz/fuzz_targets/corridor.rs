//! Transcripts of several clients against the model. Every other mutation is one of whole lines.
#![no_main]

use keychain_auth_fuzz::laws::{corridor, script};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|transcript: &[u8]| {
    let _ = corridor::hold(transcript);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let noise: Vec<u8> = (0..64_u32).map(|at| ((seed ^ at).wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
    match script::mutate(&data[..size], &noise) {
        Ok(changed) if seed.is_multiple_of(2) && changed.len() <= max_size => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
});
