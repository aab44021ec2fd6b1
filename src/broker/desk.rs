//! The broker's desk: a few lanes, on each one order after the other, so that who reads does not wait for who writes.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{BorrowedFd, OwnedFd},
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Builder,
    task::LocalSet,
    time::timeout,
};

use super::{
    items::SecretService,
    protocol::{Answer, MAX_KEYS, MAX_PACKET, Order, Question, Report},
};
use crate::{
    desktop_keychain::{BusAddress, Trouble},
    sys::readiness::watch,
};

/// How long the keychain may take for an order: the keeper waits a little longer, and a request in all less than 5 s.
const PATIENCE: Duration = Duration::from_secs(3);

/// Serves until the keeper is gone. Returns only then, or when a lane breaks.
///
/// `lock` closes the cage; it is called once nothing more needs to be opened but the connection to the bus.
pub fn serve<E>(
    lanes: &[BorrowedFd<'_>],
    address: BusAddress,
    lock: impl FnOnce() -> Result<(), E>,
) -> ExitCode {
    let Ok(runtime) = Builder::new_current_thread().enable_io().enable_time().build() else {
        return ExitCode::FAILURE;
    };
    let lanes: io::Result<Vec<OwnedFd>> = lanes.iter().map(own).collect();
    let (Ok(lanes), Ok(())) = (lanes, lock()) else { return ExitCode::FAILURE };
    let keychain = Rc::new(SecretService::new(address));
    LocalSet::new().block_on(&runtime, async {
        let mut served = tokio::task::JoinSet::new();
        for lane in lanes {
            served.spawn_local(serve_lane(lane, Rc::clone(&keychain)));
        }
        // all lanes end together, with the keeper
        match served.join_next().await {
            Some(Ok(Ok(()))) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    })
}

fn own(lane: &BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let lane = lane.try_clone_to_owned()?;
    rustix::io::ioctl_fionbio(&lane, true)?;
    Ok(lane)
}

async fn serve_lane(lane: OwnedFd, keychain: Rc<SecretService>) -> io::Result<()> {
    let lane = watch(lane, Interest::READABLE | Interest::WRITABLE)?;
    let mut packet = vec![0; MAX_PACKET + 1];
    loop {
        let length = lane.async_io(Interest::READABLE, |lane| Ok(receive(lane, &mut packet)?)).await?;
        if length == 0 {
            return Ok(());
        }
        let question = Question::decode(packet.get(..length).unwrap_or_default());
        let Question { id, vault, order } = question.map_err(io::Error::other)?;
        let reports = match timeout(PATIENCE, obey(&keychain, vault, &order)).await {
            Ok(Ok(reports)) => reports,
            Ok(Err(Trouble::Locked)) => vec![Report::Locked],
            Ok(Err(why)) => vec![Report::Failed(why.to_string())],
            Err(_) => {
                keychain.disconnect();
                vec![Report::Failed("no answer in time".to_owned())]
            }
        };
        for report in reports {
            tell(&lane, &Answer { id, report }).await?;
        }
    }
}

/// Does what is ordered. What fails is tried once more over a new connection: the keychain may have been started anew.
async fn obey(keychain: &SecretService, vault: [u8; 16], order: &Order) -> Result<Vec<Report>, Trouble> {
    match attempt(keychain, vault, order).await {
        Err(Trouble::NotThere(_) | Trouble::Named(_) | Trouble::Unclear) => {
            keychain.disconnect();
            attempt(keychain, vault, order).await.inspect_err(|_| keychain.disconnect())
        }
        done => done,
    }
}

async fn attempt(keychain: &SecretService, vault: [u8; 16], order: &Order) -> Result<Vec<Report>, Trouble> {
    let mut reports = Vec::new();
    match order {
        Order::Ready => keychain.ready().await?,
        Order::Put(key, sealed) => keychain.put(vault, *key, sealed).await?,
        Order::Delete(key) => keychain.delete(vault, *key).await?,
        Order::List => {
            let keys = keychain.list(vault).await?;
            reports.extend(keys.chunks(MAX_KEYS).map(|keys| Report::Keys(keys.to_vec())));
        }
        Order::Get(keys) => {
            let items = keychain.get(vault, keys).await?;
            reports.extend(items.into_iter().map(|(key, sealed)| Report::Item(key, sealed)));
        }
    }
    reports.push(Report::Done);
    Ok(reports)
}

async fn tell(lane: &AsyncFd<OwnedFd>, answer: &Answer) -> io::Result<()> {
    let packet = answer.encode();
    if packet.len() > MAX_PACKET {
        // an item that nobody of ours made this long; without it, it counts as missing
        return Ok(());
    }
    let flags = SendFlags::NOSIGNAL;
    let sent = lane.async_io(Interest::WRITABLE, |lane| {
        let mut control = SendAncillaryBuffer::default();
        Ok(sendmsg(lane, &[IoSlice::new(&packet)], &mut control, flags)?)
    });
    sent.await.map(drop)
}

fn receive(lane: &OwnedFd, packet: &mut [u8]) -> Result<usize, Errno> {
    let mut control = RecvAncillaryBuffer::default();
    let received = recvmsg(lane, &mut [IoSliceMut::new(packet)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.flags.contains(ReturnFlags::TRUNC) { Err(Errno::MSGSIZE) } else { Ok(received.bytes) }
}
