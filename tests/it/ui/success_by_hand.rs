//! Only a store says that something is durable.
use keychain_auth::store::Committed;

fn main() {
    let _ = Committed { records: Vec::new(), outbox: None };
}
