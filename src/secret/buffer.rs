//! A byte buffer for secrets in locked memory. It grows without leaving copies behind.

use std::io;

use zeroize::Zeroize;

use crate::sys::locked::Block;

/// Bytes that may be secret: in locked memory, wiped on drop and whenever they move. No Clone, no Debug.
///
/// Empty, it holds no memory.
pub struct Buffer {
    block: Block,
    length: usize,
}

impl Buffer {
    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { block: Block::new(capacity), length: 0 }
    }

    /// A buffer of `length` zeros.
    pub fn zeroed(length: usize) -> Self {
        Self { block: Block::new(length), length }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.block.as_slice().get(..self.length).unwrap_or_default()
    }

    /// The bytes, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.block.as_mut_slice().get_mut(..self.length).unwrap_or_default()
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds bytes. Where there is no room for them, all move to a block of at least twice the size.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let needed = self.length + bytes.len();
        if needed > self.block.as_slice().len() {
            let mut larger = Block::new(needed.max(2 * self.length));
            if let Some(place) = larger.as_mut_slice().get_mut(..self.length) {
                place.copy_from_slice(self.as_slice());
            }
            self.block = larger;
        }
        if let Some(place) = self.block.as_mut_slice().get_mut(self.length..needed) {
            place.copy_from_slice(bytes);
            self.length = needed;
        }
    }

    /// Cuts the end off, and wipes it.
    pub fn truncate(&mut self, length: usize) {
        if length < self.length {
            if let Some(end) = self.block.as_mut_slice().get_mut(length..) {
                end.zeroize();
            }
            self.length = length;
        }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl From<&[u8]> for Buffer {
    fn from(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_keeps_its_bytes_and_gives_up_its_memory_when_emptied() {
        let mut buffer = Buffer::default();
        let mut model = Vec::new();
        for step in 0_usize..200 {
            let bytes = vec![u8::try_from(step % 251).unwrap_or_default(); step * 7 % 300];
            buffer.extend_from_slice(&bytes);
            model.extend_from_slice(&bytes);
            if step % 9 == 0 {
                buffer.truncate(step * 3);
                model.truncate(step * 3);
            }
            assert_eq!(buffer.as_slice(), model);
        }
    }
}
