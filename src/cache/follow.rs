//! Following a tag that moved to another index: the platforms that clients pulled of the old one come along before the tag
//! points at the new one. Else a limit or a failure between the two would leave an index here without the manifest that
//! a client asks for next, where a moment ago there was a whole image. Called by `revalidate`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::clock::Timestamp;
use crate::oci::{Digest, Manifest, Platform, Reference};
use crate::repository::StoredManifest;

use super::error::Error;
use super::{Place, Shared};

/// How lately a platform was pulled that comes along: weekly jobs count. Each costs a pull that its clients would mostly
/// cause anyhow.
const IN_USE: Duration = Duration::from_hours(8 * 24);

impl Shared {
    /// Fetches those platforms of the index `new` that were lately pulled of `old`, unless they are here.
    ///
    /// # Errors
    /// The upstream cannot give one of them now. What it does not have at all is no error.
    pub(super) async fn bring_platforms(
        self: &Arc<Self>,
        place: &Place,
        old: &Digest,
        new: &StoredManifest,
    ) -> Result<(), Error> {
        let Some(old) = self.kept_manifest(place, old).await? else {
            return Ok(());
        };
        let after = platforms(new);
        let mut wanted = Vec::new();
        for (platform, was) in platforms(&old) {
            let Some((_, is)) = after.iter().find(|(other, _)| *other == platform) else {
                continue;
            };
            if self.kept_manifest(place, is).await?.is_none() && self.was_pulled(place, &was).await? {
                wanted.push(*is);
            }
        }
        let fetches = wanted.iter().map(|digest| self.fetch_digest(place, digest));
        let failed = join_all(fetches).await.into_iter().find_map(Result::err);
        failed.filter(|error| error.allows_stale).map_or(Ok(()), Err)
    }

    async fn was_pulled(&self, place: &Place, digest: &Digest) -> Result<bool, Error> {
        let last = self.last_pulled(place, &Reference::Digest(*digest)).await?;
        Ok(last.is_some_and(|at| Timestamp::now().since(at) < IN_USE))
    }
}

/// The images in an index for platforms that clients choose by; attestations are of none.
fn platforms(manifest: &StoredManifest) -> Vec<(Platform, Digest)> {
    let Ok(outline) = Manifest::parse(&manifest.bytes, Some(&manifest.media_type)) else {
        return Vec::new();
    };
    let chosen = outline.manifests.into_iter().filter_map(|entry| {
        let platform = entry.platform.filter(|platform| platform.os != "unknown")?;
        Some((platform, entry.digest.parse().ok()?))
    });
    chosen.collect()
}
