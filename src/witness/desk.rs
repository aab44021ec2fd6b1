//! The witness's desk: questions come in, quick looks are answered at once, hashing goes to one of two lanes.

use std::{
    collections::HashMap,
    fs::File,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use rustix::{
    cmsg_space,
    fs::{FileType, fstat},
    io::{Errno, retry_on_intr},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
    param::page_size,
    process::nice,
};

use super::{
    custody::SocketDiagnosis,
    examine::{Instruments, Running, Subject, common_filters, file_key},
    hashing::Fingerprints,
    libraries::Libraries,
    protocol::{Answer, MAX_MESSAGE, Question, Unseen, Watched, decode_question, encode},
};
use crate::caller::Executable;

/// Threads that hash: one for watched executables, one for strangers'.
const LANES: usize = 2;
/// Most looks that wait for the digest of a watched executable.
const WATCHED_LANE: usize = 256;
/// Most strangers that wait for their digest; others are told that the witness is busy and are not queued.
const STRANGER_LANE: usize = 16;

/// Answers questions until the keeper is gone. Returns only then, or when the channel breaks.
///
/// Digests are remembered only where `running_files_are_protected`. `lock` closes the cage; it is called once everything is open and every thread has started.
pub fn serve<E>(
    channel: BorrowedFd<'_>,
    running_files_are_protected: bool,
    lock: impl FnOnce() -> Result<(), E>,
) -> ExitCode {
    let Ok(diagnosis) = SocketDiagnosis::open() else { return ExitCode::FAILURE };
    let desk = Desk {
        channel,
        watched: Mutex::default(),
        looking: Mutex::new((diagnosis, Libraries::default())),
        running: Fingerprints::new(running_files_are_protected),
        others: Fingerprints::new(running_files_are_protected),
        common_filters: common_filters(),
        page: page_size() as u64,
    };
    let (watched_lane, watched_jobs) = sync_channel(WATCHED_LANE);
    let (stranger_lane, stranger_jobs) = sync_channel(STRANGER_LANE);
    let (here, arrived) = sync_channel(LANES);
    let also_here = here.clone();
    let desk = &desk;
    thread::scope(|scope| {
        let watched = thread::Builder::new().spawn_scoped(scope, move || {
            let _ = here.send(());
            desk.hash_watched(watched_jobs);
        });
        let strangers = thread::Builder::new().spawn_scoped(scope, move || {
            // a thread on Linux has a priority of its own; refused, it only competes more
            let _ = nice(19);
            let _ = also_here.send(());
            desk.hash_strangers(stranger_jobs);
        });
        // every system call that starting takes is made before the list counts. A lane that could not be started has
        // let go of its end: then this ends too, and the keeper with it
        let started = watched.is_ok() && strangers.is_ok() && arrived.iter().take(LANES).count() == LANES;
        let locked = started && lock().is_ok();
        if locked {
            desk.receive(&watched_lane, &stranger_lane);
        }
        // the lanes end when their senders do
        drop((watched_lane, stranger_lane));
        if locked { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    })
}

struct Desk<'a> {
    channel: BorrowedFd<'a>,
    watched: Mutex<HashMap<String, Vec<Watched>>>,
    looking: Mutex<(SocketDiagnosis, Libraries)>,
    /// Digests of executables that were running when they were hashed: the kernel kept them from being written.
    running: Fingerprints,
    /// Digests of libraries, and of strangers' files, which may run no more. Somebody may have had them in memory to
    /// write, where a change leaves no trace: they are told, and never prove who runs.
    others: Fingerprints,
    common_filters: u32,
    /// Size of a page, asked for before the cage is closed.
    page: u64,
}

/// A look that waits for a digest.
struct Look {
    id: u64,
    subject: Subject,
    running: Running,
    file: File,
    watched: Watched,
}

struct Fingerprint {
    id: u64,
    file: File,
}

impl Desk<'_> {
    fn receive(&self, watched_lane: &SyncSender<Look>, stranger_lane: &SyncSender<Fingerprint>) {
        let mut packet = vec![0; MAX_MESSAGE];
        loop {
            let (length, descriptor) = match next_packet(self.channel, &mut packet) {
                Ok((0, _)) => return,
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            let Ok(question) = decode_question(packet.get(..length).unwrap_or_default()) else { return };
            match question {
                Question::Watch { anew, executables } => self.watch(anew, executables),
                Question::Examine { id, pid, socket } => match Subject::new(pid, socket, descriptor) {
                    Ok(subject) => self.examine(id, subject, watched_lane),
                    Err(why) => self.tell(&Answer::Unseen { id, why }, &[]),
                },
                Question::Fingerprint { id } => {
                    let Some(file) = descriptor.map(File::from) else { return };
                    if stranger_lane.try_send(Fingerprint { id, file }).is_err() {
                        self.tell(&Answer::Unseen { id, why: Unseen::Busy }, &[]);
                    }
                }
            }
        }
    }

    fn watch(&self, anew: bool, executables: Vec<Watched>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if anew {
            watched.clear();
        }
        for executable in executables {
            watched.entry(executable.path.clone()).or_default().push(executable);
        }
    }

    /// The cheapest sufficient look: an executable whose path and size no entry has costs neither hash nor scan.
    fn examine(&self, id: u64, subject: Subject, watched_lane: &SyncSender<Look>) {
        let mut running = match subject.executable() {
            Ok(found) => found,
            Err(why) => return self.tell(&Answer::Unseen { id, why }, &[]),
        };
        let file = running.file.take();
        let Some(watched) = self.watched_as(&running.executable) else {
            let digest = self.others.known(&running.executable.key);
            let sighting = Box::new(subject.sighting(running.executable, digest));
            return self.tell(
                &Answer::Stranger { id, sighting },
                file.iter().map(AsFd::as_fd).collect::<Vec<_>>().as_slice(),
            );
        };
        let Some(file) = file else {
            return self.tell(&Answer::Unseen { id, why: Unseen::Unreadable }, &[]);
        };
        let look = Look { id, subject, running, file, watched };
        if self.running.known(&look.running.executable.key).is_some() {
            self.finish(look);
        } else if let Err(error) = watched_lane.try_send(look) {
            let (std::sync::mpsc::TrySendError::Full(look)
            | std::sync::mpsc::TrySendError::Disconnected(look)) = error;
            self.tell(&Answer::Unseen { id: look.id, why: Unseen::Busy }, &[]);
        }
    }

    /// The entries' wishes for this executable, joined; None when no entry has its path and size.
    fn watched_as(&self, executable: &Executable) -> Option<Watched> {
        if !executable.exact {
            return None;
        }
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fitting = watched
            .get(&executable.path)?
            .iter()
            .filter(|entry| entry.size.is_none_or(|size| size == executable.key.size));
        let mut joined = fitting.next()?.clone();
        joined.libraries.extend(fitting.flat_map(|entry| entry.libraries.iter().cloned()));
        Some(joined)
    }

    /// Hashes if need be, then looks.
    fn finish(&self, look: Look) {
        let Look { id, subject, running, file, watched } = look;
        let digest = match self.running.make(file, &running.executable.key, subject.pidfd.as_ref()) {
            Ok(digest) => digest,
            Err(why) => return self.tell(&Answer::Unseen { id, why }, &[]),
        };
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let (diagnosis, libraries) = &mut *looking;
        let instruments = Instruments {
            diagnosis,
            libraries,
            libraries_digests: &self.others,
            common_filters: self.common_filters,
            page: self.page,
        };
        let answer = subject.look(running, digest, &watched, instruments);
        drop(looking);
        match answer {
            Ok((facts, pin)) => {
                self.tell(
                    &Answer::Examined { id, facts: Box::new(facts) },
                    &[pin.maps.as_fd(), pin.size.as_fd()],
                );
            }
            Err(why) => self.tell(&Answer::Unseen { id, why }, &[]),
        }
    }

    fn hash_watched(&self, jobs: Receiver<Look>) {
        for look in jobs {
            self.finish(look);
        }
    }

    /// Strangers' executables, one at a time, at the lowest priority that needs no permission.
    fn hash_strangers(&self, jobs: Receiver<Fingerprint>) {
        for Fingerprint { id, file } in jobs {
            let answer = match fstat(&file) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                    match self.others.make(file, &file_key(&stat), None) {
                        Ok(digest) => Answer::Fingerprint { id, digest },
                        Err(why) => Answer::Unseen { id, why },
                    }
                }
                _ => Answer::Unseen { id, why: Unseen::Unreadable },
            };
            self.tell(&answer, &[]);
        }
    }

    fn tell(&self, answer: &Answer, descriptors: &[BorrowedFd<'_>]) {
        let packet = match encode(answer) {
            Ok(packet) => packet,
            // only a process whose own names are huge can make an answer too long
            Err(_) => match encode(&Answer::Unseen { id: id_of(answer), why: Unseen::TooLarge }) {
                Ok(packet) => packet,
                Err(_) => return,
            },
        };
        // too many of its user's descriptors are under way, or there is no memory: the keeper would wait in vain
        if self.send(&packet, descriptors).is_err()
            && let Ok(packet) = encode(&Answer::Unseen { id: id_of(answer), why: Unseen::Busy })
        {
            // a keeper that is gone is seen by the next receive
            let _ = self.send(&packet, &[]);
        }
    }

    fn send(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        retry_on_intr(|| sendmsg(self.channel, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL))
    }
}

fn id_of(answer: &Answer) -> u64 {
    match answer {
        Answer::Examined { id, .. }
        | Answer::Stranger { id, .. }
        | Answer::Fingerprint { id, .. }
        | Answer::Unseen { id, .. } => *id,
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
