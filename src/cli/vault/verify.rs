//! `vault verify`: whether the vault is whole, and if not, what is damaged.

use serde::{Deserialize, Serialize};

use super::super::{
    context::Context,
    failure::Failure,
    output::{Output, Style},
    owner::take,
};
use crate::{
    store::{Findings, KeyMaterial, StoreError, Taken},
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
    /// Those of them whose value is an item of the keychain, which is seen only when it is read.
    #[serde(default)]
    values_in_keychain: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    records_expected: Option<u64>,
    damaged: Vec<Damaged>,
    problems: Vec<String>,
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
pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let taken = take(cx)?;
    taken.source()?;
    let slot = taken.slot().ok_or(StoreError::Absent)?;
    let material = cx.asking().for_slot(slot)?;
    let report = in_a_child(&taken, &material)?;
    if args.json {
        out.json(&report);
    } else {
        show(&report, out);
    }
    if report.whole {
        return Ok(());
    }
    Err(Failure::new(
        format!("the vault is damaged; {} of its records are whole", report.records_whole),
        "restore vault.redb and vault.head together from a backup; keep the damaged files until then",
    ))
}

fn in_a_child(taken: &Taken, material: &KeyMaterial) -> Result<Report, Failure> {
    let said = trial::in_child(|_| {
        let found = taken.verify(material, &mut |_, _| {});
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
        Err(_) => Ok(Report {
            problems: vec!["its pages are damaged so badly that no record can be reached".to_owned()],
            ..Report::default()
        }),
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
        values_in_keychain: findings.elsewhere,
        records_expected: findings.expected,
        damaged: findings.damaged.iter().map(damaged).collect(),
        problems: findings.problems.iter().map(|what| (*what).to_owned()).collect(),
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
    if report.values_in_keychain > 0 {
        let count = report.values_in_keychain;
        let values = if count == 1 { "1 value rests".to_owned() } else { format!("{count} values rest") };
        let means = format!("{values} in the keychain; this command does not look there");
        out.cells(&[(Style::Plain, "elsewhere"), (Style::Plain, &format!(" {means}"))]);
    }
    if report.whole {
        let count = report.records_whole;
        let found = if count == 1 {
            "1 record is there, and all that belongs to it".to_owned()
        } else {
            format!("{count} records are there, and all that belongs to them")
        };
        out.cells(&[(Style::Good, "whole    "), (Style::Plain, &found)]);
    }
}
