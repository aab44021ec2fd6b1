//! `vault lock` and `vault unlock`: the running daemon forgets the key, and gets it again.

use data_encoding::HEXLOWER;

use super::super::{
    advice::{held, holder},
    context::Context,
    daemon_link::DaemonLink,
    failure::Failure,
    output::Output,
    status_query::KeychainState,
};
use crate::store::{KeyHolder, Slot, StoreError};

/// Asks for a nonce, and so how the vault is.
const ASK: &str = "{\"type\":\"UNLOCK\"}\n";

pub(super) fn lock(cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let mut link = link(cx)?;
    // its answer says how the vault is; the nonce in it is used for nothing
    let was = link.ask(ASK)?.state;
    // also where it seems locked: an unlock may have stopped half-way, with the key in memory
    link.ask("{\"type\":\"LOCK\"}\n")?;
    if was == "locked" {
        out.line("The vault is locked already");
    } else {
        out.line("Locked the vault; to unlock it: keychain-auth vault unlock");
    }
    Ok(())
}

/// The key goes to the daemon sealed for it: whatever process listens in its place learns nothing.
pub(super) fn unlock(cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let mut link = link(cx)?;
    let told = link.ask(ASK)?;
    if told.state == "unlocked" {
        out.line("The vault is unlocked already");
        note_keychain(cx, out);
        return Ok(());
    }
    let slot = Slot::peek(&cx.paths.data_dir)?.ok_or(StoreError::Absent)?;
    let material = cx.asking().for_slot(&slot)?;
    let nonce = HEXLOWER.decode(told.nonce.as_bytes()).ok().and_then(|nonce| nonce.try_into().ok());
    let nonce: [u8; 32] = nonce.ok_or_else(|| {
        Failure::new("the daemon gave no nonce", "restart the daemon, so that both are of one version")
    })?;
    let carried = HEXLOWER.encode(&KeyHolder::new(&slot, &material)?.carry_key(&nonce)?);
    link.ask(&format!("{{\"type\":\"UNLOCK\",\"nonce\":\"{}\",\"key\":\"{carried}\"}}\n", told.nonce))?;
    out.line("Unlocked the vault");
    note_keychain(cx, out);
    Ok(())
}

/// The vault may be open and nothing be served: what rests in the keychain, this command unlocks for nobody.
fn note_keychain(cx: &Context, out: &mut Output) {
    let Some(status) = cx.daemon() else { return };
    if let Some(why) = status.keychain.as_ref().and_then(KeychainState::refuses) {
        out.note(&format!("{why}: unlock it; until then requests are answered with store_locked"));
    }
}

fn link(cx: &Context) -> Result<DaemonLink, Failure> {
    DaemonLink::open(cx)?.ok_or_else(|| match holder(cx) {
        Some(pid) => held(cx, pid),
        None => Failure::new("no daemon runs, so nobody has the vault's key", cx.start_command()),
    })
}
