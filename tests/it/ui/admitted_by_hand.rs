//! Only a policy admits a caller.
use keychain_auth::{
    caller::VerifiedCaller,
    policy::{Admitted, Entry},
};

fn admit<'p>(entry: &'p Entry, caller: VerifiedCaller) -> Admitted<'p> {
    Admitted { entry, caller }
}

fn main() {}
