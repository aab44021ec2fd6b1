//! Who holds the client's end of a connection? A descriptor that crossed an exec can't be close-on-exec, so a holder
//! whose descriptors all are has opened the connection itself, in the program that it still runs.

use std::{
    ffi::CStr,
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{Mode, OFlags, RawDir, openat, readlinkat_raw},
    io::{Errno, read},
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with},
};

use super::{procfs::parse_descriptor_flags, protocol::Unseen};
use crate::caller::Custody;

/// Most descriptors of a process that are looked at. A process with more is refused: it is built to be slow to examine.
const MAX_DESCRIPTORS: usize = 4096;
const CLOSE_ON_EXEC: u32 = libc::O_CLOEXEC.unsigned_abs();

// linux/sock_diag.h, linux/unix_diag.h, linux/netlink.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_PEER: u16 = 2;
const HEADER: usize = 16;
const UNIX_DIAG_MSG: usize = 16;

/// Asks the kernel which two sockets make a connection. One question at a time: answers carry no number.
pub(super) struct SocketDiagnosis(Mutex<OwnedFd>);

/// The socket at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// It has this inode number.
    Socket(u32),
    /// The connection is not among those of this network namespace: a client of another one made it.
    OfAnotherNetwork,
}

impl SocketDiagnosis {
    pub(super) fn open() -> Result<Self, Errno> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        Ok(Self(Mutex::new(socket)))
    }

    /// What is connected to the socket with this inode number and cookie.
    pub(super) fn peer_of(&self, inode: u64, cookie: u64) -> Result<Peer, Unseen> {
        let inode = u32::try_from(inode).map_err(|_| Unseen::Unreadable)?;
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = send(&*socket, &request(inode, cookie), SendFlags::empty());
        told.map_err(|_| Unseen::NoSocketDiagnosis)?;
        let mut reply = [0; 512];
        let (length, _) =
            recv(&*socket, &mut reply, RecvFlags::empty()).map_err(|_| Unseen::NoSocketDiagnosis)?;
        let reply = reply.get(..length).unwrap_or_default();
        match peer_in(reply, inode) {
            Some(peer) => Ok(Peer::Socket(peer)),
            // the keeper holds that socket open while it waits for us, so it is somewhere
            None if is_not_here(reply) => Ok(Peer::OfAnotherNetwork),
            None => Err(Unseen::Gone),
        }
    }
}

fn request(inode: u32, cookie: u64) -> [u8; 40] {
    let mut message = [0; 40];
    let parts: [&[u8]; 13] = [
        &40_u32.to_ne_bytes(),
        &SOCK_DIAG_BY_FAMILY.to_ne_bytes(),
        &NLM_F_REQUEST.to_ne_bytes(),
        &[0; 8],
        // unix_diag_req: family, protocol, padding, all states, inode, what to show, cookie in two halves
        &[AddressFamily::UNIX.as_raw() as u8],
        &[0],
        &[0; 2],
        &u32::MAX.to_ne_bytes(),
        &inode.to_ne_bytes(),
        &UDIAG_SHOW_PEER.to_ne_bytes(),
        &(cookie as u32).to_ne_bytes(),
        &((cookie >> 32) as u32).to_ne_bytes(),
        &[],
    ];
    for (to, from) in message.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    message
}

/// The peer in a reply of the kernel about the socket `inode`. None if the reply is cut, or about another socket.
pub fn peer_in(reply: &[u8], inode: u32) -> Option<u32> {
    let length = usize::try_from(u32_at(reply, 0)?).ok()?;
    let reply = reply.get(..length)?;
    if u16_at(reply, 4)? != SOCK_DIAG_BY_FAMILY || u32_at(reply, HEADER + 4)? != inode {
        return None;
    }
    let mut at = HEADER + UNIX_DIAG_MSG;
    while let (Some(length), Some(kind)) = (u16_at(reply, at), u16_at(reply, at + 2)) {
        if kind == UNIX_DIAG_PEER {
            return u32_at(reply, at + 4);
        }
        // an attribute is at least its own header, or the walk would never end
        at += usize::from(length).max(4).next_multiple_of(4);
    }
    None
}

/// Whether the kernel says that it has no such socket here.
fn is_not_here(reply: &[u8]) -> bool {
    u16_at(reply, 4) == Some(NLMSG_ERROR)
        && u32_at(reply, HEADER).map(u32::cast_signed) == Some(-Errno::NOENT.raw_os_error())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// How the process whose /proc folder is `process` holds the socket `inode`.
pub(super) fn custody(process: BorrowedFd<'_>, inode: u32) -> Result<Custody, Unseen> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(process, "fd", flags, Mode::empty()).map_err(unseen)?;
    let wanted = format!("socket:[{inode}]");
    let mut held = false;
    let mut entries = Vec::with_capacity(8192);
    let mut entries = RawDir::new(&folder, entries.spare_capacity_mut());
    let mut seen = 0;
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(unseen)?;
        // "." and ".." are no descriptors
        if entry.file_name().to_bytes().starts_with(b".") {
            continue;
        }
        seen += 1;
        if seen > MAX_DESCRIPTORS {
            return Err(Unseen::TooLarge);
        }
        let mut link = [MaybeUninit::uninit(); 64];
        // a descriptor may be closed while we look, and one whose link is longer is no socket
        let Ok((link, _)) = readlinkat_raw(&folder, entry.file_name(), &mut link) else { continue };
        if *link != *wanted.as_bytes() {
            continue;
        }
        if descriptor_flags(process, entry.file_name())? & CLOSE_ON_EXEC == 0 {
            return Ok(Custody::HeldAcrossExec);
        }
        held = true;
    }
    Ok(if held { Custody::HeldCloseOnExec } else { Custody::NotHeld })
}

fn descriptor_flags(process: BorrowedFd<'_>, descriptor: &CStr) -> Result<u32, Unseen> {
    let name = [b"fdinfo/", descriptor.to_bytes()].concat();
    let file = openat(process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(unseen)?;
    // the flags stand in the second line, within the first read
    let mut info = [0; 256];
    let length = read(&file, &mut info).map_err(unseen)?;
    parse_descriptor_flags(info.get(..length).unwrap_or_default()).map_err(|_| Unseen::Unreadable)
}

pub(super) fn unseen(error: Errno) -> Unseen {
    match error {
        Errno::NOENT | Errno::SRCH => Unseen::Gone,
        _ => Unseen::Unreadable,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use std::os::{fd::AsFd, unix::net::UnixStream};

    use rustix::fs::fstat;

    use super::*;
    use crate::sys::peer::cookie_of;

    #[test]
    fn the_kernel_names_the_other_end_of_a_socket_pair_and_our_own_process_holds_it() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let diagnosis = SocketDiagnosis::open().unwrap();
        let (inode, cookie) = (fstat(ours.as_fd()).unwrap().st_ino, cookie_of(ours.as_fd()).unwrap());
        let Ok(Peer::Socket(peer)) = diagnosis.peer_of(inode, cookie) else { panic!("no peer") };
        assert_eq!(u64::from(peer), fstat(theirs.as_fd()).unwrap().st_ino);
        let me = rustix::fs::open("/proc/self", OFlags::PATH, Mode::empty()).unwrap();
        let me = me.as_fd();
        assert_eq!(custody(me, peer), Ok(Custody::HeldCloseOnExec));
        // a socket of the same number that came later has another cookie
        assert_eq!(diagnosis.peer_of(inode, cookie + 1), Err(Unseen::Gone));
        let copy = rustix::io::dup(&theirs).unwrap();
        assert_eq!(
            custody(me, peer),
            Ok(Custody::HeldAcrossExec),
            "one copy without close-on-exec is enough"
        );
        drop((copy, theirs));
        assert_eq!(custody(me, peer), Ok(Custody::NotHeld));
    }

    #[test]
    fn a_reply_cut_anywhere_names_nobody() {
        let mut reply = vec![0; 40];
        reply[..4].copy_from_slice(&40_u32.to_ne_bytes());
        reply[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        reply[20..24].copy_from_slice(&7_u32.to_ne_bytes());
        reply[32..34].copy_from_slice(&8_u16.to_ne_bytes());
        reply[34..36].copy_from_slice(&UNIX_DIAG_PEER.to_ne_bytes());
        reply[36..40].copy_from_slice(&9_u32.to_ne_bytes());
        assert_eq!(peer_in(&reply, 7), Some(9));
        assert_eq!(peer_in(&reply, 8), None, "an answer about another socket");
        for length in 0..reply.len() {
            assert_eq!(peer_in(&reply[..length], 7), None);
        }
    }
}
