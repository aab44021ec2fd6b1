//! The files of a log: the one that is written, and earlier ones beside it, each named by its first record's number.
//!
//! `audit.log.0000000000004711` holds the records from 4711 on, `….zst` the same, packed. Names never change, so that a
//! crash between two renames can't lose or double a file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ruzstd::{
    decoding::StreamingDecoder,
    encoding::{CompressionLevel, FrameCompressor},
};
use sha2::{Digest, Sha256};

use super::{query::Lines, tail::number};
use crate::sys::filesystem;

/// What a packed file's name ends with.
const PACKED: &str = "zst";
/// How often a log that is being rotated is looked at anew: a rotation is over in a moment, and the next far away.
const TRIES: usize = 100;

/// Earlier files of a log, oldest first.
#[derive(Debug)]
pub(super) struct Archive {
    log: PathBuf,
    files: Vec<u64>,
}

impl Archive {
    /// Looks for the earlier files of a log.
    pub(super) fn of(log: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        for name in names(log)? {
            let number = name.strip_suffix(&format!(".{PACKED}")).unwrap_or(&name);
            files.extend(number.parse::<u64>().ok().filter(|_| number.len() == 16));
        }
        files.sort_unstable();
        files.dedup();
        Ok(Self { log: log.to_owned(), files })
    }

    /// Where a file with this first record rests.
    pub(super) fn place(&self, first: u64) -> PathBuf {
        self.log.with_added_extension(format!("{first:016}"))
    }

    /// Takes up a file that was moved to its place, and removes the oldest ones beyond `most`.
    pub(super) fn add(&mut self, first: u64, most: usize) -> io::Result<()> {
        self.files.push(first);
        let mut done = Ok(());
        while self.files.len() > most {
            let oldest = self.files.remove(0);
            let place = self.place(oldest);
            // the plain one first: who packs it meanwhile finds it gone, or what was packed is removed here; and what a
            // daemon that was killed has packed of it
            for place in [place.clone(), draft(&place), place.with_added_extension(PACKED)] {
                match fs::remove_file(place) {
                    // one that is in the way keeps no other
                    Err(error) if error.kind() != io::ErrorKind::NotFound => done = Err(error),
                    _ => {}
                }
            }
        }
        done
    }

    /// The newest earlier file, as it is now.
    pub(super) fn newest(&self) -> Option<PathBuf> {
        let plain = self.place(*self.files.last()?);
        Some(if is_file(&plain) { plain } else { plain.with_added_extension(PACKED) })
    }

    /// The files that are not packed yet.
    pub(super) fn unpacked(&self) -> Vec<PathBuf> {
        self.files.iter().map(|first| self.place(*first)).filter(|place| is_file(place)).collect()
    }
}

/// All files of a log, in the order of their records; the one that is written last. Also those that another program
/// rotated, such as `audit.log.1`, as long as they are not packed in a form that is not ours.
pub fn files(log: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let names = names(log)?;
    for name in &names {
        let path = log.with_added_extension(name);
        let plain = name.strip_suffix(&format!(".{PACKED}"));
        // a crash came between packing and removing
        if name.ends_with(".new") || plain.is_some_and(|plain| names.iter().any(|name| name == plain)) {
            continue;
        }
        let first = open(&path).and_then(|reader| Lines::new(reader).next().transpose());
        // what can't be read is reported by whoever reads it, in its place by name
        found.push((first.ok().flatten().and_then(|line| number(&line.bytes)).unwrap_or(0), path));
    }
    found.sort();
    let mut files: Vec<PathBuf> = found.into_iter().map(|(_, path)| path).collect();
    if log.exists() {
        files.push(log.to_owned());
    }
    Ok(files)
}

/// A file of a log, open. What is moved, packed or removed from now on stays readable in it.
pub struct LogFile {
    /// Its name when it was opened.
    pub path: PathBuf,
    /// Its lines, unpacked.
    pub reader: Box<dyn BufRead>,
}

/// All files of a log as they stood at one moment, in the order of their records: a daemon that rotates or packs
/// meanwhile neither hides a file nor shows one twice.
pub fn opened(log: &Path) -> io::Result<Vec<LogFile>> {
    for _ in 0..TRIES {
        let all = files(log)?;
        let readers: io::Result<Vec<_>> = all.iter().map(|path| open(path)).collect();
        match readers {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(readers) if files(log)? == all => {
                let files = all.into_iter().zip(readers);
                return Ok(files.map(|(path, reader)| LogFile { path, reader }).collect());
            }
            _ => {}
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Opens a file of a log, packed or not.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let file = File::open(path)?;
    if path.extension().is_some_and(|it| it == PACKED) {
        let decoder = StreamingDecoder::new(BufReader::new(file)).map_err(io::Error::other)?;
        return Ok(Box::new(BufReader::with_capacity(1 << 16, decoder)));
    }
    Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
}

/// Whether there is a file by this name itself: what somebody put in its place, a link, a folder or a pipe, is none of ours,
/// and hides no file that is.
fn is_file(place: &Path) -> bool {
    fs::symlink_metadata(place).is_ok_and(|it| it.is_file())
}

/// Opens a file and nothing else in its place: what a link leads to is not packed, and nobody is waited for at a pipe.
fn regular(place: &Path) -> io::Result<File> {
    let file = filesystem::open(place)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// Where a file is packed.
fn draft(plain: &Path) -> PathBuf {
    plain.with_added_extension(format!("{PACKED}.new"))
}

/// Packs an earlier file, and removes it when what was packed unpacks to the same bytes. Slow; for a thread of its own.
pub fn pack(plain: &Path) -> io::Result<()> {
    match fs::remove_file(draft(plain)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    pack_from(regular(plain)?, plain)
}

/// Packs what was opened as `plain`.
fn pack_from(source: File, plain: &Path) -> io::Result<()> {
    let draft = &draft(plain);
    let packed = plain.with_added_extension(PACKED);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    let mut source = Kept { inner: source, hash: Sha256::new(), failed: None };
    let mut target = Kept { inner: &file, hash: Sha256::new(), failed: None };
    let mut compressor = FrameCompressor::new(CompressionLevel::Fastest);
    compressor.set_source(&mut source);
    compressor.set_drain(&mut target);
    compressor.compress();
    drop(compressor);
    let written = source.failed.take().or(target.failed.take()).map_or(Ok(()), Err);
    let checked = written.and_then(|()| file.sync_all()).and_then(|()| same(draft, source.hash));
    if let Err(error) = checked.and_then(|()| fs::rename(draft, &packed)) {
        let _ = fs::remove_file(draft);
        return Err(error);
    }
    // the name is on the disk before the other one goes
    if let Some(folder) = plain.parent() {
        File::open(folder)?.sync_all()?;
    }
    match fs::remove_file(plain) {
        // it was the oldest one and had to go meanwhile; then so has this
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::remove_file(&packed),
        removed => removed,
    }
}

fn same(packed: &Path, plain: Sha256) -> io::Result<()> {
    let mut decoder = StreamingDecoder::new(BufReader::new(File::open(packed)?)).map_err(io::Error::other)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        match decoder.read(&mut block)? {
            0 => break,
            count => hash.update(block.get(..count).unwrap_or_default()),
        }
    }
    if hash.finalize() == plain.finalize() {
        Ok(())
    } else {
        Err(io::Error::other("what was packed does not unpack to the same"))
    }
}

/// A stream that never fails for the compressor, which would end the daemon; the error is kept and looked at afterwards.
struct Kept<S> {
    inner: S,
    hash: Sha256,
    failed: Option<io::Error>,
}

impl<S: Read> Read for Kept<S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(bytes) {
                Ok(count) => {
                    self.hash.update(bytes.get(..count).unwrap_or_default());
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = Some(error);
                    return Ok(0);
                }
            }
        }
    }
}

impl<S: Write> Write for Kept<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed.is_none() {
            self.failed = self.inner.write_all(bytes).err();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What stands behind `audit.log.` in the names of the log's folder.
fn names(log: &Path) -> io::Result<Vec<String>> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let begin = format!("{name}.");
    let mut names = Vec::new();
    let entries = match fs::read_dir(folder) {
        // a new installation has no folder either
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let found = entry.file_name();
        let rest = found.to_str().and_then(|found| found.strip_prefix(&begin));
        // a fifo or device must not keep a reader waiting
        let plain = entry.metadata().is_ok_and(|it| it.is_file() && it.nlink() > 0);
        names.extend(rest.filter(|_| plain).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::files::scratch;

    #[test]
    fn a_packed_file_unpacks_to_the_same_and_the_plain_one_is_gone() {
        let dir = scratch();
        let log = dir.path().join("audit.log");
        let archive = Archive { log: log.clone(), files: Vec::new() };
        let plain = archive.place(7);
        let line = r#"{"timestamp":"2026-05-21T10:34:02.573201290Z","action":"read","seq":"#;
        let text: String = (0..20_000).map(|n| format!("{line}{n}}}\n")).collect();
        fs::write(&plain, &text).unwrap();
        pack(&plain).unwrap();
        assert!(!plain.exists());
        let packed = plain.with_added_extension("zst");
        let (small, large) = (fs::metadata(&packed).unwrap().len(), text.len() as u64);
        assert!(small * 4 < large, "{small} of {large} bytes");
        assert_eq!(fs::metadata(&packed).unwrap().mode() & 0o7777, 0o600);
        let mut unpacked = String::new();
        open(&packed).unwrap().read_to_string(&mut unpacked).unwrap();
        assert!(unpacked == text);
        assert_eq!(Archive::of(&log).unwrap().files, [7]);
        assert_eq!(files(&log).unwrap(), [packed]);
    }

    #[test]
    fn files_are_read_in_the_order_of_their_records_whoever_moved_them() {
        let dir = scratch();
        let log = dir.path().join("audit.log");
        let name = |end: &str| log.with_added_extension(end);
        for (path, seq) in
            [(name("1"), 30), (name("2"), 20), (name("0000000000000007"), 7), (log.clone(), 40)]
        {
            fs::write(path, format!("{{\"seq\":{seq}}}\n")).unwrap();
        }
        fs::write(name("0000000000000007.zst"), "half").unwrap();
        fs::write(name("9.zst.new"), "half").unwrap();
        assert_eq!(files(&log).unwrap(), [name("0000000000000007"), name("2"), name("1"), log]);
    }

    #[test]
    fn the_oldest_files_go_first() {
        let dir = scratch();
        let mut archive = Archive { log: dir.path().join("audit.log"), files: Vec::new() };
        for first in [1, 5, 9] {
            fs::write(archive.place(first), "x").unwrap();
            fs::write(draft(&archive.place(first)), "half").unwrap();
            archive.add(first, 2).unwrap();
        }
        assert!(!draft(&archive.place(1)).exists() && draft(&archive.place(5)).exists());
        assert!(!archive.place(1).exists() && archive.place(5).exists() && archive.place(9).exists());
        assert_eq!(archive.newest(), Some(archive.place(9)));
    }

    #[test]
    fn what_can_not_be_read_or_does_not_unpack_to_the_same_is_not_packed_and_leaves_no_draft() {
        let dir = scratch();
        let archive = Archive { log: dir.path().join("audit.log"), files: Vec::new() };
        // a folder opens, and its first read fails
        let unreadable = archive.place(1);
        fs::create_dir(&unreadable).unwrap();
        assert!(pack(&unreadable).is_err());
        assert_eq!(
            pack_from(File::open(&unreadable).unwrap(), &unreadable).unwrap_err().kind(),
            io::ErrorKind::IsADirectory
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::remove_dir(&unreadable).unwrap();
        fs::write(draft(&unreadable), "half").unwrap();
        assert_eq!(pack(&unreadable).unwrap_err().kind(), io::ErrorKind::NotFound, "it had to make room");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        // what another try left is no obstacle, and what is none of ours is
        let plain = archive.place(2);
        fs::write(&plain, "x").unwrap();
        let draft = plain.with_added_extension("zst.new");
        fs::write(&draft, "half").unwrap();
        pack(&plain).unwrap();
        assert!(!draft.exists() && !plain.exists());
        let packed = plain.with_added_extension(PACKED);
        assert!(same(&packed, Sha256::new_with_prefix("x")).is_ok());
        assert!(same(&packed, Sha256::new_with_prefix("y")).is_err());
        fs::create_dir(&draft).unwrap();
        fs::write(&plain, "x").unwrap();
        assert!(pack(&plain).is_err() && plain.exists());
    }

    #[test]
    fn a_file_that_was_removed_while_it_was_packed_does_not_come_back() {
        let dir = scratch();
        let plain = Archive { log: dir.path().join("audit.log"), files: Vec::new() }.place(1);
        // a pipe ends when its writer does: the name is gone by then
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &plain, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let writer = {
            let plain = plain.clone();
            std::thread::spawn(move || {
                let mut pipe = OpenOptions::new().write(true).open(&plain).unwrap();
                pipe.write_all(b"records").unwrap();
                fs::remove_file(plain).unwrap();
            })
        };
        pack_from(File::open(&plain).unwrap(), &plain).unwrap();
        writer.join().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_somebody_puts_in_the_place_of_a_packed_file_neither_hides_it_nor_is_packed_over_it() {
        let dir = scratch();
        let log = dir.path().join("audit.log");
        let plain = Archive { log: log.clone(), files: Vec::new() }.place(7);
        let packed = plain.with_added_extension(PACKED);
        fs::write(&plain, "{\"seq\":7}\n").unwrap();
        pack(&plain).unwrap();
        let whole = fs::read(&packed).unwrap();
        fs::write(dir.path().join("vault.key"), "key").unwrap();
        let plant: [&dyn Fn(); 3] = [
            &|| std::os::unix::fs::symlink("vault.key", &plain).unwrap(),
            &|| rustix::fs::mkfifoat(rustix::fs::CWD, &plain, rustix::fs::Mode::RWXU).unwrap(),
            &|| fs::create_dir(&plain).unwrap(),
        ];
        for put in plant {
            put();
            let archive = Archive::of(&log).unwrap();
            assert_eq!(files(&log).unwrap(), std::slice::from_ref(&packed));
            assert_eq!((archive.newest(), archive.unpacked()), (Some(packed.clone()), Vec::new()));
            assert!(pack(&plain).is_err());
            assert!(fs::read(&packed).unwrap() == whole && !draft(&plain).exists());
            let _ = fs::remove_file(&plain).or_else(|_| fs::remove_dir(&plain));
        }
    }

    #[test]
    fn a_draft_that_can_not_be_removed_keeps_no_file_that_had_to_go() {
        let dir = scratch();
        let mut archive = Archive { log: dir.path().join("audit.log"), files: Vec::new() };
        let packed = |archive: &Archive, first| archive.place(first).with_added_extension(PACKED);
        fs::create_dir(draft(&archive.place(1))).unwrap();
        for first in [1, 2] {
            fs::write(packed(&archive, first), "x").unwrap();
        }
        archive.add(1, 1).unwrap();
        assert!(archive.add(2, 1).is_err(), "it is said");
        assert!(!packed(&archive, 1).exists() && packed(&archive, 2).exists());
    }

    #[test]
    fn a_log_that_is_not_there_has_no_files_and_one_that_can_not_be_opened_is_an_error() {
        let dir = scratch();
        let log = dir.path().join("folder").join("audit.log");
        assert_eq!(files(&log).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(Archive::of(&log).unwrap().newest(), None);
        assert_eq!(Archive::of(Path::new("/")).unwrap().newest(), None);
        let log = dir.path().join("audit.log");
        fs::write(&log, "{}\n").unwrap();
        assert_eq!(opened(&log).unwrap().len(), 1);
        fs::write(log.with_added_extension("0000000000000001.zst"), "not packed").unwrap();
        assert!(opened(&log).is_err(), "a file that is left out would look like one that was removed");
    }
}
