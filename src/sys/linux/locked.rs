//! Memory for secrets: never swapped, never in a core dump, wiped when given back, and, where the kernel has
//! `memfd_secret`, not even readable by root through `/proc/P/mem`.
//!
//! One slab serves nearly everything; what does not fit gets pages of its own, locked as far as `RLIMIT_MEMLOCK` goes.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr::{self, NonNull},
    slice,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use zeroize::Zeroize;

use super::stderr;

/// Size of the slab: half of the 8 MiB that an ordinary user may lock.
const SLAB: usize = 4 << 20;
/// Smallest piece. Pieces are this times a power of two, so that freed neighbours join again.
const UNIT: usize = 64;
const ORDERS: usize = (SLAB / UNIT).trailing_zeros() as usize + 1;

/// How the slab is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// `memfd_secret`: mapped in this process only, out of the kernel's own reach.
    Secret,
    /// Locked in memory and left out of core dumps.
    Locked,
    /// Left out of core dumps, but it may be swapped: `RLIMIT_MEMLOCK` is too small.
    Swappable,
}

impl Kept {
    /// Its name in `STATUS`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Locked => "locked",
            Self::Swappable => "swappable",
        }
    }
}

/// Bytes in locked memory, all zero when made, owned by one holder and wiped when dropped.
#[derive(Debug)]
pub struct Block {
    start: NonNull<u8>,
    length: usize,
    /// Order of the piece in the slab; none for pages of its own.
    order: Option<usize>,
}

// SAFETY: a block is the only owner of its bytes, like a Box
unsafe impl Send for Block {}
// SAFETY: shared references only read
unsafe impl Sync for Block {}

/// Whether anything did not fit into the slab and could not be locked either, over the life of the process. Not how much:
/// whoever fills the slab himself would learn the lengths of others' values from the difference.
static SPILLED: AtomicBool = AtomicBool::new(false);

/// Makes the slab, if it was not made yet, and says how it is kept. Called by the daemon before its sandbox is closed.
pub fn prepare() -> Kept {
    slab().kept
}

/// Whether secrets were ever in memory that could be swapped, because too many were in flight at once.
pub fn spilled() -> bool {
    SPILLED.load(Ordering::Relaxed)
}

impl Block {
    /// A block of `length` bytes. Memory that can't be had ends the process, as for every other allocation.
    pub fn new(length: usize) -> Self {
        if length == 0 {
            return Self { start: NonNull::dangling(), length, order: None };
        }
        let order = length.div_ceil(UNIT).next_power_of_two().trailing_zeros() as usize;
        let slab = slab();
        if let Some(unit) = slab.pieces().take(order) {
            // SAFETY: the unit lies within the slab's mapping, which is never unmapped
            let start = unsafe { slab.start.add(unit * UNIT) };
            return Self { start, length, order: Some(order) };
        }
        match own_pages(length) {
            Ok(start) => Self { start, length, order: None },
            Err(_) => out_of_memory(),
        }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: start is valid for length bytes, initialised to zero, and borrowed with self
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably with self, who is the only owner
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.length == 0 {
            return;
        }
        self.as_mut_slice().zeroize();
        match self.order {
            Some(order) => {
                let slab = slab();
                let offset = self.start.as_ptr() as usize - slab.start.as_ptr() as usize;
                slab.pieces().give(offset / UNIT, order);
            }
            None => {
                // SAFETY: these pages were mapped for this block alone with this length
                unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
            }
        }
    }
}

struct Slab {
    start: NonNull<u8>,
    kept: Kept,
    pieces: Mutex<Pieces>,
}

// SAFETY: the pointer is to a mapping that lives as long as the process; pieces of it are handed out under the lock
unsafe impl Send for Slab {}
// SAFETY: as above
unsafe impl Sync for Slab {}

impl Slab {
    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        // the lists are whole between calls, whatever thread panicked
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slab() -> &'static Slab {
    static SLAB_PLACE: OnceLock<Slab> = OnceLock::new();
    SLAB_PLACE.get_or_init(|| {
        let (start, kept) = match secret_pages() {
            Ok(start) => (start, Kept::Secret),
            Err(_) => match map(-1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, SLAB) {
                Ok(start) => (start, if lock(start, SLAB) { Kept::Locked } else { Kept::Swappable }),
                Err(_) => out_of_memory(),
            },
        };
        Slab { start, kept, pieces: Mutex::new(Pieces::new()) }
    })
}

/// The slab's pages from `memfd_secret`; its descriptor is closed once they are mapped.
fn secret_pages() -> io::Result<NonNull<u8>> {
    if cfg!(miri) {
        // the interpreter of scripts/miri has neither this call nor those of `lock`
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: the call takes flags only and returns a new descriptor
    let raw = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let raw = i32::try_from(raw).map_err(|_| io::ErrorKind::InvalidData)?;
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us
    let file = unsafe { OwnedFd::from_raw_fd(raw) };
    rustix::fs::ftruncate(&file, SLAB as u64)?;
    map(file.as_raw_fd(), libc::MAP_SHARED, SLAB)
}

/// Without the number of bytes that the library's own words tell: it could be the length of a value.
fn out_of_memory() -> ! {
    stderr::last_words(b"keychain-auth: there is no memory for a secret\n");
    std::process::abort()
}

/// Pages for one block that the slab has no room for.
fn own_pages(length: usize) -> io::Result<NonNull<u8>> {
    let start = map(-1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, length)?;
    if !lock(start, length) {
        SPILLED.store(true, Ordering::Relaxed);
    }
    Ok(start)
}

fn map(descriptor: i32, flags: libc::c_int, length: usize) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses touches no other memory
    let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, descriptor, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Locks pages and leaves them out of core dumps and of children. False when they may be swapped.
fn lock(start: NonNull<u8>, length: usize) -> bool {
    if cfg!(miri) {
        return false;
    }
    let pages = start.as_ptr().cast();
    // SAFETY: the pages are ours, and neither call changes their content for us
    unsafe {
        libc::madvise(pages, length, libc::MADV_DONTDUMP);
        libc::madvise(pages, length, libc::MADV_DONTFORK);
        libc::mlock(pages, length) == 0
    }
}

/// Free pieces by order: a buddy allocator. It holds numbers of units, nothing of the content, and takes no memory once it
/// is made.
struct Pieces([Free; ORDERS]);

/// The free pieces of one order: a bit for each piece.
struct Free {
    bits: Box<[u64]>,
    count: usize,
    /// No piece in a word before this one is free.
    from: usize,
}

impl Free {
    fn of(order: usize) -> Self {
        let pieces = (SLAB / UNIT) >> order;
        Self { bits: vec![0; pieces.div_ceil(64)].into(), count: 0, from: 0 }
    }

    fn put(&mut self, piece: usize) {
        if let Some(word) = self.bits.get_mut(piece / 64) {
            *word |= 1 << (piece % 64);
            self.count += 1;
            self.from = self.from.min(piece / 64);
        }
    }

    fn take_first(&mut self) -> Option<usize> {
        if self.count == 0 {
            return None;
        }
        let behind = self.bits.get(self.from..)?.iter().position(|word| *word != 0)?;
        self.from += behind;
        let piece = self.from * 64 + self.bits.get(self.from)?.trailing_zeros() as usize;
        self.take(piece).then_some(piece)
    }

    /// Takes this piece, if it is free.
    fn take(&mut self, piece: usize) -> bool {
        let Some(word) = self.bits.get_mut(piece / 64) else { return false };
        let bit = 1 << (piece % 64);
        let free = *word & bit != 0;
        *word &= !bit;
        self.count -= usize::from(free);
        free
    }
}

impl Pieces {
    fn new() -> Self {
        let mut free = std::array::from_fn(Free::of);
        if let Some(whole) = free.last_mut() {
            whole.put(0);
        }
        Self(free)
    }

    /// The first unit of a free piece of 2^order units.
    fn take(&mut self, order: usize) -> Option<usize> {
        let larger = (order..ORDERS).find(|order| self.0.get(*order).is_some_and(|free| free.count > 0))?;
        let unit = self.0.get_mut(larger)?.take_first()? << larger;
        // the upper halves of what was split stay free
        for half in order..larger {
            self.0.get_mut(half)?.put((unit >> half) + 1);
        }
        Some(unit)
    }

    fn give(&mut self, unit: usize, mut order: usize) {
        let mut piece = unit >> order;
        while order + 1 < ORDERS {
            if !self.0.get_mut(order).is_some_and(|free| free.take(piece ^ 1)) {
                break;
            }
            piece /= 2;
            order += 1;
        }
        if let Some(free) = self.0.get_mut(order) {
            free.put(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_never_overlap_and_join_again() {
        let mut pieces = Pieces::new();
        let mut taken = Vec::new();
        for round in 0..1000 {
            let order = round % 7;
            if let Some(unit) = pieces.take(order) {
                let apart = |(other, size): &(usize, usize)| {
                    unit + (1 << order) <= *other || *other + (1 << *size) <= unit
                };
                assert!(taken.iter().all(apart));
                taken.push((unit, order));
            }
        }
        assert!(taken.len() > 900);
        for (unit, order) in taken {
            pieces.give(unit, order);
        }
        assert_eq!(pieces.take(ORDERS - 1), Some(0), "one whole again");
        assert_eq!(pieces.take(0), None);
    }

    #[test]
    fn a_block_is_zero_when_made_and_what_does_not_fit_the_slab_gets_pages_of_its_own() {
        for length in [0, 1, 64, 65, 70_000, SLAB + 1] {
            let mut block = Block::new(length);
            assert!(block.as_slice() == vec![0; length]);
            block.as_mut_slice().fill(0xaa);
            drop(block);
            assert!(Block::new(length).as_slice() == vec![0; length]);
        }
    }
}
