//! Ids of requests: what the answer, the log and an error's body have in common. Never taken from a client.

use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

/// Crockford's base 32: no letters that are read as digits.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters for the process, and for the request within it.
const HALF: usize = 8;

/// Gives ids: one half is drawn at random for the process, the other counts.
pub(super) struct RequestIds {
    process: u64,
    next: AtomicU64,
}

/// One id: 16 characters.
#[derive(Clone, Copy)]
pub(super) struct RequestId([u8; 2 * HALF]);

impl RequestIds {
    pub(super) fn new() -> Self {
        Self {
            process: fastrand::u64(..),
            next: AtomicU64::new(0),
        }
    }

    pub(super) fn next(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 2 * HALF];
        for (at, character) in id.iter_mut().enumerate() {
            let (half, place) = if at < HALF {
                (self.process, at)
            } else {
                (count, at - HALF)
            };
            let bits = half >> (5 * (HALF - 1 - place));
            *character = ALPHABET[(bits % 32) as usize];
        }
        RequestId(id)
    }
}

impl RequestId {
    pub(super) fn as_str(&self) -> &str {
        // All from the alphabet.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(super) fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_share_their_head() {
        let ids = RequestIds::new();
        let (first, second) = (ids.next(), ids.next());
        assert_eq!(first.as_str()[..HALF], second.as_str()[..HALF]);
        assert_eq!(&first.as_str()[HALF..], "00000000");
        assert_eq!(&second.as_str()[HALF..], "00000001");
        assert_eq!(second.header(), second.as_str());
    }
}
