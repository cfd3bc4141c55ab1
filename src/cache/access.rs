//! When what is here was last used: noted in memory, and brought to the index in batches. A read never writes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{LastUse, Timestamp};
use crate::oci::Digest;
use crate::storage::Change;

use super::{Cache, Shared};

/// A use is noted once in this span: eviction thinks in hours.
const GRAIN: Duration = Duration::from_mins(1);

/// How often notes go to the index.
const FLUSH_EVERY: Duration = Duration::from_secs(30);

/// Notes that go to the index at once.
const BATCH: usize = 1000;

/// Uses since the last flush.
#[derive(Default)]
pub(super) struct Access {
    noted: Mutex<HashMap<Digest, Timestamp>>,
}

impl Access {
    /// Notes a use, unless the last note is new.
    pub(super) fn touch(&self, digest: &Digest, last: &LastUse) {
        let now = Timestamp::now();
        if last.is_due(now, GRAIN) {
            self.noted().insert(*digest, now);
        }
    }

    fn noted(&self) -> MutexGuard<'_, HashMap<Digest, Timestamp>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Brings the uses that were noted to the index.
    pub(super) fn flush_access(&self) {
        let noted = std::mem::take(&mut *self.access.noted());
        let mut changes: Vec<_> = noted
            .into_iter()
            .map(|(digest, at)| Change::touch(&digest, at))
            .collect();
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(BATCH));
            self.storage.index.submit(std::mem::replace(&mut changes, rest));
        }
    }
}

impl Cache {
    /// Brings uses to the index every now and then, for as long as it is polled.
    pub async fn keep_access(&self) {
        loop {
            tokio::time::sleep(FLUSH_EVERY).await;
            self.flush_access();
        }
    }

    /// Brings the uses that were noted to the index.
    pub fn flush_access(&self) {
        self.shared.flush_access();
    }
}
