//! What to do about an error of the vault, one line: said here for a start and for every command, so that none sends people
//! to another that meets the same error.

use super::{batch::StoreError, head::HEAD_FILE, source::KeySource};

impl StoreError {
    /// Whether there may be something left that can be salvaged: damage, or a `vault.head` that alone is gone.
    pub fn may_leave_something(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Missing { file: HEAD_FILE, .. })
    }

    /// One line of advice. Nothing that it names fails by the same error.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Locked => "keychain-auth vault unlock",
            Self::KeychainLocked => {
                "unlock the keychain, for example by logging in to the desktop, then try again"
            }
            Self::Unreachable(_) => {
                "nothing was changed; start your keychain (gnome-keyring, KWallet, KeePassXC) and unlock it, and run it within your session, where DBUS_SESSION_BUS_ADDRESS is set"
            }
            Self::Backlog => "unlock your keychain, and try again when it has taken what waits for it",
            Self::InUse => "wait until the other command has ended, then try again",
            Self::Absent => "make one: keychain-auth vault init, or keychain-auth start",
            Self::Exists(_) => "use it; see how it is: keychain-auth vault status",
            Self::Exposed(_) => {
                "nothing was changed; keychain-auth doctor says what to mend (files 0600, folder 0700, yours)"
            }
            Self::Missing { .. } => {
                "nothing was changed; restore vault.key, vault.redb, vault.head and audit.state together from a backup, or move the whole data folder away to begin anew"
            }
            Self::KeyFile => {
                "nothing was changed; put vault.key back from a backup that was made after the last vault rekey; without it nothing in the vault can be read"
            }
            Self::Damaged(_) => {
                "nothing was changed; see what is damaged: keychain-auth vault verify; restore vault.redb, vault.head and audit.state together from a backup"
            }
            Self::Salvaged => {
                "see what is wrong with it: keychain-auth doctor; then start the daemon without --salvage"
            }
            Self::WrongSecret(KeySource::Passphrase) => {
                "type it again: there is no other way into the vault, and nothing was changed. Where it is surely the right one, vault.key was changed: put that back from a backup"
            }
            Self::WrongSecret(KeySource::Credential) => {
                "nothing was changed; give it the credential that it had before, or put back the vault.key that belongs to this one"
            }
            Self::WrongSecret(_) => {
                "nothing was changed; put back the vault.key that belongs to this vault, from a backup"
            }
            Self::WrongKey => {
                "nothing was changed; vault.key and vault.redb are not of one vault: put them back from one backup, with its audit.state"
            }
            Self::OtherSource { .. } => {
                "nothing was changed; try again with the source that it has, or change it: keychain-auth vault change-key-source --key SOURCE"
            }
            Self::OtherStore { .. } => {
                "nothing was changed; start it without --store, and it goes on where its secrets are"
            }
            Self::Unknown(_) => "look at the disk, then see whether it was done before you do it again",
            Self::TooLarge | Self::Io(_) => {
                "nothing was changed; look at the disk and the folder, then try again"
            }
        }
    }
}
