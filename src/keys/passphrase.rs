//! A passphrase: from a descriptor, from a program that asks for it, or from the terminal without echo.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    io::Errno,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr},
};
use zeroize::Zeroize;

use super::{KeyError, read_to_end, words};
use crate::{child, secret::Buffer, store::MAX_SOURCE_SECRET};

/// Names the program that asks, for us alone.
const ASKPASS: &str = "KEYCHAIN_AUTH_ASKPASS";
/// The one that ssh-add uses, where there is no terminal.
const SSH_ASKPASS: &str = "SSH_ASKPASS";
/// How long somebody may take to type: nothing waits for ever.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the passphrase is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To open a vault.
    Known,
    /// To be that of a vault from now on: typed twice.
    New,
    /// To open an export.
    File,
    /// To be that of an export: typed twice.
    NewFile,
}

/// Asks, in this order: the descriptor, `KEYCHAIN_AUTH_ASKPASS`, the terminal, `SSH_ASKPASS`.
pub(super) fn ask(
    var: &dyn Fn(&str) -> Option<OsString>,
    descriptor: Option<BorrowedFd<'_>>,
    purpose: Purpose,
) -> Result<Buffer, KeyError> {
    let set = |name| var(name).filter(|program: &OsString| !program.is_empty());
    let prompts = match purpose {
        Purpose::Known => ["Passphrase of the vault: "].as_slice(),
        Purpose::New => &["New passphrase of the vault: ", "The same again: "],
        Purpose::File => &["Passphrase of the export: "],
        Purpose::NewFile => &["New passphrase of the export: ", "The same again: "],
    };
    if let Some(descriptor) = descriptor {
        return line(read_to_end(descriptor).map_err(|error| failed(&error))?);
    }
    if let Some(program) = set(ASKPASS) {
        return each(prompts, |prompt| by_program(&program, prompt));
    }
    if let Ok(terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") {
        return each(prompts, |prompt| by_terminal(&terminal, prompt));
    }
    match set(SSH_ASKPASS) {
        Some(program) => each(prompts, |prompt| by_program(&program, prompt)),
        None => Err(KeyError::NobodyToAsk),
    }
}

/// Asks on the terminal only.
pub(super) fn on_terminal(prompt: &str) -> Result<Buffer, KeyError> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    by_terminal(&terminal.map_err(|_| KeyError::NobodyToAsk)?, prompt)
}

/// The same answer to every prompt.
fn each(prompts: &[&str], ask: impl Fn(&str) -> Result<Buffer, KeyError>) -> Result<Buffer, KeyError> {
    let mut first: Option<Buffer> = None;
    for prompt in prompts {
        let typed = ask(prompt)?;
        match &first {
            Some(first) if first.as_slice() != typed.as_slice() => return Err(KeyError::Differs),
            Some(_) => {}
            None => first = Some(typed),
        }
    }
    first.ok_or(KeyError::NobodyToAsk)
}

fn by_program(program: &OsString, prompt: &str) -> Result<Buffer, KeyError> {
    let mut command = Command::new(program);
    // what it complains of is for whoever sits here
    command.arg(prompt).stdin(Stdio::null());
    let done = child::run(&mut command, MAX_SOURCE_SECRET, PATIENCE);
    let told = |why| KeyError::Program(program.to_string_lossy().into_owned(), why);
    let done = done.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => told("it, or the program in its first line, is not there".to_owned()),
        io::ErrorKind::PermissionDenied => told(words(&error)),
        _ => failed(&error),
    })?;
    if done.output.len() > MAX_SOURCE_SECRET {
        return Err(too_long());
    }
    if done.status.success() {
        line(done.output)
    } else {
        Err(KeyError::Passphrase("it was cancelled".to_owned()))
    }
}

/// The bytes up to the first line feed.
fn line(mut said: Buffer) -> Result<Buffer, KeyError> {
    let end = said.as_slice().iter().position(|byte| *byte == b'\n').unwrap_or(said.len());
    said.truncate(end);
    if said.is_empty() {
        return Err(KeyError::Passphrase("it is empty".to_owned()));
    }
    if said.len() > MAX_SOURCE_SECRET {
        return Err(too_long());
    }
    Ok(said)
}

fn too_long() -> KeyError {
    KeyError::Passphrase(format!("it has more than {MAX_SOURCE_SECRET} bytes"))
}

/// Types nothing on the screen, and sees Ctrl-C itself: whatever ends the prompt, the terminal is as it was.
fn by_terminal(terminal: &File, prompt: &str) -> Result<Buffer, KeyError> {
    let failed = |error: io::Error| failed(&error);
    let before = tcgetattr(terminal).map_err(|error| failed(error.into()))?;
    let quiet = Quiet::new(terminal, before).map_err(failed)?;
    let mut out = terminal;
    out.write_all(prompt.as_bytes()).map_err(failed)?;
    let typed = keys(terminal.as_fd()).map_err(failed)?;
    drop(quiet);
    let _ = out.write_all(b"\n");
    line(typed.ok_or_else(|| KeyError::Passphrase("it was cancelled".to_owned()))?)
}

/// The terminal without echo, for a while.
struct Quiet<'a>(&'a File, Termios);

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File, before: Termios) -> io::Result<Self> {
        let mut quiet = before.clone();
        quiet
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        // what was typed ahead was typed with echo, and not as an answer
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self(terminal, before))
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Flush, &self.1);
    }
}

/// What is typed up to Enter; None when it is cancelled.
fn keys(terminal: BorrowedFd<'_>) -> io::Result<Option<Buffer>> {
    let mut typed = Buffer::with_capacity(MAX_SOURCE_SECRET + 1);
    let mut key = [0; 1];
    let ended = loop {
        match rustix::io::read(terminal, &mut key) {
            Ok(0) => break Ok(false),
            Err(Errno::INTR) => continue,
            Err(error) => break Err(error.into()),
            Ok(_) => {}
        }
        match key {
            [b'\n' | b'\r'] => break Ok(true),
            // Ctrl-C, Ctrl-D
            [3 | 4] => break Ok(false),
            // Ctrl-U
            [21] => typed.truncate(0),
            // Backspace takes a whole character
            [8 | 127] => {
                let end = typed.as_slice().iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
                typed.truncate(end);
            }
            _ if typed.len() <= MAX_SOURCE_SECRET => typed.extend_from_slice(&key),
            _ => {}
        }
    };
    key.zeroize();
    ended.map(|whole| whole.then_some(typed))
}

fn failed(error: &io::Error) -> KeyError {
    KeyError::Passphrase(words(error))
}
