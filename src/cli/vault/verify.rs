//! `vault verify`: whether the vault is whole, and if not, what is damaged.

use serde::{Deserialize, Serialize};

use super::super::{
    context::Context,
    failure::Failure,
    output::{Output, Style},
    owner::{TAKE_OUT, take},
    words::counted,
};
use crate::{
    store::{Findings, KeyMaterial, Keychain, StoreError, Taken},
    sys::trial,
};

#[derive(clap::Args)]
pub(in super::super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Report {
    whole: bool,
    records_whole: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    records_expected: Option<u64>,
    damaged: Vec<Damaged>,
    problems: Vec<String>,
    /// Where the values rest in the keychain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keychain: Option<InKeychain>,
}

#[derive(Serialize, Deserialize)]
struct InKeychain {
    /// Values that were found whole there.
    values_whole: u64,
    /// Changes that are in the vault's file still.
    changes_waiting: u64,
    /// Items that claim to be of this vault, and have no effect.
    items_foreign: u64,
    /// Values that could not be tried.
    values_untried: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    untried_because: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Damaged {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    place: String,
    what: String,
}

/// Reads everything and writes nothing. Names of damaged records are told, values never.
pub(super) fn run(args: &Args, cx: &Context, keychain: Keychain, out: &mut Output) -> Result<(), Failure> {
    let taken = take(cx)?.reaching(keychain);
    taken.source()?;
    let slot = taken.slot().ok_or(StoreError::Absent)?;
    let material = cx.asking().for_slot(slot)?;
    let report = in_a_child(&taken, &material, out)?;
    if args.json {
        out.json(&report);
    } else {
        show(&report, out);
    }
    if report.whole {
        return Ok(());
    }
    Err(report.failure())
}

impl Report {
    /// What to do about it.
    fn failure(&self) -> Failure {
        if let Some(untried) = self.keychain.as_ref().and_then(InKeychain::untried)
            && self.damaged.is_empty()
            && self.problems.is_empty()
        {
            return Failure::new(
                format!("{untried}; the vault's own files are whole"),
                "unlock the keychain, and run it within the desktop session",
            );
        }
        let sentence = format!("the vault is damaged; {} of its records are whole", self.records_whole);
        if self.problems.is_empty() && self.damaged.iter().all(|one| one.what.contains("in the keychain")) {
            return Failure::new(
                sentence,
                "put the items back from a backup of the keychain, or write these secrets anew",
            );
        }
        let restore = "restore vault.redb, vault.head and audit.state together from a backup; keep the damaged files until then";
        match self.keychain.is_none() && self.problems.is_empty() && self.records_whole > 0 {
            true => Failure::new(sentence, format!("{restore}; or {TAKE_OUT}")),
            false => Failure::new(sentence, restore),
        }
    }
}

fn in_a_child(taken: &Taken, material: &KeyMaterial, out: &mut Output) -> Result<Report, Failure> {
    let said = trial::in_child(|_| {
        let found = taken.verify(material, &mut |done, all| out.steps(done, all));
        out.end_progress();
        let told = match found {
            // what was met before a record could be tried is what this command is asked for
            Err(StoreError::Damaged(what)) => {
                Ok(Report { problems: vec![what.to_owned()], ..Report::default() })
            }
            found => found.map(|findings| report(&findings)),
        };
        let told = told.map_err(|error| {
            let failure = Failure::from(error);
            (failure.sentence().to_owned(), failure.advice().to_owned())
        });
        serde_json::to_vec(&told).ok()
    });
    let said = said.map_err(|error| {
        let sentence = format!("no process can be started: {}", error.kind());
        Failure::new(sentence, "end some programs, then try again")
    })?;
    match serde_json::from_slice::<Result<Report, (String, String)>>(&said) {
        Ok(Ok(report)) => Ok(report),
        Ok(Err((sentence, advice))) => Err(Failure::new(sentence, advice)),
        Err(_) => Ok(Report { problems: vec![StoreError::PAGES_LOST.to_owned()], ..Report::default() }),
    }
}

fn report(findings: &Findings) -> Report {
    let damaged = |one: &crate::store::DamagedRecord| Damaged {
        service: one.name.as_ref().map(|(service, _)| service.as_str().to_owned()),
        target: one.name.as_ref().map(|(_, target)| target.as_str().to_owned()),
        place: one.place.clone(),
        what: one.what.to_owned(),
    };
    Report {
        whole: findings.is_whole(),
        records_whole: findings.whole,
        records_expected: findings.expected,
        damaged: findings.damaged.iter().map(damaged).collect(),
        problems: findings.problems.iter().map(|what| (*what).to_owned()).collect(),
        keychain: findings.keychain.as_ref().map(|found| InKeychain {
            values_whole: found.whole,
            changes_waiting: found.waiting,
            items_foreign: found.foreign,
            values_untried: found.untried.as_ref().map_or(0, |(count, _)| *count),
            untried_because: found.untried.as_ref().map(|(_, error)| error.to_string()),
        }),
    }
}

impl InKeychain {
    /// What could not be tried, and why.
    fn untried(&self) -> Option<String> {
        let why = self.untried_because.as_ref()?;
        Some(match self.values_untried {
            0 => format!("the keychain did not say which items there are: {why}"),
            count => {
                format!("{} in the keychain could not be tried: {why}", counted(count, "value", "values"))
            }
        })
    }

    /// What is to be told, one clause each.
    fn words(&self) -> Vec<String> {
        let some = |count: u64, one: &str, several: &str| (count > 0).then(|| counted(count, one, several));
        [
            some(self.values_whole, "value rests there, and opens", "values rest there, and open"),
            some(
                self.changes_waiting,
                "change waits in vault.redb, and is brought there by the daemon",
                "changes wait in vault.redb, and are brought there by the daemon",
            ),
            some(
                self.items_foreign,
                "item claims to be of this vault, and is not; it has no effect",
                "items claim to be of this vault, and are not; they have no effect",
            ),
            self.untried(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn show(report: &Report, out: &mut Output) {
    for one in &report.damaged {
        let name = match (&one.service, &one.target) {
            (Some(service), Some(target)) => format!("{service} {target}"),
            _ => format!("the record at {}", one.place),
        };
        out.cells(&[(Style::Bad, "damaged  "), (Style::Plain, &format!("{name}: {}", one.what))]);
    }
    for problem in &report.problems {
        out.cells(&[(Style::Bad, "damaged  "), (Style::Plain, &format!("the vault: {problem}"))]);
    }
    for told in report.keychain.iter().flat_map(InKeychain::words) {
        out.cells(&[(Style::Plain, "keychain "), (Style::Plain, &told)]);
    }
    if report.whole {
        let found = counted(
            report.records_whole,
            "record is there, and all that belongs to it",
            "records are there, and all that belongs to them",
        );
        out.cells(&[(Style::Good, "whole    "), (Style::Plain, &found)]);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_keychain_that_lists_nothing_is_told_and_never_under_whole() {
        let mut findings = Findings { whole: 2, keychain: Some(Default::default()), ..Default::default() };
        assert!(report(&findings).whole);
        let away = StoreError::Unreachable("no answer in time".to_owned());
        findings.keychain.as_mut().unwrap().untried = Some((0, away));
        let report = report(&findings);
        assert!(!report.whole);
        let told = "the keychain did not say which items there are: ";
        let words = report.keychain.as_ref().unwrap().words();
        assert!(words.len() == 1 && words.iter().all(|said| said.starts_with(told)), "{words:?}");
        let failure = report.failure();
        assert!(failure.sentence().starts_with(told) && failure.sentence().contains("files are whole"));
    }
}
