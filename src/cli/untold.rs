//! Notices that could not be given: said in the log of `notify`, and kept for `doctor` until one is given again. Who relies
//! on being told must not take silence for peace.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{output::Output, text::moment, words::counted};
use crate::store::files::{FileError, Folder};

/// The file in the data folder.
const FILE: &str = "notify.failed";
const DRAFT: &str = "notify.failed.new";
/// Most bytes of it that are read: a path and a sentence.
const MAX_FILE: u64 = 16 * 1024;
/// Shortest time between two warnings, and between two writes of the file: strangers come as fast as they like.
const PERIOD: Duration = Duration::from_secs(60);

/// The last notice that could not be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Untold {
    /// When, RFC 3339.
    pub(super) at: String,
    /// What should have given it.
    pub(super) program: String,
    /// What became of it, one clause.
    pub(super) why: String,
}

impl Untold {
    /// What stands in the data folder; none where every notice was given, and where the file can't be trusted.
    pub(super) fn read(data_dir: &Path) -> Option<Self> {
        let file = Folder::existing(data_dir).ok()??.find(FILE, OFlags::empty()).ok()??;
        let mut text = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn write(&self, data_dir: &Path) -> Result<(), FileError> {
        let failed = |error: io::Error| FileError::Io { name: FILE.to_owned(), reason: error.to_string() };
        let Some(folder) = Folder::existing(data_dir)? else { return Ok(()) };
        folder.remove(DRAFT)?;
        let mut file = folder.create(DRAFT, OFlags::empty())?;
        let text = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        file.write_all(&text).map_err(failed)?;
        folder.replace(DRAFT, FILE)
    }
}

/// What `notify` knows of its own failures.
pub(super) struct Failures {
    data_dir: PathBuf,
    program: String,
    /// When the last one was said.
    said: Option<Instant>,
    /// How many came after it.
    more: u64,
}

impl Failures {
    /// Begins anew: whatever failed before, this program is tried first.
    pub(super) fn new(data_dir: &Path, program: &str) -> Self {
        let failures =
            Self { data_dir: data_dir.to_owned(), program: program.to_owned(), said: None, more: 0 };
        failures.forget();
        failures
    }

    /// Says a failure, and keeps it: at most one in [`PERIOD`], with the number of those that came in between.
    pub(super) fn note(&mut self, why: &io::Error, out: &mut Output) {
        if self.said.is_some_and(|said| said.elapsed() < PERIOD) {
            self.more += 1;
            return;
        }
        let more = match std::mem::take(&mut self.more) {
            0 => String::new(),
            more => format!("; {} before it", counted(more, "other", "others")),
        };
        self.said = Some(Instant::now());
        out.note(&format!("warning: a notice could not be given by {}: {why}{more}", self.program));
        let (at, program) = (moment(Timestamp::now()), self.program.clone());
        if let Err(error) = (Untold { at, program, why: why.to_string() }).write(&self.data_dir) {
            out.note(&format!("warning: doctor can't be told of it: {error}"));
        }
    }

    /// A notice was given.
    pub(super) fn given(&mut self) {
        if self.said.take().is_some() {
            self.more = 0;
            self.forget();
        }
    }

    fn forget(&self) {
        if let Ok(Some(folder)) = Folder::existing(&self.data_dir) {
            // what stays tells of a failure that is over
            let _ = folder.remove(FILE);
        }
    }
}
