//! The words between keeper and witness: one JSON message a packet, bounded; descriptors travel beside them.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    caller::{Facts, Sighting},
    digest::Digest,
};

/// Largest message. A packet that is longer is refused whole.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most executables of one [`Question::Watch`]: with paths of 4 KiB it may still be split further by its sender.
pub const MAX_WATCHED_PER_MESSAGE: usize = 12;

/// An executable that is worth a full look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Its canonical path.
    pub path: String,
    /// Its length in bytes, where the entry knows it: an executable of another length is not hashed.
    pub size: Option<u64>,
    /// Libraries whose digests the entry asks for.
    pub libraries: Vec<String>,
}

/// From the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", deny_unknown_fields, rename_all = "snake_case")]
pub enum Question {
    /// Which executables are worth a full look from now on. No answer.
    Watch {
        /// Whether the earlier list is forgotten first.
        anew: bool,
        /// At most [`MAX_WATCHED_PER_MESSAGE`].
        executables: Vec<Watched>,
    },
    /// Who is behind a connection? With a pidfd of the peer, where the kernel has one.
    Examine {
        /// Repeated in the answer.
        id: u64,
        /// The process that connected.
        pid: u32,
        /// Inode number of the daemon's end of the connection.
        socket: u64,
    },
    /// What is the digest of this executable? With a descriptor of it. Low priority, one at a time.
    Fingerprint {
        /// Repeated in the answer.
        id: u64,
    },
}

/// Why the witness could not look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Unseen {
    /// The process has ended.
    #[error("the process has ended")]
    Gone,
    /// The kernel did not let it be read.
    #[error("the kernel does not let the process be read")]
    Unreadable,
    /// It is built to be expensive to look at: too many descriptors, mappings or bytes.
    #[error("the process is too large to be examined")]
    TooLarge,
    /// The executable changed while it was read.
    #[error("the executable changed while it was read")]
    Changed,
    /// The kernel does not tell who holds a socket: `CONFIG_UNIX_DIAG` is missing.
    #[error("the kernel does not tell who holds a socket (unix_diag is missing)")]
    NoSocketDiagnosis,
    /// Too many questions wait already.
    #[error("too many executables wait to be hashed")]
    Busy,
}

/// From the witness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "tell", deny_unknown_fields, rename_all = "snake_case")]
pub enum Answer {
    /// A process that runs a watched executable. With descriptors of its memory map, which pins its address space, and of
    /// the size of it.
    Examined {
        /// The question.
        id: u64,
        /// What was seen.
        facts: Box<Facts>,
    },
    /// A process that runs something else. With a descriptor of its executable, where it can be read.
    Stranger {
        /// The question.
        id: u64,
        /// What was seen.
        sighting: Box<Sighting>,
    },
    /// The digest that was asked for.
    Fingerprint {
        /// The question.
        id: u64,
        /// SHA-256 of the file.
        digest: Digest,
    },
    /// No answer can be had.
    Unseen {
        /// The question.
        id: u64,
        /// Why.
        why: Unseen,
    },
}

/// A message that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("a message between keeper and witness is over {MAX_MESSAGE} bytes")]
    TooLong,
    /// Not one of the messages.
    #[error("a message between keeper and witness can't be understood (byte {0})")]
    NotUnderstood(usize),
}

/// The packet of a message.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, ProtocolError> {
    let packet = serde_json::to_vec(message).map_err(|error| ProtocolError::NotUnderstood(error.column()))?;
    if packet.len() > MAX_MESSAGE { Err(ProtocolError::TooLong) } else { Ok(packet) }
}

/// A question from its packet.
pub fn decode_question(packet: &[u8]) -> Result<Question, ProtocolError> {
    decode(packet)
}

/// An answer from its packet.
pub fn decode_answer(packet: &[u8]) -> Result<Answer, ProtocolError> {
    decode(packet)
}

fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<T, ProtocolError> {
    if packet.len() > MAX_MESSAGE {
        return Err(ProtocolError::TooLong);
    }
    // a derived reader would take a list of the members as well
    if packet.first() != Some(&b'{') {
        return Err(ProtocolError::NotUnderstood(1));
    }
    serde_json::from_slice(packet).map_err(|error| ProtocolError::NotUnderstood(error.column()))
}
