//! `audit tail`: the latest records, and new ones as they come.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::Duration,
};

use super::{Printer, Wanted, nothing_yet, unreadable, words::Counted};
use crate::{
    audit::{Line, Lines, RecordLine, files, open},
    cli::{failure::Failure, output::Output},
};

/// How often a followed log is looked at: at once for people, rarely for the processor.
const LOOK: Duration = Duration::from_millis(200);
/// How much is searched for line ends at a time, from the end of the log.
const BLOCK: u64 = 64 * 1024;

#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// How many; of them those are shown that meet every option
    #[arg(short = 'n', long, default_value_t = 10)]
    lines: u64,
    /// Show new records as they come
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    pub(super) wanted: Wanted,
    /// Print the records as they stand in the log
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, log: &Path, out: &mut Output) -> Result<(), Failure> {
    let mut printer = Printer::new(&args.wanted, args.json);
    let failed = |error: io::Error| unreadable(log, &error);
    let mut file = match File::open(log) {
        Err(error) if args.follow && error.kind() == io::ErrorKind::NotFound => {
            nothing_yet(log, out);
            appear(log).map_err(failed)?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return without_newest(log, args.lines, &mut printer, out);
        }
        opened => opened.map_err(failed)?,
    };
    let (mut position, lacking) = start_of_last(&mut file, args.lines).map_err(failed)?;
    for line in earlier(log, lacking).map_err(failed)? {
        printer.print(&line, out);
    }
    loop {
        position = pass_on(&mut file, position, &mut printer, out).map_err(failed)?;
        if !args.follow {
            printer.finish(out);
            return Ok(());
        }
        if !out.flush() {
            return Ok(());
        }
        thread::sleep(LOOK);
        position = go_on(&mut file, log, position).map_err(failed)?;
    }
}

/// The log before its first record, or at the moment when a full file was moved away.
fn without_newest(log: &Path, count: u64, printer: &mut Printer, out: &mut Output) -> Result<(), Failure> {
    let last = match earlier(log, count) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => VecDeque::new(),
        last => last.map_err(|error| unreadable(log, &error))?,
    };
    if last.is_empty() {
        nothing_yet(log, out);
    }
    for line in last {
        printer.print(&line, out);
    }
    printer.finish(out);
    Ok(())
}

/// Hands on every record that comes from now on, and none after each look, until nobody reads any more or the log can't be
/// read.
pub(in crate::cli) fn follow(
    log: &Path,
    out: &mut Output,
    mut each: impl FnMut(Option<&RecordLine>, &mut Output),
) -> Result<(), Failure> {
    let failed = |error: io::Error| unreadable(log, &error);
    let mut file = appear(log).map_err(failed)?;
    let (mut position, _) = start_of_last(&mut file, 0).map_err(failed)?;
    while out.flush() {
        position = hand_on(&mut file, position, out, |line, out| {
            if let Ok(record) = &line.record {
                each(Some(record), out);
            }
        })
        .map_err(failed)?;
        each(None, out);
        thread::sleep(LOOK);
        position = go_on(&mut file, log, position).map_err(failed)?;
    }
    Ok(())
}

/// Where to read on: in the same file, or in the one that took its place when all of it was read.
fn go_on(file: &mut File, log: &Path, position: u64) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.len() < position {
        return Ok(0);
    }
    if metadata.len() == position && replaced(log, &metadata) {
        *file = appear(log)?;
        return Ok(0);
    }
    Ok(position)
}

/// Shows whole lines from `position` on, one at a time. Returns where the next one begins.
fn pass_on(file: &mut File, position: u64, printer: &mut Printer, out: &mut Output) -> io::Result<u64> {
    hand_on(file, position, out, |line, out| printer.print(line, out))
}

fn hand_on(
    file: &mut File,
    position: u64,
    out: &mut Output,
    mut each: impl FnMut(&Line, &mut Output),
) -> io::Result<u64> {
    file.seek(SeekFrom::Start(position))?;
    let mut reader = Counted::new(BufReader::new(file));
    let mut next = 0;
    while out.is_open() {
        let Some(line) = Lines::new(&mut reader).next().transpose()? else { break };
        if reader.taken() - next == line.bytes.len() as u64 {
            // no newline was taken: the line is being written, and is read again when it is whole
            break;
        }
        next = reader.taken();
        each(&line, out);
    }
    Ok(position + next)
}

/// The last `count` lines of the files before the one that is written.
fn earlier(log: &Path, count: u64) -> io::Result<VecDeque<Line>> {
    let mut last = VecDeque::new();
    if count == 0 {
        return Ok(last);
    }
    let all = files(log)?;
    for path in all.iter().rev().filter(|path| *path != log) {
        let room = usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(last.len());
        let mut lines = VecDeque::new();
        for line in Lines::new(open(path)?) {
            lines.push_back(line?);
            if lines.len() > room {
                lines.pop_front();
            }
        }
        while let Some(line) = lines.pop_back() {
            last.push_front(line);
        }
        if last.len() as u64 >= count {
            break;
        }
    }
    Ok(last)
}

/// Where the last `count` lines begin, and how many there are too few.
fn start_of_last(file: &mut File, count: u64) -> io::Result<(u64, u64)> {
    let mut end = file.seek(SeekFrom::End(0))?;
    // the end of the last line is not the beginning of one that counts
    let mut wanted = count.saturating_add(1);
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        Read::by_ref(file).take(end - start).read_to_end(&mut block)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            wanted -= 1;
            if wanted == 0 {
                return Ok((start + index as u64 + 1, 0));
            }
        }
        end = start;
    }
    // what is before the first newline is a line too
    Ok((0, wanted.saturating_sub(1)))
}

/// Waits until there is a log.
fn appear(log: &Path) -> io::Result<File> {
    loop {
        match File::open(log) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => thread::sleep(LOOK),
            opened => return opened,
        }
    }
}

fn replaced(log: &Path, open: &fs::Metadata) -> bool {
    fs::metadata(log).map_or(true, |now| (now.dev(), now.ino()) != (open.dev(), open.ino()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn log(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        file
    }

    #[test]
    fn the_last_lines_are_found_from_the_end_across_blocks() {
        let mut file = log(b"a\nbb\nccc\n");
        let mut start = |count| start_of_last(&mut file, count).unwrap().0;
        assert_eq!((start(0), start(1), start(2), start(3), start(4)), (9, 5, 2, 0, 0));
        assert_eq!(start_of_last(&mut file, 5).unwrap(), (0, 2), "two more from earlier files");
        let line = vec![b'x'; 50_000];
        let mut file = log(&[line.as_slice(), b"\n", &line, b"\n", &line, b"\n"].concat());
        assert_eq!(start_of_last(&mut file, 2).unwrap(), (50_001, 0));
        assert_eq!(start_of_last(&mut log(b""), 5).unwrap(), (0, 5));
    }

    #[test]
    fn a_line_that_is_being_written_is_shown_once_when_it_is_whole() {
        let whole = br#"{"timestamp":"2026-05-21T10:34:02Z","result":"DENIED"}"#;
        let half = whole.len() / 2;
        let mut file = log(&[whole, b"\n".as_slice(), &whole[..half]].concat());
        let mut printer = Printer::new(&Wanted::default(), true);
        let mut out = Output::over(Box::new(io::sink()), Box::new(io::sink()));
        let first = pass_on(&mut file, 0, &mut printer, &mut out).unwrap();
        assert_eq!(first, whole.len() as u64 + 1);
        file.seek(SeekFrom::End(0)).unwrap();
        io::Write::write_all(&mut file, &[&whole[half..], b"\n"].concat()).unwrap();
        let second = pass_on(&mut file, first, &mut printer, &mut out).unwrap();
        assert_eq!((second, printer.strange), (2 * first, 0));
    }
}
