//! One line of JSON to a request, strictly.

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Values of named or prefixed targets.
    Read,
    /// Puts values in place.
    Write,
    /// Removes targets.
    Delete,
    /// Names, never values.
    Search,
    /// Whether the service is allowed at all.
    Check,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 5] = [Self::Read, Self::Write, Self::Delete, Self::Search, Self::Check];

    /// The word on the wire and in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Search => "search",
            Self::Check => "check",
        }
    }
}
