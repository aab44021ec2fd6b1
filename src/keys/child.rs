//! A short-lived child whose output is a secret: read into locked memory, within a time.

use std::{
    io,
    os::fd::AsFd,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use zeroize::Zeroize;

use crate::{secret::Buffer, store::MAX_SOURCE_SECRET};

/// Runs a program to its end and gives what it wrote, at most one byte more than a secret may have.
///
/// A child that takes longer is ended.
pub(super) fn run(command: &mut Command, patience: Duration) -> io::Result<(ExitStatus, Buffer)> {
    let until = Instant::now() + patience;
    let mut child = Ended(command.stdout(Stdio::piped()).spawn()?);
    let Some(output) = child.0.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let said = read_to_end(&output, Some(until))?;
    drop(output);
    loop {
        if let Some(status) = child.0.try_wait()? {
            return Ok((status, said));
        }
        if Instant::now() >= until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // it has closed its output, so its end is a matter of moments
        thread::sleep(Duration::from_millis(1));
    }
}

/// A child that does not outlive its owner's interest.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything that comes, up to one byte more than a secret may have, into locked memory.
pub(super) fn read_to_end(source: impl AsFd, until: Option<Instant>) -> io::Result<Buffer> {
    let mut bytes = Buffer::with_capacity(MAX_SOURCE_SECRET + 1);
    let mut chunk = [0; 512];
    while bytes.len() <= MAX_SOURCE_SECRET {
        if let Some(until) = until {
            wait(&source, until)?;
        }
        match rustix::io::read(&source, &mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                let room = (MAX_SOURCE_SECRET + 1).saturating_sub(bytes.len());
                bytes.extend_from_slice(chunk.get(..count.min(room)).unwrap_or_default());
            }
            Err(Errno::INTR) => {}
            Err(error) => {
                chunk.zeroize();
                return Err(error.into());
            }
        }
    }
    chunk.zeroize();
    Ok(bytes)
}

fn wait(source: impl AsFd, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&source, PollFlags::IN)], Some(&left)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sh(script: &str, patience: Duration) -> io::Result<(ExitStatus, Buffer)> {
        run(Command::new("sh").args(["-c", script]).stdin(Stdio::null()), patience)
    }

    #[test]
    fn a_child_gives_its_output_and_one_that_takes_too_long_or_says_too_much_is_ended() {
        let (status, said) = sh("printf secret; exit 3", Duration::from_secs(30)).unwrap();
        assert_eq!((status.code(), said.as_slice()), (Some(3), &b"secret"[..]));
        let late = sh("exec sleep 1000", Duration::from_millis(50)).err().unwrap();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let (_, much) = match sh("exec yes", Duration::from_secs(30)) {
            // its pipe is closed, so it ends
            Ok(much) => much,
            Err(error) => unreachable!("{error}"),
        };
        assert_eq!(much.len(), MAX_SOURCE_SECRET + 1);
    }
}
