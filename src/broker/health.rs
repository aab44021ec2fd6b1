//! How the keychain was found when it was last asked.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::store::StoreError;

const WORDS: [&str; 4] = ["unknown", "unlocked", "locked", "unreachable"];

/// Shared by all lanes; told by `status`.
#[derive(Debug, Default)]
pub struct Health(AtomicU8);

impl Health {
    /// `unlocked`, `locked`, `unreachable`, or `unknown` before anything was asked.
    pub fn word(&self) -> &'static str {
        WORDS.get(usize::from(self.0.load(Ordering::Relaxed))).unwrap_or(&"unknown")
    }

    /// Notes how an order ended.
    pub(super) fn note<T>(&self, done: &Result<T, StoreError>) {
        let found = match done {
            Ok(_) => 1,
            Err(StoreError::KeychainLocked) => 2,
            Err(StoreError::Unreachable(_)) => 3,
            // says nothing of the keychain
            Err(_) => return,
        };
        self.0.store(found, Ordering::Relaxed);
    }
}
