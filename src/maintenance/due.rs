//! When work that is done every so often is due next, across restarts. Used by `collect` and `expire`.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::storage::{Change, Error, Index};

/// How long work that failed is not tried again.
pub(super) const PAUSE: Duration = Duration::from_mins(10);

/// Something that is done every `interval`.
#[derive(Clone)]
pub(super) struct Due {
    index: Arc<Index>,
    /// Where in the index's `meta` it stands when it was last done.
    name: &'static str,
    interval: Duration,
}

impl Due {
    pub(super) fn new(index: Arc<Index>, name: &'static str, interval: Duration) -> Self {
        Self {
            index,
            name,
            interval,
        }
    }

    /// How long it is not due yet. What was never done is due an interval from now.
    pub(super) async fn wait(&self) -> Result<Duration, Error> {
        let name = self.name;
        let noted = self.index.read(move |index| index.meta(name)).await?;
        let noted = noted.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        let Some(done) = noted.map(Timestamp) else {
            self.done().await?;
            return Ok(self.interval);
        };
        Ok(self.interval.saturating_sub(Timestamp::now().since(done)))
    }

    /// It was done just now.
    pub(super) async fn done(&self) -> Result<(), Error> {
        let now = Timestamp::now().0.to_string().into_bytes();
        self.index.commit(vec![Change::put_meta(self.name, now)]).await
    }
}

/// Waits so long; shorter, when it is to stop.
pub(super) async fn rest(span: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(span) => {}
        () = stop.cancelled() => {}
    }
}
