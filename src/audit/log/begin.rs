//! How a log is opened, and where its chain goes on.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fs::File,
    io::{self, BufRead},
    path::Path,
};

use jiff::Timestamp;
use rustix::fs::{OFlags, Stat, fstat};

use super::{Log, Rotation};
use crate::{
    audit::{
        archive::{Archive, open},
        boundary::Because,
        error::{AuditError, failed},
        fold::Fold,
        query::{Lines, RecordLine},
        reserve::Reserve,
        resume::{self, Resumed},
        tail::{Backward, Tail, number},
    },
    chain::{Head, Linked, VerificationKey},
    store::{
        Seat,
        files::{Folder, plain},
    },
};

impl Log {
    /// Opens the log, or begins one, 0600 in a folder 0700; continues the chain of what is there, as the key in `seat`
    /// and the vault's knowledge of it have it, with a new epoch.
    ///
    /// A torn last line, left by a crash of the machine, is cut off, and a record says so. So is it said when records are
    /// missing that the vault knows: the log goes on, and the gap in its numbers stays.
    pub fn open(path: &Path, mut seat: Seat, known: &Head, rotation: Rotation) -> Result<Self, AuditError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Err(AuditError::File("its path names no file".to_owned()));
        };
        let folder = Folder::open(parent)?;
        let (file, stat) = obtain(&folder, name)?;
        let archive = Archive::of(path).map_err(|error| failed(&error))?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let tail = Tail::read(&file, size).map_err(|error| failed(&error))?;
        if tail.whole > 0 && tail.last_seq == 0 {
            return Err(AuditError::Foreign);
        }
        let Resumed { epoch, head, begun, findings } = standing(&file, &tail, &archive, &mut seat, known)?;
        let mut log = Self {
            path: path.to_owned(),
            reserve: Reserve::open(&folder)?,
            folder,
            name: name.to_owned(),
            file,
            identity: (stat.st_dev, stat.st_ino),
            length: tail.whole,
            first: (0, 0),
            rotation,
            rotate_at: rotation.max_size,
            unpacked: archive.unpacked(),
            moving: false,
            archive,
            epoch,
            head,
            seat,
            boundary: None,
            ended: Vec::new(),
            torn: size > tail.whole,
            notices: findings.into(),
            noticed: None,
            fold: Fold::default(),
            gathered: VecDeque::new(),
            waiting: VecDeque::new(),
            incomplete: false,
            logged: 0,
            unsynced: Vec::new(),
            dirty: false,
            buffer: Vec::new(),
            // asked now: a sandboxed process can't look at itself
            executable: std::env::current_exe().unwrap_or_default(),
        };
        if log.torn {
            log.notices.push_back("half a line at the end was cut off".into());
        }
        log.first = log.first_record().map_err(|error| failed(&error))?;
        match begun {
            true => log.advance(Because::Start),
            // its key is saved already, or is the first of its chain
            false => {
                let because = if log.head.epoch == 0 { Because::NewChain } else { Because::Start };
                log.save_epoch();
                log.announce(because);
            }
        }
        log.ready()?;
        Ok(log)
    }

    /// The number and the second of the file's first record.
    pub(super) fn first_record(&self) -> io::Result<(u64, i64)> {
        let now = Timestamp::now().as_second();
        let mut reader = open(&self.path)?;
        if reader.fill_buf()?.is_empty() {
            return Ok((self.head.seq + 1, now));
        }
        let Some(line) = Lines::new(reader).next().transpose()? else { return Ok((0, now)) };
        let when = RecordLine::parse(&line.bytes).ok().and_then(|record| record.when());
        Ok((number(&line.bytes).unwrap_or(0), when.map_or(now, Timestamp::as_second)))
    }
}

/// Where the chain stands in an opened file, or a new chain.
fn standing(
    file: &File,
    tail: &Tail,
    archive: &Archive,
    seat: &mut Seat,
    known: &Head,
) -> Result<Resumed, AuditError> {
    let lost = match seat.load() {
        Ok(Some(saved)) => {
            let earlier = || archive.newest().and_then(|path| last_mac(&path));
            return resume::resume(file, tail.whole, earlier, saved, known).map_err(|error| failed(&error));
        }
        Ok(None) if known.seq == 0 => None,
        Ok(None) => Some("audit.state, which held the key of the chain, is gone; a new chain begins"),
        Err(_) => Some("audit.state, which held the key of the chain, can't be read; a new chain begins"),
    };
    let key = VerificationKey::generate().map_err(|error| AuditError::Write(error.to_string()))?;
    let before = match known.seq >= tail.last_seq {
        true => *known,
        false => Head { seq: tail.last_seq, ..*known },
    };
    let mut begun = resume::begin(&key, before, 0, Timestamp::now().as_second());
    begun.findings.extend(lost.map(Cow::Borrowed));
    Ok(begun)
}

/// The keyed hash of the last record of an earlier file.
fn last_mac(path: &Path) -> Option<[u8; 32]> {
    if path.extension().is_some_and(|it| it == "zst") {
        let lines = Lines::new(open(path).ok()?);
        return Linked::of(&lines.map_while(Result::ok).last()?.bytes).map(|linked| linked.mac);
    }
    let file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    let (_, line) = Backward::new(&file, size).next().ok()??;
    Linked::of(&line).map(|linked| linked.mac)
}

/// The file under the log's name, made if there is none; and what it is.
pub(super) fn obtain(folder: &Folder, name: &str) -> Result<(File, Stat), AuditError> {
    let file = match folder.find(name, OFlags::APPEND)? {
        Some(file) => file,
        None => {
            let file = folder.create(name, OFlags::APPEND)?;
            folder.sync()?;
            file
        }
    };
    let stat = fstat(&file).map_err(|error| failed(&error.into()))?;
    plain(name, &stat)?;
    Ok((file, stat))
}

#[cfg(test)]
#[path = "begin_tests.rs"]
mod tests;
