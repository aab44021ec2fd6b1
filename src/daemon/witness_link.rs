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
    caller::{Executable, Facts, FileKey, Sighting},
    digest::Digest,
    policy::Policy,
    sys::readiness::watch,
    witness::{Answer, MAX_MESSAGE, Question, Unseen, Watched, decode_answer, encode, watch_list},
};

/// The longest wait for an answer: an executable of 1 GiB is hashed in about a second, and a few may wait before it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest wait for what else there is to say of a stranger, which only the queue of strangers needs: its files and its
/// memory may not answer.
const GLANCE: Duration = Duration::from_millis(200);

/// What the witness saw behind a connection.
pub(super) enum Seen {
    /// A process that runs the executable of an entry, and what shows later that it is still the same.
    Watched(Box<Facts>, Pin),
    /// Something else, and a descriptor of its executable where it can be read.
    Stranger(Box<Sighting>, Option<File>),
}

/// Why nothing was seen, and what the process was shown to run, where that was.
pub(super) struct NotSeen {
    pub(super) why: Unseen,
    pub(super) path: Option<String>,
}

impl From<Unseen> for NotSeen {
    fn from(why: Unseen) -> Self {
        Self { why, path: None }
    }
}

/// Descriptors on a process that was looked at.
pub(super) struct Pin {
    /// Its memory map: reads nothing any more once it has another address space.
    pub(super) maps: OwnedFd,
    /// The size of its address space: another one once anything was mapped.
    pub(super) size: OwnedFd,
}

/// An answer, and where to hear what follows it, where something does.
struct Told {
    answer: Answer,
    descriptors: Vec<OwnedFd>,
    more: Option<oneshot::Receiver<Told>>,
}

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
            let id = answer.id();
            let more = matches!(answer, Answer::Shown { .. }).then(oneshot::channel);
            let (told, hear) = more.unzip();
            let mut waiting = self.waiting.borrow_mut();
            // nobody waits any more when the connection is gone
            if let Some(waits) = waiting.remove(&id) {
                waiting.extend(told.map(|told| (id, told)));
                let _ = waits.send(Told { answer, descriptors, more: hear });
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

    /// Who is behind the connection that `pid` made, whose daemon's end is the socket with this inode number and cookie?
    pub(super) async fn examine(
        &self,
        pid: u32,
        (socket, cookie): (u64, u64),
        pidfd: Option<BorrowedFd<'_>>,
    ) -> Result<Seen, NotSeen> {
        let Told { answer, descriptors, .. } =
            self.ask(|id| Question::Examine { id, pid, socket, cookie }, pidfd).await?;
        match answer {
            Answer::Examined { facts, .. } if facts.pid == pid => {
                let [maps, size] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| Unseen::Unreadable)?;
                Ok(Seen::Watched(facts, Pin { maps, size }))
            }
            Answer::Stranger { sighting, .. } => {
                Ok(Seen::Stranger(sighting, descriptors.into_iter().next().map(File::from)))
            }
            Answer::Shown { path, .. } => Ok(Seen::Stranger(Box::new(by_path_alone(pid, path)), None)),
            Answer::Unseen { why, path, .. } => Err(NotSeen { why, path }),
            Answer::Examined { .. } | Answer::Fingerprint { .. } => Err(Unseen::Unreadable.into()),
        }
    }

    /// The digest of an open executable, when the witness has time for it.
    pub(super) async fn fingerprint(&self, file: &File) -> Result<Digest, Unseen> {
        match self.ask(|id| Question::Fingerprint { id }, Some(file.as_fd())).await?.answer {
            Answer::Fingerprint { digest, .. } => Ok(digest),
            Answer::Unseen { why, .. } => Err(why),
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
        let answer = match answer.unwrap_or(Err(Unseen::Busy)) {
            Ok(mut first) => match first.more.take() {
                Some(more) => Ok(all_of(first, timeout(GLANCE, more).await.ok().and_then(Result::ok))),
                None => Ok(first),
            },
            Err(why) => Err(why),
        };
        self.waiting.borrow_mut().remove(&id);
        answer
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

/// The later answer, unless there is none in time: then the first is all that is known.
fn all_of(first: Told, later: Option<Told>) -> Told {
    match later {
        Some(Told { answer: Answer::Unseen { why: Unseen::Busy, .. }, .. }) | None => first,
        Some(later) => later,
    }
}

/// A stranger of which nothing else is known.
fn by_path_alone(pid: u32, path: String) -> Sighting {
    let key = FileKey { device: 0, inode: 0, size: 0, modified: 0, changed: 0 };
    let executable = Executable { path, exact: false, deleted: false, key };
    Sighting { pid, executable, digest: None, arguments: Vec::new() }
}

/// An entry as the witness needs to know it. A path that is not UTF-8 can't stand in config.json.
fn watched(entry: &crate::policy::Entry) -> Option<Watched> {
    let digest = *entry.digest()?;
    let libraries =
        entry.libraries().iter().filter_map(|library| library.path().to_str().map(str::to_owned)).collect();
    Some(Watched { path: entry.path().to_str()?.to_owned(), size: entry.size(), digest, libraries })
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
