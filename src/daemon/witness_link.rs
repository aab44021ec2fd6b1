//! The keeper's end of the channel to the witness: questions out, answers matched to those who wait.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::oneshot,
    time::timeout,
};

use crate::{
    caller::{Facts, Sighting},
    digest::Digest,
    policy::Policy,
    sys::readiness::watch,
    witness::{Answer, MAX_MESSAGE, Question, Unseen, Watched, decode_answer, encode, watch_list},
};

/// The longest wait for an answer: an executable of 1 GiB is hashed in about a second, and a few may wait before it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the witness saw behind a connection.
pub(super) enum Seen {
    /// A process that runs the executable of an entry, and what shows later that it is still the same.
    Watched(Box<Facts>, Pin),
    /// Something else, and a descriptor of its executable where it can be read.
    Stranger(Box<Sighting>, Option<File>),
}

/// Descriptors on a process that was looked at.
pub(super) struct Pin {
    /// Its memory map: reads nothing any more once it has another address space.
    pub(super) maps: OwnedFd,
    /// The size of its address space: another one once anything was mapped.
    pub(super) size: OwnedFd,
}

type Told = (Answer, Vec<OwnedFd>);

/// Asks the witness. Lives on the runtime's one thread.
pub(super) struct WitnessLink {
    channel: AsyncFd<OwnedFd>,
    waiting: RefCell<HashMap<u64, oneshot::Sender<Told>>>,
    last: Cell<u64>,
}

impl WitnessLink {
    /// Takes over the keeper's end. Called inside the runtime.
    pub(super) fn new(channel: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&channel, true)?;
        let channel = watch(channel, Interest::READABLE)?;
        Ok(Self { channel, waiting: RefCell::default(), last: Cell::new(0) })
    }

    /// Hands answers to those who wait, until the witness is gone or says what it must not: then the daemon ends.
    pub(super) async fn run(&self) -> io::Error {
        let mut packet = vec![0; MAX_MESSAGE];
        loop {
            let received =
                self.channel.async_io(Interest::READABLE, |channel| next(channel.as_fd(), &mut packet)).await;
            let (length, descriptors) = match received {
                Ok((0, _)) => return io::ErrorKind::UnexpectedEof.into(),
                Ok(received) => received,
                Err(error) => return error,
            };
            let answer = match decode_answer(packet.get(..length).unwrap_or_default()) {
                Ok(answer) => answer,
                Err(error) => return io::Error::other(error),
            };
            let id = match &answer {
                Answer::Examined { id, .. }
                | Answer::Stranger { id, .. }
                | Answer::Fingerprint { id, .. }
                | Answer::Unseen { id, .. } => *id,
            };
            // nobody waits any more when the connection is gone
            if let Some(waiting) = self.waiting.borrow_mut().remove(&id) {
                let _ = waiting.send((answer, descriptors));
            }
        }
    }

    /// Tells the witness which executables are worth a full look. Packets keep their order, so every later question
    /// is answered by the new list.
    pub(super) async fn watch(&self, policy: &Policy) -> io::Result<()> {
        for message in watch_list(policy.entries().iter().filter_map(watched)) {
            self.send(&message, None).await?;
        }
        Ok(())
    }

    /// Who is behind the connection that `pid` made, whose daemon's end is the socket with this inode number?
    pub(super) async fn examine(
        &self,
        pid: u32,
        socket: u64,
        pidfd: Option<BorrowedFd<'_>>,
    ) -> Result<Seen, Unseen> {
        match self.ask(|id| Question::Examine { id, pid, socket }, pidfd).await? {
            (Answer::Examined { facts, .. }, pin) if facts.pid == pid => {
                let [maps, size] = <[OwnedFd; 2]>::try_from(pin).map_err(|_| Unseen::Unreadable)?;
                Ok(Seen::Watched(facts, Pin { maps, size }))
            }
            (Answer::Stranger { sighting, .. }, file) => {
                Ok(Seen::Stranger(sighting, file.into_iter().next().map(File::from)))
            }
            (Answer::Unseen { why, .. }, _) => Err(why),
            _ => Err(Unseen::Unreadable),
        }
    }

    /// The digest of an open executable, when the witness has time for it.
    pub(super) async fn fingerprint(&self, file: &File) -> Result<Digest, Unseen> {
        match self.ask(|id| Question::Fingerprint { id }, Some(file.as_fd())).await? {
            (Answer::Fingerprint { digest, .. }, _) => Ok(digest),
            (Answer::Unseen { why, .. }, _) => Err(why),
            _ => Err(Unseen::Unreadable),
        }
    }

    async fn ask(
        &self,
        question: impl FnOnce(u64) -> Question,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Told, Unseen> {
        let id = self.last.get() + 1;
        self.last.set(id);
        let (told, hear) = oneshot::channel();
        self.waiting.borrow_mut().insert(id, told);
        let answer = timeout(PATIENCE, async {
            self.send(&question(id), descriptor).await.map_err(|_| Unseen::Unreadable)?;
            hear.await.map_err(|_| Unseen::Unreadable)
        })
        .await;
        self.waiting.borrow_mut().remove(&id);
        answer.unwrap_or(Err(Unseen::Busy))
    }

    async fn send(&self, question: &Question, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let packet = encode(question).map_err(io::Error::other)?;
        match put(self.channel.as_fd(), &packet, descriptor) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return sent,
        }
        // the witness has much to read already; only now is it worth a wake-up to know when it has read some
        let room = watch(self.channel.get_ref().try_clone()?, Interest::WRITABLE)?;
        room.async_io(Interest::WRITABLE, |channel| put(channel.as_fd(), &packet, descriptor)).await
    }
}

/// An entry as the witness needs to know it. A path that is not UTF-8 can't stand in config.json.
fn watched(entry: &crate::policy::Entry) -> Option<Watched> {
    entry.digest()?;
    let libraries =
        entry.libraries().iter().filter_map(|library| library.path().to_str().map(str::to_owned)).collect();
    Some(Watched { path: entry.path().to_str()?.to_owned(), size: entry.size(), libraries })
}

fn put(channel: BorrowedFd<'_>, packet: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let descriptors = descriptor.map(|descriptor| [descriptor]);
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if let Some(descriptors) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg(channel, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn next(channel: BorrowedFd<'_>, packet: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(channel, &mut [IoSliceMut::new(packet)], &mut control, flags)?;
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok((received.bytes, descriptors))
}
