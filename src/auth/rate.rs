//! How fast one identity may ask (`auth.max_requests_per_second`): the generic cell rate algorithm (ITU-T I.371), by
//! identity, or by address for nobody in particular. Called by `api` once who asks is known.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::caller::Caller;

/// How many are counted; whoever was seen longest ago is forgotten first.
const COUNTED: u64 = 100_000;
/// Seconds' worth that may come at once.
const BURST: u64 = 10;

/// A rate for each.
pub struct RequestRate {
    /// Nanoseconds from one request to the next, on average; zero is no limit.
    interval: u64,
    /// When the next one of each would come if all came evenly, in nanoseconds since `start`.
    due: moka::sync::Cache<String, Arc<AtomicU64>>,
    start: Instant,
}

impl RequestRate {
    /// So many in a second; zero is any number.
    pub fn new(per_second: u32, start: Instant) -> Self {
        Self {
            interval: 1_000_000_000_u64.checked_div(u64::from(per_second)).unwrap_or(0),
            due: moka::sync::Cache::builder()
                .max_capacity(COUNTED)
                .time_to_idle(Duration::from_mins(1))
                .build(),
            start,
        }
    }

    /// Whether there is a limit.
    pub fn is_on(&self) -> bool {
        self.interval != 0
    }

    /// Whether one more is too many, and for how long.
    pub fn take(&self, caller: &Caller, from: Option<IpAddr>, now: Instant) -> Option<Duration> {
        if !self.is_on() {
            return None;
        }
        let key = caller.counted(from)?;
        let due = self.due.get_with(key, Arc::default);
        let now = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let most = self
            .interval
            .saturating_mul(1_000_000_000 / self.interval)
            .saturating_mul(BURST);
        let mut known = due.load(Ordering::Relaxed);
        loop {
            let next = known.max(now).saturating_add(self.interval);
            let ahead = next - now;
            if ahead > most {
                return Some(Duration::from_nanos(ahead - most));
            }
            match due.compare_exchange_weak(known, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return None,
                Err(other) => known = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_worth_at_once_and_then_the_rate() {
        let start = Instant::now();
        let rate = RequestRate::new(2, start);
        let nobody = Caller::anonymous();
        let from = |text: &str| Some(text.parse().unwrap());
        let at = |seconds| start + Duration::from_secs(seconds);
        for _ in 0..20 {
            assert_eq!(rate.take(&nobody, from("10.0.0.1"), at(0)), None);
        }
        assert_eq!(
            rate.take(&nobody, from("10.0.0.1"), at(0)),
            Some(Duration::from_millis(500))
        );
        assert_eq!(rate.take(&nobody, from("10.0.0.2"), at(0)), None);
        assert_eq!(rate.take(&nobody, from("10.0.0.1"), at(1)), None);
        assert_eq!(rate.take(&nobody, from("10.0.0.1"), at(1)), None);
        assert!(rate.take(&nobody, from("10.0.0.1"), at(1)).is_some());
        // One host, whatever it calls itself.
        for host in 1..=20 {
            assert_eq!(
                rate.take(&nobody, from(&format!("2001:db8::{host}")), at(0)),
                None
            );
        }
        assert!(rate.take(&nobody, from("2001:db8::ffff"), at(0)).is_some());
        let any = RequestRate::new(0, start);
        assert!((0..100).all(|_| any.take(&nobody, from("10.0.0.1"), at(0)).is_none()));
        let fast = RequestRate::new(u32::MAX, start);
        assert_eq!(fast.take(&nobody, from("10.0.0.1"), at(0)), None);
    }
}
