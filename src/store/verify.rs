//! What is damaged: every record, line and number of a vault that may not open any more is tried by itself.
//!
//! Works on a shadow of the file: nothing on the disk is written, whatever is found.

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};

use super::{
    batch::StoreError,
    disk::{self, RECORDS, failed},
    files::Folder,
    head::Head,
    key::VaultKey,
    keychain::StoreKind,
    names::toggle,
    rekey::Progress,
    seal::{Fingerprint, RecordKey, Sealer, VaultId, has_value},
    seat::Seat,
    slot::{Slot, SlotKeys},
    source::KeyMaterial,
};
use crate::name::{Service, Target};

/// How often progress is told, in records.
const TELL: u64 = 512;

/// Of a vault, or of `vault.head` with it.
const EARLIER: &str = "it was put back to an earlier state";

/// What was found in a vault.
#[derive(Debug, Default)]
pub struct Findings {
    /// How many records are whole.
    pub whole: u64,
    /// How many of them have their value in the keychain, where nobody looked.
    pub elsewhere: u64,
    /// How many there should be, if the header can be read.
    pub expected: Option<u64>,
    /// The records that can't be read.
    pub damaged: Vec<DamagedRecord>,
    /// What is wrong with the vault as a whole, one clause each.
    pub problems: Vec<&'static str>,
}

/// A record that can't be read, as far as it can be told apart.
#[derive(Debug)]
pub struct DamagedRecord {
    /// Its name, if that can still be read.
    pub name: Option<(Service, Target)>,
    /// Where it lies: the beginning of its keyed hash, in hexadecimal digits.
    pub place: String,
    /// What can't be read of it.
    pub what: &'static str,
}

impl Findings {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty() && self.damaged.is_empty()
    }
}

/// Tries everything. An error only where nothing can be tried: no slot, no vault, or a key that is not its key.
pub(super) fn verify(
    folder: &Folder,
    slot: &Slot,
    material: &KeyMaterial,
    progress: Progress<'_>,
) -> Result<Findings, StoreError> {
    let (keys, _) = slot.open(material)?;
    let (db, vault, key, problem) = copied(folder, keys)?;
    let mut findings = Findings { problems: problem.into_iter().collect(), ..Findings::default() };
    let sealer = Sealer::new(&key, vault);
    let snapshot = db.begin_read().map_err(failed)?;
    let header = disk::read_header(&snapshot, &sealer);
    let kind = disk::store_kind(&db).unwrap_or_else(|_| {
        findings.problems.push("where its values rest can't be told");
        StoreKind::Vault
    });
    findings.expected = header.as_ref().ok().map(|header| header.count);
    let sum = records(&snapshot, &sealer, kind, &mut findings, progress)?;
    match &header {
        Err(_) => findings.problems.push("its header was changed"),
        Ok(header) => {
            if findings.damaged.is_empty() && (findings.whole != header.count || sum != header.sum) {
                findings.problems.push("a record is missing, added or replaced by an older one");
            } else if findings.whole + (findings.damaged.len() as u64) < header.count {
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
    let head = Head::find(folder, &key, vault)?;
    match (head.map(|head| head.generation()), &header) {
        (None, Ok(header)) if header.generation > 1 => findings.problems.push("vault.head is missing"),
        (Some(Err(_)), _) => findings.problems.push("vault.head was changed"),
        (Some(Ok(seen)), Ok(header)) if header.generation < seen => {
            findings.problems.push(EARLIER);
        }
        _ => {}
    }
    if let Ok(header) = &header
        && Seat::noted(folder, &key, vault)? > header.generation
        && !findings.problems.contains(&EARLIER)
    {
        findings.problems.push(EARLIER);
    }
    Ok(findings)
}

/// A shadow of the vault's file, which of the keys is its key, and what is wrong with its pages.
pub(super) fn copied(
    folder: &Folder,
    keys: SlotKeys,
) -> Result<(Database, VaultId, VaultKey, Option<&'static str>), StoreError> {
    let (db, problem) = match disk::open_shadow(folder, true) {
        Ok(db) => (db, None),
        Err(StoreError::Damaged(what)) => (disk::open_shadow(folder, false)?, Some(what)),
        Err(error) => return Err(error),
    };
    let (vault, key, _) = keys.identify(&db)?;
    Ok((db, vault, key, problem))
}

fn records(
    snapshot: &ReadTransaction,
    sealer: &Sealer,
    kind: StoreKind,
    findings: &mut Findings,
    progress: Progress<'_>,
) -> Result<Fingerprint, StoreError> {
    let all = findings.expected.unwrap_or_default();
    let mut sum = Fingerprint::default();
    let table = match snapshot.open_table(RECORDS) {
        Ok(table) => table,
        Err(_) => {
            findings.problems.push("the table of records can't be opened");
            return Ok(sum);
        }
    };
    let entries = table.iter().map_err(failed)?;
    for entry in entries {
        let Ok((at, sealed)) = entry else {
            findings.problems.push("the rest of the records can't be reached");
            break;
        };
        let at = at.value();
        match sealer.open_label(at, sealed.value()) {
            Ok((label, nonce)) => {
                toggle(&mut sum, &sealer.fingerprint(at, &nonce));
                let elsewhere = kind == StoreKind::Keychain && !has_value(sealed.value());
                findings.elsewhere += u64::from(elsewhere);
                match sealer.open_value(at, sealed.value()) {
                    Ok(_) => findings.whole += 1,
                    Err(_) if elsewhere => findings.whole += 1,
                    Err(_) => {
                        let name = Some((label.service, label.target));
                        findings.damaged.push(damaged(at, name, "its value was changed"));
                    }
                }
            }
            Err(_) => findings.damaged.push(damaged(at, None, "its name or attributes were changed")),
        }
        let done = findings.whole + findings.damaged.len() as u64;
        if done.is_multiple_of(TELL) {
            progress(done, all.max(done));
        }
    }
    Ok(sum)
}

fn damaged(at: &RecordKey, name: Option<(Service, Target)>, what: &'static str) -> DamagedRecord {
    let place = data_encoding::HEXLOWER.encode(at.get(..8).unwrap_or_default());
    DamagedRecord { name, place, what }
}
