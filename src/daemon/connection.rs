//! One connection: chunks to lines, lines to the corridor, replies back; every wait has an end.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    time::Instant,
};

use rustix::{
    fs::fstat,
    io::Errno,
    net::{SendFlags, Shutdown, send, shutdown},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{timeout, timeout_at},
};

use super::{
    corridor::{Answer, Challenge, Session, answer, refuse_unasked},
    house::House,
    identity::Identity,
    lines::{Arrival, Lines},
    locking::OneNonce,
    refusal::Refusal,
};
use crate::{
    secret::Buffer,
    sys::{
        peer::{cookie_of, receive},
        readiness::watch,
    },
    wire::{
        Reply,
        limits::{DRAIN, MAX_UNFINISHED, REPLY_TAKEN},
    },
};

/// Serves a connection to its end, and gives its place back however it ends.
pub(super) async fn run(socket: OwnedFd, peer: (Option<u32>, u32), id: u64, house: Rc<House>) {
    let _place = Place { id, house: &house };
    let socket = match watch(socket, Interest::READABLE) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!("a connection can't be watched: {error}"),
    };
    if let Err(error) = serve(&socket, peer, id, &house).await
        && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
    {
        tracing::debug!("a connection ended: {error}");
    }
}

struct Place<'a> {
    id: u64,
    house: &'a House,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.house.admission.borrow_mut().remove(self.id);
    }
}

async fn serve(
    socket: &AsyncFd<OwnedFd>,
    peer: (Option<u32>, u32),
    id: u64,
    house: &House,
) -> io::Result<()> {
    let identity = Identity::new(peer, (fstat(socket)?.st_ino, cookie_of(socket.as_fd())?));
    let mut session = Session {
        house,
        connection: socket.as_fd(),
        id,
        identity,
        challenge: Challenge::default(),
        nonce: OneNonce::default(),
    };
    let mut lines = Lines::new(house);
    loop {
        while let Some(line) = lines.next() {
            let Answer { reply, closes } = answer(line, &mut session).await;
            say(socket, &reply, &session).await?;
            if closes {
                return drain(socket).await;
            }
            if !lines.is_empty() {
                // one line in turn: a client that sends thousands at once must not keep this thread from the others
                tokio::task::yield_now().await;
            }
        }
        let arrival = match timeout_at(lines.deadline().into(), lines.read(socket)).await {
            Ok(arrival) => arrival?,
            Err(_) => Arrival::Late,
        };
        let refusal = match arrival {
            Arrival::Bytes => {
                make_room(house);
                continue;
            }
            Arrival::Broken(error) => {
                session.identity.show_intruder(error, house).await;
                Refusal::frame(error, session.identity.shown())
            }
            Arrival::Late if lines.silence_is_new() => match glance(&mut session).await {
                Ok(()) => continue,
                Err(refusal) => refusal,
            },
            Arrival::End if lines.is_empty() => return Ok(()),
            Arrival::Late if lines.is_idle() => return Ok(()),
            Arrival::Late if lines.is_empty() => Refusal::silent(),
            Arrival::End | Arrival::Late => Refusal::unfinished(),
        };
        let Answer { reply, .. } = refuse_unasked(refusal, &session).await;
        say(socket, &reply, &session).await?;
        return drain(socket).await;
    }
}

async fn glance(session: &mut Session<'_>) -> Result<(), Refusal> {
    let policy = session.house.policy().await?;
    let seen = session.identity.glance(session.connection, &policy, session.house).await;
    seen.map_err(|stranger| session.refuse_stranger(stranger))
}

/// When unfinished lines hold too much memory, the oldest connection that has said nothing valid goes: whoever speaks
/// next must not pay for those who never finish. Called for every chunk, each of which adds less than goes.
fn make_room(house: &House) {
    if house.unfinished.get() <= MAX_UNFINISHED {
        return;
    }
    let oldest = house.admission.borrow_mut().oldest_unproven();
    if let Some(oldest) = oldest {
        oldest.close(house);
    }
}

/// Sends a reply. Whenever it had to wait, for the peer or for others, the peer must still be the process that was
/// verified.
async fn say(socket: &AsyncFd<OwnedFd>, reply: &Reply, session: &Session<'_>) -> io::Result<()> {
    let Session { house, identity, .. } = session;
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let mut rest = reply.as_bytes();
    let still_itself = || match identity.was_verified() && !identity.pinned() {
        true => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
        false => Ok(()),
    };
    if let Some(_waiting) = house.crowd.join(session.id, rest.len(), Instant::now()) {
        tokio::task::yield_now().await;
        still_itself()?;
    }
    let told = timeout(REPLY_TAKEN, async {
        while !rest.is_empty() {
            let sent = match send(socket, rest, flags) {
                Ok(sent) => sent,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    let _waiting = house.untaken.wait(&identity.shown().path, rest.len());
                    let again = |socket: &OwnedFd| {
                        still_itself()?;
                        Ok(send(socket, rest, flags)?)
                    };
                    // watched only now: a client that takes its replies at once wakes nobody by it
                    let room = watch(socket.get_ref().try_clone()?, Interest::WRITABLE)?;
                    room.async_io(Interest::WRITABLE, again).await?
                }
                Err(error) => return Err(error.into()),
            };
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    });
    told.await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Half-closes and throws away what still comes, for a moment: a close with unread bytes would take the reply away from
/// a client that writes first.
async fn drain(socket: &AsyncFd<OwnedFd>) -> io::Result<()> {
    shutdown(socket, Shutdown::Write)?;
    let mut sink = Buffer::zeroed(4096);
    let drained = timeout(DRAIN, async {
        loop {
            let mut ready = socket.readable().await?;
            match ready.try_io(|socket| receive(socket.as_fd(), sink.as_mut_slice())) {
                Ok(Ok(received)) if received.length == 0 => return Ok(()),
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
            // a flood must not keep this thread from the others
            tokio::task::yield_now().await;
        }
    })
    .await;
    drained.unwrap_or(Ok(()))
}
