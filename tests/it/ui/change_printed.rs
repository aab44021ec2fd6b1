//! What holds a secret is not printed either.
use keychain_auth::store::WriteItem;

fn print(item: &WriteItem) -> String {
    format!("{item:?}")
}

fn main() {}
