//! Only the policy decides.
use keychain_auth::{policy::Authorized, store::Query};

fn decide(query: Query) -> Authorized<Query> {
    Authorized(query)
}

fn main() {}
