//! Content digests: `sha256:<64 hex>` and `sha512:<128 hex>`, compared as bytes.
//!
//! Image spec, descriptor.md#digests. Other registered algorithms are well-formed but unsupported, which is
//! told apart from malformed so that a client reads the right reason.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// A digest algorithm that this registry verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, which every client uses.
    Sha256,
    /// SHA-512, the spec's other registered algorithm.
    Sha512,
}

impl Algorithm {
    /// The name as written before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the hash in bytes.
    pub fn hash_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

/// A verified-in-form digest: an algorithm and its hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    // The unused tail is zero for SHA-256, so that derived comparison is right.
    bytes: [u8; 64],
}

/// Why a string is no digest that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not of the form `algorithm:encoded`, or the hash has the wrong length or alphabet.
    #[error("malformed digest: expected sha256:<64 lower-case hex digits> or sha512:<128>")]
    Malformed,
    /// Well-formed, but of an algorithm other than sha256 and sha512.
    #[error("unsupported digest algorithm: only sha256 and sha512 are supported")]
    Unsupported,
}

impl Digest {
    /// Makes a digest of a finished hash; `None` when its length is not the algorithm's.
    pub fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Option<Self> {
        if hash.len() != algorithm.hash_len() {
            return None;
        }
        let mut bytes = [0; 64];
        bytes[..hash.len()].copy_from_slice(hash);
        Some(Self { algorithm, bytes })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash: 32 or 64 bytes.
    pub fn hash(&self) -> &[u8] {
        &self.bytes[..self.algorithm.hash_len()]
    }

    /// Gives `algorithm:hex` to `reader`, without an allocation or a formatter: each answer has it.
    pub fn with_text<R>(&self, reader: impl FnOnce(&str) -> R) -> R {
        let name = self.algorithm.name().as_bytes();
        let mut text = [b':'; 7 + 128];
        text[..name.len()].copy_from_slice(name);
        let length = name.len() + 1 + self.hash().len() * 2;
        // The rest has twice the hash's length, which is all that can go wrong.
        let _ = hex::encode_to_slice(self.hash(), &mut text[name.len() + 1..length]);
        reader(std::str::from_utf8(&text[..length]).unwrap_or_default())
    }

    /// The hash in lower-case hex, as in file names and fallback tags.
    pub fn hex(&self) -> String {
        hex::encode(self.hash())
    }

    /// A compact key for the index: one byte for the algorithm, then the hash.
    pub fn to_key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + self.algorithm.hash_len());
        key.push(match self.algorithm {
            Algorithm::Sha256 => 1,
            Algorithm::Sha512 => 2,
        });
        key.extend_from_slice(self.hash());
        key
    }

    /// Reads back [`Digest::to_key`].
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let (first, hash) = key.split_first()?;
        let algorithm = match first {
            1 => Algorithm::Sha256,
            2 => Algorithm::Sha512,
            _ => return None,
        };
        Self::from_hash(algorithm, hash)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, encoded) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let Some(algorithm) = Algorithm::from_name(name) else {
            return Err(if well_formed(name, encoded) {
                DigestError::Unsupported
            } else {
                DigestError::Malformed
            });
        };
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if encoded.len() != algorithm.hash_len() * 2 || !encoded.bytes().all(lower_hex) {
            return Err(DigestError::Malformed);
        }
        let mut bytes = [0; 64];
        hex::decode_to_slice(encoded, &mut bytes[..algorithm.hash_len()])
            .map_err(|_| DigestError::Malformed)?;
        Ok(Self { algorithm, bytes })
    }
}

/// The grammar `[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+` of descriptor.md.
fn well_formed(algorithm: &str, encoded: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let components = algorithm
        .split(['+', '.', '_', '-'])
        .all(|c| !c.is_empty() && c.bytes().all(alnum));
    let body = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-');
    components && !encoded.is_empty() && encoded.bytes().all(body)
}

impl Hash for Digest {
    /// Without the unused tail, and without the algorithm, which the length tells.
    fn hash<H: Hasher>(&self, state: &mut H) {
        Digest::hash(self).hash(state);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn display_and_key_round_trip(hash in proptest::collection::vec(any::<u8>(), 64), long in any::<bool>()) {
            let digest = if long {
                Digest::from_hash(Algorithm::Sha512, &hash)
            } else {
                Digest::from_hash(Algorithm::Sha256, &hash[..32])
            }.unwrap();
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
            prop_assert_eq!(Digest::from_key(&digest.to_key()).unwrap(), digest);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            let _ = text.parse::<Digest>();
        }
    }

    #[test]
    fn malformed_and_unsupported_are_told_apart() {
        let cases = [
            ("sha256:baddigeststring", DigestError::Malformed),
            ("sha256", DigestError::Malformed),
            (":", DigestError::Malformed),
            ("sha256:", DigestError::Malformed),
            ("blake3:abcdef", DigestError::Unsupported),
            ("a+b.c_d-e:A=_-", DigestError::Unsupported),
            ("a++b:abc", DigestError::Malformed),
            ("md5:../../etc", DigestError::Malformed),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Digest>(), Err(expected), "{text}");
        }
        let upper = format!("sha256:{}", "A".repeat(64));
        assert_eq!(upper.parse::<Digest>(), Err(DigestError::Malformed));
    }
}
