//! Remembered "not found"s, for seconds: CI pushes and then pulls, and signatures are asked for all the time.

use std::time::{Duration, Instant};

use crate::oci::{Digest, Reference};
use crate::repository::Key;
use crate::upstream;

use super::Place;

/// What was not found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Missing {
    Manifest(Reference),
    Blob(Digest),
}

pub(super) struct Negative {
    until: moka::sync::Cache<(Key, Missing), Instant>,
}

impl Default for Negative {
    fn default() -> Self {
        Self {
            until: moka::sync::Cache::new(100_000),
        }
    }
}

impl Negative {
    /// Whether it was not there a moment ago.
    pub(super) fn knows(&self, place: &Place, what: Missing) -> bool {
        self.until
            .get(&(place.key.clone(), what))
            .is_some_and(|until| Instant::now() < until)
    }

    /// How long "not there" is still believed.
    pub(super) fn left(&self, place: &Place, what: Missing) -> Option<Duration> {
        let until = self.until.get(&(place.key.clone(), what))?;
        until.checked_duration_since(Instant::now())
    }

    /// Forgets that it was not there.
    pub(super) fn forget(&self, place: &Place, what: Missing) {
        self.until.invalidate(&(place.key.clone(), what));
    }

    /// Remembers that it is not there, if that is what the upstream said. Refusals may pass: somebody is let in, or a
    /// token service recovers.
    pub(super) fn learn(&self, place: &Place, what: Missing, error: &upstream::Error) {
        if *error.kind() == upstream::ErrorKind::NotFound {
            let until = Instant::now() + place.freshness().negative_ttl;
            self.until.insert((place.key.clone(), what), until);
        }
    }
}
