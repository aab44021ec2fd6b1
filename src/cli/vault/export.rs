//! `vault export`: secrets into a file that is encrypted to recipients or with a passphrase.

use std::{
    env,
    fs::OpenOptions,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use super::{
    super::{
        args,
        context::Context,
        failure::Failure,
        output::Output,
        owner::{MAX_READ, Owner},
        words::counted,
    },
    chosen,
    import::passphrase_descriptor,
};
use crate::{
    audit::Action,
    import::MAX_SECRETS,
    keys::export_passphrase,
    name::{Service, Target},
    store::{Keychain, NamesByService, Record, StoreError},
    transfer::{ExportFile, Sealing, TransferError},
};

/// What has to be typed before secrets are written in clear.
const CONFIRMATION: &str = "plaintext";

#[derive(clap::Args)]
pub(in super::super) struct Args {
    /// The file to write, never standard output; one that is there already is left alone
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Only this service; may be repeated
    #[arg(long, value_name = "SERVICE", value_parser = args::service)]
    service: Vec<Service>,
    /// Encrypt to this age recipient (age1…); may be repeated
    #[arg(long, short, value_name = "RECIPIENT")]
    recipient: Vec<String>,
    /// Read the passphrase of the file from this descriptor, up to a line feed or its end, instead of asking for it
    #[arg(long, value_name = "N", conflicts_with_all = ["recipient", "plaintext"])]
    export_passphrase_fd: Option<i32>,
    /// Encrypt nothing, after a confirmation typed on the terminal
    #[arg(long, conflicts_with = "recipient")]
    plaintext: bool,
    /// Export what is intact of a damaged vault, and say what is not; nothing of the vault is changed
    #[arg(long)]
    salvage: bool,
}

pub(super) fn run(args: &Args, cx: &Context, keychain: Keychain, out: &mut Output) -> Result<(), Failure> {
    let secrecy = args.secrecy()?;
    let words = secrecy.words();
    let owner = Owner::open(cx, keychain, format!("vault export, {words}"))?;
    let (owner, names) = chosen(owner, &args.service, Action::Export)?;
    let file = fill(args, secrecy, names, &mut |service, some| owner.read(service, some), out)?;
    owner.close()?;
    args.finish(file, &words, out)
}

/// Hands out some records of a service, after the record of that.
pub(super) type HandOut<'r> = &'r mut dyn FnMut(&Service, Vec<Target>) -> Result<Vec<Record>, Failure>;

/// A file that is whole, and has its name when it is finished.
pub(super) struct Filled {
    file: ExportFile,
    count: usize,
}

/// Writes all of these, as `read` hands them out.
pub(super) fn fill(
    args: &Args,
    secrecy: Secrecy,
    names: NamesByService,
    read: HandOut<'_>,
    out: &mut Output,
) -> Result<Filled, Failure> {
    let count: usize = names.iter().map(|(_, targets)| targets.len()).sum();
    if count > MAX_SECRETS {
        return Err(Failure::new(
            format!("there are {count} secrets, and one export holds at most {MAX_SECRETS}"),
            "export service by service, with --service",
        ));
    }
    if args.plaintext {
        confirm(count, args)?;
    }
    let sealing = secrecy.sealing()?;
    let mut file = ExportFile::create(&args.output, &sealing, count)?;
    let mut written = 0;
    for (service, targets) in names {
        for some in targets.chunks(MAX_READ) {
            let found = read(&service, some.to_vec())?;
            // the head has promised them all
            if found.len() != some.len() {
                return Err(StoreError::Damaged("a record is missing").into());
            }
            found.iter().try_for_each(|record| file.add(&service, record))?;
            written += found.len();
            out.steps(written as u64, count as u64);
        }
    }
    out.end_progress();
    Ok(Filled { file, count })
}

/// How the file shall be closed to others, with nothing asked yet.
pub(super) enum Secrecy {
    Ready(Sealing),
    /// By a passphrase, that of a descriptor where there is one.
    Passphrase(Option<OwnedFd>),
}

impl Args {
    /// Whether only what is intact is wanted.
    pub(super) fn salvages(&self) -> bool {
        self.salvage
    }

    /// The wanted services; none means all.
    pub(super) fn services(&self) -> &[Service] {
        &self.service
    }

    /// A passphrase, unless it was said otherwise. Whatever else is wrong with the command line is said here too, before
    /// anybody is asked for a passphrase.
    pub(super) fn secrecy(&self) -> Result<Secrecy, Failure> {
        if self.output.as_os_str() == "-" {
            return Err(Failure::new(
                "an export is a file of its own, never standard output",
                "name the file: keychain-auth vault export --output secrets.age",
            ));
        }
        ExportFile::look(&self.output)?;
        if self.plaintext {
            return Ok(Secrecy::Ready(Sealing::Plain));
        }
        if !self.recipient.is_empty() {
            return Ok(Secrecy::Ready(Sealing::to_recipients(&self.recipient)?));
        }
        Ok(Secrecy::Passphrase(self.export_passphrase_fd.map(passphrase_descriptor).transpose()?))
    }

    /// Gives the file its name, and says so.
    pub(super) fn finish(&self, filled: Filled, words: &str, out: &mut Output) -> Result<(), Failure> {
        filled.file.finish()?;
        let secrets = counted(filled.count as u64, "secret", "secrets");
        out.line(&format!("Exported {secrets} to {}, {words}", self.output.display()));
        Ok(())
    }
}

impl Secrecy {
    pub(super) fn words(&self) -> String {
        match self {
            Self::Ready(Sealing::Recipients(all)) => {
                format!("encrypted to {}", counted(all.len() as u64, "recipient", "recipients"))
            }
            Self::Ready(Sealing::Plain) => "in plaintext".to_owned(),
            Self::Ready(Sealing::Passphrase(_)) | Self::Passphrase(_) => {
                "encrypted with a passphrase".to_owned()
            }
        }
    }

    fn sealing(self) -> Result<Sealing, Failure> {
        let descriptor = match self {
            Self::Ready(sealing) => return Ok(sealing),
            Self::Passphrase(descriptor) => descriptor,
        };
        let descriptor = descriptor.as_ref().map(AsFd::as_fd);
        let asked = export_passphrase(&|name| env::var_os(name), descriptor, true);
        Ok(Sealing::Passphrase(asked.map_err(TransferError::from)?))
    }
}

/// Asks on the terminal itself, so that no script answers by its standard input.
fn confirm(count: usize, args: &Args) -> Result<(), Failure> {
    let refused = |why: &str| {
        Failure::new(
            format!("an export in plaintext has to be confirmed on a terminal: {why}"),
            "encrypt it instead: --recipient age1…",
        )
    };
    let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
        return Err(refused("there is none"));
    };
    let question = format!(
        "Whoever reads {} will read {count} secrets. Type {CONFIRMATION} to write it: ",
        crate::text::plain(&args.output.to_string_lossy())
    );
    let mut typed = [0; 64];
    let answered = terminal.write_all(question.as_bytes()).and_then(|()| terminal.read(&mut typed));
    let count = answered.map_err(|_| refused("it can't be read"))?;
    let typed = typed.get(..count).unwrap_or_default();
    if typed.trim_ascii() == CONFIRMATION.as_bytes() {
        Ok(())
    } else {
        Err(refused("something else was typed"))
    }
}
