//! `vault export --salvage`: what is intact of a damaged vault, in a file that a new vault can take in.

use super::{
    super::{
        context::Context,
        failure::Failure,
        output::Output,
        owner::{alone, opening, own_event, owner_event},
    },
    export::{Args, fill},
};
use crate::{
    audit::{Action, AuditError, Event, Log, Rotation},
    daemon::{self, Lock, StartError},
    name::{Service, Target},
    store::{NamesByService, OwnedSalvage, Record, Seat},
};

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let secrecy = args.secrecy()?;
    let words = secrecy.words();
    let mut salvaged = Salvaged::open(cx, format!("vault export --salvage, {words}"))?;
    let (intact, damaged) = salvaged.vault.names();
    let (intact, lost) = (salvaged.wanted(intact, args.services())?, wanted(damaged, args.services()));
    let filled = fill(args, secrecy, intact, &mut |service, some| salvaged.read(service, some), out)?;
    args.finish(filled, &words, out)?;
    salvaged.say_what_is_missing(&lost, out);
    Ok(())
}

/// A damaged vault that its owner reads, and the audit log, which no daemon has meanwhile.
struct Salvaged {
    vault: OwnedSalvage,
    log: Log,
    uid: u32,
    /// The command, for the records' `detail`.
    command: String,
    _alone: Lock,
}

impl Salvaged {
    fn open(cx: &Context, command: String) -> Result<Self, Failure> {
        let alone = alone(cx)?;
        let (taken, material) = opening(cx)?;
        let opened = daemon::survives(&taken, &material).and_then(|()| Ok(taken.salvage_owned(&material)?));
        let opened = opened.map_err(StartError::of_salvage);
        let vault = opened.map_err(|error| Failure::new(error.to_string(), error.advice()))?;
        let seat = vault.take_seat().unwrap_or_else(Seat::nowhere);
        let known = vault.audit_memory()?.head;
        let log = Log::open(&cx.paths.audit_log(), seat, &known, Rotation::default()).map_err(unrecorded)?;
        let detail = format!("vault opened for salvage: {}", vault.extent().words());
        let mut salvaged = Self { vault, log, uid: cx.uid, command, _alone: alone };
        let outbox = salvaged.vault.outbox()?;
        salvaged.log.replay(&outbox).map_err(unrecorded)?;
        salvaged.record(&own_event(Action::Vault, cx.uid, detail))?;
        Ok(salvaged)
    }

    /// The names of the wanted services, or all. Where there are none, that was told to somebody too, and has its record.
    fn wanted(&mut self, names: NamesByService, services: &[Service]) -> Result<NamesByService, Failure> {
        let chosen = wanted(names, services);
        let missing = services.iter().find(|service| !chosen.iter().any(|(there, _)| there == *service));
        if missing.is_none() && !chosen.is_empty() {
            return Ok(chosen);
        }
        self.record(&owner_event(Action::Export, missing.cloned(), self.uid, &self.command))?;
        let of = missing.map_or_else(String::new, |service| format!(" of the service {service}"));
        Err(Failure::new(
            format!("no secret{of} can be read"),
            "see what is damaged: keychain-auth vault verify",
        ))
    }

    fn read(&mut self, service: &Service, targets: Vec<Target>) -> Result<Vec<Record>, Failure> {
        let event = owner_event(Action::Export, Some(service.clone()), self.uid, &self.command);
        let Self { vault, log, .. } = self;
        vault.read(service, targets, |targets| record(log, &Event { targets: targets.to_vec(), ..event }))
    }

    fn record(&mut self, event: &Event) -> Result<(), Failure> {
        record(&mut self.log, event)
    }

    fn say_what_is_missing(&self, lost: &NamesByService, out: &mut Output) {
        let extent = self.vault.extent();
        for (service, targets) in lost {
            for target in targets {
                out.note(&format!("left out, since its record is damaged: {service}  {target}"));
            }
        }
        out.note(&format!("Of the whole vault, {}", extent.words()));
        if !extent.whole {
            out.note(
                "To go on with what was exported: move the data folder away, make a vault, and take the file in: keychain-auth vault import export",
            );
        }
    }
}

fn wanted(names: NamesByService, services: &[Service]) -> NamesByService {
    let all = services.is_empty();
    names.into_iter().filter(|(service, _)| all || services.contains(service)).collect()
}

/// The record is on the disk when this returns.
fn record(log: &mut Log, event: &Event) -> Result<(), Failure> {
    let _receipt = log.append(event).map_err(unrecorded)?;
    if let Some(unsynced) = log.unsynced().map_err(unrecorded)? {
        unsynced.sync().map_err(unrecorded)?;
    }
    Ok(())
}

fn unrecorded(error: AuditError) -> Failure {
    Failure::new(
        error.to_string(),
        "nothing more is handed out; make room, or mend the owner and mode (0600) of the log",
    )
}
