//! The keeper's end of a lane: one order at a time, and every wait has an end.

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg},
};

use super::{
    health::Health,
    protocol::{Answer, Key, MAX_KEYS, MAX_PACKET, Order, Question, Report, VaultId},
};
use crate::store::{Items, StoreError, Take};

/// The longest wait for everything that one request asks of the keychain. Clients are promised 5 s.
const PATIENCE: Duration = Duration::from_secs(4);
/// A keychain that let somebody wait this long is left alone for as long again: those who wait in line behind him must not
/// each wait anew.
const PAUSE: Duration = Duration::from_secs(1);

/// One end of a channel to the broker, which serves every lane by itself.
pub struct Lane {
    state: Mutex<State>,
    health: Arc<Health>,
}

struct State {
    channel: OwnedFd,
    packet: Vec<u8>,
    last: u64,
    /// When the keychain let us wait in vain, and what was said then.
    hung: Option<(Instant, StoreError)>,
}

impl Lane {
    /// Takes over the keeper's end.
    pub fn new(channel: OwnedFd, health: Arc<Health>) -> Self {
        let state = State { channel, packet: vec![0; MAX_PACKET + 1], last: 0, hung: None };
        Self { state: Mutex::new(state), health }
    }

    /// Does one thing that may take several orders, all of them within the one limit.
    fn within<T>(
        &self,
        work: impl FnOnce(&mut State, Instant) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        match &state.hung {
            Some((since, error)) if since.elapsed() < PAUSE => return Err(error.clone()),
            _ => state.hung = None,
        }
        let done = work(&mut state, begun + PATIENCE);
        self.health.note(&done);
        if let Err(error) = &done
            && begun.elapsed() > PAUSE
        {
            state.hung = Some((Instant::now(), error.clone()));
        }
        done
    }
}

impl Items for Lane {
    fn ready(&self) -> Result<(), StoreError> {
        self.within(|state, until| state.ask(VaultId::default(), Order::Ready, until).map(drop))
    }

    fn list(&self, vault: &VaultId) -> Result<Vec<Key>, StoreError> {
        let reports = self.within(|state, until| state.ask(*vault, Order::List, until))?;
        let keys = reports.into_iter().filter_map(|report| match report {
            Report::Keys(keys) => Some(keys),
            _ => None,
        });
        Ok(keys.flatten().collect())
    }

    fn get(&self, vault: &VaultId, keys: &[Key], take: Take<'_>) -> Result<(), StoreError> {
        self.within(|state, until| {
            for keys in keys.chunks(MAX_KEYS) {
                for report in state.ask(*vault, Order::Get(keys.to_vec()), until)? {
                    if let Report::Item(key, sealed) = report {
                        take(&key, &sealed)?;
                    }
                }
            }
            Ok(())
        })
    }

    fn put(&self, vault: &VaultId, key: &Key, sealed: &[u8]) -> Result<(), StoreError> {
        let order = Order::Put(*key, sealed.to_vec());
        self.within(|state, until| state.ask(*vault, order, until).map(drop))
    }

    fn delete(&self, vault: &VaultId, key: &Key) -> Result<(), StoreError> {
        self.within(|state, until| state.ask(*vault, Order::Delete(*key), until).map(drop))
    }
}

impl State {
    /// Everything that is told before `Done`.
    fn ask(&mut self, vault: VaultId, order: Order, until: Instant) -> Result<Vec<Report>, StoreError> {
        self.last += 1;
        let id = self.last;
        let packet = Question { id, vault, order }.encode();
        if packet.len() > MAX_PACKET {
            return Err(StoreError::TooLarge);
        }
        self.wait(PollFlags::OUT, until)?;
        let mut control = SendAncillaryBuffer::default();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.channel, &[IoSlice::new(&packet)], &mut control, flags).map_err(gone)?;
        let mut reports = Vec::new();
        loop {
            let answer = self.receive(until)?;
            // what was asked in vain before may be answered late
            if answer.id != id {
                continue;
            }
            match answer.report {
                Report::Done => return Ok(reports),
                Report::Locked => return Err(StoreError::KeychainLocked),
                Report::Failed(why) => return Err(StoreError::Unreachable(why)),
                report => reports.push(report),
            }
        }
    }

    fn receive(&mut self, until: Instant) -> Result<Answer, StoreError> {
        loop {
            self.wait(PollFlags::IN, until)?;
            let mut control = RecvAncillaryBuffer::default();
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            match recvmsg(&self.channel, &mut [IoSliceMut::new(&mut self.packet)], &mut control, flags) {
                Ok(received) if received.bytes == 0 => return Err(gone(Errno::PIPE)),
                Ok(received) if received.flags.contains(ReturnFlags::TRUNC) => {
                    return Err(gone(Errno::MSGSIZE));
                }
                Ok(received) => {
                    let answer = Answer::decode(self.packet.get(..received.bytes).unwrap_or_default());
                    return answer.map_err(|error| StoreError::Unreachable(error.to_string()));
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(gone(error)),
            }
        }
    }

    fn wait(&self, flags: PollFlags, until: Instant) -> Result<(), StoreError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let limit = Timespec::try_from(left).map_err(|_| gone(Errno::INVAL))?;
            match poll(&mut [PollFd::new(&self.channel, flags)], Some(&limit)) {
                Ok(0) => return Err(StoreError::Unreachable("no answer in time".to_owned())),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(gone(error)),
            }
        }
    }
}

/// The daemon ends with its broker; until it has, nothing of the keychain is to be had.
fn gone(error: Errno) -> StoreError {
    StoreError::Unreachable(format!("the broker process: {}", io::Error::from(error).kind()))
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lane")
    }
}
