//! `grant` and `authorize`: what a program may do, and on which terms.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{
    args::{self, Risks},
    context::Context,
    failure::Failure,
    output::Output,
    register::{registered, settle},
    text::{moment, word},
    words::{self, left_open},
};
use crate::{
    caller::Check,
    name::{Service, TargetPrefix},
    policy::{Candidate, Grant, Narrowed, Relaxable, Targets, Terms},
};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The registered program
    path: PathBuf,
    #[command(flatten)]
    asked: Asked,
}

#[derive(clap::Args)]
#[group(required = true, multiple = true)]
struct Asked {
    /// A service to read and search in; may be repeated
    #[arg(long, value_name = "SERVICE", value_parser = args::service)]
    read: Vec<Service>,
    /// A service to write and delete in; may be repeated
    #[arg(long, value_name = "SERVICE", value_parser = args::service)]
    write: Vec<Service>,
    /// Search and prefix actions, in the services that the program may use
    #[arg(long)]
    search: bool,
    /// Allow only targets that begin like this, and like the other prefixes of the entry; may be repeated
    #[arg(long, value_name = "PREFIX", value_parser = args::prefix)]
    prefix: Vec<TargetPrefix>,
    /// Allow every target again
    #[arg(long, conflicts_with = "prefix")]
    all_targets: bool,
    /// Require that each connection proves itself by the nonce of a HELLO
    #[arg(long)]
    challenge: bool,
    /// Turn off one identity check for this program: descriptor_inherited, traced, injected_code, foreign_namespace or
    /// unreadable_peer; may be repeated
    #[arg(long, value_name = "CHECK", value_parser = args::check)]
    relax: Vec<Check>,
    /// When the entry ends: 12h, 30d, or 2026-05-21T10:34:02Z
    #[arg(long, value_name = "WHEN", value_parser = until)]
    expires: Option<Timestamp>,
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

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let path = cx.entry_path(&args.path)?;
    let (grant, terms) = (args.asked.grant(), args.asked.terms(&path)?);
    let Narrowed(narrowed) = cx.registry().grant(&path, &grant, &terms)?;
    let words: Vec<String> = words::grant(&grant).chain(self::words(&terms)).collect();
    out.line(&format!("Granted {} {}", path.display(), words.join(", ")));
    if !path.exists() {
        out.note(&format!(
            "There is no file {0} now: its entry matches nothing until a program with its hash is there again; to remove it: keychain-auth unregister {1}",
            path.display(),
            word(&path)
        ));
    }
    if narrowed {
        out.note("Until now it could use every target; from now on only those that begin like this");
    }
    for relaxed in &terms.relax {
        out.note(&format!("Without the check {}, {}", relaxed.check(), left_open(relaxed.check())));
    }
    Ok(())
}

pub(super) fn authorize(args: &AuthorizeArgs, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let candidate = Candidate::examine(&args.path, args.risks.into(), cx.uid)?;
    let service = || [args.service.clone()].into();
    let grant = Grant { read: service(), write: service(), search: true };
    cx.registry().authorize(&candidate, &grant, cx.now)?;
    registered(&candidate, out);
    let words: Vec<String> = words::grant(&grant).collect();
    out.line(&format!("Granted {} {}", candidate.path().display(), words.join(", ")));
    settle(&candidate, cx, out);
    Ok(())
}

fn until(text: &str) -> Result<Timestamp, String> {
    super::when::until(text, Timestamp::now())
}

impl Asked {
    fn grant(&self) -> Grant {
        Grant {
            read: self.read.iter().cloned().collect(),
            write: self.write.iter().cloned().collect(),
            search: self.search,
        }
    }

    fn terms(&self, path: &Path) -> Result<Terms, Failure> {
        let relax = self.relax.iter().map(|check| Relaxable::new(*check)).collect::<Result<_, _>>();
        let relax = relax.map_err(|never| {
            let advice = if never.check() == Check::ChallengeMissing {
                format!("keychain-auth revoke {} --challenge", word(path))
            } else {
                "mend what makes the check fail; the refusal in keychain-auth audit show names it".to_owned()
            };
            Failure::new(never.to_string(), advice)
        })?;
        Ok(Terms {
            targets: match (self.all_targets, self.prefix.is_empty()) {
                (true, _) => Targets::Every,
                (false, true) => Targets::Unchanged,
                (false, false) => Targets::Prefixes(self.prefix.iter().cloned().collect()),
            },
            challenge: self.challenge,
            relax,
            expires: self.expires,
        })
    }
}

fn words(terms: &Terms) -> impl Iterator<Item = String> {
    let targets = match &terms.targets {
        Targets::Unchanged => Vec::new(),
        Targets::Every => vec!["every target".to_owned()],
        Targets::Prefixes(prefixes) => prefixes.iter().map(|prefix| format!("targets {prefix}…")).collect(),
    };
    let challenge = terms.challenge.then(|| "challenge required".to_owned());
    let relax = terms.relax.iter().map(|relaxed| format!("relaxed {}", relaxed.check()));
    let expires = terms.expires.map(|end| format!("until {}", moment(end)));
    targets.into_iter().chain(challenge).chain(relax).chain(expires)
}
