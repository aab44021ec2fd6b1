//! A store takes authorised batches only.
use keychain_auth::store::{Committed, Query, Store, StoreError};

fn ask(store: &dyn Store, query: Query) -> Result<Committed, StoreError> {
    store.read(query)
}

fn main() {}
