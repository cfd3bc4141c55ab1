//! Log lines that a client could make us write without end: at most one in ten seconds, with the number of those that
//! were left out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// From one line to the next.
const INTERVAL: Duration = Duration::from_secs(10);

/// One kind of line.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    state: Mutex<(Option<Instant>, u64)>,
}

impl Throttle {
    /// How many were left out since the last one, if this one is to be written.
    pub(super) fn pass(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.0.is_some_and(|last| now < last + INTERVAL) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_in_ten_seconds() {
        let throttle = Throttle::default();
        assert_eq!([(); 3].map(|()| throttle.pass()), [Some(0), None, None]);
        tokio::time::advance(INTERVAL).await;
        assert_eq!([(); 2].map(|()| throttle.pass()), [Some(2), None]);
    }
}
