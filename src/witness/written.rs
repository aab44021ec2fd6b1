//! Whether code in memory is still what its file holds.
//!
//! Who makes code of a file writable writes into a copy of the page that is the process's own. The memory map shows the
//! file as before; the page map tells the copy from the file's page, also when it is executable again.

use std::{fs::File, os::unix::fs::FileExt};

use super::protocol::Unseen;

/// Most pages of code that are looked at in one process: 1 GiB, several times the largest programs in use. A process with
/// more is built to be slow to examine.
const MAX_PAGES: u64 = 1 << 18;
/// Size of one read: 8,192 pages.
const CHUNK: usize = 64 * 1024;

// Documentation/admin-guide/mm/pagemap.rst
const ENTRY: u64 = 8;
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// A page of a file, or shared: not the process's own.
const OF_FILE: u64 = 1 << 61;

/// The page map of one process.
pub(super) struct PageMap {
    file: File,
    page: u64,
    left: u64,
    chunk: Vec<u8>,
}

impl PageMap {
    /// Takes an open `/proc/P/pagemap`, and the size of a page.
    pub(super) fn new(file: File, page: u64) -> Self {
        Self { file, page, left: MAX_PAGES, chunk: vec![0; CHUNK] }
    }

    /// Whether any page between these addresses, which a file is mapped at, was written in this process.
    pub(super) fn is_written(&mut self, (from, to): (u64, u64)) -> Result<bool, Unseen> {
        let page = self.page;
        let pages = to.saturating_sub(from).div_ceil(page);
        self.left = self.left.checked_sub(pages).ok_or(Unseen::TooLarge)?;
        let (mut at, end) = (from / page * ENTRY, (from / page + pages) * ENTRY);
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let chunk = self.chunk.get_mut(..wanted).unwrap_or_default();
            let length = self.file.read_at(chunk, at).map_err(|_| Unseen::Unreadable)?;
            // nothing is read of a process that has ended
            let entries = chunk.get(..length).filter(|read| !read.is_empty()).ok_or(Unseen::Gone)?;
            if any_own(entries) {
                return Ok(true);
            }
            at += length as u64;
        }
        Ok(false)
    }
}

/// Whether there is a page, in memory or swapped out, that is not the file's.
fn any_own(entries: &[u8]) -> bool {
    entries
        .as_chunks()
        .0
        .iter()
        .map(|entry| u64::from_ne_bytes(*entry))
        .any(|entry| entry & (PRESENT | SWAPPED) != 0 && entry & OF_FILE == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_the_processs_own_is_found_in_memory_and_in_swap() {
        let entries =
            |all: &[u64]| any_own(&all.iter().flat_map(|entry| entry.to_ne_bytes()).collect::<Vec<_>>());
        assert!(!entries(&[0, PRESENT | OF_FILE | 7, SWAPPED | OF_FILE]));
        assert!(entries(&[PRESENT | OF_FILE, PRESENT | 7]));
        assert!(entries(&[0, SWAPPED | 7]));
    }
}
