//! Room for what comes: what nobody needs goes first.

use std::sync::Arc;

use super::Shared;

impl Shared {
    /// Tries to free `bytes`; says whether it did.
    pub(super) async fn make_room(self: &Arc<Self>, bytes: u64) -> bool {
        let shared = self.clone();
        let discard = move || {
            let mut freed = 0;
            for partial in shared.storage.blobs.interrupted() {
                if freed >= bytes {
                    break;
                }
                freed += shared.storage.blobs.discard_partial(&partial.digest).unwrap_or(0);
            }
            freed
        };
        tokio::task::spawn_blocking(discard)
            .await
            .is_ok_and(|freed| freed >= bytes)
    }
}
