//! The only place that prints: data on stdout, prose on stderr.

use std::{
    env,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    failure::Failure,
    text::{plain, plain_json},
};

/// A colour of the terminal's own palette.
#[derive(Clone, Copy)]
pub(super) enum Style {
    Plain,
    Bold,
    Good,
    Warn,
    Bad,
    Faint,
}

/// From how many bytes on something takes long enough for a bar.
const LONG: u64 = 8 * 1024 * 1024;
/// After which time steps take long enough for one.
const SOON: Duration = Duration::from_secs(1);

/// Both streams. A reader that went away (`| head`) is a normal end: what follows is not printed, and the exit code is 0.
pub(super) struct Output {
    stdout: Box<dyn Write>,
    stderr: Box<dyn Write>,
    colour: bool,
    terminal: bool,
    /// Whether stderr is a terminal that a bar can be drawn on.
    bars: bool,
    /// The tenths of percent that a bar on the terminal shows; none where there is none.
    bar: Option<u64>,
    /// When the first of several steps was done.
    begun: Option<Instant>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nobody reads any more.
    Closed,
    /// Data was lost, for example on a full disk.
    Failed,
}

impl Output {
    /// The streams of this process; colour on a terminal only, and not under `NO_COLOR` or `TERM=dumb`.
    pub(super) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|term| term == "dumb");
        let stdout = Box::new(io::BufWriter::new(io::stdout()));
        Self {
            stdout,
            stderr: Box::new(io::stderr()),
            colour: terminal && !unwanted,
            terminal,
            bars: io::stderr().is_terminal() && !unwanted,
            bar: None,
            begun: None,
            state: State::Open,
        }
    }

    /// The same over other streams, without colour.
    #[cfg(test)]
    pub(super) fn over(stdout: Box<dyn Write>, stderr: Box<dyn Write>) -> Self {
        Self {
            stdout,
            stderr,
            colour: false,
            terminal: false,
            bars: false,
            bar: None,
            begun: None,
            state: State::Open,
        }
    }

    /// Says what comes from now on to another stream for people.
    pub(super) fn say_through(&mut self, stderr: Box<dyn Write>) {
        self.stderr = stderr;
    }

    /// Whether stdout is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One line of data. Acting characters in it are written out.
    pub(super) fn line(&mut self, text: &str) {
        self.cells(&[(Style::Plain, text)]);
    }

    /// One line of data from several pieces; the pieces bring their own spaces.
    pub(super) fn cells(&mut self, cells: &[(Style, &str)]) {
        let mut line = String::new();
        for (style, text) in cells {
            let code = if self.colour { style.code() } else { None };
            match code {
                Some(code) => line.extend(["\u{1b}[", code, "m", &plain(text), "\u{1b}[0m"]),
                None => line.push_str(&plain(text)),
            }
        }
        line.push('\n');
        self.data(line.as_bytes());
    }

    /// One JSON document for a program.
    pub(super) fn json(&mut self, value: &impl Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.data(format!("{}\n", plain_json(&text)).as_bytes()),
            Err(_) => self.state = State::Failed,
        }
    }

    /// One line of JSON as it stands in a file; on a terminal, acting characters are escaped.
    pub(super) fn raw_json_line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if self.terminal {
            self.data(plain_json(&String::from_utf8_lossy(line)).as_bytes());
        } else {
            self.data(line);
        }
        self.data(b"\n");
    }

    /// Bytes of our own making, such as a completion script.
    pub(super) fn data(&mut self, bytes: &[u8]) {
        if self.state == State::Open
            && let Err(error) = self.stdout.write_all(bytes)
        {
            self.state = lost(&error);
        }
    }

    /// Hands on what is buffered. False when nobody reads any more.
    pub(super) fn flush(&mut self) -> bool {
        if self.state == State::Open
            && let Err(error) = self.stdout.flush()
        {
            self.state = lost(&error);
        }
        self.state == State::Open
    }

    /// Whether printing goes on: somebody reads, and nothing was lost.
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// How many bytes of something long are done: a bar on a terminal, nothing elsewhere and for what is short.
    pub(super) fn progress(&mut self, done: u64, total: u64) {
        if total >= LONG {
            self.show_bar(done, total);
        }
    }

    /// How many steps are done of something whose steps take who knows how long: a bar from [`SOON`] on.
    pub(super) fn steps(&mut self, done: u64, total: u64) {
        if total > 0 && self.begun.get_or_insert_with(Instant::now).elapsed() >= SOON {
            self.show_bar(done, total);
        }
    }

    fn show_bar(&mut self, done: u64, total: u64) {
        if !self.bars {
            return;
        }
        let tenths = done.min(total) * 1000 / total;
        if self.bar.replace(tenths) != Some(tenths) {
            let full = usize::try_from(tenths / 25).unwrap_or_default();
            let bar = format!("{}{}", "#".repeat(full), ".".repeat(40_usize.saturating_sub(full)));
            let _ = write!(self.stderr, "\r[{bar}] {:>3} %", tenths / 10);
        }
    }

    /// Takes the bar away.
    pub(super) fn end_progress(&mut self) {
        self.begun = None;
        if self.bar.take().is_some() {
            let _ = write!(self.stderr, "\r\u{1b}[K");
        }
    }

    /// One line of prose for people.
    pub(super) fn note(&mut self, text: &str) {
        self.notes(&[text]);
    }

    /// Some lines of prose that belong together.
    fn notes(&mut self, texts: &[&str]) {
        self.flush();
        let lines: String = texts.iter().flat_map(|text| [plain(text), "\n".into()]).collect();
        // without stderr there is nobody to tell
        let _ = self.stderr.write_all(lines.as_bytes());
    }

    /// The end of a command that did what it was asked.
    pub(super) fn finish(&mut self) -> ExitCode {
        self.flush();
        if self.state == State::Failed {
            self.note("error: the output could not be written");
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }

    /// The end of a command that was refused or failed: one sentence, one line of advice.
    pub(super) fn failure(&mut self, failure: &Failure) -> ExitCode {
        let (sentence, advice) = (failure.sentence(), failure.advice());
        self.notes(&[&format!("error: {sentence}"), &format!("  try: {advice}")]);
        ExitCode::FAILURE
    }

    /// The end of a command line that was not understood, or that asked for help.
    pub(super) fn usage(&mut self, usage: &clap::Error) -> ExitCode {
        // clap knows which stream and which colours; without a reader there is nobody to tell
        let _ = usage.print();
        ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
    }
}

fn lost(error: &io::Error) -> State {
    if error.kind() == io::ErrorKind::BrokenPipe { State::Closed } else { State::Failed }
}

impl Style {
    /// The number of an SGR escape.
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Bold => Some("1"),
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Bad => Some("31"),
            Self::Faint => Some("2"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Keeps what is written.
    #[derive(Clone, Default)]
    pub(in crate::cli) struct Kept(Rc<RefCell<Vec<u8>>>);

    impl Kept {
        pub(in crate::cli) fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_went_away_is_a_normal_end_and_a_full_disk_is_not() {
        let end = |kind| {
            let mut output = Output::over(Box::new(Broken(kind)), Box::new(io::sink()));
            output.line("data");
            format!("{:?}", output.finish())
        };
        assert_eq!(end(io::ErrorKind::BrokenPipe), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(end(io::ErrorKind::StorageFull), format!("{:?}", ExitCode::FAILURE));
    }

    #[test]
    fn foreign_text_can_not_act_on_the_terminal() {
        let kept = Kept::default();
        let mut output = Output::over(Box::new(kept.clone()), Box::new(kept.clone()));
        output.line("a\u{1b}[2J");
        output.note("b\nc");
        assert_eq!(kept.0.borrow().as_slice(), b"a\\u{1b}[2J\nb\\nc\n");
    }
}
