//! A secret has one owner.
use keychain_auth::secret::SecretValue;

fn copy(secret: &SecretValue) -> SecretValue {
    secret.clone()
}

fn main() {}
