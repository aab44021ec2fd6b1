//! config.json as types.

use std::collections::BTreeSet;

use crate::name::{Service, TargetPrefix};

/// What one entry allows. Empty allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    read: BTreeSet<Service>,
    write: BTreeSet<Service>,
    can_search: bool,
    target_prefixes: Option<Vec<TargetPrefix>>,
}

impl Permissions {
    /// Whether `read` and `search` may touch the service.
    pub fn reads(&self, service: &Service) -> bool {
        self.read.contains(service)
    }

    /// Whether `write` and `delete` may touch the service.
    pub fn writes(&self, service: &Service) -> bool {
        self.write.contains(service)
    }

    /// Whether `search` and prefix actions are allowed.
    pub fn can_search(&self) -> bool {
        self.can_search
    }

    /// Whether a target, or every target that begins with it, lies within `allowed_target_prefixes`.
    pub fn covers(&self, target: &str) -> bool {
        self.target_prefixes
            .as_ref()
            .is_none_or(|prefixes| prefixes.iter().any(|prefix| prefix.covers(target)))
    }
}
