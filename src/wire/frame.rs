//! Bytes to lines. A line has one writer, and every chunk of it must come from that writer.

use std::{mem, str};

use zeroize::Zeroize;

use super::limits::MAX_LINE;
use crate::secret::Buffer;

/// Smallest allocation for an unfinished line: most requests fit.
const FIRST_CAPACITY: usize = 1024;

/// The process that wrote a chunk, as the kernel names it with every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Writer {
    /// Process id in the daemon's pid namespace, never 0.
    pub pid: u32,
    /// User id in the daemon's user namespace.
    pub uid: u32,
}

/// One line of UTF-8 without its end, at most [`MAX_LINE`] bytes, all written by one process. Wiped on drop.
pub struct Frame {
    line: Buffer,
    writer: Writer,
}

impl Frame {
    /// The line.
    pub fn text(&self) -> &str {
        // checked when the frame was made; an empty line is malformed, never a request
        str::from_utf8(self.line.as_slice()).unwrap_or_default()
    }

    /// Who wrote it.
    pub fn writer(&self) -> Writer {
        self.writer
    }
}

/// Why bytes are not a line. The connection ends after the answer: what follows can't be told apart any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No line end within [`MAX_LINE`] bytes.
    #[error("the line is over {MAX_LINE} bytes")]
    TooLong,
    /// Not UTF-8: overlong forms and encoded surrogates are not either.
    #[error("the line is not UTF-8")]
    NotUtf8,
    /// A chunk of the line came from another process.
    #[error("the line was written by more than one process")]
    MixedWriters {
        /// The writer of the first chunk.
        first: Writer,
        /// The writer of a later one.
        other: Writer,
    },
    /// The kernel could not say who wrote a chunk.
    #[error("nobody can say who wrote the line")]
    UnknownWriter,
}

/// The unread bytes of one connection. Holds no memory while it is empty; wipes what it gives up.
#[derive(Default)]
pub struct FrameBuffer {
    bytes: Buffer,
    /// Lines before this index have been taken and wiped.
    start: usize,
    /// Bytes before this index hold no line end that was not taken.
    searched: usize,
    writer: Option<Writer>,
}

impl FrameBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes are held that were not taken as lines.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a chunk that `writer` wrote.
    ///
    /// The caller takes lines with [`Self::next_frame`] until it gives `None` before it adds more, so that at most one
    /// unfinished line and one chunk are held.
    pub fn push(&mut self, chunk: &[u8], writer: Writer) -> Result<(), FrameError> {
        match self.writer {
            Some(first) if first != writer && !self.is_empty() => {
                return Err(FrameError::MixedWriters { first, other: writer });
            }
            _ => self.writer = Some(writer),
        }
        self.compact(chunk.len());
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// The next whole line. `None` when more bytes are needed.
    pub fn next_frame(&mut self) -> Option<Result<Frame, FrameError>> {
        let unsearched = self.bytes.as_slice().get(self.searched..)?;
        let Some(end) = unsearched.iter().position(|byte| *byte == b'\n').map(|at| at + self.searched) else {
            self.searched = self.bytes.len();
            // one byte more for the '\r' of a line of full length
            return (self.len() > MAX_LINE + 1).then_some(Err(FrameError::TooLong));
        };
        let writer = self.writer?;
        let mut line = self.take_through(end);
        let end = line.as_slice();
        let text = end.strip_suffix(b"\r\n").or_else(|| end.strip_suffix(b"\n")).unwrap_or(end).len();
        line.truncate(text);
        if line.len() > MAX_LINE {
            return Some(Err(FrameError::TooLong));
        }
        if str::from_utf8(line.as_slice()).is_err() {
            return Some(Err(FrameError::NotUtf8));
        }
        Some(Ok(Frame { line, writer }))
    }

    /// Takes the bytes up to and with `end`. The usual case, one line that is the whole buffer, copies nothing.
    fn take_through(&mut self, end: usize) -> Buffer {
        let next = end + 1;
        if self.start == 0 && next == self.bytes.len() {
            self.searched = 0;
            return mem::take(&mut self.bytes);
        }
        let mut line = Buffer::with_capacity(next - self.start);
        if let Some(taken) = self.bytes.as_mut_slice().get_mut(self.start..next) {
            line.extend_from_slice(taken);
            taken.zeroize();
        }
        self.start = next;
        self.searched = next;
        if self.is_empty() {
            self.bytes = Buffer::default();
            (self.start, self.searched) = (0, 0);
        }
        line
    }

    /// Drops the lines that were taken from the front, so that a stream of lines does not grow the buffer.
    fn compact(&mut self, more: usize) {
        if self.start == 0 && !self.bytes.is_empty() {
            return;
        }
        let rest = self.bytes.as_slice().get(self.start..).unwrap_or_default();
        let mut moved = Buffer::with_capacity((rest.len() + more).next_power_of_two().max(FIRST_CAPACITY));
        moved.extend_from_slice(rest);
        self.bytes = moved;
        self.searched -= self.start;
        self.start = 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ME: Writer = Writer { pid: 7, uid: 1 };

    fn lines(buffer: &mut FrameBuffer) -> Vec<Result<String, FrameError>> {
        std::iter::from_fn(|| buffer.next_frame())
            .map(|frame| frame.map(|frame| frame.text().to_owned()))
            .collect()
    }

    #[test]
    fn a_line_may_end_with_carriage_return_and_may_be_empty() {
        let mut buffer = FrameBuffer::new();
        buffer.push(b"one\r\n\ntwo\nthr", ME).unwrap();
        assert_eq!(lines(&mut buffer), [Ok("one".into()), Ok(String::new()), Ok("two".into())]);
        assert_eq!(buffer.len(), 3);
        buffer.push(b"ee\n", ME).unwrap();
        assert_eq!(lines(&mut buffer), [Ok("three".into())]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_stream_of_lines_does_not_grow_the_buffer_and_an_unfinished_line_is_not_moved_by_what_follows() {
        let mut buffer = FrameBuffer::new();
        buffer.push(b"first", ME).unwrap();
        let place = buffer.bytes.as_slice().as_ptr();
        buffer.push(b" line", ME).unwrap();
        assert_eq!(buffer.bytes.as_slice().as_ptr(), place);
        for _ in 0..100 {
            buffer.push(b"\nfirst line", ME).unwrap();
            assert_eq!(lines(&mut buffer), [Ok("first line".into())]);
            assert!(buffer.bytes.len() < 32, "lines that were taken are kept");
        }
    }

    #[test]
    fn a_line_of_the_full_length_passes_and_one_byte_more_does_not() {
        let mut full = "x".repeat(MAX_LINE);
        for end in ["\n", "\r\n"] {
            let mut buffer = FrameBuffer::new();
            buffer.push(full.as_bytes(), ME).unwrap();
            assert!(buffer.next_frame().is_none());
            buffer.push(end.as_bytes(), ME).unwrap();
            assert!(buffer.next_frame().unwrap().is_ok());
        }
        full.push('x');
        for end in ["\n", "\r\n"] {
            let mut buffer = FrameBuffer::new();
            buffer.push(format!("{full}{end}").as_bytes(), ME).unwrap();
            assert_eq!(buffer.next_frame().unwrap().err(), Some(FrameError::TooLong));
        }
    }

    #[test]
    fn an_endless_line_is_refused_before_its_end_arrives() {
        let mut buffer = FrameBuffer::new();
        buffer.push(&vec![b'x'; MAX_LINE + 2], ME).unwrap();
        assert_eq!(buffer.next_frame().unwrap().err(), Some(FrameError::TooLong));
    }

    #[test]
    fn overlong_forms_and_encoded_surrogates_are_not_utf8() {
        for bytes in [&b"\xc0\xaf\n"[..], b"\xed\xa0\x80\n", b"\xff\n", b"\xf4\x90\x80\x80\n"] {
            let mut buffer = FrameBuffer::new();
            buffer.push(bytes, ME).unwrap();
            assert_eq!(buffer.next_frame().unwrap().err(), Some(FrameError::NotUtf8));
        }
    }

    #[test]
    fn a_line_has_one_writer_and_the_next_line_may_have_another() {
        let other = Writer { pid: 8, uid: 1 };
        let mut buffer = FrameBuffer::new();
        buffer.push(b"half ", ME).unwrap();
        assert_eq!(buffer.push(b"line\n", other), Err(FrameError::MixedWriters { first: ME, other }));
        let mut buffer = FrameBuffer::new();
        buffer.push(b"mine\n", ME).unwrap();
        assert_eq!(buffer.next_frame().unwrap().unwrap().writer(), ME);
        buffer.push(b"theirs\n", other).unwrap();
        assert_eq!(buffer.next_frame().unwrap().unwrap().writer(), other);
    }
}
