//! A program whose output is a secret: read into locked memory, bounded in size and in time.
#![forbid(unsafe_code)]

use std::{
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::secret::Buffer;

/// Most that is kept of what a program says about its failure.
const MAX_COMPLAINT: usize = 4096;

/// What a program did.
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    /// What it wrote to stdout, at most one byte more than the limit.
    pub(crate) output: Buffer,
    /// The last line that it wrote to stderr, where the caller had that piped.
    pub(crate) complaint: String,
}

/// Runs a program to its end. One that takes longer, or says more than `limit` bytes, is ended. Its stdin and stderr are
/// what the caller made them.
pub(crate) fn run(command: &mut Command, limit: usize, patience: Duration) -> io::Result<Done> {
    let until = Instant::now() + patience;
    let mut child = Ended(command.stdout(Stdio::piped()).spawn()?);
    let (mut stdout, mut stderr) = (child.0.stdout.take(), child.0.stderr.take());
    let mut output = Buffer::with_capacity(limit + 1);
    let mut complaint = Buffer::with_capacity(MAX_COMPLAINT);
    let mut chunk = Buffer::zeroed(16 * 1024);
    while (stdout.is_some() || stderr.is_some()) && output.len() <= limit {
        let [said, complained] =
            wait([stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)], until)?;
        if said {
            take(&mut stdout, &mut chunk, &mut output, limit + 1)?;
        }
        if complained {
            take(&mut stderr, &mut chunk, &mut complaint, MAX_COMPLAINT)?;
        }
    }
    drop((stdout, stderr));
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        if Instant::now() >= until || output.len() > limit {
            child.0.kill()?;
            break child.0.wait()?;
        }
        // both its streams are closed: its end is a matter of moments
        thread::sleep(Duration::from_millis(1));
    };
    let complaint = String::from_utf8_lossy(complaint.as_slice());
    let complaint =
        complaint.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
    Ok(Done { status, output, complaint })
}

/// A child that does not outlive its owner's interest.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes what is there; at the end of the stream, the stream.
fn take(from: &mut Option<impl Read>, chunk: &mut Buffer, into: &mut Buffer, most: usize) -> io::Result<()> {
    let Some(stream) = from else { return Ok(()) };
    match stream.read(chunk.as_mut_slice()) {
        Ok(0) => *from = None,
        Ok(count) => {
            let room = most.saturating_sub(into.len());
            into.extend_from_slice(chunk.as_slice().get(..count.min(room)).unwrap_or_default());
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Waits until one of the streams that are still open has something or has ended, and says which.
fn wait(streams: [Option<BorrowedFd<'_>>; 2], until: Instant) -> io::Result<[bool; 2]> {
    let mut polled: Vec<PollFd<'_>> =
        streams.iter().flatten().map(|stream| PollFd::from_borrowed_fd(*stream, PollFlags::IN)).collect();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut polled, Some(&left)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let mut answers = polled.iter().map(|stream| !stream.revents().is_empty());
    Ok(streams.map(|stream| stream.is_some() && answers.next().unwrap_or_default()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: usize, patience: u64) -> io::Result<Done> {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stderr(Stdio::piped());
        run(&mut command, limit, Duration::from_millis(patience))
    }

    #[test]
    fn a_program_gives_its_output_its_end_and_its_last_complaint() {
        let done = sh("printf secret; echo first >&2; echo last >&2; exit 3", 100, 30_000).unwrap();
        assert_eq!((done.status.code(), done.output.as_slice()), (Some(3), &b"secret"[..]));
        assert_eq!(done.complaint, "last");
    }

    #[test]
    fn a_program_that_says_too_much_or_takes_too_long_is_ended() {
        let done = sh("exec yes", 1000, 30_000).unwrap();
        assert_eq!(done.output.len(), 1001);
        assert!(!done.status.success());
        assert_eq!(sh("exec sleep 1000", 1000, 50).err().unwrap().kind(), io::ErrorKind::TimedOut);
        let noisy = sh("yes x | head -c 100000 >&2; printf done", 1000, 30_000).unwrap();
        assert_eq!(noisy.output.as_slice(), b"done", "complaints beyond the bound are read and dropped");
    }

    #[test]
    fn a_program_whose_complaints_nobody_asked_for_gives_its_output_alone() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo complaint >&2; printf secret"]).stdin(Stdio::null()).stderr(Stdio::null());
        let done = run(&mut command, 100, Duration::from_secs(30)).unwrap();
        assert!(done.status.success() && done.output.as_slice() == b"secret" && done.complaint.is_empty());
    }
}
