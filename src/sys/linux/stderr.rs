//! Standard error that makes nobody wait: whoever reads it may be stopped, slow, or another process of the attacker's.
#![allow(unsafe_code)]

use std::{
    io::{self, IoSlice},
    mem,
    os::fd::{AsFd, AsRawFd},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, Mode, OFlags, fstat},
    net::{SendAncillaryBuffer, SendFlags, sendmsg},
};

/// How standard error is written without a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// As it is: a file, or a pipe or terminal that was opened anew for this process alone.
    Plain,
    /// A socket, as journald gives: each write says that it does not wait.
    Socket,
    /// A pipe or terminal that may not be opened anew, as after a change of user. It is asked first, which is no promise: a
    /// process may write to the same pipe in between, and a terminal may have room, but not for the whole line. So once
    /// there is a thread for it, that one waits, and nobody else: see [`relay`].
    Asked,
}

/// Most lines that wait for that thread. What is said in the end has room beside them.
const RELAYED: usize = 16;
/// How long the end of a process waits for whoever reads standard error.
const PATIENCE: Duration = Duration::from_millis(500);
/// How much longer it may take where something waits that should not, until the kernel ends the process.
const HELD_UP: Duration = Duration::from_millis(100);

enum Relayed {
    Line(Vec<u8>),
    /// The last words, behind everything that was said before them, and who waits until they are written.
    End(Vec<u8>, SyncSender<()>),
}

/// The way to that thread.
struct Relay {
    queue: Sender<Relayed>,
    /// How many lines are in it.
    waiting: AtomicUsize,
}

static HOW: OnceLock<How> = OnceLock::new();
static RELAY: OnceLock<Relay> = OnceLock::new();

/// Finds out what standard error is, and opens a pipe or terminal anew so that it never waits. The flag belongs to what is
/// open, and others have that open too: a shell must not find its terminal changed.
///
/// Called before the process has a second thread or a child, and before its sandbox.
pub fn prepare() {
    let_alarms_end();
    HOW.get_or_init(|| {
        let Ok(found) = fstat(io::stderr().as_fd()) else { return How::Plain };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Socket => How::Socket,
            FileType::Fifo | FileType::CharacterDevice if open_anew().is_err() => How::Asked,
            _ => How::Plain,
        }
    });
}

/// Writes what goes in at once. An error where nothing does.
pub fn write(bytes: &[u8]) -> io::Result<usize> {
    let stderr = io::stderr();
    match HOW.get().unwrap_or(&How::Asked) {
        How::Plain => Ok(rustix::io::write(stderr.as_fd(), bytes)?),
        How::Socket => send(bytes),
        How::Asked if let Some(relay) = RELAY.get() => relay.line(bytes),
        How::Asked if takes_some(Duration::ZERO) => Ok(rustix::io::write(stderr.as_fd(), bytes)?),
        How::Asked => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Says why this process ends at once, if standard error takes it at once. Whoever does not read there must not keep the
/// process alive: a write that is held up all the same is ended by the kernel, and the process with it.
///
/// It takes no lock and no memory, and may be called in the handler of a signal.
pub fn last_words(words: &[u8]) {
    say_or_end(words, Duration::ZERO);
}

/// Says why this process ends, behind what it said before, and waits a moment until that is taken.
pub fn end_with(words: &[u8]) {
    let Some(relay) = RELAY.get() else { return say_or_end(words, PATIENCE) };
    let (said, written) = sync_channel(1);
    if relay.queue.send(Relayed::End(words.to_vec(), said)).is_ok() {
        let _ = written.recv_timeout(PATIENCE);
    }
}

/// Waits a moment until a thread that writes to standard error has written what it was given.
pub fn finish() {
    end_with(b"");
}

fn say_or_end(words: &[u8], patience: Duration) {
    // a socket may take a line though it does not look like it
    let socket = HOW.get() == Some(&How::Socket);
    if words.is_empty() || socket && send(words).is_ok() {
        return;
    }
    // to be ready is no promise, see `Asked`
    set_alarm(patience + HELD_UP);
    if takes_some(patience) {
        let _ =
            if socket { send(words) } else { Ok(rustix::io::write(io::stderr(), words).unwrap_or_default()) };
    }
    set_alarm(Duration::ZERO);
}

/// Gives `SIGALRM` its meaning, whatever this process inherited: it ends the process. Called before the filters, which deny
/// that any signal gets another meaning.
pub(super) fn let_alarms_end() {
    // SAFETY: no handler is installed; what the signal did before is of no use to anybody here
    unsafe { libc::signal(libc::SIGALRM, libc::SIG_DFL) };
}

/// Lets the kernel end the process `after` that time, which is less than a second; never if it is none.
fn set_alarm(after: Duration) {
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let then = libc::timeval { tv_usec: after.subsec_micros().into(), ..never };
    let once = libc::itimerval { it_interval: never, it_value: then };
    // SAFETY: a set of signals of zeroes is a valid one, and all calls are async-signal-safe and read our own objects
    unsafe {
        let mut alarm: libc::sigset_t = mem::zeroed();
        libc::sigaddset(&raw mut alarm, libc::SIGALRM);
        // inherited, or set by the handler that we are in
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const alarm, ptr::null_mut());
        libc::setitimer(libc::ITIMER_REAL, &raw const once, ptr::null_mut());
    }
}

/// To a socket, by the one call for it that every process here may make.
fn send(bytes: &[u8]) -> io::Result<usize> {
    Ok(sendmsg(
        io::stderr(),
        &[IoSlice::new(bytes)],
        &mut SendAncillaryBuffer::default(),
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )?)
}

/// Whether standard error has room for something, or gets it within `patience`.
fn takes_some(patience: Duration) -> bool {
    let stderr = io::stderr();
    let mut fds = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
    Timespec::try_from(patience)
        .is_ok_and(|patience| poll(&mut fds, Some(&patience)).is_ok_and(|ready| ready > 0))
}

impl Relay {
    fn line(&self, bytes: &[u8]) -> io::Result<usize> {
        let full = || io::ErrorKind::WouldBlock.into();
        let more = |waiting| (waiting < RELAYED).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, more).map_err(|_| full())?;
        self.queue.send(Relayed::Line(bytes.to_vec())).map(|()| bytes.len()).map_err(|_| full())
    }
}

/// The work of a thread that may wait for whoever reads standard error, where it can't be written without that. From now on
/// [`write`] only queues lines for it, and gives an error when too many wait.
///
/// Nobody may wait for the end of the thread: it has none while nobody reads.
pub fn relay() -> Option<impl FnOnce() + Send + 'static> {
    if HOW.get() != Some(&How::Asked) {
        return None;
    }
    let (queue, lines) = channel();
    RELAY.set(Relay { queue, waiting: AtomicUsize::new(0) }).ok()?;
    Some(move || pass_on(&lines))
}

fn pass_on(lines: &Receiver<Relayed>) {
    for relayed in lines {
        match relayed {
            Relayed::Line(line) => {
                if let Some(relay) = RELAY.get() {
                    relay.waiting.fetch_sub(1, Relaxed);
                }
                write_patiently(&line);
            }
            Relayed::End(words, said) => {
                write_patiently(&words);
                let _ = said.send(());
            }
        }
    }
}

fn write_patiently(mut rest: &[u8]) {
    while let Ok(length @ 1..) = rustix::io::retry_on_intr(|| rustix::io::write(io::stderr(), rest)) {
        rest = rest.get(length..).unwrap_or_default();
    }
}

fn open_anew() -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let anew = rustix::fs::open("/proc/self/fd/2", flags, Mode::empty())?;
    // SAFETY: the number of standard error is nobody's object; it stays open, and is another opening of the same file
    let result = unsafe { libc::dup3(anew.as_raw_fd(), libc::STDERR_FILENO, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_have_room_where_no_line_has_any_more() {
        let (queue, lines) = channel();
        let relay = Relay { queue, waiting: AtomicUsize::new(0) };
        for _ in 0..RELAYED {
            assert_eq!(relay.line(b"line").unwrap(), 4);
        }
        assert_eq!(relay.line(b"one more").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        relay.queue.send(Relayed::End(b"end".to_vec(), sync_channel(1).0)).unwrap();
        let queued: Vec<_> = lines.try_iter().collect();
        assert_eq!(queued.len(), RELAYED + 1);
        assert!(matches!(queued.last(), Some(Relayed::End(words, _)) if words == b"end"));
    }
}
