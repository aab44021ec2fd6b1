//! `vault init`: an empty vault, before a daemon makes one.

use super::super::{context::Context, failure::Failure, output::Output};
use crate::{
    keys::forget_item,
    store::{KeyMaterial, KeySource, StoreError, Taken},
};

#[derive(clap::Args)]
pub(in super::super) struct Args {
    /// Where its key comes from: credential, keychain, passphrase, file [default: the first of credential, keychain and file
    /// that is there]
    #[arg(long, value_name = "SOURCE")]
    key: Option<KeySource>,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let taken = Taken::take(&cx.paths.data_dir)?;
    match taken.source() {
        Ok(source) => return Err(StoreError::Exists(source).into()),
        Err(StoreError::Absent) => {}
        Err(error) => return Err(error.into()),
    }
    let material = match args.key {
        Some(source) => cx.asking().for_new(source)?,
        None => cx.asking().automatic()?,
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
    Ok(())
}
