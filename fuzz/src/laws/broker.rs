//! The packets between keeper and broker: what is a message is so in one form only.

use keychain_auth::broker::{Answer, MAX_KEYS, MAX_PACKET, Order, Question, Report};

use super::Seen;

/// A packet for the broker.
pub fn question(packet: &[u8]) -> Seen {
    let Ok(question) = Question::decode(packet) else { return Seen::Refused };
    assert!(packet.len() <= MAX_PACKET);
    assert_eq!(question.encode(), packet, "two packets mean the same");
    if let Order::Get(keys) = &question.order {
        assert!((1..=MAX_KEYS).contains(&keys.len()));
    }
    Seen::Accepted
}

/// A packet for the keeper.
pub fn answer(packet: &[u8]) -> Seen {
    let Ok(answer) = Answer::decode(packet) else { return Seen::Refused };
    assert!(packet.len() <= MAX_PACKET);
    assert_eq!(answer.encode(), packet, "two packets mean the same");
    if let Report::Keys(keys) = &answer.report {
        assert!((1..=MAX_KEYS).contains(&keys.len()));
    }
    Seen::Accepted
}
