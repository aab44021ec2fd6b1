//! `vault list`: what is in the vault, by name.

use serde::Serialize;

use super::{
    super::{
        args,
        context::Context,
        failure::Failure,
        output::{Output, Style},
        owner::Owner,
    },
    chosen,
};
use crate::{
    audit::Action,
    name::{Service, Target},
};

#[derive(clap::Args)]
pub(in super::super) struct Args {
    /// Only this service; may be repeated
    #[arg(long, value_name = "SERVICE", value_parser = args::service)]
    service: Vec<Service>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listing<'n> {
    services: Vec<ServiceJson<'n>>,
}

#[derive(Serialize)]
struct ServiceJson<'n> {
    service: &'n str,
    targets: Vec<&'n str>,
}

/// Names only. Their records are durable before one is shown, as those of an export are.
pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let owner = Owner::open_without_values(cx, "vault list")?;
    let (owner, names) = chosen(owner, &args.service, Action::List)?;
    match names.is_empty() {
        true => owner.record_nothing(Action::List, None)?,
        false => owner.record_names(&names)?,
    }
    owner.close()?;
    if args.json {
        out.json(&Listing { services: names.iter().map(service).collect() });
        return Ok(());
    }
    if names.is_empty() {
        out.note("The vault is empty");
    }
    for (service, targets) in &names {
        for target in targets {
            out.cells(&[(Style::Faint, &format!("{service}  ")), (Style::Plain, target.as_str())]);
        }
    }
    Ok(())
}

fn service((service, targets): &(Service, Vec<Target>)) -> ServiceJson<'_> {
    ServiceJson { service: service.as_str(), targets: targets.iter().map(Target::as_str).collect() }
}
