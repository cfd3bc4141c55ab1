//! Remembered "not found"s, for seconds: CI pushes and then pulls, and signatures are asked for all the time.

use std::time::{Duration, Instant};

use crate::oci::{Digest, Reference};
use crate::repository::Key;
use crate::upstream;

use super::Place;
use super::error::{Error, ErrorKind};

/// What was not found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Missing {
    Manifest(Reference),
    Blob(Digest),
    /// The repository's list of tags, and so the repository.
    Tags,
}

pub(super) struct Negative {
    until: moka::sync::Cache<(Key, Missing), (Instant, ErrorKind)>,
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
        self.kind(place, what).is_some()
    }

    /// How long "not there" is still believed.
    pub(super) fn left(&self, place: &Place, what: Missing) -> Option<Duration> {
        let (until, _) = self.until.get(&(place.key.clone(), what))?;
        until.checked_duration_since(Instant::now())
    }

    /// Forgets that it was not there.
    pub(super) fn forget(&self, place: &Place, what: Missing) {
        self.until.invalidate(&(place.key.clone(), what));
    }

    /// Fails if it was not there a moment ago.
    pub(super) fn check(&self, place: &Place, what: Missing) -> Result<(), Error> {
        match self.kind(place, what) {
            Some(kind) => Err(Error::remembered(kind, "not found at the upstream a moment ago")),
            None => Ok(()),
        }
    }

    fn kind(&self, place: &Place, what: Missing) -> Option<ErrorKind> {
        let (until, kind) = self.until.get(&(place.key.clone(), what))?;
        (Instant::now() < until).then_some(kind)
    }

    /// Remembers that it is not there, if that is what the upstream clearly said. Refusals may pass: somebody is let
    /// in, or a token service recovers.
    pub(super) fn learn(&self, place: &Place, what: Missing, error: &upstream::Error) {
        let kind = match (error.kind(), &what) {
            (upstream::ErrorKind::Absent, _) | (upstream::ErrorKind::NotFound, Missing::Tags) => {
                ErrorKind::NameUnknown
            }
            (upstream::ErrorKind::NotFound, Missing::Manifest(_)) => ErrorKind::ManifestUnknown,
            (upstream::ErrorKind::NotFound, Missing::Blob(_)) => ErrorKind::BlobUnknown,
            _ => return,
        };
        let settings = match &what {
            Missing::Manifest(Reference::Tag(tag)) => place.freshness_of(tag),
            _ => place.freshness(),
        };
        let until = Instant::now() + settings.negative_ttl;
        self.until.insert((place.key.clone(), what), (until, kind));
    }
}
