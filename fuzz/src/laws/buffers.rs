//! Buffers for secrets: whatever grows, shrinks and goes beside it, a buffer holds its own bytes and no one else's.
//!
//! The input is words of a buffer (`a` to `h`), a verb and a length: `a+100` adds bytes, `a-10` truncates, `a0100` makes
//! it anew of zeros, `a.` gives it up.

use keychain_auth::secret::Buffer;

use super::Seen;

/// More than the slab that the buffers share, so that some get pages of their own.
const LONGEST: usize = 5 << 20;
/// Most bytes that one input moves, so that it ends soon.
const BUDGET: usize = 16 << 20;

/// Each buffer holds what its model holds, after every word.
pub fn hold(bytes: &[u8]) -> Seen {
    let mut buffers: [(Buffer, Vec<u8>); 8] = Default::default();
    let (mut all, mut budget) = (true, BUDGET);
    for (word, fill) in
        bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).zip((1..=u8::MAX).cycle())
    {
        let Some((which, verb, length)) = read(word) else {
            all = false;
            continue;
        };
        let moved = length + buffers.iter().map(|(buffer, _)| buffer.len()).sum::<usize>();
        if moved > budget {
            break;
        }
        budget -= moved;
        let (buffer, model) = &mut buffers[which];
        match verb {
            b'+' => {
                let more = vec![fill; length];
                buffer.extend_from_slice(&more);
                model.extend_from_slice(&more);
            }
            b'-' => {
                buffer.truncate(length);
                model.truncate(length);
            }
            b'0' => {
                *buffer = Buffer::zeroed(length);
                *model = vec![0; length];
            }
            _ => (*buffer, *model) = Default::default(),
        }
        for (buffer, model) in &mut buffers {
            assert_eq!((buffer.len(), buffer.is_empty()), (model.len(), model.is_empty()));
            assert!(buffer.as_slice() == model, "a buffer holds other bytes than its own");
            assert!(buffer.as_mut_slice() == model);
        }
    }
    Seen::when(all)
}

fn read(word: &[u8]) -> Option<(usize, u8, usize)> {
    let (which, verb, digits) = match word {
        [which @ b'a'..=b'h', verb @ (b'+' | b'-' | b'0'), digits @ ..] => (which, verb, digits),
        [which @ b'a'..=b'h', b'.'] => return Some((usize::from(which - b'a'), b'.', 0)),
        _ => return None,
    };
    let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((usize::from(which - b'a'), *verb, length.min(LONGEST)))
}
