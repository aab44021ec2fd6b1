//! The order of the argument: bytes → frame → caller → request → decision → commit → record → reply.
//!
//! Read [`serve`] aloud: it is why a secret leaves only to a verified caller that may have it, after the record of it
//! is written. Each value on the way can be made only by the step that gives it.

use std::os::fd::BorrowedFd;

use super::{
    house::House,
    identity::{Identity, Stranger, Unverified},
    keychain::Reader,
    locking::{Asker, OneNonce},
    note::Note,
    refusal::Refusal,
    sync::Durability,
};
use crate::{
    caller::{Check, Untrusted},
    policy::{Admitted, decide_change, decide_check, decide_query},
    store::{Change, Committed, PendingChange, Query},
    wire::{self, Batch, Fitting, Frame, FrameError, Message, Nonce, Reply, Request},
};

/// One connection, as the corridor sees it.
pub(super) struct Session<'a> {
    pub(super) house: &'a House,
    pub(super) connection: BorrowedFd<'a>,
    pub(super) id: u64,
    pub(super) identity: Identity,
    pub(super) challenge: Challenge,
    pub(super) nonce: OneNonce,
}

/// The challenge of a connection.
#[derive(Default)]
pub(super) struct Challenge {
    given: Option<Nonce>,
    answered: bool,
}

/// What a line gets.
pub(super) struct Answer {
    pub(super) reply: Reply,
    /// Whether the connection ends after it.
    pub(super) closes: bool,
}

/// Answers one line, or the bytes that are none. Every way out has left its record before it returns.
pub(super) async fn answer(line: Result<Frame, FrameError>, session: &mut Session<'_>) -> Answer {
    let mut note = Note::default();
    match serve(line, session, &mut note).await {
        Ok(reply) => Answer { reply, closes: false },
        Err(refusal) => refuse(refusal, &note, session).await,
    }
}

/// Answers what is no line at all: silence, or a line without an end.
pub(super) async fn refuse_unasked(refusal: Refusal, session: &Session<'_>) -> Answer {
    refuse(refusal, &Note::default(), session).await
}

async fn serve(
    line: Result<Frame, FrameError>,
    session: &mut Session<'_>,
    note: &mut Note,
) -> Result<Reply, Refusal> {
    let house = session.house;
    // bytes → frame: one line of UTF-8, bounded, by one writer
    let frame = line.map_err(|error| Refusal::frame(error, session.identity.shown()))?;
    let message = Message::parse(frame.text());
    note.asked(&message);
    // the daemon itself: asked how it is, locked or unlocked by any process of its user
    let message = match message {
        Ok(message) if session.identity.is_of(house.observer.uid) => match message {
            Message::Hello | Message::Request(_) => Ok(message),
            others => return serve_anybody(others, frame.writer(), session, note).await,
        },
        other => other,
    };
    // who: the process that wrote this line, verified, and its entry in the policy of this moment
    let verified = session.identity.verify(frame.writer(), session.connection, house).await;
    let policy = &verified.map_err(|unverified| session.refuse_unverified(unverified))?;
    let admitted =
        &session.identity.admitted(policy).map_err(|stranger| session.refuse_stranger(stranger))?;
    session.count(admitted)?;
    // frame → request: what was malformed is said only to those who may ask
    let request = match message.map_err(Refusal::malformed)? {
        Message::Request(request) => request,
        Message::Hello => return session.challenge.give().map_err(|error| house.internal(&error)),
        Message::Status | Message::Lock | Message::Unlock(_) | Message::AskSeal(_) | Message::Seal(_) => {
            return Err(Refusal::unlisted());
        }
    };
    let proven = session.challenge.check(&request, admitted);
    proven.map_err(|untrusted| Refusal::untrusted(&untrusted, session.identity.shown()))?;
    house.admission.borrow_mut().prove(session.id);
    // request → authorised → committed → recorded → reply
    let (_, batch) = request.into_parts();
    match batch {
        // a client that never takes its replies gets no more of them to keep
        Batch::Query(_) if house.untaken.is_full(admitted.caller().path()) => Err(Refusal::overloaded(false)),
        Batch::Query(query) => match &house.keychain {
            None => answer_query(admitted, query, note, session).await,
            Some(keychain) => {
                let found = find_slowly(admitted, &query, &keychain.reader, house).await?;
                release_late(&found, query, frame.writer(), note, session).await
            }
        },
        Batch::Change(change) => answer_change(admitted, change, note, session).await,
        Batch::Check(selection) => {
            decide_check(admitted.entry().permissions(), &selection)
                .map_err(|denial| Refusal::denied(denial, admitted, false))?;
            let receipt = house.record(note.granted(session.identity.shown(), admitted, &[])).await?;
            Ok(Reply::allowed(receipt))
        }
    }
}

/// What any process of the daemon's user may send. Whoever holds a descriptor of this connection can have written it: what
/// is refused is told of that process, and not of the one that connected.
async fn serve_anybody(
    message: Message,
    writer: wire::Writer,
    session: &mut Session<'_>,
    note: &mut Note,
) -> Result<Reply, Refusal> {
    let Session { house, id, identity, nonce, .. } = session;
    let asker = Asker { connection: *id, identity, writer };
    let served = match message {
        Message::Status => Ok(Reply::status(&house.status())),
        Message::Lock => house.lock(&asker).await,
        Message::Unlock(carried) => house.unlock(nonce, carried, &asker).await,
        Message::AskSeal(theirs) => house.tell_seal(nonce, &theirs),
        Message::Seal(carried) => house.seal(nonce, carried, &asker).await,
        Message::Hello | Message::Request(_) => Err(Refusal::unlisted()),
    };
    if served.is_err() {
        note.sent_by(identity.sender(writer, house).await);
    }
    served
}

/// One snapshot, one record, one release, with no pause between them in which the caller could become another; where the
/// record has to be on the disk first, the caller is looked at again.
async fn answer_query(
    admitted: &Admitted<'_>,
    query: Query,
    note: &Note,
    session: &Session<'_>,
) -> Result<Reply, Refusal> {
    let house = session.house;
    let authorized =
        decide_query(admitted, query).map_err(|denial| Refusal::denied(denial, admitted, false))?;
    let found = house.store.read(authorized).map_err(|error| house.store_failed(&error))?;
    release(&found, admitted, note, session).await
}

/// The answer of a store that may let us wait. Whoever gets it must look at the caller again.
async fn find_slowly(
    admitted: &Admitted<'_>,
    query: &Query,
    reader: &Reader,
    house: &House,
) -> Result<Committed, Refusal> {
    let authorized =
        decide_query(admitted, query.clone()).map_err(|denial| Refusal::denied(denial, admitted, false))?;
    let outcome = reader.queue(authorized).map_err(|_| Refusal::overloaded(false))?;
    outcome.await.map_err(|error| house.internal(&error))?.map_err(|error| house.store_failed(&error))
}

/// Looks again at who asks and whether it still may: while the keychain was asked, the caller could become another, or lose
/// its permission. From here on there is no pause.
async fn release_late(
    found: &Committed,
    query: Query,
    writer: wire::Writer,
    note: &Note,
    session: &mut Session<'_>,
) -> Result<Reply, Refusal> {
    let verified = session.identity.verify(writer, session.connection, session.house).await;
    let policy = &verified.map_err(|unverified| session.refuse_unverified(unverified))?;
    let admitted =
        &session.identity.admitted(policy).map_err(|stranger| session.refuse_stranger(stranger))?;
    let proven = session.challenge.proven(admitted);
    proven.map_err(|untrusted| Refusal::untrusted(&untrusted, session.identity.shown()))?;
    // what was found was authorised; what is released must be so still
    let still = decide_query(admitted, query);
    drop(still.map_err(|denial| Refusal::denied(denial, admitted, false))?);
    release(found, admitted, note, session).await
}

/// The record, and then the reply. Where the record has to be on the disk first, the caller must still be itself after it.
async fn release(
    found: &Committed,
    admitted: &Admitted<'_>,
    note: &Note,
    session: &Session<'_>,
) -> Result<Reply, Refusal> {
    let house = session.house;
    let fitting = Fitting::of(found).map_err(|_| Refusal::too_large())?;
    let event = note.granted(session.identity.shown(), admitted, found.records());
    let receipt = house.record(event).await?;
    if house.durability == Durability::Synced && !session.identity.pinned() {
        let gone = Untrusted::new(Check::ExecutableChanged);
        return Err(Refusal::untrusted(&gone, session.identity.shown()));
    }
    Ok(Reply::released(&fitting, receipt))
}

/// One transaction for the batch and its record; the reply after it is durable.
async fn answer_change(
    admitted: &Admitted<'_>,
    change: Change,
    note: &Note,
    session: &Session<'_>,
) -> Result<Reply, Refusal> {
    let house = session.house;
    let authorized =
        decide_change(admitted, change).map_err(|denial| Refusal::denied(denial, admitted, true))?;
    // a change is not begun while its record could not follow it
    house.ready_for_change()?;
    let pending =
        PendingChange { change: authorized, record: note.granted_later(session.identity.shown(), admitted) };
    let outcome = house.writer.queue(pending).map_err(|_| Refusal::overloaded(false))?;
    let committed = outcome.await.map_err(|error| house.internal(&error))?;
    let committed = committed.map_err(|error| house.store_failed(&error))?;
    house.log_committed();
    let record = committed.outbox().ok_or_else(|| house.internal(&"a change without a record"))?;
    Ok(Reply::changed(&committed, record))
}

/// A refusal has its record before it is said; without one only that is said.
async fn refuse(refusal: Refusal, note: &Note, session: &Session<'_>) -> Answer {
    let closes = refusal.closes;
    let (shown, seen) = note.refused_as(&session.identity);
    let event = note.refused(shown, &refusal);
    let reply = match session.house.record_refusal(event, seen).await {
        Ok(receipt) => Reply::refusal(refusal.reason, &refusal.message, &receipt),
        Err(_) => Reply::unrecorded(),
    };
    if let Some(stranger) = refusal.stranger {
        session.house.strangers.saw(stranger, shown, note);
    }
    Answer { reply, closes }
}

impl Session<'_> {
    /// Counts this connection to its executable.
    fn count(&self, admitted: &Admitted<'_>) -> Result<(), Refusal> {
        let counted = self.house.admission.borrow_mut().identify(self.id, admitted.caller().path(), true);
        counted.map_err(|_| Refusal::overloaded(true))
    }

    fn refuse_unverified(&self, unverified: Unverified) -> Refusal {
        match unverified {
            Unverified::Stranger(stranger) => self.refuse_stranger(stranger),
            Unverified::Refused(refusal) => refusal,
        }
    }

    /// The refusal of a peer that may not ask. Strangers beyond their number are only told that it is full.
    pub(super) fn refuse_stranger(&self, stranger: Stranger) -> Refusal {
        match stranger {
            Stranger::Untrusted(untrusted) => Refusal::untrusted(&untrusted, self.identity.shown()),
            Stranger::Unregistered(unregistered) => {
                let shown = self.identity.shown();
                match self.house.admission.borrow_mut().identify(self.id, &shown.path, false) {
                    Ok(()) => Refusal::unregistered(unregistered, shown),
                    Err(_) => Refusal::overloaded(true),
                }
            }
        }
    }
}

impl Challenge {
    /// A new nonce for the process that has just been verified.
    fn give(&mut self) -> Result<Reply, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let reply = Reply::hello(env!("CARGO_PKG_VERSION"), self.given.insert(Nonce::new(random)));
        self.answered = false;
        Ok(reply)
    }

    /// Once answered it stays so for the connection; a wrong answer is refused also where none was needed.
    fn check(&mut self, request: &Request, admitted: &Admitted<'_>) -> Result<(), Untrusted> {
        let missing = Untrusted::new(Check::ChallengeMissing);
        if let Some(nonce) = request.nonce() {
            self.answered = self.given.as_ref().is_some_and(|given| given.matches(nonce));
            if !self.answered {
                return Err(missing);
            }
        }
        self.proven(admitted)
    }

    /// Whether the entry asks for nothing that was not answered.
    fn proven(&self, admitted: &Admitted<'_>) -> Result<(), Untrusted> {
        if admitted.entry().challenge() && !self.answered {
            Err(Untrusted::new(Check::ChallengeMissing))
        } else {
            Ok(())
        }
    }
}
