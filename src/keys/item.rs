//! The child that speaks to the keychain: it makes, reads or removes one item, and ends.

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    str::FromStr,
};

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::key_item::{Trouble, run};
use crate::{desktop_keychain::bus_address, store::ItemId, sys::process::close_to_others};

/// Exit code: the keychain or the item is locked.
pub(super) const LOCKED: i32 = 3;
/// Exit code: there is no such item.
pub(super) const NO_ITEM: i32 = 4;

/// What shall be done with a vault's item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemTask {
    /// Print its secret.
    Get,
    /// Make it, with a random secret, and print that.
    Make,
    /// Remove it.
    Forget,
}

impl ItemTask {
    /// The word on the child's command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Make => "make",
            Self::Forget => "forget",
        }
    }
}

impl FromStr for ItemTask {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Self::Get, Self::Make, Self::Forget]
            .into_iter()
            .find(|task| task.as_str() == word)
            .ok_or("not one of get, make, forget")
    }
}

/// The life of the child. Gives its exit code. The secret goes to standard output, which must be a pipe.
///
/// It tells nothing that any process of the user could not ask the keychain itself.
pub fn serve_item(task: ItemTask, item: ItemId, var: impl Fn(&str) -> Option<OsString>) -> u8 {
    if close_to_others().is_err() || io::stdout().is_terminal() {
        return 1;
    }
    let Some(address) = bus_address(&var) else { return 1 };
    let mut fresh = Zeroizing::new([0; 32]);
    if getrandom::fill(fresh.as_mut_slice()).is_err() {
        return 1;
    }
    let fresh = Zeroizing::new(HEXLOWER.encode(fresh.as_slice()));
    match run(&address, task, &item.to_string(), &fresh) {
        Ok(secret) => match io::stdout().write_all(&secret).and_then(|()| io::stdout().flush()) {
            Ok(()) => 0,
            Err(_) => 1,
        },
        Err(Trouble::Locked) => LOCKED.unsigned_abs() as u8,
        Err(Trouble::NoItem) => NO_ITEM.unsigned_abs() as u8,
        Err(Trouble::Failed) => 1,
    }
}
