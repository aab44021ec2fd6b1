//! Who is on the other end of a Unix socket: credentials per connection and per chunk, and a pidfd.
#![allow(unsafe_code)]

use std::{
    io,
    mem::{self, MaybeUninit},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::wire::Writer;

// asm-generic/socket.h; libc does not have them for every architecture
const SO_PEERPIDFD: libc::c_int = 77;
const SO_COOKIE: libc::c_int = 57;
const SO_PASSRIGHTS: libc::c_int = 83;

/// Control data of one message: exactly one set of credentials. Descriptors that somebody sends find no room here, so
/// the kernel drops them and says so.
const CONTROL: usize = {
    // SAFETY: CMSG_SPACE only computes
    unsafe { libc::CMSG_SPACE(mem::size_of::<libc::ucred>() as libc::c_uint) as usize }
};

/// What one receive gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes, from the start of the buffer; 0 at the end of the stream.
    pub length: usize,
    /// Who wrote them. None at the end of the stream, when the kernel could not name a writer in our pid namespace, or
    /// when control data was cut: then the bytes must not be trusted.
    pub writer: Option<Writer>,
}

/// Why a peer could not be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The kernel has no `SO_PEERPIDFD` (before 6.5).
    #[error("the kernel has no SO_PEERPIDFD")]
    Unsupported,
    /// The process that connected has ended.
    #[error("the process that connected has ended")]
    Gone,
    /// Anything else.
    #[error("the peer's pidfd can't be had: {0}")]
    Io(io::Error),
}

/// Makes the kernel name the writer of each chunk. On a listener before `listen`: set later, early bytes have no name.
pub fn name_writers(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_passcred(socket, true)?)
}

/// Makes the kernel refuse descriptors sent to this socket (Linux 6.16). False where it can't; [`receive`] drops them then.
pub fn refuse_descriptors(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let off: libc::c_int = 0;
    // SAFETY: the option value is an int that lives over the call, and its size is given
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            mem::size_of_val(&off) as libc::socklen_t,
        )
    };
    if result == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(false),
        error => Err(error),
    }
}

/// The process that called `connect`: its pid (None when it has none in our pid namespace) and uid.
pub fn connected_by(socket: BorrowedFd<'_>) -> io::Result<(Option<u32>, u32)> {
    let cred: libc::ucred = option(socket, libc::SO_PEERCRED)?;
    Ok((u32::try_from(cred.pid).ok().filter(|pid| *pid != 0), cred.uid))
}

/// A number that no other socket of this boot has or will have, unlike that of its inode, which comes round again.
pub fn cookie_of(socket: BorrowedFd<'_>) -> io::Result<u64> {
    option(socket, SO_COOKIE)
}

/// A handle on the process that called `connect`. It never names another process, whatever happens to the pid.
pub fn pin(socket: BorrowedFd<'_>) -> Result<OwnedFd, PinError> {
    let raw: libc::c_int = option(socket, SO_PEERPIDFD).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => PinError::Unsupported,
        Some(libc::ESRCH | libc::EINVAL | libc::ENODATA) => PinError::Gone,
        _ => PinError::Io(error),
    })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it
    let pidfd = unsafe { OwnedFd::from_raw_fd(raw) };
    // 6.18 hands out a pidfd for a process that has already been reaped
    if alive(pidfd.as_fd()) { Ok(pidfd) } else { Err(PinError::Gone) }
}

/// Whether the process of a pidfd has not ended. A pidfd becomes readable when it does.
pub fn alive(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

/// Reads what is there, with its writer. The kernel never joins two writers' bytes once [`name_writers`] is set.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    #[repr(align(8))]
    struct Control([MaybeUninit<u8>; CONTROL]);
    let mut control = Control([MaybeUninit::uninit(); CONTROL]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr of zeroes is a valid empty one
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the buffers that the header points at live over the call and have the lengths given
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok(Received { length, writer: writer(&message) })
}

fn writer(message: &libc::msghdr) -> Option<Writer> {
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return None;
    }
    // SAFETY: the kernel has filled msg_control for msg_controllen bytes; CMSG_FIRSTHDR checks that a header fits
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    // SAFETY: CMSG_LEN only computes
    let expected = unsafe { libc::CMSG_LEN(mem::size_of::<libc::ucred>() as libc::c_uint) };
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)
        || header.cmsg_len as usize != expected as usize
    {
        return None;
    }
    // SAFETY: the header says that a whole ucred follows it; it may be unaligned
    let cred = unsafe { libc::CMSG_DATA(header).cast::<libc::ucred>().read_unaligned() };
    // pid 0: the writer has no name in our pid namespace, or the stream has ended
    let pid = u32::try_from(cred.pid).ok().filter(|pid| *pid != 0)?;
    Some(Writer { pid, uid: cred.uid })
}

/// Reads a socket option of a plain-old-data type.
fn option<T: Copy>(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the value has room for the length given, and both live over the call
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if length as usize != mem::size_of::<T>() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the kernel has filled all of it; the callers use integers and ucred, for which every bit pattern is valid
    Ok(unsafe { value.assume_init() })
}
