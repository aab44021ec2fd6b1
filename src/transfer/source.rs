//! Sources that are files: `.env`, the store of the earlier system, our own export.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    os::{fd::AsFd, unix::fs::FileTypeExt},
    path::{Path, PathBuf},
};

use super::{
    Sink, TransferError,
    age_file::{Opened, Opening},
};
use crate::{
    import::{
        self, ExportReader, GO_KEY, MAX_EXPORT_LINE, MAX_SOURCE, Place, Rule, SourceError, dotenv, go_store,
        open_go_store,
    },
    keys::{KeyError, typed_value},
    name::{Service, TargetPrefix},
    secret::Buffer,
};

/// The name that stands for standard input.
const STDIN: &str = "-";
const CHUNK: usize = 64 * 1024;

/// Imports an `.env` file; `-` is standard input.
pub fn env_file(
    file: &Path,
    service: &Service,
    prefix: Option<&TargetPrefix>,
    sink: Sink<'_>,
) -> Result<(), TransferError> {
    let bytes = read_whole(file, MAX_SOURCE)?;
    let found = dotenv(bytes.as_slice(), service, prefix).map_err(TransferError::malformed(file))?;
    Ok(found.into_iter().try_for_each(sink)?)
}

/// Imports one value, never from the command line, which other processes and the shell's history show: typed on the terminal
/// without echo where standard input is one, else all of standard input.
pub fn one_value(
    name: &str,
    service: &Service,
    prefix: Option<&TargetPrefix>,
    sink: Sink<'_>,
) -> Result<(), TransferError> {
    let bytes = if io::stdin().is_terminal() {
        typed_value().map_err(|error| match error {
            KeyError::Passphrase(why) => TransferError::NotTyped(why),
            error => error.into(),
        })?
    } else {
        read_whole(Path::new(STDIN), MAX_SOURCE)?
    };
    // nothing must not be written over a good secret
    let found = import::one_value(name, bytes, service, prefix).ok_or(TransferError::NoValue)?;
    Ok(sink(found)?)
}

/// Imports `keychain.enc` with the `keychain.key` beside it.
pub fn go_folder(folder: &Path, services: &[Service], sink: Sink<'_>) -> Result<(), TransferError> {
    let (file, key) = (folder.join("keychain.enc"), folder.join("keychain.key"));
    let failed = |error| TransferError::GoStore { file: file.clone(), error };
    // one byte more shows a longer file
    let key = read_whole(&key, GO_KEY + 1)?;
    let mut sealed = read_whole(&file, MAX_SOURCE)?;
    let json = open_go_store(key.as_slice(), &mut sealed).map_err(failed)?;
    let found = go_store(json, services).map_err(TransferError::malformed(&file))?;
    Ok(found.into_iter().try_for_each(sink)?)
}

/// Imports an export of ours, line by line; `-` is standard input.
///
/// What is encrypted is authenticated piece by piece, and a file that was cut is an error: nothing of it may be used
/// before this returns.
pub fn export_file(file: &Path, opening: &Opening<'_>, sink: Sink<'_>) -> Result<(), TransferError> {
    let source = open(file)?;
    let mut lines =
        Lines { source: opening.open(source, file)?, file, buffer: Buffer::zeroed(CHUNK), from: 0, to: 0 };
    let mut line = Buffer::with_capacity(MAX_EXPORT_LINE + 1);
    let malformed = TransferError::malformed;
    lines.next(&mut line)?;
    let mut reader = ExportReader::new(line.as_slice()).map_err(malformed(file))?;
    let mut number = 1;
    while lines.next(&mut line)? {
        number += 1;
        if line.len() > MAX_EXPORT_LINE {
            let place = Place { line: number, column: MAX_EXPORT_LINE + 1 };
            return Err(malformed(file)(SourceError { place, rule: Rule::LongLine }));
        }
        sink(reader.record(line.as_slice()).map_err(malformed(file))?)?;
    }
    reader.finish().map_err(malformed(file))
}

/// Lines of a stream, through locked memory only.
struct Lines<'f> {
    source: Opened<Box<dyn Read>>,
    file: &'f Path,
    buffer: Buffer,
    from: usize,
    to: usize,
}

impl Lines<'_> {
    /// The next line without its end; false behind the last one. Of a line that is too long, one byte more than a line has.
    fn next(&mut self, line: &mut Buffer) -> Result<bool, TransferError> {
        line.truncate(0);
        let mut any = false;
        loop {
            if self.from == self.to {
                (self.from, self.to) = (0, self.fill()?);
                if self.to == 0 {
                    return Ok(any);
                }
            }
            any = true;
            let ready = self.buffer.as_slice().get(self.from..self.to).unwrap_or_default();
            let end = ready.iter().position(|byte| *byte == b'\n');
            let piece = ready.get(..end.unwrap_or(ready.len())).unwrap_or_default();
            let room = (MAX_EXPORT_LINE + 1).saturating_sub(line.len());
            line.extend_from_slice(piece.get(..piece.len().min(room)).unwrap_or(piece));
            self.from += piece.len() + usize::from(end.is_some());
            if end.is_some() || line.len() > MAX_EXPORT_LINE {
                return Ok(true);
            }
        }
    }

    fn fill(&mut self) -> Result<usize, TransferError> {
        loop {
            match self.source.read(self.buffer.as_mut_slice()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.source.broken(self.file, error)),
                Ok(count) => return Ok(count),
            }
        }
    }
}

/// A regular file, a pipe such as a shell's `<(…)`, or standard input.
pub(super) fn open(file: &Path) -> Result<Box<dyn Read>, TransferError> {
    if file == Path::new(STDIN) {
        // unbuffered: what it reads ahead would lie in memory that nobody wipes
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        return Ok(Box::new(File::from(stdin.map_err(TransferError::reading(file))?)));
    }
    let opened = File::open(file).and_then(|opened| {
        let kind = opened.metadata()?.file_type();
        if kind.is_file() || kind.is_fifo() {
            Ok(opened)
        } else {
            Err(io::Error::other("it is no file and no pipe"))
        }
    });
    Ok(Box::new(opened.map_err(TransferError::reading(file))?))
}

/// A whole file in locked memory.
pub(super) fn read_whole(file: &Path, limit: usize) -> Result<Buffer, TransferError> {
    let mut source = open(file)?;
    let mut bytes = Buffer::default();
    let mut chunk = Buffer::zeroed(CHUNK.min(limit));
    loop {
        match source.read(chunk.as_mut_slice()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TransferError::reading(file)(error)),
            Ok(0) => return Ok(bytes),
            Ok(count) if bytes.len() + count > limit => {
                return Err(TransferError::TooLarge { file: PathBuf::from(file), limit });
            }
            Ok(count) => bytes.extend_from_slice(chunk.as_slice().get(..count).unwrap_or_default()),
        }
    }
}
