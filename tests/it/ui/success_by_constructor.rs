//! The constructors of a success belong to the stores.
use keychain_auth::store::Committed;

fn main() {
    let _ = Committed::found(Vec::new());
}
