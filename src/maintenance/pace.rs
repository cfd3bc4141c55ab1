//! A bounded rate for background reads. Used by `scrub`.

use std::time::Duration;

use tokio::time::Instant;

/// A reader that was held up for longer than this does not catch up on it.
const MOST_BEHIND: Duration = Duration::from_secs(1);

/// So many bytes a second, and no more.
pub(super) struct Pace {
    /// Zero is no limit.
    rate: u64,
    due: Instant,
}

impl Pace {
    /// `rate` bytes a second from now on; zero is no limit.
    pub(super) fn new(rate: u64) -> Self {
        Self {
            rate,
            due: Instant::now(),
        }
    }

    /// When the next `bytes` bytes may be read.
    pub(super) fn next(&mut self, bytes: u64) -> Instant {
        let now = Instant::now();
        if self.rate == 0 {
            return now;
        }
        let start = self.due.max(now.checked_sub(MOST_BEHIND).unwrap_or(now));
        self.due = start + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_without_catching_up() {
        let begin = Instant::now();
        let mut pace = Pace::new(1000);
        let mut at = |bytes| pace.next(bytes).duration_since(begin).as_millis();
        assert_eq!([at(500), at(1000), at(1)], [0, 500, 1500]);
        // Held up for a minute: a second of it is made up for.
        tokio::time::advance(Duration::from_mins(1)).await;
        let mut at = |bytes| pace.next(bytes).duration_since(begin).as_millis();
        assert_eq!([at(2000), at(1)], [59_000, 61_000]);
        let mut unlimited = Pace::new(0);
        unlimited.next(1 << 40);
        assert_eq!(unlimited.next(1), Instant::now());
    }
}
