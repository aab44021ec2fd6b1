//! Who is behind one connection: asked of the witness once, judged by `caller`, and cheaply proven again before every
//! release.

use std::{
    collections::BTreeSet,
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::io::pread;

use super::{
    house::House,
    in_force::{InForce, SETTLING},
    note::{Known, Sender},
    refusal::Refusal,
    witness_link::{NotSeen, Pin, Seen},
};
use crate::{
    caller::{Check, Facts, Sighting, Terms, Untrusted, VerifiedCaller, verify},
    digest::Digest,
    policy::{Admitted, Entry, Policy, Standing},
    sys::peer::{PinError, pin},
    wire::{FrameError, Writer},
    witness::{Unseen, parse_statm},
};

/// After this a connection's next request is verified in full again: libraries may have been loaded meanwhile.
const FULL_CHECK_AGE: Duration = Duration::from_secs(1);

/// What is known of the peer of one connection.
pub(super) struct Identity {
    /// The process that connected: its pid where it has one here, and its user.
    peer: (Option<u32>, u32),
    /// Inode number and cookie of our end of the connection.
    socket: (u64, u64),
    pidfd: Option<OwnedFd>,
    verified: Option<Verified>,
    /// Path and digest for records, also of processes that were refused.
    shown: Shown,
}

/// A caller that passed, and what keeps the verdict true.
struct Verified {
    caller: VerifiedCaller,
    pin: Pin,
    /// The size of its address space when its mappings were looked at.
    pages: u64,
    generation: u64,
    at: Instant,
}

/// What records say of a peer.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    pub(super) pid: u32,
    pub(super) uid: u32,
    pub(super) path: String,
    pub(super) digest: Option<Digest>,
}

/// Why a connection's peer may not ask.
pub(super) enum Stranger {
    /// No entry has its path and digest.
    Unregistered(Unregistered),
    /// An identity check failed.
    Untrusted(Untrusted),
}

/// Why a line's caller was not verified.
pub(super) enum Unverified {
    /// It may not ask.
    Stranger(Stranger),
    /// Nobody may, now.
    Refused(Refusal),
}

impl From<Stranger> for Unverified {
    fn from(stranger: Stranger) -> Self {
        Self::Stranger(stranger)
    }
}

/// A peer whose executable no entry allows.
pub(super) struct Unregistered {
    pub(super) why: WhyUnregistered,
    /// For the pending queue; none when the executable was hashed already.
    pub(super) arguments: Vec<String>,
    pub(super) file: Option<File>,
}

/// What is missing for a registration to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhyUnregistered {
    /// No entry has the path.
    Unknown,
    /// An entry has the path with another hash.
    Changed,
    /// The entry has expired.
    Expired,
    /// The entry has a fault and matches nothing.
    Unusable(&'static str),
}

impl Stranger {
    fn untrusted(check: Check) -> Self {
        Self::Untrusted(Untrusted::new(check))
    }
}

impl Identity {
    /// The peer as the kernel names it at connect. Nothing is verified.
    pub(super) fn new(peer: (Option<u32>, u32), socket: (u64, u64)) -> Self {
        let shown = Shown { pid: peer.0.unwrap_or_default(), uid: peer.1, ..Shown::default() };
        Self { peer, socket, pidfd: None, verified: None, shown }
    }

    /// What records say.
    pub(super) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Verifies the caller of a line that `writer` wrote, under the policy that is returned and still in force.
    ///
    /// Full once a connection, and again when the policy, the address space or a second has passed; otherwise only that
    /// the writer is the caller and that the caller is still itself. The witness may take its time to answer: what was
    /// revoked meanwhile counts, since the last look at the policy comes after it.
    pub(super) async fn verify(
        &mut self,
        writer: Writer,
        connection: BorrowedFd<'_>,
        house: &House,
    ) -> Result<InForce, Unverified> {
        let (peer, uid) = self.peer;
        if uid != house.observer.uid {
            return Err(Stranger::untrusted(Check::ForeignUid).into());
        }
        if peer != Some(writer.pid) || writer.uid != uid {
            self.show_writer(writer, house).await;
            return Err(Stranger::untrusted(Check::ForeignSender).into());
        }
        let mut looked = false;
        for _ in 0..SETTLING {
            let in_force = match house.policy().await {
                Ok(in_force) => in_force,
                Err(refusal) => {
                    // nobody may ask now; the record names whoever did, which proves nothing
                    if self.shown.path.is_empty() {
                        self.show_writer(writer, house).await;
                    }
                    return Err(Unverified::Refused(refusal));
                }
            };
            if self.holds(&in_force) && self.pinned() && (looked || self.unchanged()) {
                return Ok(in_force);
            }
            if looked && !self.pinned() {
                return Err(Stranger::untrusted(Check::ExecutableChanged).into());
            }
            self.examine(writer.pid, connection, &in_force, house).await?;
            looked = true;
        }
        Err(Unverified::Refused(Refusal::overloaded(false)))
    }

    /// The verified caller with its entry.
    pub(super) fn admitted<'p>(&self, in_force: &'p InForce) -> Result<Admitted<'p>, Stranger> {
        let Some(Verified { caller, .. }) = &self.verified else {
            return Err(Stranger::untrusted(Check::PeerGone));
        };
        in_force.policy.admit(caller, Timestamp::now()).map_err(unregistered)
    }

    /// Whether the process that connected is of this user, as far as the kernel said at connect.
    pub(super) fn is_of(&self, uid: u32) -> bool {
        self.peer.1 == uid
    }

    /// Whether a caller was verified on this connection: then only it may hear the answers.
    pub(super) fn was_verified(&self) -> bool {
        self.verified.is_some()
    }

    /// Whether the process that was verified still lives with the same address space. What it maps while it takes a
    /// reply is its own affair: the reply was released to what was verified.
    pub(super) fn pinned(&self) -> bool {
        let Some(verified) = &self.verified else { return false };
        pread(&verified.pin.maps, &mut [0; 1], 0).is_ok_and(|length| length > 0)
    }

    /// Whether nothing was mapped since the mappings were looked at. Finds nothing when the process has ended.
    fn unchanged(&self) -> bool {
        let Some(Verified { pin, pages, .. }) = &self.verified else { return false };
        let mut statm = [0; 64];
        pread(&pin.size, &mut statm, 0)
            .is_ok_and(|length| parse_statm(statm.get(..length).unwrap_or_default()) == Ok(*pages))
    }

    /// Looks at a peer that has said nothing, to tell a stranger so. Proves nothing about a later line.
    pub(super) async fn glance(
        &mut self,
        connection: BorrowedFd<'_>,
        in_force: &InForce,
        house: &House,
    ) -> Result<(), Stranger> {
        match self.peer {
            (Some(pid), uid) if uid == house.observer.uid => {
                let outcome = self.examine(pid, connection, in_force, house).await;
                self.verified = None;
                outcome
            }
            (None, uid) if uid == house.observer.uid => Err(Stranger::untrusted(Check::ForeignNamespace)),
            _ => Err(Stranger::untrusted(Check::ForeignUid)),
        }
    }

    /// Whether the last full check was under this policy, and is young enough.
    fn holds(&self, in_force: &InForce) -> bool {
        self.verified.as_ref().is_some_and(|verified| {
            verified.generation == in_force.generation && verified.at.elapsed() < FULL_CHECK_AGE
        })
    }

    /// The full check.
    async fn examine(
        &mut self,
        pid: u32,
        connection: BorrowedFd<'_>,
        in_force: &InForce,
        house: &House,
    ) -> Result<(), Stranger> {
        let before = self.verified.take().map(|verified| verified.caller);
        if self.pidfd.is_none() {
            self.pidfd = match pin(connection) {
                Ok(pidfd) => Some(pidfd),
                // said at start and by `status`; the address space still pins the process
                Err(PinError::Unsupported) => None,
                Err(PinError::Gone) => return Err(Stranger::untrusted(Check::PeerGone)),
                Err(PinError::Io(_)) => return Err(Stranger::untrusted(Check::UnreadablePeer)),
            };
        }
        let pidfd = self.pidfd.as_ref().map(AsFd::as_fd);
        let (facts, pin) = match house.witness.examine(pid, self.socket, pidfd).await {
            Ok(Seen::Watched(facts, pin)) => (facts, pin),
            Ok(Seen::Stranger(sighting, file)) => {
                return Err(self.unwatched(*sighting, file, &in_force.policy));
            }
            Err(not_seen) => return Err(self.unseen(not_seen)),
        };
        self.shown.path.clone_from(&facts.executable.path);
        self.shown.digest = Some(facts.digest);
        let path = Path::new(&facts.executable.path);
        let entry = match in_force.policy.recognise(path, &facts.digest, Timestamp::now()) {
            Standing::Registered(entry) => entry,
            other => return Err(unregistered(other)),
        };
        let caller = judge(&facts, entry, house).map_err(Stranger::Untrusted)?;
        if before.is_some_and(|before| (before.path(), before.digest()) != (caller.path(), caller.digest())) {
            return Err(Stranger::untrusted(Check::ExecutableChanged));
        }
        let pages = facts.pages;
        let generation = in_force.generation;
        self.verified = Some(Verified { caller, pin, pages, generation, at: Instant::now() });
        Ok(())
    }

    /// A process that runs no executable of any entry, or one of another length than its entry says.
    fn unwatched(&mut self, sighting: Sighting, file: Option<File>, policy: &Policy) -> Stranger {
        let path = Path::new(&sighting.executable.path);
        let why = match (policy.knows_path(path), policy.fault(path)) {
            (false, _) => WhyUnregistered::Unknown,
            (true, None) => WhyUnregistered::Changed,
            (true, Some(fault)) => WhyUnregistered::Unusable(fault),
        };
        self.shown.path = sighting.executable.path;
        self.shown.digest = sighting.digest;
        Stranger::Unregistered(Unregistered { why, arguments: sighting.arguments, file })
    }

    /// Names whoever wrote into a line of another process, where the kernel tells it.
    pub(super) async fn show_intruder(&mut self, error: FrameError, house: &House) {
        if let FrameError::MixedWriters { first, other } = error {
            let intruder = if Some(other.pid) == self.peer.0 { first } else { other };
            self.show_writer(intruder, house).await;
        }
    }

    /// A process that could not be looked at. Its path is that of a moment: it is told, and proves nothing.
    fn unseen(&mut self, NotSeen { why, path }: NotSeen) -> Stranger {
        if let Some(path) = path {
            self.shown.path = path;
            self.shown.digest = None;
        }
        let (check, subject) = match why {
            Unseen::Gone => (Check::PeerGone, None),
            Unseen::Changed => (Check::ExecutableChanged, None),
            _ => (Check::UnreadablePeer, Some(why.to_string())),
        };
        Stranger::Untrusted(Untrusted { subject, ..Untrusted::new(check) })
    }

    /// Names the process that wrote on somebody else's connection, for the record.
    async fn show_writer(&mut self, writer: Writer, house: &House) {
        self.shown = self.look_at(writer, house).await;
    }

    /// Who wrote a line for which nobody has to be verified.
    pub(super) async fn sender(&self, writer: Writer, house: &House) -> Sender {
        let is_peer = self.peer == (Some(writer.pid), writer.uid);
        let shown = self.look_at(writer, house).await;
        let verified = is_peer && self.was_verified() && self.pinned();
        Sender { shown, known: if verified { Known::Verified } else { Known::Writer } }
    }

    /// What a record says of whoever wrote here, also where nobody has to be verified. Proves nothing.
    pub(super) async fn look_at(&self, writer: Writer, house: &House) -> Shown {
        let shown = Shown { pid: writer.pid, uid: writer.uid, ..Shown::default() };
        match house.witness.examine(writer.pid, self.socket, None).await {
            Ok(Seen::Watched(facts, _)) => {
                Shown { path: facts.executable.path, digest: Some(facts.digest), ..shown }
            }
            Ok(Seen::Stranger(sighting, _)) => {
                Shown { path: sighting.executable.path, digest: sighting.digest, ..shown }
            }
            Err(NotSeen { path, .. }) => Shown { path: path.unwrap_or_default(), ..shown },
        }
    }
}

fn unregistered(standing: Standing<'_>) -> Stranger {
    let why = match standing {
        Standing::Expired => WhyUnregistered::Expired,
        Standing::Unusable(fault) => WhyUnregistered::Unusable(fault),
        Standing::HashDiffers => WhyUnregistered::Changed,
        Standing::Registered(_) | Standing::Unknown => WhyUnregistered::Unknown,
    };
    Stranger::Unregistered(Unregistered { why, arguments: Vec::new(), file: None })
}

fn judge(facts: &Facts, entry: &Entry, house: &House) -> Result<VerifiedCaller, Untrusted> {
    let relax: BTreeSet<Check> = entry.relaxed().collect();
    let libraries: Vec<_> = entry
        .libraries()
        .iter()
        .map(|library| (library.path().to_string_lossy().into_owned(), *library.digest()))
        .collect();
    verify(facts, &house.observer, Terms { relax: &relax, libraries: &libraries })
}
