//! `vault status`: where the key comes from, and who has it now.

use serde::Serialize;

use super::super::{
    context::Context,
    failure::Failure,
    output::{Output, Style},
    status_query::KeychainState,
};
use crate::{daemon::StartError, store::Slot};

#[derive(clap::Args)]
pub(in super::super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    /// `absent`, `closed`, `locked`, `unlocked` or `salvaged`.
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_means: Option<&'static str>,
    data_path: String,
    /// How much of a damaged vault can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    salvage: Option<String>,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    // in the words of a start, which would fail so
    let slot = Slot::peek(&cx.paths.data_dir).map_err(StartError::from)?;
    let source = slot.map(|slot| slot.source());
    let (vault, keychain) = match cx.daemon() {
        Some(status) => (Some(status.vault.unwrap_or_default()), status.keychain),
        None => (None, None),
    };
    let salvage = vault.as_ref().and_then(|vault| vault.salvage.clone());
    let damaged = vault.as_ref().is_none_or(|vault| vault.damaged != Some(false));
    let state = match (source, vault) {
        (None, _) => "absent".to_owned(),
        (Some(_), Some(vault)) if vault.state.is_empty() => "unlocked".to_owned(),
        (Some(_), Some(vault)) => vault.state,
        (Some(_), None) => "closed".to_owned(),
    };
    let report = Report {
        state,
        key_source: source.map(|source| source.to_string()),
        key_means: source.map(|source| source.means()),
        data_path: cx.paths.data_dir.display().to_string(),
        salvage,
    };
    if args.json {
        out.json(&report);
        return Ok(());
    }
    let means = match report.state.as_str() {
        "absent" => "there is no vault yet; the first start makes one",
        "closed" => "no daemon runs; the key is in nobody's memory",
        "salvaged" if damaged => {
            "THE VAULT IS DAMAGED; the daemon serves what is intact of it, for reading only"
        }
        "salvaged" => {
            "no damage was found; the daemon serves it for reading only, until it is started without --salvage"
        }
        "locked" => "the daemon runs without the key; requests are answered with store_locked",
        _ => match keychain.as_ref().and_then(KeychainState::refuses) {
            Some(why) => {
                &format!("the daemon has the key; {why}, and requests are answered with store_locked")
            }
            None => "the daemon has the key and serves",
        },
    };
    out.cells(&[
        (Style::Plain, "state           "),
        (Style::Bold, &report.state),
        (Style::Plain, &format!(": {means}")),
    ]);
    if let (Some(source), Some(means)) = (&report.key_source, report.key_means) {
        out.line(&format!("key_source      {source}: {means}"));
    }
    out.line(&format!("data_path       {}", report.data_path));
    if let Some(extent) = &report.salvage {
        out.line(&format!("salvage         {extent}"));
    }
    Ok(())
}
