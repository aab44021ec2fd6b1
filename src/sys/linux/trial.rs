//! Work that may end its process, done by a child: what is damaged badly enough makes the database's own code stop.
#![forbid(unsafe_code)]

use std::{io, os::fd::BorrowedFd, panic, process::ExitCode};

use rustix::{
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, recv, send},
};

use super::process::{Child, spawn};

/// Bytes of one packet from the child.
const PACKET: usize = 32 * 1024;

/// Has `work` done by a child of this process, which has one thread, and gives what it says: nothing, where it has ended
/// over it or has nothing to say. `work` gets the only descriptor that the child itself needs.
pub fn in_child(work: impl FnOnce(BorrowedFd<'_>) -> Option<Vec<u8>>) -> io::Result<Vec<u8>> {
    let child = spawn(|[channel]| {
        // its last words would be about pages, and nothing of the parent's is to be undone
        panic::set_hook(Box::new(|_| std::process::abort()));
        let said = work(channel).unwrap_or_default();
        let told = said.chunks(PACKET).try_for_each(|packet| send_whole(channel, packet));
        if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    })?;
    let said = read_all(&child);
    child.wait();
    Ok(said)
}

fn send_whole(channel: BorrowedFd<'_>, packet: &[u8]) -> Result<(), Errno> {
    retry_on_intr(|| send(channel, packet, SendFlags::NOSIGNAL)).map(drop)
}

/// Everything up to the child's end.
fn read_all(child: &Child) -> Vec<u8> {
    let [channel] = &child.channels;
    let (mut said, mut packet) = (Vec::new(), vec![0; PACKET]);
    loop {
        match retry_on_intr(|| recv(channel, packet.as_mut_slice(), RecvFlags::empty())) {
            Ok((_, 0)) | Err(_) => return said,
            Ok((_, count)) => said.extend_from_slice(packet.get(..count).unwrap_or_default()),
        }
    }
}
