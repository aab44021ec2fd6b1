//! The witness's end of the channel to the keeper: one message a packet, descriptors beside it.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    io::{Errno, retry_on_intr},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

use super::protocol::{Answer, Question, Unseen, decode_question, encode};

/// Where questions come from and answers go to. Any thread may answer at any time.
#[derive(Clone, Copy)]
pub(super) struct Channel<'a>(pub(super) BorrowedFd<'a>);

impl Channel<'_> {
    /// The next question, with the descriptor that came beside it. None when the keeper is gone or says what it must not.
    pub(super) fn next(self, packet: &mut [u8]) -> Option<(Question, Option<OwnedFd>)> {
        let (length, descriptor) = loop {
            match next_packet(self.0, packet) {
                Err(Errno::INTR) => {}
                received => break received.ok()?,
            }
        };
        // nothing is the end of the stream, and no question
        Some((decode_question(packet.get(..length)?).ok()?, descriptor))
    }

    /// Answers that there is no answer.
    pub(super) fn tell_unseen(self, id: u64, why: Unseen, path: Option<String>) {
        self.tell(&Answer::Unseen { id, why, path }, &[]);
    }

    /// Answers a question.
    pub(super) fn tell(self, answer: &Answer, descriptors: &[BorrowedFd<'_>]) {
        let packet = match encode(answer) {
            Ok(packet) => packet,
            // only a process whose own names are huge can make an answer too long
            Err(_) => match encode(&Answer::Unseen { id: answer.id(), why: Unseen::TooLarge, path: None }) {
                Ok(packet) => packet,
                Err(_) => return,
            },
        };
        // too many of its user's descriptors are under way, or there is no memory: the keeper would wait in vain
        if self.send(&packet, descriptors).is_err()
            && let Ok(packet) = encode(&Answer::Unseen { id: answer.id(), why: Unseen::Busy, path: None })
        {
            // a keeper that is gone is seen by the next receive
            let _ = self.send(&packet, &[]);
        }
    }

    fn send(self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        retry_on_intr(|| sendmsg(self.0, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL))
    }
}

fn next_packet(channel: BorrowedFd<'_>, packet: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(channel, &mut [IoSliceMut::new(packet)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((received.bytes, descriptor))
}
