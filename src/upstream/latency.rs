//! How long an endpoint takes to its first byte, so that one that is late can be told from one that is slow by nature.
//! Called by `endpoints`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The last so many count.
const KEPT: usize = 64;
/// Fewer say nothing.
const LEAST: usize = 16;

/// The times to the first byte of the last requests of one kind.
#[derive(Debug, Default)]
pub(super) struct Latency {
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    /// In milliseconds, the oldest at `next` once it is full.
    kept: Vec<u32>,
    next: usize,
}

impl Latency {
    /// One took so long, or was given up after so long.
    pub(super) fn note(&self, time: Duration) {
        let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        if times.kept.len() < KEPT {
            times.kept.push(millis);
        } else {
            let next = times.next;
            times.kept[next] = millis;
            times.next = (next + 1) % KEPT;
        }
    }

    /// What 95 of 100 requests stay below; `None` as long as too little is known.
    pub(super) fn p95(&self) -> Option<Duration> {
        let mut kept = {
            let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            (times.kept.len() >= LEAST).then(|| times.kept.clone())?
        };
        let place = (kept.len() * 95).div_ceil(100) - 1;
        let (_, p95, _) = kept.select_nth_unstable(place);
        Some(Duration::from_millis((*p95).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_count() {
        let latency = Latency::default();
        let note = |millis| latency.note(Duration::from_millis(millis));
        let p95 = || latency.p95().map(|time| time.as_millis());
        (1..16).for_each(note);
        assert_eq!(p95(), None);
        note(1000);
        assert_eq!(p95(), Some(1000));
        (1..=64).for_each(note);
        assert_eq!(p95(), Some(61));
        (1..=64).for_each(|_| note(7));
        assert_eq!(p95(), Some(7));
    }
}
