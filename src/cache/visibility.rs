//! Content that only our own credential can read is private: given to callers without one only where the
//! configuration says `share_private`.
//!
//! So, at an upstream with credentials, the first pull from a repository asks anonymously as well (a HEAD, which costs
//! no pull), and what an anonymous caller could not read is answered like what does not exist.

use std::time::Duration;

use crate::oci::{Digest, Reference};
use crate::repository::Key;
use crate::upstream::{self, Access};

use super::error::{Error, ErrorKind};
use super::negative::Missing;
use super::{Cache, Place, Shared};

/// How long "an anonymous caller can read it" holds.
const HOLDS: Duration = Duration::from_mins(5);

/// Repositories known to be public.
pub(super) struct Visibility {
    public: moka::sync::Cache<Key, ()>,
}

impl Default for Visibility {
    fn default() -> Self {
        Self {
            public: moka::sync::Cache::builder()
                .max_capacity(100_000)
                .time_to_live(HOLDS)
                .build(),
        }
    }
}

fn is_open(place: &Place) -> bool {
    let config = place.upstream.config();
    config.credentials.is_none() || config.share_private
}

/// How lists are asked for, so that they tell nothing that an anonymous caller could not learn.
pub(super) fn list_access(place: &Place) -> Access {
    if is_open(place) {
        Access::Configured
    } else {
        Access::Anonymous
    }
}

/// Whether the upstream refuses an anonymous caller, rather than not having what was asked for.
fn is_refused(error: &upstream::Error) -> bool {
    error.is_not_found() && *error.kind() != upstream::ErrorKind::NotFound
}

fn hidden(place: &Place) -> Error {
    tracing::warn!(
        upstream = place.upstream.prefix(),
        repository = &*place.key,
        "not readable without credentials, so not served: set share_private = true for this upstream to give what its \
         credentials can read to every caller"
    );
    let prefix = place.upstream.prefix();
    Error::upstream(
        ErrorKind::NameUnknown,
        place,
        format!("repository unknown to upstream {prefix}, or not available to it"),
    )
}

impl Shared {
    /// Refuses a manifest that only our credential could read.
    pub(super) async fn visible_manifest(&self, place: &Place, reference: &Reference) -> Result<(), Error> {
        if is_open(place) || self.visibility.public.contains_key(&place.key) {
            return Ok(());
        }
        match place
            .upstream
            .manifest_head(&place.name, reference, Access::Anonymous)
            .await
        {
            Ok(_) => {
                self.visibility.public.insert(place.key.clone(), ());
                Ok(())
            }
            Err(error) if is_refused(&error) => Err(hidden(place)),
            // No HEAD here: only GET can tell.
            Err(error) if *error.kind() == upstream::ErrorKind::HeadRefused => {
                let got = place
                    .upstream
                    .manifest(&place.name, reference, Access::Anonymous)
                    .await;
                match got {
                    Ok(_) => {
                        self.visibility.public.insert(place.key.clone(), ());
                        Ok(())
                    }
                    Err(error) if is_refused(&error) => Err(hidden(place)),
                    Err(error) => Err(Error::of_upstream(place, &error, ErrorKind::ManifestUnknown)),
                }
            }
            Err(error) => {
                let what = Missing::Manifest(reference.clone());
                self.negative.learn(place, what, &error);
                Err(Error::of_upstream(place, &error, ErrorKind::ManifestUnknown))
            }
        }
    }
}

impl Cache {
    /// Refuses a blob of a repository that is not known to be public: without a manifest there is nothing that could
    /// be asked for free.
    pub(super) async fn visible_blob(&self, place: &Place, digest: &Digest) -> Result<(), Error> {
        if is_open(place) || self.shared.visibility.public.contains_key(&place.key) {
            return Ok(());
        }
        match place
            .upstream
            .blob_probe(&place.name, digest, Access::Anonymous)
            .await
        {
            Ok(_) => {
                self.shared.visibility.public.insert(place.key.clone(), ());
                Ok(())
            }
            Err(error) if is_refused(&error) => Err(hidden(place)),
            Err(error) => {
                self.shared.negative.learn(place, Missing::Blob(*digest), &error);
                Err(Error::of_upstream(place, &error, ErrorKind::BlobUnknown))
            }
        }
    }
}
