//! `vault init`: an empty vault, before a daemon makes one.

use std::fs;

use jiff::Timestamp;

use super::super::{context::Context, failure::Failure, output::Output};
use crate::{
    keys::{KeyError, forget_item},
    store::{KeyMaterial, KeySource, Keychain, Slot, StoreError, StoreKind, Taken},
};

#[derive(clap::Args)]
pub(in super::super) struct Args {
    /// Where its key comes from: credential, keychain, passphrase, file [default: the first of credential, keychain and file
    /// that is there]
    #[arg(long, value_name = "SOURCE")]
    key: Option<KeySource>,
    /// Where the secrets will rest: vault (a file of the daemon), keychain (the user's own, over Secret Service)
    #[arg(long, value_name = "KIND", default_value = "vault")]
    store: StoreKind,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    // also while a daemon has it
    if let Some(slot) = Slot::peek(&cx.paths.data_dir)? {
        return Err(there(slot.source(), args.key, cx));
    }
    let taken = Taken::take(&cx.paths.data_dir)?;
    match taken.source() {
        Ok(source) => return Err(there(source, args.key, cx)),
        Err(StoreError::Absent) => {}
        Err(error) => return Err(error.into()),
    }
    let material = match args.key {
        Some(source) => cx.asking().for_new(source).map_err(unavailable)?,
        None => cx.asking().automatic()?,
    };
    let taken = match args.store {
        StoreKind::Vault => taken,
        // an empty vault has nothing to ask it for
        StoreKind::Keychain => taken.in_keychain(Keychain::unasked()),
    };
    let made = taken.create(&material).and_then(crate::store::Vault::close);
    if let (Err(_), KeyMaterial::Keychain(item, _)) = (&made, &material) {
        // nothing was made that it would open
        let _ = forget_item(*item);
    }
    made?;
    let source = material.source();
    out.line(&format!(
        "Made a vault in {}; its key comes from the source {source}",
        cx.paths.data_dir.display()
    ));
    out.note(&format!("That means: {}", source.means()));
    if args.store == StoreKind::Keychain {
        out.note("The secrets will rest in your keychain; the daemon must be started in your session");
    }
    Ok(())
}

/// Nothing was made: another source may be at hand.
fn unavailable(error: KeyError) -> Failure {
    let other = "or choose another source, such as --key passphrase";
    let advice = match &error {
        KeyError::Credential(_) => {
            format!(
                "let the service manager start the daemon with the credential, which then makes the vault, see docs/configuration.md; {other}"
            )
        }
        KeyError::KeychainLocked | KeyError::Keychain(_) => format!("{}, {other}", error.advice()),
        _ => return error.into(),
    };
    Failure::new(error.to_string(), advice)
}

/// A vault is never made over another one. What to do depends on what was wanted.
fn there(source: KeySource, asked: Option<KeySource>, cx: &Context) -> Failure {
    let folder = &cx.paths.data_dir;
    // when the file was made, where the filesystem remembers it
    let made = fs::metadata(folder.join("vault.redb")).and_then(|file| file.created()).ok();
    let made = made.and_then(|made| Timestamp::try_from(made).ok());
    let made = made.map(|made| format!(", made {}", made.strftime("%Y-%m-%d %H:%M UTC"))).unwrap_or_default();
    let sentence = format!(
        "there is a vault already in {}{made}, with a key from the source {source}",
        folder.display()
    );
    let advice = match asked.filter(|asked| *asked != source) {
        Some(asked) => {
            format!("change where its key comes from: keychain-auth vault change-key-source --key {asked}")
        }
        None => "use it; see how it is: keychain-auth vault status".to_owned(),
    };
    Failure::new(sentence, advice)
}
