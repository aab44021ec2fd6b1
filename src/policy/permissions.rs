//! What one entry allows. Empty allows nothing.

use std::collections::BTreeSet;

use crate::name::{Service, TargetPrefix};

/// What one entry allows. The default allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    read: BTreeSet<Service>,
    write: BTreeSet<Service>,
    can_search: bool,
    target_prefixes: Option<Vec<TargetPrefix>>,
}

impl Permissions {
    /// Made by the reader of config.json only. No list of prefixes means every target, an empty list means none.
    pub(super) fn new(
        read: BTreeSet<Service>,
        write: BTreeSet<Service>,
        can_search: bool,
        target_prefixes: Option<Vec<TargetPrefix>>,
    ) -> Self {
        Self { read, write, can_search, target_prefixes }
    }

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

    /// Whether there is a list of prefixes without a prefix in it.
    pub fn allows_no_target(&self) -> bool {
        self.target_prefixes.as_ref().is_some_and(Vec::is_empty)
    }

    /// The services that may be read, in order.
    pub fn read_services(&self) -> impl Iterator<Item = &Service> {
        self.read.iter()
    }

    /// The services that may be written, in order.
    pub fn write_services(&self) -> impl Iterator<Item = &Service> {
        self.write.iter()
    }

    /// The only prefixes that targets may have; none means that every target is allowed, an empty list that no target is.
    pub fn target_prefixes(&self) -> Option<&[TargetPrefix]> {
        self.target_prefixes.as_deref()
    }
}
