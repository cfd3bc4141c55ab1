//! Following a tag that moved to another index: the platforms that clients pulled of the old one come along before the tag
//! points at the new one, and their blobs behind it. Else a limit or a failure would leave an index here without what a
//! client asks for next, where a moment ago there was a whole image. Called by `revalidate`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::clock::Timestamp;
use crate::oci::{Digest, Manifest, Platform, Reference};
use crate::repository::StoredManifest;

use super::error::Error;
use super::{Cache, Place, Shared};

/// How lately a platform was pulled whose manifest comes along: weekly jobs count. It costs a pull that its clients would
/// mostly cause anyhow.
const IN_USE: Duration = Duration::from_hours(8 * 24);

/// The same for blobs, which cost bandwidth and room: nightly jobs count.
const BLOBS_IN_USE: Duration = Duration::from_hours(2 * 24);

/// A platform that clients pulled of the old index, and that the new one has too.
pub(super) struct InUse {
    was: Arc<StoredManifest>,
    is: Digest,
    /// How long ago it was pulled last.
    ago: Duration,
}

impl Shared {
    /// The platforms of the index `new` that were lately pulled of `old`.
    pub(super) async fn platforms_in_use(
        &self,
        place: &Place,
        old: &Digest,
        new: &StoredManifest,
    ) -> Result<Vec<InUse>, Error> {
        let mut in_use = Vec::new();
        let Some(old) = self.kept_manifest(place, old).await? else {
            return Ok(in_use);
        };
        let (now, after) = (Timestamp::now(), platforms(new));
        for (platform, was) in platforms(&old) {
            let Some((_, is)) = after.iter().find(|(other, _)| *other == platform) else {
                continue;
            };
            let Some(last) = self.last_pulled(place, &Reference::Digest(was)).await? else {
                continue;
            };
            let ago = now.since(last);
            if ago < IN_USE
                && let Some(was) = self.kept_manifest(place, &was).await?
            {
                in_use.push(InUse { was, is: *is, ago });
            }
        }
        Ok(in_use)
    }

    /// Fetches the manifests of these platforms, unless they are here.
    ///
    /// # Errors
    /// The upstream cannot give one of them now. What it does not have at all is no error.
    pub(super) async fn bring_manifests(
        self: &Arc<Self>,
        place: &Place,
        in_use: &[InUse],
    ) -> Result<(), Error> {
        let mut wanted = Vec::new();
        for platform in in_use {
            if self.kept_manifest(place, &platform.is).await?.is_none() {
                wanted.push(platform.is);
            }
        }
        let fetches = wanted.iter().map(|digest| self.fetch_digest(place, digest));
        let failed = join_all(fetches).await.into_iter().find_map(Result::err);
        failed.filter(|error| error.allows_stale).map_or(Ok(()), Err)
    }

    /// Fetches their blobs while nobody waits, if those of the old images are here.
    pub(super) fn bring_blobs(self: &Arc<Self>, place: &Place, in_use: Vec<InUse>) {
        if in_use.is_empty() || !place.upstream.config().follow_blobs {
            return;
        }
        let (shared, place) = (self.clone(), place.clone().in_background());
        tokio::spawn(async move {
            for platform in in_use.iter().filter(|platform| platform.ago < BLOBS_IN_USE) {
                if let Err(error) = shared.follow_blobs(&place, platform).await {
                    let (repository, manifest) = (&*place.key, platform.is);
                    tracing::debug!(repository, %manifest, %error, "blobs of a tag that moved do not come along");
                    return;
                }
            }
        });
    }

    async fn follow_blobs(self: &Arc<Self>, place: &Place, platform: &InUse) -> Result<(), Error> {
        for digest in blobs(&platform.was) {
            let arriving = self.fills.get(&digest).is_some();
            if !arriving && self.storage.blobs.open(&digest).await?.is_none() {
                return Ok(());
            }
        }
        let Some(image) = self.kept_manifest(place, &platform.is).await? else {
            return Ok(());
        };
        let cache = Cache { shared: self.clone() };
        for digest in blobs(&image) {
            // A drain waits for what began before it.
            if self.tasks.is_closed() || !cache.fetch_blob(&digest, place).await? {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn outline(manifest: &StoredManifest) -> Option<Manifest> {
    Manifest::parse(&manifest.bytes, Some(&manifest.media_type)).ok()
}

/// The images in an index for platforms that clients choose by; attestations are of none.
fn platforms(manifest: &StoredManifest) -> Vec<(Platform, Digest)> {
    let entries = outline(manifest).map_or_else(Vec::new, |outline| outline.manifests);
    let chosen = entries.into_iter().filter_map(|entry| {
        let platform = entry.platform.filter(|platform| platform.os != "unknown")?;
        Some((platform, entry.digest.parse().ok()?))
    });
    chosen.collect()
}

/// Config and layers, but for those that clients have from elsewhere.
fn blobs(manifest: &StoredManifest) -> Vec<Digest> {
    let named = outline(manifest).map_or_else(Vec::new, |outline| outline.blobs);
    let ours = named.into_iter().filter(|blob| blob.urls.is_empty());
    ours.filter_map(|blob| blob.digest.parse().ok()).collect()
}
