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
    period: Duration,
    /// When the last one was said.
    said: Option<Instant>,
    /// How many came after it.
    more: u64,
}

impl Failures {
    /// Begins anew: whatever failed before, this program is tried first.
    pub(super) fn new(data_dir: &Path, program: &str) -> Self {
        let failures = Self {
            data_dir: data_dir.to_owned(),
            program: program.to_owned(),
            period: PERIOD,
            said: None,
            more: 0,
        };
        failures.forget();
        failures
    }

    /// Says a failure, and keeps it: at most one in [`PERIOD`], with the number of those that came in between.
    pub(super) fn note(&mut self, why: &io::Error, out: &mut Output) {
        if self.said.is_some_and(|said| said.elapsed() < self.period) {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{cli::output::tests::Kept, store::files::scratch};

    #[test]
    fn of_failures_within_a_period_the_first_is_said_and_the_next_period_counts_the_others() {
        let (dir, said) = (scratch(), Kept::default());
        let mut out = Output::over(Box::new(io::sink()), Box::new(said.clone()));
        let mut failures = Failures::new(dir.path(), "/bin/tell");
        for number in 0..4 {
            failures.note(&io::Error::other(format!("failure {number}")), &mut out);
        }
        assert_eq!(Untold::read(dir.path()).unwrap().why, "failure 0");
        failures.period = Duration::ZERO;
        failures.note(&io::Error::other("failure 4"), &mut out);
        let text = said.text();
        let warning = "warning: a notice could not be given by /bin/tell:";
        assert_eq!(text, format!("{warning} failure 0\n{warning} failure 4; 3 others before it\n"));
        assert_eq!(Untold::read(dir.path()).unwrap().why, "failure 4");
        failures.given();
        assert_eq!((Untold::read(dir.path()), fs::read_dir(dir.path()).unwrap().count()), (None, 0));
    }

    #[test]
    fn what_others_could_have_written_is_not_believed_and_a_new_beginning_forgets_it() {
        let dir = scratch();
        let mut out = Output::over(Box::new(io::sink()), Box::new(io::sink()));
        Failures::new(dir.path(), "x").note(&io::Error::other("y"), &mut out);
        let file = dir.path().join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).unwrap();
        assert_eq!(Untold::read(dir.path()), None);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Untold::read(dir.path()).is_some());
        Failures::new(dir.path(), "x");
        assert_eq!(Untold::read(dir.path()), None);
    }
}
