//! Bytes to lines: the chunks don't matter, only who wrote which byte.

use std::str;

use keychain_auth::wire::{FrameBuffer, FrameError, Writer, limits::MAX_LINE};

use super::Seen;

/// The process that connected.
const ONE: Writer = Writer { pid: 11, uid: 1 };
/// A process that inherited the descriptor.
const OTHER: Writer = Writer { pid: 12, uid: 1 };
/// A part of a stream that arrives at once: its length, and whether the other process wrote it.
pub type Chunk = (usize, bool);

/// What a stream comes to: lines with their writers, then how many bytes wait for more, or why the connection ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    lines: Vec<(String, Writer)>,
    end: Result<usize, FrameError>,
}

/// A stream gives the same lines however it is cut, and never holds more than one unfinished line. The limit of a line is
/// megabytes away: the properties and the tests of the room go there.
pub fn hold(bytes: &[u8]) -> Seen {
    let whole = [(bytes.len(), false)];
    let expected = by_hand(bytes, &whole);
    let mut choices = Choices::of(bytes);
    cut_like(bytes, &whole);
    cut_like(bytes, &vec![(1, false); bytes.len()]);
    cut_like(bytes, &choices.cut(bytes.len(), false));
    cut_like(bytes, &choices.cut(bytes.len(), true));
    Seen::when(expected.end.is_ok())
}

/// The buffer says of these chunks what the bytes and their writers say.
pub fn cut_like(stream: &[u8], chunks: &[Chunk]) {
    assert_eq!(by_buffer(stream, chunks), by_hand(stream, chunks));
}

fn by_buffer(stream: &[u8], chunks: &[Chunk]) -> Outcome {
    let mut buffer = FrameBuffer::new();
    let mut lines = Vec::new();
    let mut rest = stream;
    for &(length, other) in chunks {
        let (chunk, after) = rest.split_at(length);
        rest = after;
        if let Err(error) = buffer.push(chunk, if other { OTHER } else { ONE }) {
            return Outcome { lines, end: Err(error) };
        }
        while let Some(frame) = buffer.next_frame() {
            match frame {
                Ok(frame) => lines.push((frame.text().to_owned(), frame.writer())),
                Err(error) => return Outcome { lines, end: Err(error) },
            }
        }
        // the '\r' of a full line may wait for its '\n'
        assert!(buffer.len() <= MAX_LINE + 1, "an unfinished line beyond the limit is held");
    }
    Outcome { lines, end: Ok(buffer.len()) }
}

/// The same by another way: writer after writer, line after line, as the contract says it.
fn by_hand(stream: &[u8], chunks: &[Chunk]) -> Outcome {
    let mut lines = Vec::new();
    let (mut line, mut first) = (Vec::new(), None);
    let mut rest = stream;
    for run in chunks.chunk_by(|(_, before), (_, after)| before == after) {
        let writer = if run.iter().any(|(_, other)| *other) { OTHER } else { ONE };
        let (written, after) = rest.split_at(run.iter().map(|(length, _)| length).sum());
        rest = after;
        for part in written.split_inclusive(|byte| *byte == b'\n') {
            let owner = *first.get_or_insert(writer);
            if owner != writer {
                return Outcome { lines, end: Err(FrameError::MixedWriters { first: owner, other: writer }) };
            }
            line.extend_from_slice(part);
            let Some(ended) = line.strip_suffix(b"\n") else {
                // one byte more may turn out to be the '\r' of the end
                if line.len() > MAX_LINE + 1 {
                    return Outcome { lines, end: Err(FrameError::TooLong) };
                }
                continue;
            };
            let text = ended.strip_suffix(b"\r").unwrap_or(ended);
            match str::from_utf8(text) {
                _ if text.len() > MAX_LINE => return Outcome { lines, end: Err(FrameError::TooLong) },
                Ok(text) => lines.push((text.to_owned(), owner)),
                Err(_) => return Outcome { lines, end: Err(FrameError::NotUtf8) },
            }
            line.clear();
            first = None;
        }
    }
    Outcome { lines, end: Ok(line.len()) }
}

/// Cuts that depend on nothing but the bytes, so that every crash repeats.
struct Choices(u64);

impl Choices {
    fn of(bytes: &[u8]) -> Self {
        // FNV-1a
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
    }

    fn cut(&mut self, total: usize, two_writers: bool) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut left = total;
        while left > 0 {
            let length = (self.next() % 16 + 1).min(left);
            chunks.push((length, two_writers && self.next().is_multiple_of(4)));
            left -= length;
        }
        chunks
    }

    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as usize
    }
}
