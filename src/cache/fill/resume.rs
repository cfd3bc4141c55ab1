//! After a start: fills that an earlier process had to leave go on, where `finish_fill` wants it.

use std::sync::Arc;

use crate::cache::{Cache, Places};

use super::lead_or_join;

impl Cache {
    /// Goes on with interrupted fills, one after the other. Returns when all have ended.
    pub async fn resume_interrupted(&self, places: &Places) {
        let shared: &Arc<_> = &self.shared;
        for partial in shared.storage.blobs.interrupted() {
            let Some(place) = places.find(&partial.repository) else {
                continue;
            };
            if shared.stop.is_cancelled() {
                return;
            }
            let rule = place.upstream.config().finish_fill;
            if rule.goes_on(partial.present, partial.size) {
                let (fill, _) = lead_or_join(shared, &place.in_background(), partial.digest, partial.size);
                fill.gone().await;
            }
        }
    }
}
