//! The way of a command to values that rest in the user's keychain: a child that has been there since before the first
//! secret, and has none. What D-Bus starts in a process must not be in one that holds the vault's key.

use std::{env, sync::Arc};

use super::{failure::Failure, owner};
use crate::{
    broker::Lane,
    daemon::live_as_broker,
    desktop_keychain::bus_address,
    sandbox::Hardening,
    store::Keychain,
    sys::{locked, process},
};

/// Closes this process to others, as [`owner::close_to_others`] does, and gives the way to the keychain. Nobody has asked the
/// keychain anything then: a command whose vault keeps its values itself goes on without one.
pub(super) fn way() -> Result<Keychain, Failure> {
    owner::close_memory()?;
    // before the memory for secrets is made, which the child would share
    let keychain = keychain();
    locked::prepare();
    Ok(keychain)
}

fn keychain() -> Keychain {
    let Some(bus) = bus_address(|name| env::var_os(name)) else {
        return Keychain::unreachable("there is no session bus");
    };
    // as much of a cage as there is: beside it, the user's other processes speak to the keychain without one
    match process::spawn(|[channel]| live_as_broker(&[channel], bus, Hardening::BestEffort)) {
        Ok(child) => {
            let [channel] = child.channels;
            Keychain::by_one_way(Arc::new(Lane::new(channel, Arc::default())))
        }
        Err(error) => Keychain::unreachable(format!("no process can be started: {}", error.kind())),
    }
}
