//! A vault file that is read and never written: what redb writes while it opens a file, and when it closes it, stays in
//! memory. So looking leaves every byte as it was, and costs no copy of the file.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

/// Bytes of a block that is kept whole once a byte of it was written: a page of redb.
const BLOCK: usize = 4096;

type Block = Box<[u8; BLOCK]>;

/// The backend of such a file.
pub(super) struct Shadow {
    file: File,
    written: Mutex<Written>,
}

/// What the file would hold.
struct Written {
    length: u64,
    /// What lies behind this comes from no file: it was cut off, or was never there.
    from_file: u64,
    /// By their number in the file.
    blocks: BTreeMap<u64, Block>,
}

impl Shadow {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let written = Mutex::new(Written { length, from_file: length, blocks: BTreeMap::new() });
        Ok(Self { file, written })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// redb asks for Debug; a file's bytes belong in no text
impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow").finish_non_exhaustive()
    }
}

impl Written {
    fn ends_within(&self, offset: u64, count: usize) -> io::Result<()> {
        let end = offset.checked_add(count as u64);
        end.filter(|end| *end <= self.length).map(drop).ok_or(ErrorKind::UnexpectedEof.into())
    }

    /// Reads what the file has of these bytes, and zeros behind it.
    fn read_file(&self, file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(self.from_file.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (there, behind) = out.split_at_mut(there.min(out.len()));
        behind.fill(0);
        file.read_exact_at(there, offset)
    }
}

/// The blocks that a range touches: the number of each, where the range begins in it, and how long it is there.
fn pieces(mut offset: u64, mut count: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    std::iter::from_fn(move || {
        let at = (offset % BLOCK as u64) as usize;
        let length = count.min(BLOCK - at);
        let piece = (offset / BLOCK as u64, at, length);
        offset += length as u64;
        count -= length;
        (length > 0).then_some(piece)
    })
}

impl StorageBackend for Shadow {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        written.ends_within(offset, out.len())?;
        if written.blocks.is_empty() {
            return written.read_file(&self.file, offset, out);
        }
        let (mut place, mut rest) = (offset, out);
        for (number, at, length) in pieces(offset, rest.len()) {
            let (piece, behind) = rest.split_at_mut(length);
            match written.blocks.get(&number).and_then(|block| block.get(at..at + length)) {
                Some(bytes) => piece.copy_from_slice(bytes),
                None => written.read_file(&self.file, place, piece)?,
            }
            (place, rest) = (place + length as u64, behind);
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut written = self.written();
        if length < written.length {
            let (kept, cut) = (length / BLOCK as u64, (length % BLOCK as u64) as usize);
            written.blocks.retain(|number, _| *number < kept + u64::from(cut > 0));
            if let Some(tail) = written.blocks.get_mut(&kept).and_then(|block| block.get_mut(cut..)) {
                tail.fill(0);
            }
        }
        written.from_file = written.from_file.min(length);
        written.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        written.ends_within(offset, data.len())?;
        let mut rest = data;
        for (number, at, length) in pieces(offset, data.len()) {
            let (piece, behind) = rest.split_at(length);
            if !written.blocks.contains_key(&number) {
                let mut block = Box::new([0; BLOCK]);
                written.read_file(&self.file, number * BLOCK as u64, block.as_mut_slice())?;
                written.blocks.insert(number, block);
            }
            let block = written.blocks.get_mut(&number).and_then(|block| block.get_mut(at..at + length));
            if let Some(bytes) = block {
                bytes.copy_from_slice(piece);
            }
            rest = behind;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// What is done to both.
    #[derive(Debug, Clone)]
    enum Step {
        Write(usize, Vec<u8>),
        Length(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..20_000_usize, proptest::collection::vec(1..=255_u8, 0..9_000))
                .prop_map(|(at, bytes)| Step::Write(at, bytes)),
            (0..20_000_usize).prop_map(Step::Length),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_shadow_reads_as_the_written_file_would_and_the_file_stays(
            before in proptest::collection::vec(1..=255_u8, 0..14_000),
            steps in proptest::collection::vec(step(), 0..12),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            fs::write(&path, &before).unwrap();
            let shadow = Shadow::new(File::open(&path).unwrap()).unwrap();
            let mut model = before.clone();
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        let fits = at + bytes.len() <= model.len();
                        prop_assert_eq!(shadow.write(at as u64, &bytes).is_ok(), fits);
                        if fits {
                            model[at..at + bytes.len()].copy_from_slice(&bytes);
                        }
                    }
                    Step::Length(length) => {
                        shadow.set_len(length as u64).unwrap();
                        model.resize(length, 0);
                    }
                }
                prop_assert_eq!(shadow.len().unwrap(), model.len() as u64);
                let mut all = vec![0; model.len()];
                shadow.read(0, &mut all).unwrap();
                prop_assert_eq!(&all, &model);
                let half = model.len() / 2;
                shadow.read(half as u64, &mut all[half..]).unwrap();
                prop_assert_eq!(&all, &model);
                prop_assert!(shadow.read(1, &mut all).is_err() || all.is_empty());
            }
            prop_assert_eq!(fs::read(&path).unwrap(), before);
        }
    }
}
