//! Replies that their clients do not take: bounded for each executable, so that one that asks and never reads takes no
//! memory without end, and nothing from others.

use std::{cell::RefCell, collections::HashMap};

use crate::wire::limits::MAX_UNTAKEN;

/// How many bytes wait to be taken, by executable.
#[derive(Default)]
pub(super) struct Untaken(RefCell<HashMap<String, usize>>);

/// A reply that waits; it counts until this is dropped.
pub(super) struct Waiting<'a> {
    untaken: &'a Untaken,
    executable: String,
    bytes: usize,
}

impl Untaken {
    /// Whether this executable must take what waits for it before it gets more.
    pub(super) fn is_full(&self, executable: &str) -> bool {
        self.0.borrow().get(executable).is_some_and(|bytes| *bytes >= MAX_UNTAKEN)
    }

    /// Counts a reply that its client did not take at once.
    pub(super) fn wait(&self, executable: &str, bytes: usize) -> Waiting<'_> {
        *self.0.borrow_mut().entry(executable.to_owned()).or_default() += bytes;
        Waiting { untaken: self, executable: executable.to_owned(), bytes }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut all = self.untaken.0.borrow_mut();
        if let Some(bytes) = all.get_mut(&self.executable) {
            *bytes -= self.bytes;
            if *bytes == 0 {
                all.remove(&self.executable);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_executable_does_not_take_is_bounded_and_hinders_no_other() {
        let untaken = Untaken::default();
        let first = untaken.wait("/a", MAX_UNTAKEN - 1);
        assert!(!untaken.is_full("/a"));
        let second = untaken.wait("/a", 1);
        assert!(untaken.is_full("/a") && !untaken.is_full("/b"));
        drop(first);
        assert!(!untaken.is_full("/a"));
        drop(second);
        assert!(untaken.0.borrow().is_empty(), "nothing is kept of those who took everything");
    }
}
