//! The lines of one connection as they arrive, and until when the next bytes are due.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use tokio::io::unix::AsyncFd;
use zeroize::Zeroize;

use super::house::House;
use crate::{
    sys::peer::receive,
    wire::{
        Frame, FrameBuffer, FrameError,
        limits::{FIRST_LINE, IDLE, LINE_FINISH, SILENT_STRANGER},
    },
};

/// Size of one receive: a request of a hundred targets arrives at once.
pub(super) const CHUNK: usize = 64 * 1024;

/// What a wait for bytes ended with.
pub(super) enum Arrival {
    /// Bytes are in the buffer.
    Bytes,
    /// The peer sends nothing more.
    End,
    /// Nothing came in time.
    Late,
    /// Bytes that can't be a line.
    Broken(FrameError),
}

/// The bytes of a connection that are unread or in work, counted into the sum over all connections, and its clock.
pub(super) struct Lines<'a> {
    buffer: FrameBuffer,
    /// Bytes of the line that was given last, and of what was read from it: they are held until it is answered, which may
    /// take the witness's time.
    in_work: usize,
    counted: usize,
    house: &'a House,
    phase: Phase,
    /// When the phase began.
    since: Instant,
}

/// What a connection is waiting for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first byte, and nobody has looked who is silent.
    Silent,
    /// The end of the first line.
    First,
    /// The start of another line.
    Idle,
    /// The end of a line that has begun.
    Within,
}

impl<'a> Lines<'a> {
    pub(super) fn new(house: &'a House) -> Self {
        Self {
            buffer: FrameBuffer::new(),
            in_work: 0,
            counted: 0,
            house,
            phase: Phase::Silent,
            since: Instant::now(),
        }
    }

    /// The next whole line that is here. The line before it has been answered.
    pub(super) fn next(&mut self) -> Option<Result<Frame, FrameError>> {
        let line = self.buffer.next_frame();
        // its values are copied out of it
        self.in_work = line.as_ref().map_or(0, |line| line.as_ref().map_or(0, |line| 2 * line.text().len()));
        self.count();
        if line.is_some() {
            self.begin(if self.buffer.is_empty() { Phase::Idle } else { Phase::Within });
        }
        line
    }

    /// Until when something must come. A line that grows by a byte now and then buys no time.
    pub(super) fn deadline(&self) -> Instant {
        self.since
            + match self.phase {
                Phase::Silent => SILENT_STRANGER,
                Phase::First => FIRST_LINE,
                Phase::Idle => IDLE,
                Phase::Within => LINE_FINISH,
            }
    }

    /// Whether the connection has just been silent long enough to ask who it is. True once.
    pub(super) fn silence_is_new(&mut self) -> bool {
        let new = self.phase == Phase::Silent;
        if new {
            // the clock of the first line runs on since connect
            self.phase = Phase::First;
        }
        new
    }

    /// Whether no line has begun.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether the connection has been answered and has begun no other line.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Reads one chunk.
    pub(super) async fn read(&mut self, socket: &AsyncFd<OwnedFd>) -> io::Result<Arrival> {
        loop {
            let mut ready = socket.readable().await?;
            let mut chunk = self.house.chunk.borrow_mut();
            let received = match ready.try_io(|socket| receive(socket.as_fd(), chunk.as_mut_slice())) {
                Ok(received) => received?,
                Err(_would_block) => continue,
            };
            let bytes = chunk.as_mut_slice().get_mut(..received.length).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(Arrival::End);
            }
            let pushed = match received.writer {
                Some(writer) => self.buffer.push(bytes, writer),
                None => Err(FrameError::UnknownWriter),
            };
            bytes.zeroize();
            drop(chunk);
            self.count();
            match self.phase {
                Phase::Silent => self.phase = Phase::First,
                Phase::Idle => self.begin(Phase::Within),
                Phase::First | Phase::Within => {}
            }
            return Ok(pushed.map_or_else(Arrival::Broken, |()| Arrival::Bytes));
        }
    }

    fn begin(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }

    fn count(&mut self) {
        let held = self.buffer.len() + self.in_work;
        self.house.unfinished.set(self.house.unfinished.get() + held - self.counted);
        self.counted = held;
    }
}

impl Drop for Lines<'_> {
    fn drop(&mut self) {
        self.house.unfinished.set(self.house.unfinished.get() - self.counted);
    }
}
