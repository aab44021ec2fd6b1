//! A system call that is not on the list ends the process, and the operator reads on stderr which one it was.
#![allow(unsafe_code)]

use std::{io, mem};

use super::stderr;

/// The exit code after a forbidden system call: 128 + SIGSYS, as a shell would show the signal itself.
pub const EXIT_CODE: i32 = 128 + libc::SIGSYS;

/// Installs the handler for `SIGSYS`. The filters deny `rt_sigaction` afterwards, so code that took the process over
/// can't replace it; a blocked `SIGSYS` kills at once.
pub fn install() -> io::Result<()> {
    stderr::let_alarms_end();
    // SAFETY: a sigaction of zeroes is a valid one with an empty mask
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = report as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for and calls only async-signal-safe functions
    let result = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn report(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    /// Where `si_syscall` lies in a siginfo_t: behind three ints, padding and `si_call_addr`.
    const SI_SYSCALL: usize = 24;
    // SAFETY: the kernel passes a whole siginfo_t, which is larger than this offset
    let number = unsafe { info.cast::<u8>().add(SI_SYSCALL).cast::<libc::c_int>().read_unaligned() };
    let mut line = [0; 96];
    let mut length = 0;
    let mut digits = [0; 10];
    for byte in b"keychain-auth: forbidden system call "
        .iter()
        .chain(decimal(number.unsigned_abs(), &mut digits))
        .chain(b": this process may have been taken over, and ends\n")
    {
        if let Some(place) = line.get_mut(length) {
            *place = *byte;
            length += 1;
        }
    }
    // the other threads serve until this one has ended the process: nobody may make it wait
    stderr::last_words(line.get(..length).unwrap_or_default());
    // SAFETY: _exit is async-signal-safe
    unsafe { libc::_exit(EXIT_CODE) }
}

/// Without allocation, since the handler may have interrupted the allocator.
fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut first = digits.len();
    for place in digits.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        first -= 1;
        if number == 0 {
            break;
        }
    }
    digits.get(first..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_are_written_without_an_allocator() {
        assert_eq!(decimal(0, &mut [0; 10]), b"0");
        assert_eq!(decimal(59, &mut [0; 10]), b"59");
        assert_eq!(decimal(u32::MAX, &mut [0; 10]), b"4294967295");
    }
}
