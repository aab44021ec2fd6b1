//! The words between keeper and broker: one packet a message, of one form only, bounded. No word of it is a plaintext
//! value or name: records travel sealed, under keyed names.

/// Largest message: a sealed record of the longest names and the longest value takes 81 KiB.
pub const MAX_PACKET: usize = 96 * 1024;
/// Most keys of one message: what they bring back is one call of the keychain, and a bounded answer.
pub const MAX_KEYS: usize = 64;
/// Most bytes of the words that tell why something failed.
const MAX_WHY: usize = 200;

const KEY: usize = 32;
const VAULT: usize = 16;

/// Where a record rests: a keyed hash of its names.
pub type Key = [u8; KEY];
/// Which vault it belongs to.
pub type VaultId = [u8; VAULT];

/// From the keeper: what shall be done, and for which vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Repeated in every answer.
    pub id: u64,
    /// Whose items are meant.
    pub vault: VaultId,
    /// What to do.
    pub order: Order,
}

/// What the keeper may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Is the keychain there and unlocked? Answered by `Done`.
    Ready,
    /// Which records are there? Answered by `Keys` and then `Done`.
    List,
    /// The items of these records, at most [`MAX_KEYS`]. Answered by an `Item` for each that is there, and then `Done`.
    Get(Vec<Key>),
    /// Puts a sealed record in place, over what is there. Answered by `Done`.
    Put(Key, Vec<u8>),
    /// Removes every item of a record; one that is not there is no error. Answered by `Done`.
    Delete(Key),
}

/// From the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The question.
    pub id: u64,
    /// What is told.
    pub report: Report,
}

/// What the broker tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The order is done; nothing more follows.
    Done,
    /// One item. There may be several of one record: the keeper knows which version counts.
    Item(Key, Vec<u8>),
    /// Some of the records that are there, at most [`MAX_KEYS`], each once.
    Keys(Vec<Key>),
    /// The keychain is locked; nothing more follows.
    Locked,
    /// The keychain can't be reached or refuses, for this reason; nothing more follows.
    Failed(String),
}

/// A message that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message between keeper and broker can't be understood")]
pub struct NotUnderstood;

impl Question {
    /// The packet of the question.
    pub fn encode(&self) -> Vec<u8> {
        let head = [self.id.to_le_bytes().as_slice(), &self.vault].concat();
        let (kind, parts): (u8, Vec<&[u8]>) = match &self.order {
            Order::Ready => (1, Vec::new()),
            Order::List => (2, Vec::new()),
            Order::Get(keys) => (3, keys.iter().map(Key::as_slice).collect()),
            Order::Put(key, sealed) => (4, vec![key, sealed]),
            Order::Delete(key) => (5, vec![key]),
        };
        [&[head.as_slice(), &[kind]].concat(), parts.concat().as_slice()].concat()
    }

    /// A question from its packet.
    pub fn decode(packet: &[u8]) -> Result<Self, NotUnderstood> {
        let (id, rest) = number(packet)?;
        let (vault, rest) = rest.split_first_chunk::<VAULT>().ok_or(NotUnderstood)?;
        let (kind, rest) = rest.split_first().ok_or(NotUnderstood)?;
        let order = match kind {
            1 => empty(rest, Order::Ready)?,
            2 => empty(rest, Order::List)?,
            3 => Order::Get(keys(rest)?),
            4 => keyed(rest).map(|(key, sealed)| Order::Put(key, sealed))?,
            5 => Order::Delete(rest.try_into().map_err(|_| NotUnderstood)?),
            _ => return Err(NotUnderstood),
        };
        Ok(Self { id, vault: *vault, order })
    }
}

impl Answer {
    /// The packet of the answer.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, parts): (u8, Vec<&[u8]>) = match &self.report {
            Report::Done => (1, Vec::new()),
            Report::Item(key, sealed) => (2, vec![key, sealed]),
            Report::Keys(keys) => (3, keys.iter().map(Key::as_slice).collect()),
            Report::Locked => (4, Vec::new()),
            Report::Failed(why) => (5, vec![short(why).as_bytes()]),
        };
        [self.id.to_le_bytes().as_slice(), &[kind], parts.concat().as_slice()].concat()
    }

    /// An answer from its packet.
    pub fn decode(packet: &[u8]) -> Result<Self, NotUnderstood> {
        let (id, rest) = number(packet)?;
        let (kind, rest) = rest.split_first().ok_or(NotUnderstood)?;
        let report = match kind {
            1 => empty(rest, Report::Done)?,
            2 => keyed(rest).map(|(key, sealed)| Report::Item(key, sealed))?,
            3 => Report::Keys(keys(rest)?),
            4 => empty(rest, Report::Locked)?,
            5 => {
                let why = str::from_utf8(rest).map_err(|_| NotUnderstood)?;
                if why.len() > MAX_WHY {
                    return Err(NotUnderstood);
                }
                Report::Failed(why.to_owned())
            }
            _ => return Err(NotUnderstood),
        };
        Ok(Self { id, report })
    }
}

fn number(packet: &[u8]) -> Result<(u64, &[u8]), NotUnderstood> {
    if packet.len() > MAX_PACKET {
        return Err(NotUnderstood);
    }
    let (id, rest) = packet.split_first_chunk().ok_or(NotUnderstood)?;
    Ok((u64::from_le_bytes(*id), rest))
}

fn empty<T>(rest: &[u8], message: T) -> Result<T, NotUnderstood> {
    if rest.is_empty() { Ok(message) } else { Err(NotUnderstood) }
}

fn keyed(rest: &[u8]) -> Result<(Key, Vec<u8>), NotUnderstood> {
    let (key, sealed) = rest.split_first_chunk().ok_or(NotUnderstood)?;
    Ok((*key, sealed.to_vec()))
}

fn keys(rest: &[u8]) -> Result<Vec<Key>, NotUnderstood> {
    let (keys, []) = rest.as_chunks::<KEY>() else { return Err(NotUnderstood) };
    if keys.is_empty() || keys.len() > MAX_KEYS { Err(NotUnderstood) } else { Ok(keys.to_vec()) }
}

/// As much of the words as a message takes, whole characters.
fn short(why: &str) -> &str {
    why.get(..why.floor_char_boundary(MAX_WHY)).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order() -> impl Strategy<Value = Order> {
        let key = any::<Key>();
        let sealed = proptest::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            Just(Order::Ready),
            Just(Order::List),
            proptest::collection::vec(key, 1..=MAX_KEYS).prop_map(Order::Get),
            (key, sealed).prop_map(|(key, sealed)| Order::Put(key, sealed)),
            key.prop_map(Order::Delete),
        ]
    }

    fn report() -> impl Strategy<Value = Report> {
        let key = any::<Key>();
        let sealed = proptest::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            Just(Report::Done),
            Just(Report::Locked),
            (key, sealed).prop_map(|(key, sealed)| Report::Item(key, sealed)),
            proptest::collection::vec(key, 1..=MAX_KEYS).prop_map(Report::Keys),
            "\\PC{0,60}".prop_map(|why| Report::Failed(short(&why).to_owned())),
        ]
    }

    proptest! {
        #[test]
        fn what_one_side_says_the_other_understands(id: u64, vault: VaultId, order in order(), report in report()) {
            let question = Question { id, vault, order };
            prop_assert_eq!(Question::decode(&question.encode()), Ok(question));
            let answer = Answer { id, report };
            prop_assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }

        #[test]
        fn any_packet_is_a_message_in_its_one_form_or_none(
            kind in 0_u8..8, keys in 0_usize..70, more in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let rest = [vec![7; keys * KEY], more].concat();
            let packet = [[9; 8 + VAULT].as_slice(), &[kind], &rest].concat();
            if let Ok(question) = Question::decode(&packet) {
                prop_assert_eq!(question.encode(), packet);
            }
            let packet = [[9; 8].as_slice(), &[kind], &rest].concat();
            if let Ok(answer) = Answer::decode(&packet) {
                prop_assert_eq!(answer.encode(), packet);
            }
        }
    }

    #[test]
    fn what_is_too_long_is_refused_or_cut() {
        let long = Question { id: 1, vault: [0; VAULT], order: Order::Put([0; KEY], vec![0; MAX_PACKET]) };
        assert_eq!(Question::decode(&long.encode()), Err(NotUnderstood));
        let why = Answer { id: 1, report: Report::Failed("é".repeat(200)) };
        let Report::Failed(kept) = Answer::decode(&why.encode()).unwrap().report else { return };
        assert_eq!(kept, "é".repeat(100));
    }
}
