//! The witness's desks: questions come in, each is looked into by the desk that took it, hashing goes to lanes.
//!
//! A look can be made to wait by whoever is looked at: his files may lie on a filesystem that does not answer, his memory may
//! be kept busy. So several desks take questions, one after the other, and whoever runs no executable of any entry is looked
//! at elsewhere: strangers make only strangers wait. A path proves nothing yet, since a mount shows anything at any path:
//! what lies on a filesystem that asks somebody, or that only the caller has mounted, is opened elsewhere too.

use std::{
    collections::HashMap,
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, Scope},
};

use rustix::{
    fs::{FileType, fstat},
    param::page_size,
    process::nice,
};

use super::{
    channel::Channel,
    custody::SocketDiagnosis,
    examine::{DELETED, Held, Instruments, Running, Subject, common_filters, file_key},
    hashing::Fingerprints,
    libraries::Libraries,
    protocol::{Answer, MAX_MESSAGE, Question, Unseen, Watched},
};
use crate::caller::Executable;

/// Threads that take questions. As many registered executables may keep a look waiting, less one, before others wait.
const DESKS: usize = 4;
/// Threads that hash watched executables: a large one keeps no other waiting.
const WATCHED_LANES: usize = 2;
/// Threads that look at strangers.
const STRANGER_LANES: usize = 2;
/// Threads that look at executables, at the path of an entry, whose filesystem may let them wait.
const DISTANT_LANES: usize = 2;
/// Most looks that wait for the digest of a watched executable.
const MOST_WATCHED: usize = 256;
/// Most looks that wait for one of those.
const MOST_DISTANT: usize = 16;
/// Most strangers that wait to be looked at.
const MOST_STRANGERS: usize = 16;
/// Most strangers that wait for their digest; others are told that the witness is busy and are not queued.
const MOST_FINGERPRINTS: usize = 16;

/// Answers questions until the keeper is gone. Returns only then, or when the channel breaks.
///
/// Digests are remembered only where `running_files_are_protected`. `lock` closes the cage; it is called once everything is open and every thread has started.
pub fn serve<E>(
    channel: BorrowedFd<'_>,
    running_files_are_protected: bool,
    lock: impl FnOnce() -> Result<(), E>,
) -> ExitCode {
    let Ok(diagnosis) = SocketDiagnosis::open() else { return ExitCode::FAILURE };
    let office = &Office {
        channel: Channel(channel),
        turn: Mutex::new(Turn { packet: vec![0; MAX_MESSAGE], over: false }),
        watched: Mutex::default(),
        diagnosis,
        libraries: Libraries::default(),
        running: Fingerprints::new(running_files_are_protected),
        others: Fingerprints::new(running_files_are_protected),
        common_filters: common_filters(),
        page: page_size() as u64,
    };
    thread::scope(|scope| {
        // nobody takes a question before the cage is closed
        let mut turn = office.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = office.open(scope).filter(|_| lock().is_ok());
        turn.over = lanes.is_none();
        drop(turn);
        let locked = lanes.is_some();
        if let Some(lanes) = lanes {
            office.receive(&lanes);
        }
        if locked { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    })
}

/// What the threads of the witness share. No lock in it is held while files or memory of others are looked at.
struct Office<'a> {
    channel: Channel<'a>,
    /// Whose holder takes the next question.
    turn: Mutex<Turn>,
    watched: Mutex<HashMap<String, Vec<Watched>>>,
    diagnosis: SocketDiagnosis,
    libraries: Libraries,
    /// Digests of executables that were running when they were hashed: the kernel kept them from being written.
    running: Fingerprints,
    /// Digests of libraries, and of strangers' files, which may run no more. Somebody may have had them in memory to
    /// write, where a change leaves no trace: they are told, and never prove who runs.
    others: Fingerprints,
    common_filters: u32,
    /// Size of a page, asked for before the cage is closed.
    page: u64,
}

struct Turn {
    packet: Vec<u8>,
    /// The keeper is gone, or the cage could not be closed.
    over: bool,
}

/// Ways to the lanes, which end when the last of these is gone.
#[derive(Clone)]
struct Lanes {
    watched: SyncSender<Look>,
    distant: SyncSender<Approach>,
    strangers: SyncSender<Glance>,
    fingerprints: SyncSender<Fingerprint>,
}

/// A look that waits for a digest.
struct Look {
    id: u64,
    subject: Subject,
    running: Running,
    file: File,
    watched: Vec<Watched>,
}

/// An executable at the path of an entry, which waits to be opened.
struct Approach {
    id: u64,
    subject: Subject,
    held: Held,
    shown: String,
}

/// A stranger that waits to be looked at.
struct Glance {
    id: u64,
    subject: Subject,
}

struct Fingerprint {
    id: u64,
    file: File,
}

impl Office<'_> {
    /// Starts every thread. None when one could not be started, or is not there yet to be filtered.
    fn open<'s>(&'s self, scope: &'s Scope<'s, '_>) -> Option<Lanes> {
        const THREADS: usize = DESKS - 1 + WATCHED_LANES + DISTANT_LANES + STRANGER_LANES + 1;
        let (watched, looks) = sync_channel(MOST_WATCHED);
        let (distant, approaches) = sync_channel(MOST_DISTANT);
        let (strangers, glances) = sync_channel(MOST_STRANGERS);
        let (fingerprints, files) = sync_channel(MOST_FINGERPRINTS);
        let lanes = Lanes { watched, distant, strangers, fingerprints };
        let (here, arrived) = sync_channel(THREADS);
        let start = |lowly: bool, work: Box<dyn FnOnce() + Send + 's>| {
            let here = here.clone();
            let work = move || {
                if lowly {
                    // a thread on Linux has a priority of its own; refused, it only competes more
                    let _ = nice(19);
                }
                // every system call that starting takes is made by now
                let _ = here.send(());
                work();
            };
            thread::Builder::new().spawn_scoped(scope, work).ok()
        };
        let (looks, approaches, glances) =
            (Shared::new(looks), Shared::new(approaches), Shared::new(glances));
        for _ in 0..WATCHED_LANES {
            let looks = looks.clone();
            start(false, Box::new(move || looks.each(|look| self.finish(look))))?;
        }
        for _ in 0..DISTANT_LANES {
            let (approaches, strangers) = (approaches.clone(), lanes.strangers.clone());
            let finish = move |approach| {
                if let Some(look) = self.approach(approach, &strangers) {
                    self.finish(look);
                }
            };
            start(false, Box::new(move || approaches.each(finish)))?;
        }
        for _ in 0..STRANGER_LANES {
            let glances = glances.clone();
            start(false, Box::new(move || glances.each(|glance| self.glance(glance))))?;
        }
        start(true, Box::new(move || self.hash_strangers(files)))?;
        for _ in 1..DESKS {
            let lanes = lanes.clone();
            start(false, Box::new(move || self.receive(&lanes)))?;
        }
        // a thread that ended before it was there has let go of its end: then this ends too
        drop(here);
        (arrived.iter().take(THREADS).count() == THREADS).then_some(lanes)
    }

    /// Takes questions in turn with the other desks: whoever has one lets the next desk wait for the next.
    fn receive(&self, lanes: &Lanes) {
        while let Some((question, descriptor)) = self.next() {
            match question {
                // taken up in `next`
                Question::Watch { .. } => {}
                Question::Examine { id, pid, socket, cookie } => {
                    match Subject::new(pid, (socket, cookie), descriptor) {
                        Ok(subject) => self.examine(id, subject, lanes),
                        Err(why) => self.channel.tell_unseen(id, why, None),
                    }
                }
                Question::Fingerprint { id } => {
                    let file = descriptor.map(File::from);
                    if file.is_none_or(|file| lanes.fingerprints.try_send(Fingerprint { id, file }).is_err())
                    {
                        self.channel.tell_unseen(id, Unseen::Busy, None);
                    }
                }
            }
        }
    }

    fn next(&self) -> Option<(Question, Option<OwnedFd>)> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.over {
            return None;
        }
        let question = self.channel.next(&mut turn.packet);
        match &question {
            // before another desk takes the next question, which is to be answered by this list
            Some((Question::Watch { anew, executables }, _)) => self.watch(*anew, executables),
            Some(_) => {}
            None => turn.over = true,
        }
        question
    }

    fn watch(&self, anew: bool, executables: &[Watched]) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if anew {
            watched.clear();
        }
        for executable in executables {
            watched.entry(executable.path.clone()).or_default().push(executable.clone());
        }
    }

    /// The cheapest sufficient look: an executable whose path and size no entry has costs neither hash nor scan.
    fn examine(&self, id: u64, subject: Subject, lanes: &Lanes) {
        let shown = match subject.shown() {
            Ok(shown) => shown,
            Err(why) => return self.channel.tell_unseen(id, why, None),
        };
        if !self.is_watched(&shown) {
            return self.take_stranger(Glance { id, subject }, shown, &lanes.strangers);
        }
        let held = match subject.executable() {
            Ok(held) => held,
            Err(why) => return self.channel.tell_unseen(id, why, Some(shown)),
        };
        let (is_local, approach) = (held.is_local(), Approach { id, subject, held, shown });
        if !is_local {
            if let Err(TrySendError::Full(late) | TrySendError::Disconnected(late)) =
                lanes.distant.try_send(approach)
            {
                self.channel.tell_unseen(late.id, Unseen::Busy, Some(late.shown));
            }
            return;
        }
        let Some(look) = self.approach(approach, &lanes.strangers) else { return };
        if self.running.known(&look.running.executable.key).is_some() {
            self.finish(look);
        } else if let Err(TrySendError::Full(look) | TrySendError::Disconnected(look)) =
            lanes.watched.try_send(look)
        {
            self.channel.tell_unseen(look.id, Unseen::Busy, Some(look.running.executable.path));
        }
    }

    /// Opens what is held, where its filesystem may let us wait. None when the question is answered, or a stranger's.
    fn approach(&self, approach: Approach, strangers: &SyncSender<Glance>) -> Option<Look> {
        let Approach { id, subject, held, shown } = approach;
        let mut running = match held.open() {
            Ok(found) => found,
            Err(why) => {
                self.channel.tell_unseen(id, why, Some(shown));
                return None;
            }
        };
        let watched = self.watched_as(&running.executable);
        if watched.is_empty() {
            self.take_stranger(Glance { id, subject }, shown, strangers);
            return None;
        }
        let Some(file) = running.file.take() else {
            self.channel.tell_unseen(id, Unseen::Unreadable, Some(shown));
            return None;
        };
        Some(Look { id, subject, running, file, watched })
    }

    /// Whether an entry has the path that /proc shows, which may have the mark of a deleted file. No file is touched.
    fn is_watched(&self, shown: &str) -> bool {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.contains_key(shown)
            || shown.strip_suffix(DELETED).is_some_and(|name| watched.contains_key(name))
    }

    /// The entries that have the path and size of this executable.
    fn watched_as(&self, executable: &Executable) -> Vec<Watched> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = watched.get(&executable.path).filter(|_| executable.exact).into_iter().flatten();
        let fitting = entries.filter(|entry| entry.size.is_none_or(|size| size == executable.key.size));
        fitting.cloned().collect()
    }

    /// Hashes if need be; then looks, if an entry has that digest.
    fn finish(&self, look: Look) {
        let Look { id, subject, running, file, watched } = look;
        let path = running.executable.path.clone();
        let digest = match self.running.make(file, &running.executable.key, subject.pidfd.as_ref()) {
            Ok(digest) => digest,
            Err(why) => return self.channel.tell_unseen(id, why, Some(path)),
        };
        let mut entries = watched.into_iter().filter(|entry| entry.digest == digest).peekable();
        if entries.peek().is_none() {
            let sighting = Box::new(subject.sighting(running.executable, Some(digest)));
            return self.channel.tell(&Answer::Stranger { id, sighting }, &[]);
        }
        let pinned: Vec<String> = entries.flat_map(|entry| entry.libraries).collect();
        let instruments = Instruments {
            diagnosis: &self.diagnosis,
            libraries: &self.libraries,
            libraries_digests: &self.others,
            common_filters: self.common_filters,
            page: self.page,
        };
        match subject.look(running, digest, &pinned, instruments) {
            Ok((facts, pin)) => {
                let facts = Box::new(facts);
                self.channel.tell(&Answer::Examined { id, facts }, &[pin.maps.as_fd(), pin.size.as_fd()]);
            }
            Err(why) => self.channel.tell_unseen(id, why, Some(path)),
        }
    }

    /// Tells that it is a stranger, which is all that its refusal needs, and has it looked at for the queue of strangers.
    fn take_stranger(&self, glance: Glance, shown: String, strangers: &SyncSender<Glance>) {
        let id = glance.id;
        self.channel.tell(&Answer::Shown { id, path: shown }, &[]);
        if strangers.try_send(glance).is_err() {
            self.channel.tell_unseen(id, Unseen::Busy, None);
        }
    }

    fn glance(&self, Glance { id, subject }: Glance) {
        match subject.executable().and_then(Held::open) {
            Ok(Running { executable, file, faithful }) => {
                let digest = self.others.known(&executable.key);
                let sighting = Box::new(subject.sighting(executable, digest));
                // whoever reads a file of another kind can be made to wait
                let file = file.filter(|_| faithful);
                let file: Vec<BorrowedFd<'_>> = file.iter().map(AsFd::as_fd).collect();
                self.channel.tell(&Answer::Stranger { id, sighting }, &file);
            }
            Err(why) => self.channel.tell_unseen(id, why, subject.shown().ok()),
        }
    }

    /// Strangers' executables, one at a time, at the lowest priority that needs no permission.
    fn hash_strangers(&self, jobs: Receiver<Fingerprint>) {
        for Fingerprint { id, file } in jobs {
            let answer = match fstat(&file) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                    self.others.make(file, &file_key(&stat), None)
                }
                _ => Err(Unseen::Unreadable),
            };
            match answer {
                Ok(digest) => self.channel.tell(&Answer::Fingerprint { id, digest }, &[]),
                Err(why) => self.channel.tell_unseen(id, why, None),
            }
        }
    }
}

/// Jobs that several threads take.
struct Shared<T>(Arc<Mutex<Receiver<T>>>);

impl<T> Shared<T> {
    fn new(jobs: Receiver<T>) -> Self {
        Self(Arc::new(Mutex::new(jobs)))
    }

    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Does one job after the other until there can be no more.
    fn each(&self, mut work: impl FnMut(T)) {
        // the lock is given back before the work begins
        while let Some(job) = self.next() {
            work(job);
        }
    }

    fn next(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
    }
}
