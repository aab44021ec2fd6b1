//! A secret is never printed.
use keychain_auth::secret::SecretValue;

fn print(secret: &SecretValue) -> String {
    format!("{secret:?}")
}

fn show(secret: &SecretValue) -> String {
    format!("{secret}")
}

fn main() {}
