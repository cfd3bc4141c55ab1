//! The keys of the index, and how they are taken apart again.
//!
//! A digest's key says its own length in its first byte, so digests can stand in front of anything.

use crate::clock::Timestamp;
use crate::oci::{Digest, Reference, Tag};

use super::records::UnitKey;

/// What the keys of hosted repositories begin with. No upstream's prefix and no name has a colon.
pub const HOSTED: &str = "hosted:";

/// Whether a repository is hosted, by its key.
pub fn is_hosted(repository: &str) -> bool {
    repository.starts_with(HOSTED)
}

/// `repository NUL tag`: NUL occurs in no name, so one repository's tags are one range.
pub(super) fn tag_key(repository: &str, tag: &str) -> Vec<u8> {
    [repository.as_bytes(), b"\0", tag.as_bytes()].concat()
}

/// Reads back [`tag_key`].
pub(super) fn split_tag(key: &[u8]) -> Option<(String, Tag)> {
    let (repository, tag) = std::str::from_utf8(key).ok()?.split_once('\0')?;
    Some((repository.to_owned(), tag.parse().ok()?))
}

/// `repository NUL tag or digest, as text`.
pub(super) fn use_key(repository: &str, reference: &Reference) -> Vec<u8> {
    tag_key(repository, &reference.to_string())
}

/// Reads back [`use_key`].
pub(super) fn split_use(key: &[u8]) -> Option<(String, Reference)> {
    let (repository, reference) = std::str::from_utf8(key).ok()?.split_once('\0')?;
    Some((repository.to_owned(), reference.parse().ok()?))
}

/// `repository NUL digest`.
pub(super) fn content_key(repository: &str, digest: &Digest) -> Vec<u8> {
    [repository.as_bytes(), b"\0", &digest.to_key()].concat()
}

/// Reads back [`content_key`].
pub(super) fn split_content(key: &[u8]) -> Option<(String, Digest)> {
    let end = key.iter().position(|&byte| byte == 0)?;
    let repository = std::str::from_utf8(&key[..end]).ok()?.to_owned();
    Some((repository, Digest::from_key(&key[end + 1..])?))
}

/// A digest in front of something else.
pub(super) fn with_digest(digest: &Digest, rest: &[u8]) -> Vec<u8> {
    let mut key = digest.to_key();
    key.extend_from_slice(rest);
    key
}

/// Digests, one after the other.
pub(super) fn digests_key(digests: &[Digest]) -> Vec<u8> {
    digests.iter().flat_map(Digest::to_key).collect()
}

/// Reads back [`digests_key`], up to what is no digest.
pub(super) fn split_digests(mut key: &[u8]) -> Vec<Digest> {
    let mut digests = Vec::new();
    while let Some((digest, rest)) = split_digest(key) {
        digests.push(digest);
        key = rest;
    }
    digests
}

/// The digest in front, and what follows it.
pub(super) fn split_digest(key: &[u8]) -> Option<(Digest, &[u8])> {
    let length = match key.first()? {
        1 => 33,
        _ => 65,
    };
    let (digest, rest) = key.split_at_checked(length)?;
    Some((Digest::from_key(digest)?, rest))
}

/// The place of a unit in its class.
pub(super) fn order_key(unit: &UnitKey) -> Vec<u8> {
    let mut key = vec![unit.class];
    key.extend_from_slice(&unit.last_used.0.to_be_bytes());
    key.extend_from_slice(&unit.digest.to_key());
    key
}

/// Reads back [`order_key`].
pub(super) fn split_order(key: &[u8]) -> Option<UnitKey> {
    let (&class, rest) = key.split_first()?;
    let (last_used, digest) = rest.split_first_chunk::<8>()?;
    Some(UnitKey {
        class,
        last_used: Timestamp(u64::from_be_bytes(*last_used)),
        digest: Digest::from_key(digest)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn keys_are_read_back() {
        let short = Digest::from_hash(Algorithm::Sha256, &[2; 32]).unwrap();
        let long = Digest::from_hash(Algorithm::Sha512, &[0; 64]).unwrap();
        let digests = vec![short, long, short];
        assert_eq!(split_digests(&digests_key(&digests)), digests);
        for digest in [short, long] {
            let key = content_key("hub/a", &digest);
            assert_eq!(split_content(&key), Some(("hub/a".to_owned(), digest)));
            let unit = UnitKey {
                class: 3,
                last_used: Timestamp(77),
                digest,
            };
            assert_eq!(split_order(&order_key(&unit)), Some(unit));
            let key = with_digest(&digest, b"rest");
            assert_eq!(split_digest(&key), Some((digest, &b"rest"[..])));
        }
        let tag: Tag = "v1".parse().unwrap();
        assert_eq!(
            split_tag(&tag_key("hub/a", "v1")),
            Some(("hub/a".to_owned(), tag))
        );
        for reference in [Reference::Tag("v1".parse().unwrap()), Reference::Digest(long)] {
            let key = use_key("hub/a", &reference);
            assert_eq!(split_use(&key), Some(("hub/a".to_owned(), reference)));
        }
        assert_eq!(split_tag(b"no separator"), None);
        assert_eq!(split_digest(b""), None);
        assert_eq!(split_digest(&[1; 5]), None);
    }
}
