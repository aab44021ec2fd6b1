//! `vault export --salvage`: what is intact of a damaged vault, in a file that a new vault can take in.

use super::{
    super::{
        context::Context,
        failure::Failure,
        output::Output,
        owner::{alone, open_log, opening, own_event, owner_event},
    },
    export::{Args, fill},
    limited, of_services,
};
use crate::{
    audit::{Action, AuditError, Event, Log},
    daemon::{self, Lock, StartError},
    name::{Service, Target},
    store::{NamesByService, OwnedSalvage, Record},
};

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let secrecy = args.secrecy()?;
    let words = secrecy.words();
    let mut salvaged = Salvaged::open(cx, format!("vault export --salvage, {words}"))?;
    let (intact, damaged) = salvaged.vault.names();
    let (intact, lost) = (salvaged.wanted(intact, args.services())?, limited(damaged, args.services()));
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
        let vault = opened.map_err(StartError::of_salvage)?;
        let (outbox, memory) = (vault.outbox()?, vault.audit_memory()?);
        let mut log = open_log(&cx.paths, vault.take_seat(), &memory, &outbox).map_err(unrecorded)?;
        record(&mut log, &own_event(Action::Vault, cx.uid, vault.extent().opened()))?;
        Ok(Self { vault, log, uid: cx.uid, command, _alone: alone })
    }

    /// The names of the wanted services, or all. Where there are none, that was told to somebody too, and has its record.
    fn wanted(&mut self, names: NamesByService, services: &[Service]) -> Result<NamesByService, Failure> {
        let missing = match of_services(names, services) {
            Ok(names) if !names.is_empty() => return Ok(names),
            Ok(_) => None,
            Err(missing) => Some(missing),
        };
        let event = owner_event(Action::Export, missing.cloned(), self.uid, &self.command);
        record(&mut self.log, &event)?;
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
