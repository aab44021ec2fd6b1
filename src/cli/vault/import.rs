//! `vault import`: says what would be written, and writes it when it is told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use super::{
    super::{
        args,
        context::{Context, descriptor},
        failure::Failure,
        output::Output,
        owner::{Owner, free, names},
        words::counted,
    },
    plan::show,
};
use crate::{
    desktop_keychain::bus_address,
    import::{Naming, PassLines, Plan},
    keys::export_passphrase,
    name::{Service, Target, TargetPrefix},
    store::Keychain,
    transfer::{self, Opening},
};

#[derive(clap::Subcommand)]
pub(in super::super) enum Source {
    /// An .env file: NAME=value, one an entry
    Env(EnvArgs),
    /// One value, typed without echo, or all of standard input; never on the command line. One line end (LF or CRLF) at its
    /// end is left out, and an empty value is refused
    Value(ValueArgs),
    /// The store of pass, the standard Unix password manager
    Pass(PassArgs),
    /// Items of the keychain (Secret Service) that have all of these attributes
    SecretService(ServiceArgs),
    /// The file store of the earlier system: keychain.enc with its keychain.key
    GoStore(GoArgs),
    /// A file that `vault export` wrote
    Export(ExportArgs),
}

#[derive(clap::Args)]
pub(in super::super) struct EnvArgs {
    /// The file; - is standard input
    file: PathBuf,
    #[command(flatten)]
    into: Into,
    #[command(flatten)]
    doing: Doing,
}

#[derive(clap::Args)]
pub(in super::super) struct ValueArgs {
    /// The name that it gets
    name: String,
    #[command(flatten)]
    into: Into,
    #[command(flatten)]
    doing: Doing,
}

#[derive(clap::Args)]
pub(in super::super) struct PassArgs {
    /// Only this entry, or the entries of this folder
    name: Option<PathBuf>,
    /// The store [default: $PASSWORD_STORE_DIR, else ~/.password-store]
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,
    /// Of entries with several lines, take the first one
    #[arg(long)]
    first_line: bool,
    /// Take entries whole, with all their lines
    #[arg(long, conflicts_with = "first_line")]
    whole: bool,
    #[command(flatten)]
    into: Into,
    #[command(flatten)]
    doing: Doing,
}

#[derive(clap::Args)]
pub(in super::super) struct ServiceArgs {
    /// Attributes that an item must have, each as NAME=VALUE
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = pair)]
    attributes: Vec<(String, String)>,
    /// The attribute whose value names the secret [default: the label of the item]
    #[arg(long, value_name = "ATTRIBUTE")]
    name_from: Option<String>,
    #[command(flatten)]
    into: Into,
    #[command(flatten)]
    doing: Doing,
}

#[derive(clap::Args)]
pub(in super::super) struct GoArgs {
    /// The folder that holds both files
    folder: PathBuf,
    /// A service that names begin with, where the colon alone does not tell; may be repeated
    #[arg(long, value_name = "SERVICE", value_parser = args::service)]
    service: Vec<Service>,
    #[command(flatten)]
    doing: Doing,
}

#[derive(clap::Args)]
pub(in super::super) struct ExportArgs {
    /// The file; - is standard input
    file: PathBuf,
    /// A file with the age identity that opens it; may be repeated
    #[arg(long, short, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// Read the passphrase of the file from this descriptor, up to a line feed or its end, instead of asking for it
    #[arg(long, value_name = "N")]
    export_passphrase_fd: Option<i32>,
    #[command(flatten)]
    doing: Doing,
}

/// Where secrets go that know no service themselves.
#[derive(clap::Args)]
struct Into {
    /// The service that they get
    #[arg(long, value_name = "SERVICE", value_parser = args::service)]
    service: Service,
    /// What their names get in front, for example dev/
    #[arg(long, value_name = "PREFIX", value_parser = args::prefix)]
    prefix: Option<TargetPrefix>,
}

/// What is done with what was read.
#[derive(clap::Args)]
pub(super) struct Doing {
    /// Write, instead of only saying what would be written
    #[arg(long)]
    pub(super) apply: bool,
    /// Write over secrets that are there already
    #[arg(long)]
    overwrite: bool,
    /// Leave secrets as they are that are there already
    #[arg(long, conflicts_with = "overwrite")]
    keep: bool,
    /// Import the others when some are refused
    #[arg(long)]
    skip_refused: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Source {
    fn word(&self) -> &'static str {
        match self {
            Self::Env(_) => "env",
            Self::Value(_) => "value",
            Self::Pass(_) => "pass",
            Self::SecretService(_) => "secret-service",
            Self::GoStore(_) => "go-store",
            Self::Export(_) => "export",
        }
    }

    /// That there was nothing in it.
    fn nothing(&self) -> &'static str {
        match self {
            Self::SecretService(_) => {
                "No item of the keychain has all of these attributes, so there is nothing to import"
            }
            _ => "There is nothing in it, so there is nothing to import",
        }
    }

    /// Whether it is more than a dry run.
    pub(super) fn applies(&self) -> bool {
        self.doing().apply
    }

    fn doing(&self) -> &Doing {
        match self {
            Self::Env(args) => &args.doing,
            Self::Value(args) => &args.doing,
            Self::Pass(args) => &args.doing,
            Self::SecretService(args) => &args.doing,
            Self::GoStore(args) => &args.doing,
            Self::Export(args) => &args.doing,
        }
    }

    fn read(&self, sink: transfer::Sink<'_>) -> Result<(), Failure> {
        match self {
            Self::Env(EnvArgs { file, into, .. }) => {
                transfer::env_file(file, &into.service, into.prefix.as_ref(), sink)?;
            }
            Self::Value(ValueArgs { name, into: Into { service, prefix }, .. }) => {
                transfer::one_value(name, service, prefix.as_ref(), sink)?;
            }
            Self::Pass(args) => {
                let root = args.store()?;
                let lines = match (args.whole, args.first_line) {
                    (true, _) => PassLines::Whole,
                    (_, true) => PassLines::First,
                    _ => PassLines::Only,
                };
                let Into { service, prefix } = &args.into;
                transfer::pass_store(&root, args.name.as_deref(), lines, service, prefix.as_ref(), sink)?;
            }
            Self::SecretService(args) => args.read(sink)?,
            Self::GoStore(GoArgs { folder, service, .. }) => transfer::go_folder(folder, service, sink)?,
            Self::Export(ExportArgs { file, identity, export_passphrase_fd, .. }) => {
                let descriptor = export_passphrase_fd.map(passphrase_descriptor).transpose()?;
                let descriptor = descriptor.as_ref().map(AsFd::as_fd);
                let ask = || export_passphrase(&|name| env::var_os(name), descriptor, false);
                let opening = Opening::new(identity, &ask)?;
                transfer::export_file(file, &opening, sink)?;
            }
        }
        Ok(())
    }
}

pub(super) fn run(
    source: &Source,
    cx: &Context,
    keychain: Keychain,
    out: &mut Output,
) -> Result<(), Failure> {
    let doing = source.doing();
    free(cx)?;
    let mut plan = Plan::new();
    source.read(&mut |found| plan.add(found))?;
    if plan.is_empty() && plan.refused().is_empty() {
        show(&plan, doing, out);
        out.note(source.nothing());
        return Ok(());
    }
    let open = || Owner::open(cx, keychain, format!("vault import {}", source.word()));
    // a dry run writes nothing: neither the vault nor the log
    let owner = doing.apply.then(open).transpose()?;
    let names = match &owner {
        Some(owner) => owner.names(),
        None => names(cx)?,
    };
    let there: BTreeMap<Service, BTreeSet<Target>> =
        names.into_iter().map(|(service, targets)| (service, targets.into_iter().collect())).collect();
    plan.compare(|service, target| there.get(service).is_some_and(|names| names.contains(target)));
    show(&plan, doing, out);
    let kept = if doing.keep { plan.existing() } else { 0 };
    doing.allowed(&plan)?;
    if doing.keep {
        plan.keep_existing();
    }
    let count = plan.len();
    let Some(owner) = owner else {
        out.note(&format!("{}; nothing was written yet: add --apply to do it", would(count, kept)));
        return Ok(());
    };
    if !plan.is_empty() {
        owner.write(plan.into_batches())?;
        owner.carry(out);
    }
    owner.close()?;
    out.note(&format!("Imported {}", counted(count as u64, "secret", "secrets")));
    Ok(())
}

impl Doing {
    /// Whether the plan may be carried out, as a dry run says it too.
    fn allowed(&self, plan: &Plan) -> Result<(), Failure> {
        let refused = plan.refused().len();
        if refused > 0 && !self.skip_refused {
            let refused_are = counted(refused as u64, "entry is", "entries are");
            let advice = match (plan.len(), refused) {
                (0, 1) => "what is wrong with it stands above; mend it, then try again",
                (0, _) => "what is wrong with them stands above; mend them, then try again",
                _ => "mend them at their source, or add --skip-refused to import the others",
            };
            return Err(Failure::new(format!("{refused_are} refused, so nothing is imported"), advice));
        }
        let existing = plan.existing();
        if existing > 0 && !self.overwrite && !self.keep {
            let existing = counted(existing as u64, "secret is", "secrets are");
            return Err(Failure::new(
                format!("{existing} there already, so nothing is imported"),
                "add --overwrite to write over them, or --keep to leave them as they are",
            ));
        }
        Ok(())
    }

    /// What becomes of a secret.
    pub(super) fn word(&self, exists: bool) -> &'static str {
        match (exists, self.overwrite, self.keep) {
            (false, ..) => "write",
            (true, true, _) => "overwrite",
            (true, _, true) => "keep",
            (true, ..) => "exists",
        }
    }
}

/// What to do about a store of pass that is not found.
const NAME_STORE: &str = "name it with --store, or set PASSWORD_STORE_DIR as for pass itself";

impl PassArgs {
    /// Where `pass` keeps its entries.
    fn store(&self) -> Result<PathBuf, Failure> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let usual = || set("HOME").map(|home| home.join(".password-store"));
        let named = self.store.clone().or_else(|| set("PASSWORD_STORE_DIR")).or_else(usual);
        let place =
            named.ok_or_else(|| Failure::new("nobody knows where the store of pass is", NAME_STORE))?;
        match fs::metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Failure::new(format!("there is no store of pass at {}", place.display()), NAME_STORE))
            }
            // what else is wrong with it is told by whoever reads it
            _ => Ok(place),
        }
    }
}

impl ServiceArgs {
    fn read(&self, sink: transfer::Sink<'_>) -> Result<(), Failure> {
        let address = bus_address(|name| env::var_os(name)).ok_or_else(|| {
            Failure::new(
                "there is no session bus, and so no keychain",
                "start it within the desktop session, so that DBUS_SESSION_BUS_ADDRESS is set",
            )
        })?;
        let attributes = self.attributes.iter().cloned().collect();
        let naming = self.name_from.clone().map_or(Naming::Label, Naming::Attribute);
        let Into { service, prefix } = &self.into;
        Ok(transfer::secret_service(&address, &attributes, &naming, service, prefix.as_ref(), sink)?)
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "not NAME=VALUE".to_owned())
}

/// Where the passphrase of an export can be read.
pub(super) fn passphrase_descriptor(number: i32) -> Result<OwnedFd, Failure> {
    descriptor("--export-passphrase-fd", number)
}

fn would(count: usize, kept: usize) -> String {
    let kept = match kept {
        0 => String::new(),
        1 => ", 1 stays as it is".to_owned(),
        kept => format!(", {kept} stay as they are"),
    };
    format!("{} to be written{kept}", counted(count as u64, "secret is", "secrets are"))
}
