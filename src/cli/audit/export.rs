//! `audit export`: records for other systems, on standard output.

use std::path::Path;

use super::{Printer, Wanted, show::every_line};
use crate::{
    audit::{Form, export},
    cli::{failure::Failure, output::Output},
};

#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// The form: json (as in the log), ecs, ocsf or cef
    #[arg(long, value_parser = ["json", "ecs", "ocsf", "cef"])]
    format: String,
    #[command(flatten)]
    pub(super) wanted: Wanted,
}

pub(super) fn run(args: &Args, log: &Path, out: &mut Output) -> Result<(), Failure> {
    let form = match args.format.as_str() {
        "ecs" => Some(Form::Ecs),
        "ocsf" => Some(Form::Ocsf),
        "cef" => Some(Form::Cef),
        _ => None,
    };
    let mut printer = Printer::new(&args.wanted, true);
    every_line(log, args.wanted.since, out, |line, out| {
        match (&line.record, form) {
            (Ok(record), Some(form)) if printer.admits(record) => {
                out.raw_json_line(export(record, form).as_bytes());
            }
            (Ok(_), Some(_)) => {}
            _ => printer.print(line, out),
        }
        out.is_open()
    })?;
    printer.finish(out);
    Ok(())
}
