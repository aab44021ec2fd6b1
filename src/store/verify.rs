//! What is damaged: every record, line and number of a vault that may not open any more is tried by itself.
//!
//! Works on a shadow of the file: nothing on the disk is written, whatever is found.

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};

use super::{
    batch::StoreError,
    disk::{self, ASTRAY, EARLIER, RECORDS, failed},
    fetch::{Fault, Row, each_value},
    files::Folder,
    head::Head,
    key::VaultKey,
    keychain::{HANDFUL, Keychain, StoreKind, Way},
    names::{Gathered, NameIndex, toggle},
    place::name_part,
    rekey::{Progress, TELL},
    seal::{Fingerprint, RecordKey, Sealer, VaultId, has_value},
    seat::Seat,
    slot::{Slot, SlotKeys},
    source::KeyMaterial,
    taken::both,
};
use crate::name::{Service, Target};

/// What was found in a vault.
#[derive(Debug, Default)]
pub struct Findings {
    /// How many records are whole.
    pub whole: u64,
    /// How many there should be, if the header can be read.
    pub expected: Option<u64>,
    /// The records that can't be read.
    pub damaged: Vec<DamagedRecord>,
    /// What is wrong with the vault as a whole, one clause each.
    pub problems: Vec<&'static str>,
    /// What was found in the keychain, where the values rest in one.
    pub keychain: Option<InKeychain>,
}

/// What was found in the keychain of a vault whose values rest there.
#[derive(Debug, Default)]
pub struct InKeychain {
    /// How many of the whole records have their value there.
    pub whole: u64,
    /// How many have theirs in the vault's file still, or are removed and have an item still.
    pub waiting: u64,
    /// Items that claim to be of this vault, and of no record of it. They have no effect.
    pub foreign: u64,
    /// Why values could not be tried, and how many, if the keychain did not let itself be asked. None of them, if it only
    /// could not say which items there are.
    pub untried: Option<(u64, StoreError)>,
}

/// A record that can't be read, as far as it can be told apart.
#[derive(Debug)]
pub struct DamagedRecord {
    /// Its name, if that can still be read.
    pub name: Option<(Service, Target)>,
    /// Which it is: eight bytes of its keyed hash, in hexadecimal digits.
    pub place: String,
    /// What can't be read of it.
    pub what: &'static str,
}

impl Findings {
    /// Whether everything was tried, and nothing is wrong.
    pub fn is_whole(&self) -> bool {
        let tried = self.keychain.as_ref().is_none_or(|found| found.untried.is_none());
        tried && self.problems.is_empty() && self.damaged.is_empty()
    }

    fn untried(&self) -> u64 {
        let untried = self.keychain.as_ref().and_then(|found| found.untried.as_ref());
        untried.map_or(0, |(count, _)| *count)
    }

    /// How many records there are.
    fn seen(&self) -> u64 {
        self.whole + self.untried() + self.damaged.len() as u64
    }
}

/// Tries everything. An error only where nothing can be tried: no slot, no vault, or a key that is not its key.
pub(super) fn verify(
    folder: &Folder,
    slot: &Slot,
    material: &KeyMaterial,
    way: &Way,
    progress: Progress<'_>,
) -> Result<Findings, StoreError> {
    let (keys, _) = slot.open(material)?;
    let Copied { db, vault, key, other, problem } = Copied::of(folder, keys)?;
    let mut findings = Findings { problems: problem.into_iter().collect(), ..Findings::default() };
    let sealer = Sealer::new(&key, vault);
    let snapshot = db.begin_read().map_err(failed)?;
    let header = disk::read_header(&snapshot, &sealer);
    let kind = disk::store_kind(&db).unwrap_or_else(|_| {
        findings.problems.push("where its values rest can't be told");
        StoreKind::Vault
    });
    findings.expected = header.as_ref().ok().map(|header| header.count);
    // one that can't be had is as one that does not answer: what is in the file is tried
    let keychain = way.clone().to(kind).unwrap_or_else(|_| Some(Keychain::unasked()));
    let mut trial = Trial { sealer: &sealer, vault, keychain: keychain.as_ref(), findings, progress };
    let sum = trial.records(&snapshot)?;
    trial.items(&snapshot)?;
    let mut findings = trial.findings;
    match &header {
        Err(_) => findings.problems.push("its header was changed"),
        Ok(header) => {
            if findings.damaged.is_empty() && (findings.seen() != header.count || sum != header.sum) {
                findings.problems.push(ASTRAY);
            } else if findings.seen() < header.count {
                findings.problems.push("a record is missing");
            }
            if let Err(StoreError::Damaged(what)) = disk::lines(&snapshot, &sealer, header) {
                findings.problems.push(what);
            }
        }
    }
    if disk::checkpoints(&snapshot, &sealer).is_err() {
        findings.problems.push("what it remembers of the audit log was changed");
    }
    let keys = both(&key, other.as_ref());
    match (Head::told(folder, &keys, vault)?, &header) {
        (None, Ok(header)) if header.generation > 1 => findings.problems.push("vault.head is missing"),
        (Some(Err(_)), _) => findings.problems.push("vault.head was changed"),
        (Some(Ok(seen)), Ok(header)) if header.generation < seen => {
            findings.problems.push(EARLIER);
        }
        _ => {}
    }
    if let Ok(header) = &header
        && Seat::noted(folder, &keys, vault)? > header.generation
        && !findings.problems.contains(&EARLIER)
    {
        findings.problems.push(EARLIER);
    }
    Ok(findings)
}

/// A shadow of the vault's file.
pub(super) struct Copied {
    pub(super) db: Database,
    pub(super) vault: VaultId,
    /// The one of the keys that is its key.
    pub(super) key: VaultKey,
    /// The other one, while a change of keys is not finished: what lies beside the vault may still be under it.
    pub(super) other: Option<VaultKey>,
    /// What is wrong with its pages.
    pub(super) problem: Option<&'static str>,
}

impl Copied {
    pub(super) fn of(folder: &Folder, keys: SlotKeys) -> Result<Self, StoreError> {
        let (db, problem) = match disk::open_shadow(folder, true) {
            Ok(db) => (db, None),
            Err(StoreError::Damaged(what)) => (disk::open_shadow(folder, false)?, Some(what)),
            Err(error) => return Err(error),
        };
        let (vault, key, other) = keys.identify(&db)?;
        Ok(Self { db, vault, key, other, problem })
    }
}

/// A vault on trial.
struct Trial<'a> {
    sealer: &'a Sealer,
    vault: VaultId,
    keychain: Option<&'a Keychain>,
    findings: Findings,
    progress: Progress<'a>,
}

impl Trial<'_> {
    /// Tries every record, and sums up those whose label opens, whatever is wrong with their values. No name may be there
    /// twice.
    fn records(&mut self, snapshot: &ReadTransaction) -> Result<Fingerprint, StoreError> {
        let mut sum = Fingerprint::default();
        let Ok(table) = snapshot.open_table(RECORDS) else {
            self.findings.problems.push("the table of records can't be opened");
            return Ok(sum);
        };
        self.findings.keychain = self.keychain.map(|_| InKeychain::default());
        let (mut elsewhere, mut all) = (Vec::new(), Gathered::default());
        for entry in table.iter().map_err(failed)? {
            let Ok((at, sealed)) = entry else {
                self.findings.problems.push("the rest of the records can't be reached");
                break;
            };
            let (at, sealed) = (at.value(), sealed.value());
            let Ok((label, nonce)) = self.sealer.open_label(at, sealed) else {
                self.broken(at, sealed, "its name or attributes were changed");
                continue;
            };
            toggle(&mut sum, &self.sealer.fingerprint(at, &nonce));
            all.add(label, *at, nonce);
            match &mut self.findings.keychain {
                Some(_) if !has_value(sealed) => elsewhere.push((*at, sealed.to_vec())),
                found => {
                    found.iter_mut().for_each(|found| found.waiting += 1);
                    match self.sealer.open_value(at, sealed) {
                        Ok(_) => self.findings.whole += 1,
                        Err(_) => self.broken(at, sealed, "its value was changed"),
                    }
                    self.tell(TELL);
                }
            }
            if elsewhere.len() == HANDFUL {
                self.fetch(&mut elsewhere)?;
            }
        }
        self.fetch(&mut elsewhere)?;
        if let Err(StoreError::Damaged(what)) = NameIndex::build(all) {
            self.findings.problems.push(what);
        }
        Ok(sum)
    }

    /// Notes a record that can't be read, with its name if that still can.
    fn broken(&mut self, at: &RecordKey, sealed: &[u8], what: &'static str) {
        let label = self.sealer.open_label(at, sealed).ok();
        let name = label.map(|(label, _)| (label.service, label.target));
        let place = data_encoding::HEXLOWER.encode(name_part(at).get(..8).unwrap_or_default());
        self.findings.damaged.push(DamagedRecord { name, place, what });
    }

    /// Tries the values of some records in the keychain. One that can't be asked is not asked for the others either.
    fn fetch(&mut self, rows: &mut Vec<Row>) -> Result<(), StoreError> {
        let rows = std::mem::take(rows);
        let (Some(keychain), Some(found)) = (self.keychain, &mut self.findings.keychain) else {
            return Ok(());
        };
        if let Some((untried, _)) = &mut found.untried {
            *untried += rows.len() as u64;
            return Ok(());
        }
        // its value is dropped, and wiped, at once
        let tried = each_value(&*keychain.reading, &self.vault, self.sealer, &rows, &mut |_, _, _| Ok(()));
        match tried {
            Ok(faults) => {
                let whole = (rows.len() - faults.len()) as u64;
                found.whole += whole;
                self.findings.whole += whole;
                for (at, sealed) in &rows {
                    if let Some(fault) = faults.get(at) {
                        self.broken(at, sealed, words(*fault));
                    }
                }
            }
            Err(error) => found.untried = Some((rows.len() as u64, error)),
        }
        self.tell(1);
        Ok(())
    }

    /// Counts the items that no record of the vault has, and was not removed with.
    fn items(&mut self, snapshot: &ReadTransaction) -> Result<(), StoreError> {
        let (Some(keychain), Some(found)) = (self.keychain, &mut self.findings.keychain) else {
            return Ok(());
        };
        // told already where it can't be opened
        let Ok(records) = snapshot.open_table(RECORDS) else { return Ok(()) };
        let removed = match disk::removed(snapshot, &records) {
            Ok(removed) => removed,
            Err(StoreError::Damaged(what)) => {
                self.findings.problems.push(what);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        found.waiting += removed.len() as u64;
        if found.untried.is_some() {
            return Ok(());
        }
        match keychain.reading.list(&self.vault) {
            Ok(items) => {
                for at in items.into_iter().filter(|at| !removed.contains(at)) {
                    found.foreign += u64::from(!records.get(&at).is_ok_and(|record| record.is_some()));
                }
            }
            Err(error) => found.untried = Some((0, error)),
        }
        Ok(())
    }

    /// How far it has come, every so often.
    fn tell(&mut self, often: u64) {
        let done = self.findings.seen();
        if done.is_multiple_of(often) {
            (self.progress)(done, self.findings.expected.unwrap_or_default().max(done));
        }
    }
}

const fn words(fault: Fault) -> &'static str {
    match fault {
        Fault::Missing => "its item in the keychain is missing",
        Fault::Changed => "its item in the keychain was changed",
        Fault::Earlier => "its item in the keychain is of an earlier version",
    }
}
