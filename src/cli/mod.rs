//! The commands: one file a verb. They carry words between people and the rooms, and decide nothing themselves.
//!
//! Only `output` prints. Every failure is one sentence and one line of advice. Exit codes: 0 done, 1 refused or failed,
//! 2 usage.
#![forbid(unsafe_code)]

mod acceptance;
mod advice;
mod approve;
mod args;
mod arrivals;
mod audit;
mod check;
mod completions;
mod context;
mod daemon_link;
mod deny;
mod doctor;
mod failure;
mod grant;
mod journal;
mod library;
mod list;
mod list_pending;
mod notify;
mod operator_log;
mod output;
mod owner;
mod policy;
mod register;
mod revoke;
mod sealing;
mod start;
mod status;
mod status_query;
mod unhashed;
mod unregister;
mod untold;
mod values;
mod vault;
mod when;
mod words;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

use self::{context::Context, failure::Failure, output::Output};
use crate::{
    keys::{ItemTask, serve_item},
    store::ItemId,
    text,
};

/// Where help shows the options that every command has: behind those of the command itself.
const EVERYWHERE: &str = "Options of every command";

/// Stands between command-line tools and your secrets: only registered programs get what you granted them.
#[derive(Parser)]
#[command(name = "keychain-auth", version, arg_required_else_help = true)]
struct Cli {
    /// The daemon's socket [default: $KEYCHAIN_AUTH_SOCKET, else agent.sock in the runtime folder]
    #[arg(long, global = true, value_name = "PATH", help_heading = EVERYWHERE)]
    socket: Option<PathBuf>,
    /// Read the vault's passphrase from this descriptor, up to a line feed or its end, instead of asking for it
    #[arg(long, global = true, value_name = "N", help_heading = EVERYWHERE)]
    passphrase_fd: Option<i32>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Verb(Verb),
    /// Print a completion script
    Completions(completions::Args),
    /// The short-lived child that speaks to the keychain
    #[command(hide = true)]
    KeychainItem { task: ItemTask, item: String },
}

/// The commands that need to know where things are.
#[derive(Subcommand)]
enum Verb {
    /// Run the daemon in the foreground
    Start(start::Args),
    /// Say whether the daemon runs, and what is wrong with the policy
    Status(status::Args),
    /// Let a program be recognised; it is granted nothing yet
    Register(register::Args),
    /// Give a registered program its new hash; its permissions stay
    Upgrade(register::Args),
    /// Remove a program from the policy
    Unregister(unregister::Args),
    /// Add permissions to a registered program, or set the terms of its entry
    Grant(grant::Args),
    /// Take permissions from a registered program, or lift the terms of its entry
    Revoke(revoke::Args),
    /// Let a registered program map a library that its user can write
    TrustLibrary(library::TrustArgs),
    /// Take a library from a registered program again
    DistrustLibrary(library::DistrustArgs),
    /// Show the registered programs and what each may do
    List(list::Args),
    /// Show the programs that asked and are not registered
    ListPending(list_pending::Args),
    /// Register a program that waits, by its hash
    Approve(approve::Args),
    /// Remove a program from those that wait
    Deny(deny::Args),
    /// Say whether a program may use a service
    Check(check::Args),
    /// Register a program and let it read, write and search a service
    Authorize(grant::AuthorizeArgs),
    /// Show every protection, how it stands, and what to do about it
    Doctor(doctor::Args),
    /// Tell of new strangers, by a command or on the desktop, until it is ended
    Notify(notify::Args),
    /// Seal config.json, so that only whoever has the vault's key can change it
    #[command(subcommand)]
    Policy(policy::Command),
    /// The vault as a whole: its key, and its state
    #[command(subcommand)]
    Vault(vault::Command),
    /// Read the audit log
    #[command(subcommand)]
    Audit(Box<audit::Command>),
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let mut output = Output::new();
    let cli = match Cli::try_parse().and_then(sensible) {
        Ok(cli) => cli,
        Err(usage) => return output.usage(&usage),
    };
    let done = match cli.command {
        Command::Verb(verb) => Context::new(cli.socket.as_deref(), cli.passphrase_fd)
            .and_then(|cx| dispatch(verb, cx, &mut output)),
        Command::Completions(args) => completions::run(&args, &mut output),
        Command::KeychainItem { task, item } => return keychain_item(task, &item),
    };
    match done {
        Ok(()) => output.finish(),
        Err(failure) => output.failure(&failure),
    }
}

/// Refuses options that are understood one by one and make no sense together.
fn sensible(cli: Cli) -> Result<Cli, clap::Error> {
    let Command::Verb(Verb::Audit(audit)) = &cli.command else { return Ok(cli) };
    let Err((verb, what)) = audit.sensible() else { return Ok(cli) };
    let mut command = Cli::command();
    command.build();
    let asked = command.find_subcommand_mut("audit").and_then(|audit| audit.find_subcommand_mut(verb));
    Err(asked.map_or_else(Cli::command, |asked| asked.clone()).error(ErrorKind::ValueValidation, what))
}

fn keychain_item(task: ItemTask, item: &str) -> ExitCode {
    let Some(item) = ItemId::parse(item) else { return ExitCode::from(2) };
    ExitCode::from(serve_item(task, item, |name| std::env::var_os(name)))
}

fn dispatch(verb: Verb, cx: Context, out: &mut Output) -> Result<(), Failure> {
    match verb {
        Verb::Start(args) => start::run(&args, cx, out),
        Verb::Status(args) => status::run(&args, &cx, out),
        Verb::Register(args) => register::register(&args, &cx, out),
        Verb::Upgrade(args) => register::upgrade(&args, &cx, out),
        Verb::Unregister(args) => unregister::run(&args, &cx, out),
        Verb::Grant(args) => grant::run(&args, &cx, out),
        Verb::Revoke(args) => revoke::run(&args, &cx, out),
        Verb::TrustLibrary(args) => library::trust(&args, &cx, out),
        Verb::DistrustLibrary(args) => library::distrust(&args, &cx, out),
        Verb::List(args) => list::run(&args, &cx, out),
        Verb::ListPending(args) => list_pending::run(&args, &cx, out),
        Verb::Approve(args) => approve::run(&args, &cx, out),
        Verb::Deny(args) => deny::run(&args, &cx, out),
        Verb::Check(args) => check::run(&args, &cx, out),
        Verb::Authorize(args) => grant::authorize(&args, &cx, out),
        Verb::Doctor(args) => doctor::run(&args, &cx, out),
        Verb::Notify(args) => notify::run(&args, &cx, out),
        Verb::Policy(command) => policy::run(&command, &cx, out),
        Verb::Vault(command) => vault::run(&command, &cx, out),
        Verb::Audit(command) => audit::run(&command, &cx, out),
    }
}

#[cfg(test)]
#[path = "verb_tests.rs"]
mod tests;
