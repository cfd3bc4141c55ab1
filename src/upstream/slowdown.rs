//! Going slowly at hosts that refuse too many requests: a 429 that is not about pulls makes an interval between any two
//! requests to that host, doubled by each further one and halved by each answer. After a refusal one request goes ahead to
//! see how it is now, and the others wait for what it hears. What clients wait for comes before the rest. A pure machine
//! with the time as a parameter, behind a lock.
//! Called by `transport`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::errand::{Purpose, SharedPurpose};

/// The interval after the first refusal, and the longest one.
const FIRST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_mins(1);
/// A shorter interval is none.
const LEAST: Duration = Duration::from_millis(60);
/// No refusal is believed to last longer than this, whatever its header says.
const LONGEST: Duration = Duration::from_hours(1);
/// How long a request waits for its turn; it is refused at once when its turn comes later.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// A host that refused nothing for so long, and was not asked, is a host like any other.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// Whether a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Go,
    /// It goes ahead of the others.
    GoAhead,
    /// Not before this.
    Wait(Instant),
    /// Not before it is known what the one that went ahead hears.
    Listen,
}

/// How fast a host may be asked.
#[derive(Clone, Copy, Debug)]
struct Pace {
    interval: Duration,
    next: Instant,
    /// Refusals so far.
    refusals: u64,
    refused_at: Instant,
    /// It has answered since the last refusal.
    proven: bool,
    /// One went ahead.
    ahead: bool,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            interval: Duration::ZERO,
            next: now,
            refusals: 0,
            refused_at: now,
            proven: true,
            ahead: false,
        }
    }

    fn ask(&mut self, now: Instant) -> Step {
        if now < self.next {
            return Step::Wait(self.next);
        }
        if !self.proven && self.ahead {
            return Step::Listen;
        }
        self.next = now + self.interval;
        if self.proven {
            return Step::Go;
        }
        self.ahead = true;
        Step::GoAhead
    }

    /// A request that was sent after `known` refusals is refused.
    fn refused(&mut self, known: u64, retry_after: Option<Duration>, now: Instant) {
        self.proven = false;
        self.refused_at = now;
        // Those that were under way together are one refusal.
        if known == self.refusals {
            self.refusals += 1;
            self.interval = (self.interval * 2).clamp(FIRST, MOST);
        }
        let pause = retry_after.unwrap_or_default().clamp(self.interval, LONGEST);
        self.next = self.next.max(now + pause);
    }

    /// One that was sent after `known` refusals is answered.
    fn answered(&mut self, known: u64, now: Instant) {
        if known < self.refusals {
            return;
        }
        self.proven = true;
        self.interval /= 2;
        if self.interval < LEAST {
            self.interval = Duration::ZERO;
        }
        self.next = self.next.min(now + self.interval);
    }

    fn is_over(&self, now: Instant) -> bool {
        let idle = now.saturating_duration_since(self.refused_at.max(self.next));
        (self.proven && self.interval.is_zero()) || (!self.ahead && idle >= FORGOTTEN)
    }
}

/// One host.
struct Host {
    pace: Mutex<Pace>,
    /// Those who wait, by how urgent that is.
    waiting: Mutex<[usize; Purpose::ALL.len()]>,
    /// Something was heard of it.
    heard: Notify,
}

impl Host {
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, [usize; Purpose::ALL.len()]> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waits who is more urgent than this.
    fn has_above(&self, purpose: Purpose) -> bool {
        self.waiting()[purpose as usize + 1..]
            .iter()
            .any(|count| *count > 0)
    }
}

/// Somebody waits, as long as this lives.
struct Waiting<'a> {
    host: &'a Host,
    purpose: Purpose,
}

impl<'a> Waiting<'a> {
    fn new(host: &'a Host, purpose: Purpose) -> Self {
        host.waiting()[purpose as usize] += 1;
        Self { host, purpose }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.host.waiting()[self.purpose as usize] -= 1;
    }
}

/// How slowly a host is asked, for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slowed {
    /// The host, with its port where that is not the scheme's own.
    pub host: String,
    /// The time between two requests to it.
    pub interval: Duration,
    /// How long it is not asked at all.
    pub pause: Duration,
}

impl Slowed {
    /// A host that is asked as usual.
    pub(super) fn not(host: String) -> Self {
        Self {
            host,
            interval: Duration::ZERO,
            pause: Duration::ZERO,
        }
    }
}

/// The hosts that are asked slowly.
#[derive(Default)]
pub(super) struct Slowdown {
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

impl Slowdown {
    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Arc<Host>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave to send a request to `host`, once its turn has come: the more urgent it is, the sooner.
    ///
    /// # Errors
    /// After how long it may be asked again, when that is longer than one can wait.
    pub(super) async fn enter(&self, host: &str, purpose: &SharedPurpose) -> Result<Leave, Duration> {
        let known = self.hosts().get(host).cloned();
        let Some(known) = known else {
            return Ok(Leave::free());
        };
        let patience = Instant::now() + PATIENCE;
        loop {
            let heard = known.heard.notified();
            tokio::pin!(heard);
            // Before looking, or the news could be missed.
            heard.as_mut().enable();
            let (now, urgency) = (Instant::now(), purpose.get());
            let (step, refusals) = {
                let mut pace = known.pace();
                if now >= pace.next && known.has_above(urgency) {
                    // It is theirs: they look at the same moment.
                    (Step::Wait(now + LEAST), pace.refusals)
                } else {
                    (pace.ask(now), pace.refusals)
                }
            };
            let until = match step {
                Step::Go | Step::GoAhead => {
                    return Ok(Leave {
                        host: Some(known.clone()),
                        refusals,
                        ahead: step == Step::GoAhead,
                    });
                }
                Step::Wait(until) if until > patience => {
                    return Err((until - now).max(known.pace().interval));
                }
                Step::Wait(until) => until,
                Step::Listen if now >= patience => return Err(FIRST.max(known.pace().interval)),
                Step::Listen => patience,
            };
            let _waiting = Waiting::new(&known, urgency);
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = heard => {}
                () = purpose.raised_above(urgency) => {}
            }
        }
    }

    /// `host` refused what was sent with this leave. How it is asked from now on.
    pub(super) fn refused(&self, host: &str, leave: Leave, retry_after: Option<Duration>) -> Slowed {
        let now = Instant::now();
        let known = {
            let mut hosts = self.hosts();
            let new = || {
                Arc::new(Host {
                    pace: Mutex::new(Pace::new(now)),
                    waiting: Mutex::default(),
                    heard: Notify::new(),
                })
            };
            hosts.entry(host.to_owned()).or_insert_with(new).clone()
        };
        let slowed = {
            let mut pace = known.pace();
            pace.refused(leave.refusals, retry_after, now);
            Slowed {
                host: host.to_owned(),
                interval: pace.interval,
                pause: pace.next.saturating_duration_since(now),
            }
        };
        drop(leave);
        known.heard.notify_waiters();
        slowed
    }

    /// `host` answered what was sent with this leave. Whether it is one like any other from now on.
    pub(super) fn answered(&self, host: &str, mut leave: Leave) -> bool {
        let Some(known) = leave.host.take() else {
            return false;
        };
        let now = Instant::now();
        let over = {
            let mut pace = known.pace();
            if leave.ahead {
                pace.ahead = false;
            }
            pace.answered(leave.refusals, now);
            pace.is_over(now)
        };
        known.heard.notify_waiters();
        if !over {
            return false;
        }
        let mut hosts = self.hosts();
        let is_it = hosts.get(host).is_some_and(|it| Arc::ptr_eq(it, &known));
        is_it && hosts.remove(host).is_some()
    }

    /// Forgets hosts that nobody asked for long, and says which.
    pub(super) fn forget(&self) -> Vec<String> {
        let now = Instant::now();
        let is_over = |host: &Arc<Host>| Arc::strong_count(host) == 1 && host.pace().is_over(now);
        let mut hosts = self.hosts();
        let gone = hosts.extract_if(|_, host| is_over(host));
        gone.map(|(host, _)| host).collect()
    }

    /// The hosts that are asked slowly now.
    pub(super) fn all(&self) -> Vec<Slowed> {
        let now = Instant::now();
        let hosts = self.hosts();
        let mut all: Vec<_> = hosts
            .iter()
            .map(|(host, known)| (host, *known.pace()))
            .filter(|(_, pace)| !pace.is_over(now))
            .map(|(host, pace)| Slowed {
                host: host.clone(),
                interval: pace.interval,
                pause: pace.next.saturating_duration_since(now),
            })
            .collect();
        drop(hosts);
        all.sort_by(|a, b| a.host.cmp(&b.host));
        all
    }
}

/// Leave to send one request. Dropped without a word it says nothing about the host.
pub(super) struct Leave {
    host: Option<Arc<Host>>,
    /// Refusals that were known when it was given.
    refusals: u64,
    ahead: bool,
}

impl Leave {
    fn free() -> Self {
        Self {
            host: None,
            refusals: 0,
            ahead: false,
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(host) = self.host.as_ref().filter(|_| self.ahead) {
            host.pace().ahead = false;
            host.heard.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const HOST: &str = "registry.example.com";

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    async fn enter(slowdown: &Slowdown, purpose: Purpose) -> Result<Leave, Duration> {
        slowdown.enter(HOST, &SharedPurpose::new(purpose)).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_waits_for_comes_first() {
        let slowdown = Arc::new(Slowdown::default());
        for _ in 0..3 {
            let leave = enter(&slowdown, Purpose::Miss).await.unwrap();
            slowdown.refused(HOST, leave, None);
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let raised = SharedPurpose::new(Purpose::Background);
        let come = |purpose: &SharedPurpose| {
            let (slowdown, order, purpose) = (slowdown.clone(), order.clone(), purpose.clone());
            tokio::spawn(async move {
                let leave = slowdown.enter(HOST, &purpose).await.unwrap();
                order.lock().unwrap().push(purpose.get());
                // As fast as before.
                drop(leave);
            })
        };
        // Someone has the turn of now.
        let _now = enter(&slowdown, Purpose::Miss).await.unwrap();
        slowdown.hosts()[HOST].pace().proven = true;
        let mut all = vec![come(&raised)];
        for purpose in [Purpose::Background, Purpose::Refresh, Purpose::Miss] {
            all.push(come(&SharedPurpose::new(purpose)));
        }
        tokio::time::sleep(ms(1)).await;
        raised.raise(Purpose::Miss);
        for one in all {
            one.await.unwrap();
        }
        let order = order.lock().unwrap().clone();
        let sorted = [
            Purpose::Miss,
            Purpose::Miss,
            Purpose::Refresh,
            Purpose::Background,
        ];
        assert_eq!(order, sorted);
    }

    #[test]
    fn a_life() {
        let t0 = Instant::now();
        let at = |millis| t0 + ms(millis);
        let mut pace = Pace::new(t0);
        assert_eq!([pace.ask(t0), pace.ask(t0)], [Step::Go; 2]);
        // Two were under way together: one refusal.
        pace.refused(0, None, at(0));
        pace.refused(0, None, at(10));
        assert_eq!(pace.interval, ms(500));
        assert_eq!(pace.ask(at(20)), Step::Wait(at(510)));
        // One goes ahead, the others listen, whatever the time.
        assert_eq!(pace.ask(at(510)), Step::GoAhead);
        assert_eq!(pace.ask(at(510)), Step::Wait(at(1010)));
        assert_eq!(pace.ask(at(5000)), Step::Listen);
        // It is refused too, and told how long.
        pace.ahead = false;
        pace.refused(1, Some(ms(7000)), at(5000));
        assert_eq!(pace.interval, ms(1000));
        assert_eq!(pace.ask(at(5001)), Step::Wait(at(12_000)));
        assert_eq!(pace.ask(at(12_000)), Step::GoAhead);
        pace.ahead = false;
        // An answer to what was sent before the refusal proves nothing.
        pace.answered(1, at(12_010));
        assert!(!pace.proven);
        pace.answered(2, at(12_020));
        assert_eq!(pace.interval, ms(500));
        assert_eq!(pace.ask(at(12_400)), Step::Wait(at(12_520)));
        assert_eq!([pace.ask(at(12_520)), pace.ask(at(13_020))], [Step::Go; 2]);
        for _ in 0..3 {
            assert!(!pace.is_over(at(13_020)));
            pace.answered(2, at(13_020));
        }
        pace.answered(2, at(13_020));
        assert!(pace.is_over(at(13_020)));
        assert_eq!([pace.ask(at(13_020)), pace.ask(at(13_020))], [Step::Go; 2]);
    }

    #[test]
    fn intervals_grow_up_to_a_minute_and_no_pause_is_longer_than_an_hour() {
        let t0 = Instant::now();
        let mut pace = Pace::new(t0);
        let intervals: Vec<_> = (0..9)
            .map(|known| {
                pace.refused(known, None, t0);
                pace.interval.as_millis()
            })
            .collect();
        assert_eq!(
            intervals,
            [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]
        );
        pace.refused(9, Some(Duration::MAX), t0);
        assert_eq!(pace.next, t0 + LONGEST);
        assert!(!pace.is_over(t0 + LONGEST));
        assert!(pace.is_over(t0 + LONGEST + FORGOTTEN));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_makes_one_request_until_the_host_answers() {
        let slowdown = Arc::new(Slowdown::default());
        let first = enter(&slowdown, Purpose::Miss).await.unwrap();
        let slowed = slowdown.refused(HOST, first, None);
        assert_eq!((slowed.interval, slowed.pause), (FIRST, FIRST));
        let miss = SharedPurpose::new(Purpose::Miss);
        assert!(slowdown.enter("other", &miss).now_or_never().is_some());
        let sent = Arc::new(Mutex::new(0));
        let crowd: Vec<_> = (0..100)
            .map(|_| {
                let (slowdown, sent) = (slowdown.clone(), sent.clone());
                tokio::spawn(async move {
                    let leave = enter(&slowdown, Purpose::Miss).await?;
                    *sent.lock().unwrap() += 1;
                    // The first two of them are refused again.
                    if *sent.lock().unwrap() <= 2 {
                        slowdown.refused(HOST, leave, None);
                    } else {
                        slowdown.answered(HOST, leave);
                    }
                    Ok::<_, Duration>(())
                })
            })
            .collect();
        tokio::time::sleep(ms(499)).await;
        assert_eq!(*sent.lock().unwrap(), 0);
        tokio::time::sleep(ms(2)).await;
        assert_eq!(*sent.lock().unwrap(), 1);
        tokio::time::sleep(ms(1000)).await;
        assert_eq!(*sent.lock().unwrap(), 2);
        tokio::time::sleep(ms(1998)).await;
        assert_eq!(*sent.lock().unwrap(), 2);
        // It answers the third: soon all of them go.
        for one in crowd {
            assert_eq!(one.await.unwrap(), Ok(()));
        }
        assert_eq!(*sent.lock().unwrap(), 100);
        assert!(slowdown.all().is_empty());
        assert!(slowdown.hosts().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_asked_for_long_is_forgotten_and_named() {
        let slowdown = Slowdown::default();
        let leave = enter(&slowdown, Purpose::Miss).await.unwrap();
        slowdown.refused(HOST, leave, None);
        assert_eq!(slowdown.forget(), Vec::<String>::new());
        tokio::time::advance(FIRST + FORGOTTEN).await;
        assert_eq!(slowdown.forget(), [HOST]);
        assert!(slowdown.hosts().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_is_told_at_once_and_a_lost_request_leaves_its_place() {
        let slowdown = Slowdown::default();
        let leave = enter(&slowdown, Purpose::Miss).await.unwrap();
        slowdown.refused(HOST, leave, Some(Duration::from_mins(1)));
        let told = enter(&slowdown, Purpose::Miss).now_or_never().unwrap();
        assert_eq!(told.err(), Some(Duration::from_mins(1)));
        tokio::time::advance(Duration::from_mins(1)).await;
        let ahead = enter(&slowdown, Purpose::Miss).await.unwrap();
        tokio::time::advance(ms(500)).await;
        // Nothing is ever heard of it: those who listen lose patience.
        assert!(enter(&slowdown, Purpose::Miss).await.is_err());
        drop(ahead);
        let next = enter(&slowdown, Purpose::Miss).now_or_never();
        let next = next.unwrap().unwrap();
        assert!(next.ahead);
        assert!(!slowdown.answered(HOST, next));
        assert_eq!(slowdown.all().len(), 1);
    }
}
