//! Hashing as bytes arrive, by the digest's own algorithm. Called by [`super::Ingest`] and by `cache` for manifests.

use sha2::{Digest as _, Sha256, Sha512};

use crate::oci::{Algorithm, Digest};

/// A running hash.
pub struct Hasher(State);

enum State {
    Sha256(Box<Sha256>),
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// Starts at the empty input.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Box::default()),
            Algorithm::Sha512 => State::Sha512(Box::default()),
        })
    }

    /// Takes more input.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hasher) => hasher.update(bytes),
            State::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all input.
    pub fn finish(self) -> Digest {
        let digest = match self.0 {
            State::Sha256(hasher) => Digest::from_hash(Algorithm::Sha256, &hasher.finalize()),
            State::Sha512(hasher) => Digest::from_hash(Algorithm::Sha512, &hasher.finalize()),
        };
        #[expect(clippy::expect_used, reason = "each algorithm's output has its own length")]
        digest.expect("a hash of the algorithm's length")
    }

    /// The digest of `bytes`.
    pub fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Self::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Hasher::digest(Algorithm::Sha256, b"").to_string(), empty);
        let abc = Hasher::digest(Algorithm::Sha512, b"abc").to_string();
        assert!(
            abc.starts_with("sha512:ddaf35a193617abacc417349ae204131"),
            "{abc}"
        );
    }
}
