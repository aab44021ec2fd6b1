//! The kernel's answer about a socket: an answer about another socket, or a part of one, names nobody.

use keychain_auth::witness::peer_in;

use super::Seen;

/// The input is the inode number that was asked about, four bytes, and the reply.
pub fn hold(bytes: &[u8]) -> Seen {
    let Some((inode, reply)) = bytes.split_first_chunk() else { return Seen::Refused };
    let inode = u32::from_ne_bytes(*inode);
    let peer = peer_in(reply, inode);
    assert_eq!(peer_in(reply, inode.wrapping_add(1)).and(peer), None, "one reply answers for two sockets");
    let told = reply.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length) as usize);
    if let Some(peer) = peer {
        assert!(told <= reply.len(), "a reply that was cut names somebody");
        assert!(
            reply[..told].windows(4).any(|word| word == peer.to_ne_bytes()),
            "the peer is not in the reply"
        );
        for end in 0..told {
            assert_eq!(peer_in(&reply[..end], inode), None, "a reply that was cut names somebody");
        }
    }
    let more = [reply, &[0xff; 16]].concat();
    if told <= reply.len() {
        assert_eq!(peer_in(&more, inode), peer, "bytes behind the reply decide");
    }
    Seen::when(peer.is_some())
}
