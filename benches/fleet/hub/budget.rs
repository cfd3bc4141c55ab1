//! Docker Hub's limit: so many pulls within a window that slides, one for each GET of a manifest.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Pulls without an account.
pub(super) const LIMIT: usize = 100;

/// What is left for one address.
pub(super) struct Budget {
    window: Duration,
    pulls: VecDeque<Instant>,
}

impl Budget {
    pub(super) fn new(window: Duration) -> Self {
        let pulls = VecDeque::with_capacity(LIMIT);
        Self { window, pulls }
    }

    /// Pulls that are left now.
    pub(super) fn remaining(&mut self) -> usize {
        let now = Instant::now();
        while self
            .pulls
            .front()
            .is_some_and(|pull| now.duration_since(*pull) >= self.window)
        {
            self.pulls.pop_front();
        }
        LIMIT - self.pulls.len()
    }

    /// Counts one, if one is left.
    pub(super) fn take(&mut self) -> bool {
        let left = self.remaining() > 0;
        if left {
            self.pulls.push_back(Instant::now());
        }
        left
    }
}
