//! `audit`: questions to the audit log, answered as a stream, in constant memory.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::Duration,
};

use clap::Subcommand;
use jiff::Timestamp;

use super::{
    audit_record::{Counted, columns},
    context::Context,
    failure::Failure,
    output::{Output, Style},
    text::word,
    when,
};
use crate::audit::{Filter, Line, Lines};

/// How often a followed log is looked at: at once for people, rarely for the processor.
const LOOK: Duration = Duration::from_millis(200);
/// How much is searched for line ends at a time, from the end of the log.
const BLOCK: u64 = 64 * 1024;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show the latest records
    Tail(TailArgs),
    /// Show the records that meet every option
    Show(ShowArgs),
}

#[derive(clap::Args)]
pub(super) struct TailArgs {
    /// How many
    #[arg(short = 'n', long, default_value_t = 10)]
    lines: u64,
    /// Show new records as they come
    #[arg(short, long)]
    follow: bool,
    /// Print the records as they stand in the log
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct ShowArgs {
    /// From then on: 2h, 30m, 7d or 2026-05-21T10:34:02Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// The program, by its path or its file name
    #[arg(long, value_name = "PROGRAM")]
    binary: Option<String>,
    /// The service
    #[arg(long)]
    service: Option<String>,
    /// The result
    #[arg(long, ignore_case = true, value_parser = ["GRANTED", "DENIED", "ERROR"])]
    result: Option<String>,
    /// The reason of a refusal
    #[arg(long)]
    reason: Option<String>,
    /// Print the records as they stand in the log
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let log = cx.paths.audit_log();
    match command {
        Command::Show(args) => show(args, &log, out),
        Command::Tail(args) => tail(args, &log, out),
    }
}

fn since(text: &str) -> Result<Timestamp, String> {
    when::since(text, Timestamp::now())
}

fn show(args: &ShowArgs, log: &Path, out: &mut Output) -> Result<(), Failure> {
    let by_name = args.binary.as_ref().filter(|name| !name.contains('/'));
    let filter = Filter {
        since: args.since,
        binary: args.binary.clone().filter(|_| by_name.is_none()),
        service: args.service.clone(),
        result: args.result.clone(),
        reason: args.reason.clone(),
    };
    let mut printer = Printer { filter, file_name: by_name.cloned(), json: args.json, strange: 0 };
    let Some(mut file) = open(log, out)? else { return Ok(()) };
    pass_on(&mut file, 0, &mut printer, out).map_err(|error| unreadable(log, &error))?;
    printer.finish(out);
    Ok(())
}

fn tail(args: &TailArgs, log: &Path, out: &mut Output) -> Result<(), Failure> {
    let mut printer = Printer { filter: Filter::default(), file_name: None, json: args.json, strange: 0 };
    let failed = |error: io::Error| unreadable(log, &error);
    let mut file = match File::open(log) {
        Err(error) if args.follow && error.kind() == io::ErrorKind::NotFound => {
            appear(log).map_err(failed)?
        }
        opened => opened.map_err(failed)?,
    };
    let mut position = start_of_last(&mut file, args.lines).map_err(failed)?;
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
        let metadata = file.metadata().map_err(failed)?;
        if metadata.len() < position {
            position = 0;
        } else if metadata.len() == position && replaced(log, &metadata) {
            // what the old file held is shown: go on with the one that took its place
            file = appear(log).map_err(failed)?;
            position = 0;
        }
    }
}

/// Shows whole lines from `position` on, one at a time. Returns where the next one begins.
fn pass_on(file: &mut File, position: u64, printer: &mut Printer, out: &mut Output) -> io::Result<u64> {
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
        printer.print(&line, out);
    }
    Ok(position + next)
}

/// Where the last `count` lines begin.
fn start_of_last(file: &mut File, count: u64) -> io::Result<u64> {
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
                return Ok(start + index as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
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

/// None, and a note, where there is no log: a new installation has done nothing that could be shown.
fn open(log: &Path, out: &mut Output) -> Result<Option<File>, Failure> {
    match File::open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            out.note(&format!("There is no audit log at {} yet; the first request begins it", log.display()));
            Ok(None)
        }
        opened => opened.map(Some).map_err(|error| unreadable(log, &error)),
    }
}

fn unreadable(log: &Path, error: &io::Error) -> Failure {
    Failure::new(
        format!("the audit log {} can't be read: {}", log.display(), error.kind()),
        format!("ls -ld {}", word(log)),
    )
}

struct Printer {
    filter: Filter,
    /// The program by its file name, whatever its folder.
    file_name: Option<String>,
    json: bool,
    /// Lines that are no records.
    strange: u64,
}

impl Printer {
    fn print(&mut self, line: &Line, out: &mut Output) {
        let Ok(record) = &line.record else {
            self.strange += 1;
            return;
        };
        if !self.filter.admits(record) || !self.names(&record.binary_path) {
            return;
        }
        if self.json {
            out.raw_json_line(&line.bytes);
            return;
        }
        let style = if record.result == "GRANTED" { Style::Good } else { Style::Bad };
        let [time, result, rest] = columns(record);
        out.cells(&[(Style::Faint, &time), (style, &result), (Style::Plain, rest.trim_end())]);
    }

    fn names(&self, path: &str) -> bool {
        let name = Path::new(path).file_name().and_then(|name| name.to_str());
        self.file_name.as_deref().is_none_or(|wanted| name == Some(wanted))
    }

    fn finish(&self, out: &mut Output) {
        if self.strange > 0 {
            out.note(&format!("warning: {} lines of the log are no records", self.strange));
        }
    }
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
        let mut start = |count| start_of_last(&mut file, count).unwrap();
        assert_eq!((start(0), start(1), start(2), start(3), start(4)), (9, 5, 2, 0, 0));
        let line = vec![b'x'; 50_000];
        let mut file = log(&[line.as_slice(), b"\n", &line, b"\n", &line, b"\n"].concat());
        assert_eq!(start_of_last(&mut file, 2).unwrap(), 50_001);
        assert_eq!(start_of_last(&mut log(b""), 5).unwrap(), 0);
    }

    #[test]
    fn a_line_that_is_being_written_is_shown_once_when_it_is_whole() {
        let whole = br#"{"timestamp":"2026-05-21T10:34:02Z","result":"DENIED"}"#;
        let half = whole.len() / 2;
        let mut file = log(&[whole, b"\n".as_slice(), &whole[..half]].concat());
        let mut printer = Printer { filter: Filter::default(), file_name: None, json: true, strange: 0 };
        let mut out = Output::over(Box::new(io::sink()), Box::new(io::sink()));
        let first = pass_on(&mut file, 0, &mut printer, &mut out).unwrap();
        assert_eq!(first, whole.len() as u64 + 1);
        file.seek(SeekFrom::End(0)).unwrap();
        io::Write::write_all(&mut file, &[&whole[half..], b"\n"].concat()).unwrap();
        let second = pass_on(&mut file, first, &mut printer, &mut out).unwrap();
        assert_eq!((second, printer.strange), (2 * first, 0));
    }
}
