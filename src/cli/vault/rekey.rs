//! `vault rekey` and `vault change-key-source`: another key, or another place for it.

use super::super::{
    context::{Context, descriptor},
    failure::Failure,
    output::Output,
    owner::{Owner, alone, take, unopened, vault_record},
    words::counted,
};
use crate::{
    keys::{Asking, KeyError, forget_item},
    store::{KeyMaterial, KeySource, Keychain, StoreError, Taken},
};

#[derive(clap::Args)]
pub(in super::super) struct ChangeArgs {
    /// Where the key comes from, from now on: credential, keychain, passphrase, file. The source that it has already is a
    /// new passphrase, item or credential
    #[arg(long, value_name = "SOURCE")]
    key: KeySource,
    /// Read the new passphrase from this descriptor
    #[arg(long, value_name = "N")]
    new_passphrase_fd: Option<i32>,
}

/// Every secret is sealed anew: who has the old key, from a copy of the old files, can't read what comes later.
pub(super) fn rekey(cx: &Context, keychain: Keychain, out: &mut Output) -> Result<(), Failure> {
    // not beside a locked daemon: it goes on with the audit chain under the old key
    let alone = alone(cx)?;
    let taken = take(cx)?.reaching(keychain);
    let material = material(&taken, cx)?;
    let record = vault_record(cx, "vault given another key");
    let vault = taken.rekey(&material, record, &mut |done, all| out.steps(done, all));
    out.end_progress();
    let vault = vault.map_err(|error| unopened(cx, error))?;
    let count = vault.count();
    let owner = Owner::over(vault, cx, "vault rekey");
    owner.carry(out);
    owner.close_alone(&alone)?;
    out.line(&format!(
        "Gave the vault another key; {} sealed anew",
        counted(count, "secret is", "secrets are")
    ));
    Ok(())
}

pub(super) fn change(args: &ChangeArgs, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let named = |number| descriptor("--new-passphrase-fd", number);
    let new_passphrase = args.new_passphrase_fd.map(named).transpose()?;
    let taken = take(cx)?.reaching(Keychain::unasked());
    let old_item = taken.slot().and_then(crate::store::Slot::item);
    let old = material(&taken, cx)?;
    // the old key is tried before anything new is made or asked for
    taken.try_key(&old)?;
    let asking = Asking { passphrase: new_passphrase.as_ref().map(std::os::fd::AsFd::as_fd), ..cx.asking() };
    let new = asking.for_new(args.key).map_err(|error| match error {
        KeyError::NobodyToAsk => Failure::new(
            "there is no terminal to ask for the new passphrase",
            "give it with --new-passphrase-fd N, or by a program that KEYCHAIN_AUTH_ASKPASS names",
        ),
        error => error.into(),
    })?;
    let record = vault_record(cx, "source of the vault's key changed");
    let vault = match taken.change_source(&old, &new, record) {
        Ok(vault) => vault,
        Err(error) => {
            if let KeyMaterial::Keychain(item, _) = new {
                let _ = forget_item(item);
            }
            return Err(unopened(cx, error));
        }
    };
    Owner::over(vault, cx, "vault change-key-source").close()?;
    if let Some(item) = old_item
        && forget_item(item).is_err()
    {
        out.note("The old item could not be removed from the keychain; it opens nothing any more");
    }
    out.line(&format!("The vault's key comes from the source {} now: {}", args.key, args.key.means()));
    Ok(())
}

fn material(taken: &Taken, cx: &Context) -> Result<KeyMaterial, Failure> {
    taken.source()?;
    let slot = taken.slot().ok_or(StoreError::Absent)?;
    Ok(cx.asking().for_slot(slot)?)
}
