//! Hashing as bytes arrive, by the digest's own algorithm. Called by [`super::Ingest`] and by `cache` for manifests.

use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256, Sha512};

use crate::oci::{Algorithm, Digest};

/// A running hash.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
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

    /// Its state, to go on from in another process: [`Hasher::restore`].
    pub(super) fn save(&self) -> String {
        match &self.0 {
            State::Sha256(hasher) => hex::encode(hasher.serialize()),
            State::Sha512(hasher) => hex::encode(hasher.serialize()),
        }
    }

    /// Goes on from a saved state; `None` when it is none.
    pub(super) fn restore(algorithm: Algorithm, saved: &str) -> Option<Self> {
        fn state<H: SerializableState>(saved: &str) -> Option<Box<H>> {
            let bytes = hex::decode(saved).ok()?;
            let state = SerializedState::<H>::try_from(bytes.as_slice()).ok()?;
            H::deserialize(&state).ok().map(Box::new)
        }
        Some(Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(state(saved)?),
            Algorithm::Sha512 => State::Sha512(state(saved)?),
        }))
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
    fn a_restored_state_goes_on() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for split in [0, 1, 64, 200, 256] {
                let bytes = [7; 256];
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&bytes[..split]);
                let mut restored = Hasher::restore(algorithm, &hasher.save()).unwrap();
                restored.update(&bytes[split..]);
                assert_eq!(restored.finish(), Hasher::digest(algorithm, &bytes));
            }
            for nonsense in ["", "zz", "00"] {
                assert!(Hasher::restore(algorithm, nonsense).is_none());
            }
        }
    }

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
