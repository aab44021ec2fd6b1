//! Refusals: the code for programs, the detail for the log, and a sentence for people that says what to do next.

use std::path::Path;

use crate::{
    caller::{Check, OTHER_NETWORK, Untrusted},
    policy::{Admitted, Denial, PolicyError, runs_others},
    store::StoreError,
    text::{plain, word},
    wire::{FrameError, Malformed, Reason, UNRECORDED},
};

use super::identity::{Shown, Unregistered, WhyUnregistered};

/// Why a line gets no success.
pub(super) struct Refusal {
    pub(super) reason: Reason,
    /// For the record only.
    pub(super) detail: Option<String>,
    /// For the client. Holds nothing that the client sent.
    pub(super) message: String,
    /// Whether the connection ends after the answer.
    pub(super) closes: bool,
    /// A stranger for the pending queue.
    pub(super) stranger: Option<Unregistered>,
}

impl Refusal {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, detail: None, message: message.into(), closes: false, stranger: None }
    }

    fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    fn detailed(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// No entry allows the executable.
    pub(super) fn unregistered(stranger: Unregistered, shown: &Shown) -> Self {
        let path = if shown.path.is_empty() { "PATH".to_owned() } else { word(Path::new(&shown.path)) };
        let message = match stranger.why {
            WhyUnregistered::Unknown if runs_others(Path::new(&shown.path)) => format!(
                "this executable runs what others write, so it says nothing about who asks; let a compiled program ask for the secret and register that, or, if you trust everything that it runs: keychain-auth register --allow-interpreter {path}"
            ),
            WhyUnregistered::Unknown => {
                format!(
                    "this executable is not registered; if you trust it, run: keychain-auth register {path}"
                )
            }
            WhyUnregistered::Changed => format!(
                "this executable has changed since it was registered; if you updated it, run: keychain-auth upgrade {path}"
            ),
            WhyUnregistered::Unusable(fault) => format!(
                "this executable's entry in config.json has a fault: {fault}; mend it, or run: keychain-auth unregister {path} and register it again"
            ),
            WhyUnregistered::Expired => {
                format!(
                    "the registration of this executable has expired; to renew it, run: keychain-auth grant {path} --expires 30d"
                )
            }
        };
        let refusal = Self::new(Reason::UnregisteredBinary, message).closing();
        Self { stranger: Some(stranger), ..refusal }
    }

    /// An identity check failed. The detail is the check's name alone; what it saw is in the message.
    pub(super) fn untrusted(untrusted: &Untrusted, shown: &Shown) -> Self {
        let check = untrusted.check;
        let message = match (&untrusted.subject, untrusted.digest) {
            (Some(library), Some(digest)) => format!(
                "{check}: this process runs code from {}, which its user can change ({digest}); if you trust it, run: keychain-auth trust-library {} {}",
                plain(library),
                word(Path::new(&shown.path)),
                word(Path::new(library)),
            ),
            (Some(why), None) if check == Check::DescriptorInherited && why == OTHER_NETWORK => format!(
                "{check}: this process has a network namespace of its own (PrivateNetwork=), and who holds its connection can't be seen from here; run it in the daemon's, or, if it never copies its input to its output, accept the challenge instead: keychain-auth grant {} --relax descriptor_inherited --challenge",
                word(Path::new(&shown.path)),
            ),
            (Some(_filter), None) if check == Check::DescriptorInherited => format!(
                "{check}: a seccomp filter decides about this process's system calls, and its supervisor could have put this connection here; run the tool without one, or, if it never copies its input to its output, accept the challenge instead: keychain-auth grant {} --relax descriptor_inherited --challenge",
                word(Path::new(&shown.path)),
            ),
            _ if check == Check::InjectedCode => format!(
                "{check}: {}: keychain-auth grant {} --relax injected_code",
                advice(check),
                word(Path::new(&shown.path)),
            ),
            (Some(subject), None) if check == Check::UnreadablePeer => {
                format!("{check}: {}; {}", plain(subject), advice(check))
            }
            _ => format!("{check}: {}", advice(check)),
        };
        Self::new(Reason::UntrustedCaller, message).detailed(check.as_str()).closing()
    }

    /// The bytes are no line. What follows can't be told apart, so the connection ends.
    pub(super) fn frame(error: FrameError, shown: &Shown) -> Self {
        match error {
            FrameError::MixedWriters { .. } | FrameError::UnknownWriter => {
                Self::untrusted(&Untrusted::new(Check::ForeignSender), shown)
            }
            _ => {
                Self::new(Reason::MalformedRequest, format!("{error}; send one JSON object a line")).closing()
            }
        }
    }

    /// Nothing came within the time of the first line.
    pub(super) fn silent() -> Self {
        let message =
            "no request came within 10 s; connect when there is one, and send it ended by a line feed";
        Self::new(Reason::MalformedRequest, message).closing()
    }

    /// The line did not end in time, or the stream ended inside it.
    pub(super) fn unfinished() -> Self {
        Self::new(Reason::MalformedRequest, "the line has no end; end each request with a line feed")
            .closing()
    }

    /// The line is no request.
    pub(super) fn malformed(error: Malformed) -> Self {
        Self::new(Reason::MalformedRequest, format!("{error}; see the protocol's request members"))
    }

    /// The policy says no.
    pub(super) fn denied(denial: Denial, admitted: &Admitted<'_>, writes: bool) -> Self {
        let path = word(Path::new(admitted.caller().path()));
        let list = if writes { "--write" } else { "--read" };
        let (reason, message) = match denial {
            Denial::ServiceNotAllowed => (
                Reason::ServiceNotAllowed,
                format!(
                    "the service is not allowed for this action; to allow it, run: keychain-auth grant {path} {list} SERVICE"
                ),
            ),
            Denial::ActionNotInPolicy => (
                Reason::ActionNotInPolicy,
                format!(
                    "search and prefix requests are not allowed; to allow them, run: keychain-auth grant {path} --search"
                ),
            ),
            Denial::TargetNotAllowed => (
                Reason::TargetNotAllowed,
                format!(
                    "a target is outside allowed_target_prefixes of this executable's entry; to allow it, run: keychain-auth grant {path} --prefix PREFIX"
                ),
            ),
        };
        Self::new(reason, message)
    }

    /// config.json can't be used. Everything is refused: the last good policy may allow what was just revoked.
    pub(super) fn policy(error: &PolicyError) -> Self {
        if let PolicyError::Unsealed { .. } = error {
            let message = "config.json is not the policy that was sealed; see what changed: keychain-auth policy review";
            return Self::new(Reason::PolicyUnsealed, message);
        }
        Self::new(
            Reason::InternalError,
            "config.json can't be used, so everything is denied; run: keychain-auth status",
        )
        .detailed(error.to_string())
    }

    /// The store failed. Nothing was released, and nothing was changed unless it says that this is not known.
    pub(super) fn store(error: &StoreError) -> Self {
        match error {
            StoreError::Locked => Self::new(
                Reason::StoreLocked,
                "the store is locked; to unlock it, run: keychain-auth vault unlock",
            ),
            StoreError::KeychainLocked => Self::new(
                Reason::StoreLocked,
                "your keychain, where the secrets rest, is locked; unlock it and try again",
            ),
            StoreError::Unreachable(why) => Self::new(
                Reason::StoreLocked,
                "the keychain, where the secrets rest, does not answer; start or unlock it and try again",
            )
            .detailed(why.clone()),
            StoreError::Backlog => Self::overloaded(false),
            StoreError::Damaged(what) => Self::new(
                Reason::InternalError,
                "the vault is damaged, and this can't be read; nothing was released; to see what is damaged, stop the daemon and run: keychain-auth vault verify",
            )
            .detailed(format!("the vault is damaged: {what}")),
            StoreError::Salvaged => Self::new(
                Reason::InternalError,
                "the vault is served for reading only, so nothing was changed; see what is wrong with it: keychain-auth doctor; then start the daemon without --salvage",
            )
            .detailed(error.to_string()),
            StoreError::TooLarge => Self::too_large(),
            StoreError::Unknown(_) => Self::new(
                Reason::InternalError,
                "the disk failed, and the store can't tell whether this was done: it may or may not have been made; look before you ask for it again",
            )
            .detailed(error.to_string()),
            other => Self::new(
                Reason::InternalError,
                "the store could not serve this; nothing was changed; see the daemon's own messages",
            )
            .detailed(other.to_string()),
        }
    }

    /// The vault could not be unlocked. Nothing has changed.
    pub(super) fn still_locked(error: &StoreError) -> Self {
        let message = match error {
            StoreError::WrongKey => {
                "the key is not that of this vault; try again: keychain-auth vault unlock"
            }
            StoreError::InUse => "another command works on the vault; try again when it has ended",
            StoreError::Damaged(_) | StoreError::Missing { .. } => {
                "the vault is damaged; see what: keychain-auth vault verify"
            }
            StoreError::KeyFile | StoreError::WrongSecret(_) => {
                "vault.key is broken or of another vault; put it back from a backup that was made after the last vault rekey"
            }
            _ => "the vault can't be opened; see the daemon's own messages",
        };
        Self::new(Reason::StoreLocked, message).detailed(format!("not unlocked: {error}"))
    }

    /// What is intact of a damaged vault is not given back and taken again.
    pub(super) fn not_locked() -> Self {
        let message =
            "the vault is served for reading only and can't be locked; to forget its key, stop the daemon";
        Self::new(Reason::InternalError, message).detailed("not locked: started with --salvage")
    }

    /// What is intact of a damaged vault needs no key.
    pub(super) fn not_unlocked() -> Self {
        let message = "the vault is served for reading only and takes no key; see what is wrong with it: keychain-auth doctor; then start the daemon without --salvage";
        Self::new(Reason::InternalError, message).detailed("not unlocked: started with --salvage")
    }

    /// The seal was not changed, or it is not known.
    pub(super) fn not_sealed(error: &StoreError) -> Self {
        let message = match error {
            StoreError::WrongKey => {
                "the key is not that of this vault, so the seal stays as it is; try again"
            }
            StoreError::Locked => "the store is locked; to unlock it, run: keychain-auth vault unlock",
            StoreError::Salvaged => {
                "the vault is served for reading only, so the seal stays as it is; see what is wrong with it: keychain-auth doctor; then start the daemon without --salvage"
            }
            StoreError::Unknown(_) => {
                "the disk failed, and the store can't tell whether the seal was changed; see which holds: keychain-auth policy review"
            }
            _ => "the seal could not be stored, and stays as it is; see the daemon's own messages",
        };
        let (reason, outcome) = match error {
            StoreError::Unknown(_) => (Reason::InternalError, "perhaps sealed"),
            _ => (Reason::StoreLocked, "not sealed"),
        };
        Self::new(reason, message).detailed(format!("{outcome}: {error}"))
    }

    /// A message about the daemon itself from another user's process.
    pub(super) fn unlisted() -> Self {
        Self::untrusted(&Untrusted::new(Check::ForeignUid), &Shown::default())
    }

    /// The reply would be too long.
    pub(super) fn too_large() -> Self {
        Self::new(
            Reason::ResponseTooLarge,
            "the reply would be too long; ask for fewer targets or a longer prefix",
        )
    }

    /// A limit is reached. `closes` when it is one of connections.
    pub(super) fn overloaded(closes: bool) -> Self {
        let refusal =
            Self::new(Reason::Overloaded, "the daemon is at a limit of connections or work; try again later");
        Self { closes, ..refusal }
    }

    /// The record could not be written.
    pub(super) fn unrecorded() -> Self {
        Self::new(Reason::AuditUnavailable, UNRECORDED)
    }

    /// Anything else. The client is told only that.
    pub(super) fn internal(error: &dyn std::fmt::Display) -> Self {
        Self::new(
            Reason::InternalError,
            "the daemon failed; nothing was released; see the daemon's own messages",
        )
        .detailed(error.to_string())
    }
}

/// What to do about a check that failed.
fn advice(check: Check) -> &'static str {
    match check {
        Check::DescriptorInherited => {
            "this connection's descriptor may have come from another program; open the socket with SOCK_CLOEXEC, in the process that asks"
        }
        Check::ForeignSender => {
            "another process than the one that connected wrote on this connection; connect in the process that asks"
        }
        Check::Traced => "a debugger is attached to this process; detach it",
        Check::InjectedCode => {
            "this process runs code that is neither its registered file nor a library that only root can change, or code that was changed in memory; remove it (LD_PRELOAD, plugins, a JIT, a debugger), or relax this check for it"
        }
        Check::ForeignNamespace => {
            "this process lives in another user or pid namespace than the daemon; run it outside its container"
        }
        Check::ExecutableChanged => {
            "this process does not run the executable that was verified; connect again"
        }
        Check::PeerGone => {
            "the process that connected, or its first thread, has ended; connect in the process that asks, and keep its first thread"
        }
        Check::ForeignUid => "this daemon serves another user; start a daemon of your own",
        Check::UnreadablePeer => {
            "this process or its executable can't be examined; it must be readable by you and lie on a local filesystem"
        }
        Check::ChallengeMissing => {
            "this entry asks for a challenge; send {\"type\":\"HELLO\"} and repeat its nonce in the request"
        }
    }
}
