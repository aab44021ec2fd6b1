//! Room that is kept for refusals when the disk is full: what an attacker tries then shall not go unrecorded.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;

use crate::store::files::{FileError, Folder};

/// Name of the file in the log's folder.
pub(super) const RESERVE_FILE: &str = "audit.reserve";
/// How much is kept: some 500 refusals, and far more of a flood, which is folded.
const SIZE: usize = 256 * 1024;
/// How often it is tried to take the room again.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Reserve {
    file: File,
    held: bool,
    tried: Option<Instant>,
}

impl Reserve {
    /// Takes the room, if the disk has it.
    pub(super) fn open(folder: &Folder) -> Result<Self, FileError> {
        let file = match folder.find(RESERVE_FILE, OFlags::empty())? {
            Some(file) => file,
            None => folder.create(RESERVE_FILE, OFlags::empty())?,
        };
        let full = file.metadata().is_ok_and(|found| found.len() == SIZE as u64);
        let mut reserve = Self { file, held: full, tried: None };
        reserve.take_again();
        Ok(reserve)
    }

    /// Gives the room back to the disk. False if there was none.
    pub(super) fn spend(&mut self) -> bool {
        if !self.held || self.file.set_len(0).is_err() {
            return false;
        }
        self.held = false;
        true
    }

    /// Whether the room is there; tries to take it again, at most once a second.
    pub(super) fn is_held(&mut self) -> bool {
        if !self.held && self.tried.is_none_or(|last| last.elapsed() >= PERIOD) {
            self.take_again();
        }
        self.held
    }

    fn take_again(&mut self) {
        if self.held {
            return;
        }
        self.tried = Some(Instant::now());
        self.held = self.fill().is_ok();
        if !self.held {
            // half of it would be lost to everybody
            let _ = self.file.set_len(0);
        }
    }

    fn fill(&self) -> io::Result<()> {
        // random, so that no filesystem packs it into nothing
        let mut block = vec![0; 4096];
        getrandom::fill(&mut block).map_err(io::Error::other)?;
        for at in (0..SIZE).step_by(block.len()) {
            // no two blocks alike, for filesystems that keep one copy of such
            if let Some(place) = block.first_chunk_mut() {
                *place = (at as u64).to_le_bytes();
            }
            self.file.write_all_at(&block, at as u64)?;
        }
        self.file.sync_data()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::files::scratch;

    #[test]
    fn the_room_is_given_back_once_and_taken_again_when_its_time_has_come() {
        let dir = scratch();
        let folder = Folder::open(dir.path()).unwrap();
        let size = || std::fs::metadata(dir.path().join(RESERVE_FILE)).unwrap().len();
        assert!(Reserve::open(&folder).unwrap().is_held());
        assert_eq!(size(), SIZE as u64);
        let mut reserve = Reserve::open(&folder).unwrap();
        assert!(reserve.tried.is_none(), "it was there already");
        assert!(reserve.spend() && !reserve.spend());
        assert_eq!(size(), 0);
        reserve.tried = Instant::now().checked_add(PERIOD);
        assert!(!reserve.is_held(), "not so soon");
        assert_eq!(size(), 0);
        reserve.tried = None;
        assert!(reserve.is_held() && reserve.spend());
        // half of it, as a crash leaves it, is none
        std::fs::write(dir.path().join(RESERVE_FILE), "half").unwrap();
        assert!(Reserve::open(&folder).unwrap().is_held());
        assert_eq!(size(), SIZE as u64);
    }
}
