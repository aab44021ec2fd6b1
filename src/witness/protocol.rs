//! The words between keeper and witness: one JSON message a packet, bounded; descriptors travel beside them.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    caller::{Facts, Sighting},
    digest::Digest,
};

/// Largest message. A packet that is longer is refused whole.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Bytes of the paths in one [`Question::Watch`], as JSON may spell them: one executable and one library of the longest
/// paths fit beside the message's own words.
const WATCH_BUDGET: usize = MAX_MESSAGE - 1024;
/// Longest path that the kernel shows of an executable or a mapping.
const MAX_PATH: usize = 4096;

/// An executable that is worth a full look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Its canonical path.
    pub path: String,
    /// Its length in bytes, where the entry knows it: an executable of another length is not hashed.
    pub size: Option<u64>,
    /// What its bytes must be: an executable with another digest is not looked at any further.
    pub digest: Digest,
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
        /// As many as [`watch_list`] puts into one message.
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
        /// Its cookie, which no other socket ever has: inode numbers come round again.
        cookie: u64,
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
    #[error("too many processes wait to be looked at, or this one's files do not answer")]
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
    /// A process that runs no watched executable. Another answer follows: what else there is to say of it.
    Shown {
        /// The question.
        id: u64,
        /// What /proc shows it to run.
        path: String,
    },
    /// A process that runs something else. With a descriptor of its executable, where it can be read and whoever reads it
    /// can't be made to wait.
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
        /// What /proc showed the process to run, where it got that far.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
}

impl Answer {
    /// The question that it is for.
    pub fn id(&self) -> u64 {
        match self {
            Self::Examined { id, .. }
            | Self::Shown { id, .. }
            | Self::Stranger { id, .. }
            | Self::Fingerprint { id, .. }
            | Self::Unseen { id, .. } => *id,
        }
    }
}

/// The messages that tell a whole list, each within [`MAX_MESSAGE`].
///
/// An executable with more libraries than fit stands in several of them; the witness joins what it hears of one path. A
/// path that is longer than any the kernel shows is left out: nothing can run or map it.
pub fn watch_list(list: impl IntoIterator<Item = Watched>) -> Vec<Question> {
    let (mut messages, mut executables, mut bytes) = (Vec::new(), Vec::<Watched>::new(), 0);
    let mut next = |executables: &mut Vec<Watched>| {
        let anew = messages.is_empty();
        messages.push(Question::Watch { anew, executables: std::mem::take(executables) });
        0
    };
    for Watched { path, size, digest, libraries } in list.into_iter().filter(|one| one.path.len() <= MAX_PATH)
    {
        let bare = || Watched { path: path.clone(), size, digest, libraries: Vec::new() };
        let own = spelled(&path) + 192;
        if bytes + own > WATCH_BUDGET {
            bytes = next(&mut executables);
        }
        executables.push(bare());
        bytes += own;
        for library in libraries.into_iter().filter(|library| library.len() <= MAX_PATH) {
            let more = spelled(&library);
            if bytes + more > WATCH_BUDGET {
                bytes = next(&mut executables) + own;
                executables.push(bare());
            }
            bytes += more;
            if let Some(last) = executables.last_mut() {
                last.libraries.push(library);
            }
        }
    }
    next(&mut executables);
    messages
}

/// Most bytes of a text as JSON: a control character takes six.
const fn spelled(text: &str) -> usize {
    text.len() * 6 + 3
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn watched(path: String, libraries: Vec<String>) -> Watched {
        Watched { path, size: Some(7), digest: Digest::new([7; 32]), libraries }
    }

    #[test]
    fn a_list_of_any_length_is_told_whole_in_messages_that_fit() {
        let long = |number: usize| format!("/{}{number}", "\u{1}".repeat(4000));
        let lists = [
            Vec::new(),
            vec![watched("/a".into(), Vec::new())],
            (0..300).map(|number| watched(long(number), vec![long(number)])).collect(),
            vec![watched("/a".into(), (0..5000).map(|number| format!("/lib/{number}.so")).collect())],
            vec![watched("/a".into(), (0..50).map(long).collect()), watched("/b".into(), vec!["/c".into()])],
        ];
        for list in lists {
            let messages = watch_list(list.clone());
            let mut heard: Vec<Watched> = Vec::new();
            for (index, message) in messages.iter().enumerate() {
                let decoded = decode_question(&encode(message).unwrap()).unwrap();
                let Question::Watch { anew, executables } = decoded else { panic!("another message") };
                assert_eq!(anew, index == 0);
                for one in executables {
                    match heard.iter_mut().find(|known| known.path == one.path) {
                        Some(known) => known.libraries.extend(one.libraries),
                        None => heard.push(one),
                    }
                }
            }
            assert_eq!(heard, list);
        }
    }

    #[test]
    fn a_path_that_no_process_can_have_is_left_out() {
        let endless = format!("/{}", "a".repeat(MAX_PATH));
        let list = [watched(endless.clone(), Vec::new()), watched("/a".into(), vec![endless])];
        let told = vec![watched("/a".into(), Vec::new())];
        assert_eq!(watch_list(list), [Question::Watch { anew: true, executables: told }]);
    }
}
