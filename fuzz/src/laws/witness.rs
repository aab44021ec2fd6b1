//! The words between keeper and witness: what one side understood, it can say, and the other understands the same.

use std::fmt::Debug;

use keychain_auth::witness::{MAX_MESSAGE, ProtocolError, decode_answer, decode_question, encode};
use serde::Serialize;

use super::Seen;

/// A packet for the witness.
pub fn question(packet: &[u8]) -> Seen {
    hold(packet, decode_question)
}

/// A packet for the keeper.
pub fn answer(packet: &[u8]) -> Seen {
    hold(packet, decode_answer)
}

fn hold<T: Serialize + PartialEq + Debug>(
    packet: &[u8],
    decode: fn(&[u8]) -> Result<T, ProtocolError>,
) -> Seen {
    let too_long = [packet, &vec![b' '; MAX_MESSAGE + 1]].concat();
    assert_eq!(decode(&too_long).err(), Some(ProtocolError::TooLong), "length is looked at first");
    let message = match decode(packet) {
        Ok(message) => message,
        Err(error) => {
            let expected = match error {
                ProtocolError::TooLong => {
                    format!("a message between keeper and witness is over {MAX_MESSAGE} bytes")
                }
                ProtocolError::NotUnderstood(at) => {
                    assert!(at <= packet.len() + 1, "an error is outside of the packet");
                    format!("a message between keeper and witness can't be understood (byte {at})")
                }
            };
            assert_eq!(error.to_string(), expected, "an error says a place and nothing of the packet");
            return Seen::Refused;
        }
    };
    match encode(&message) {
        Ok(again) => {
            assert!(again.len() <= MAX_MESSAGE);
            assert_eq!(decode(&again), Ok(message), "what is understood can be said");
        }
        // members that may be left out are written, so that a packet close to the limit can grow over it
        Err(error) => assert_eq!(error, ProtocolError::TooLong),
    }
    Seen::Accepted
}
