//! The packets between keeper and broker: what is a message is so in one form only.

use keychain_auth::broker::{Answer, MAX_KEYS, MAX_PACKET, NotUnderstood, Order, Question, Report};

use super::Seen;

/// A packet for the broker.
pub fn question(packet: &[u8]) -> Seen {
    hold(packet, Question::decode, Question::encode, |question| match &question.order {
        Order::Get(keys) => Some(keys.len()),
        _ => None,
    })
}

/// A packet for the keeper.
pub fn answer(packet: &[u8]) -> Seen {
    hold(packet, Answer::decode, Answer::encode, |answer| match &answer.report {
        Report::Keys(keys) => Some(keys.len()),
        _ => None,
    })
}

fn hold<T>(
    packet: &[u8],
    decode: fn(&[u8]) -> Result<T, NotUnderstood>,
    encode: fn(&T) -> Vec<u8>,
    keys: fn(&T) -> Option<usize>,
) -> Seen {
    let Ok(message) = decode(packet) else { return Seen::Refused };
    assert!(packet.len() <= MAX_PACKET);
    assert_eq!(encode(&message), packet, "two packets mean the same");
    assert!(keys(&message).is_none_or(|count| (1..=MAX_KEYS).contains(&count)));
    Seen::Accepted
}
