//! `grant`, `revoke` and `authorize`: what a program may do.

use std::path::PathBuf;

use super::{
    args::{self, Risks},
    context::{Context, entry_path},
    failure::{Failure, unusable_path},
    output::Output,
    register::{expiry_note, registered},
};
use crate::{
    name::Service,
    policy::{Candidate, Grant},
};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The registered program
    path: PathBuf,
    #[command(flatten)]
    permissions: PermissionArgs,
}

#[derive(clap::Args)]
#[group(required = true, multiple = true)]
struct PermissionArgs {
    /// A service to read and search in; may be repeated
    #[arg(long, value_name = "SERVICE", value_parser = args::service)]
    read: Vec<Service>,
    /// A service to write and delete in; may be repeated
    #[arg(long, value_name = "SERVICE", value_parser = args::service)]
    write: Vec<Service>,
    /// Search and prefix actions, in the services that the program may use
    #[arg(long)]
    search: bool,
}

#[derive(clap::Args)]
pub(super) struct AuthorizeArgs {
    /// The program; symbolic links are followed
    path: PathBuf,
    /// The service to read, write and search in
    #[arg(value_parser = args::service)]
    service: Service,
    #[command(flatten)]
    risks: Risks,
}

pub(super) fn grant(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let (path, grant) = (args.entry()?, args.grant());
    cx.registry().grant(&path, &grant)?;
    out.line(&format!("Granted {} {}", path.display(), words(&grant)));
    Ok(())
}

pub(super) fn revoke(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let (path, grant) = (args.entry()?, args.grant());
    cx.registry().revoke(&path, &grant)?;
    out.line(&format!("Revoked from {} {}", path.display(), words(&grant)));
    Ok(())
}

pub(super) fn authorize(args: &AuthorizeArgs, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let candidate = Candidate::examine(&args.path, args.risks.into(), cx.uid)?;
    let service = || [args.service.clone()].into();
    let grant = Grant { read: service(), write: service(), search: true };
    cx.registry().authorize(&candidate, &grant, cx.now)?;
    registered(&candidate, out);
    out.line(&format!("Granted {} {}", candidate.path().display(), words(&grant)));
    expiry_note(&candidate, cx, out);
    Ok(())
}

impl Args {
    fn entry(&self) -> Result<PathBuf, Failure> {
        entry_path(&self.path).map_err(|error| unusable_path(&self.path, &error))
    }

    fn grant(&self) -> Grant {
        let PermissionArgs { read, write, search } = &self.permissions;
        Grant {
            read: read.iter().cloned().collect(),
            write: write.iter().cloned().collect(),
            search: *search,
        }
    }
}

fn words(grant: &Grant) -> String {
    let read = grant.read.iter().map(|service| format!("read {service}"));
    let write = grant.write.iter().map(|service| format!("write {service}"));
    let search = grant.search.then(|| "search".to_owned());
    read.chain(write).chain(search).collect::<Vec<_>>().join(", ")
}
