//! The identity checks by name: the `detail` of an `untrusted_caller`, and what an entry's `relax` can turn off.

use std::fmt;

/// One identity check. Named for what it found, as the reply's message and the audit record say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// The connection's descriptor crossed an exec or came from another process, or could have.
    DescriptorInherited,
    /// Bytes on the connection were written by another process than the one that connected.
    ForeignSender,
    /// A debugger is attached.
    Traced,
    /// Executable memory that is neither the registered file nor a library that only root can change.
    InjectedCode,
    /// Another user or pid namespace than the daemon's.
    ForeignNamespace,
    /// The executable is not the one that was verified on this connection.
    ExecutableChanged,
    /// The process has ended, or its pid names another one now.
    PeerGone,
    /// Another user than the daemon's.
    ForeignUid,
    /// The kernel did not let the process be examined, or its executable can't be trusted to be read.
    UnreadablePeer,
    /// The entry asks for a challenge and the request carried none, or a wrong one.
    ChallengeMissing,
}

impl Check {
    /// All checks, in the order of the contract.
    pub const ALL: [Self; 10] = [
        Self::DescriptorInherited,
        Self::ForeignSender,
        Self::Traced,
        Self::InjectedCode,
        Self::ForeignNamespace,
        Self::ExecutableChanged,
        Self::PeerGone,
        Self::ForeignUid,
        Self::UnreadablePeer,
        Self::ChallengeMissing,
    ];

    /// The name in audit records, messages and `relax`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DescriptorInherited => "descriptor_inherited",
            Self::ForeignSender => "foreign_sender",
            Self::Traced => "traced",
            Self::InjectedCode => "injected_code",
            Self::ForeignNamespace => "foreign_namespace",
            Self::ExecutableChanged => "executable_changed",
            Self::PeerGone => "peer_gone",
            Self::ForeignUid => "foreign_uid",
            Self::UnreadablePeer => "unreadable_peer",
            Self::ChallengeMissing => "challenge_missing",
        }
    }

    /// The check of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|check| check.as_str() == name)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_reads_back_from_what_records_say_of_it() {
        for check in Check::ALL {
            assert_eq!(Check::parse(&check.to_string()), Some(check));
        }
        assert_eq!(Check::parse(""), None);
    }
}
