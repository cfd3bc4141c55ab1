//! Whether a body crawls: what came within a span of mere waiting, against the least that is put up with. Only waiting for
//! the wire counts, so neither our disk nor a cap of ours makes an upstream look slow. Called by `body`.

use std::time::Duration;

use tokio::time::Instant;

/// Judged after so much waiting.
pub(super) const SPAN: Duration = Duration::from_secs(10);

/// What came of one body since it was last judged.
#[derive(Debug)]
pub(super) struct Floor {
    /// Bytes per second.
    least: u64,
    span: Duration,
    bytes: u64,
    waited: Duration,
    /// Since when the next piece is waited for.
    since: Option<Instant>,
}

impl Floor {
    /// `None` for no floor.
    pub(super) fn new(least: u64, span: Duration) -> Option<Self> {
        (least > 0).then_some(Self {
            least,
            span,
            bytes: 0,
            waited: Duration::ZERO,
            since: None,
        })
    }

    /// The next piece is waited for; until when at the most before the next judgement. May be called again while waiting.
    pub(super) fn wait(&mut self, now: Instant) -> Instant {
        let since = *self.since.get_or_insert(now);
        since + self.span.saturating_sub(self.waited)
    }

    /// So many bytes came, or none until the judgement was due. Whether it crawls.
    pub(super) fn judge(&mut self, now: Instant, bytes: u64) -> bool {
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
        self.bytes += bytes;
        if self.waited < self.span {
            return false;
        }
        let due = u128::from(self.least) * self.waited.as_millis() / 1000;
        let crawls = u128::from(self.bytes) < due;
        (self.bytes, self.waited) = (0, Duration::ZERO);
        crawls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_counts() {
        let t0 = Instant::now();
        let at = |seconds| t0 + Duration::from_secs(seconds);
        let mut floor = Floor::new(1000, SPAN).unwrap();
        assert_eq!(floor.wait(at(0)), at(10));
        // Asked again, it is the same wait.
        assert_eq!(floor.wait(at(3)), at(10));
        assert!(!floor.judge(at(4), 4000));
        // What happens between two waits is ours.
        assert_eq!(floor.wait(at(100)), at(106));
        assert!(!floor.judge(at(106), 6000));
        // Judged afresh.
        assert_eq!(floor.wait(at(106)), at(116));
        assert!(floor.judge(at(116), 9999));
        floor.wait(at(200));
        assert!(floor.judge(at(211), 0));
        assert!(Floor::new(0, SPAN).is_none());
    }
}
