//! The caps on what we take from an upstream, over all its endpoints and their CDNs: downloads are not read from for a
//! while, and the sender waits behind the socket's window. What a client waits for comes first; work that nobody waits
//! for gets what is left, and a sixteenth where nothing is. Called by `body` before and after each piece.
//!
//! [`Meter`] and [`Ledger`] are pure: time is a parameter.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::errand::{Purpose, SharedPurpose};
use super::observer::{Observer, WaitedFor};
use crate::config::BandwidthConfig;

/// What may be taken at once after a pause, in seconds of the cap, so that small blobs do not wait.
const BURST: f64 = 0.25;
/// But at the least this many bytes, about what one read brings.
const LEAST_BURST: f64 = 64.0 * 1024.0;
/// The part of a cap that background work gets where clients want all of it.
const TRICKLE: f64 = 1.0 / 16.0;
/// Between two looks at the clock on the wall, for windows that begin or end.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long after somebody had to wait the cap counts as what limits.
const LIMITING: Duration = Duration::from_secs(2);

/// A cap, and what was taken under it. Taking more than there is leaves a debt, which whoever took it waits for.
#[derive(Debug)]
struct Meter {
    /// Bytes per second; `None` is no cap.
    rate: Option<f64>,
    /// What may be taken now; negative is a debt.
    spare: f64,
    taken: u64,
    at: Instant,
}

impl Meter {
    fn new(rate: Option<u64>, now: Instant) -> Self {
        let mut meter = Self {
            rate: None,
            spare: 0.0,
            taken: 0,
            at: now,
        };
        meter.set(rate, now);
        meter.spare = meter.burst();
        meter
    }

    fn burst(&self) -> f64 {
        self.rate.map_or(0.0, |rate| (rate * BURST).max(LEAST_BURST))
    }

    /// Another cap holds from now on.
    fn set(&mut self, rate: Option<u64>, now: Instant) {
        self.advance(now);
        self.rate = rate.map(|rate| rate as f64);
        self.spare = self.spare.min(self.burst());
        if self.rate.is_none() {
            self.spare = 0.0;
        }
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        if let Some(rate) = self.rate {
            self.spare = (self.spare + rate * passed).min(self.burst());
        }
    }

    fn take(&mut self, bytes: u64, now: Instant) {
        self.advance(now);
        self.taken += bytes;
        if self.rate.is_some() {
            self.spare -= bytes as f64;
        }
    }

    /// How long until so much may be taken, if nobody else takes anything.
    fn until(&mut self, spare: f64, now: Instant) -> Duration {
        self.advance(now);
        match self.rate {
            Some(rate) if self.spare < spare => Duration::from_secs_f64((spare - self.spare) / rate),
            _ => Duration::ZERO,
        }
    }

    /// How long until what was taken up to `ticket` is paid for. Each download has its own, so they take turns.
    fn until_paid(&mut self, ticket: u64, now: Instant) -> Duration {
        // What was taken since is somebody else's to wait for.
        let since = self.taken.saturating_sub(ticket) as f64;
        self.until(-since, now)
    }
}

/// Who may take how much when, under both caps of an upstream.
#[derive(Debug)]
struct Ledger {
    all: Meter,
    background: Meter,
    /// When background work may take something although nothing is left.
    trickle: Instant,
    /// When somebody last had to wait for the cap on all.
    waited: Option<Instant>,
}

impl Ledger {
    fn new(all: Option<u64>, background: Option<u64>, now: Instant) -> Self {
        Self {
            all: Meter::new(all, now),
            background: Meter::new(background, now),
            trickle: now,
            waited: None,
        }
    }

    /// How long a download has to wait before it takes more; zero is not at all.
    fn wait(&mut self, purpose: Purpose, ticket: u64, now: Instant) -> Duration {
        let wait = if purpose > Purpose::Background {
            self.all.until_paid(ticket, now)
        } else {
            // More than clients leave when they take all: then half of the burst never gathers.
            let left = self.all.until(self.all.burst() / 2.0, now);
            let trickle = self.trickle.saturating_duration_since(now);
            left.min(trickle).max(self.background.until(0.0, now))
        };
        if !wait.is_zero() {
            self.waited = Some(now);
        }
        wait
    }

    /// Notes what came, and gives the download's next ticket.
    fn take(&mut self, purpose: Purpose, bytes: u64, now: Instant) -> u64 {
        self.all.take(bytes, now);
        if purpose == Purpose::Background {
            self.background.take(bytes, now);
            let trickle = self.all.rate.map_or(f64::INFINITY, |rate| rate * TRICKLE);
            self.trickle = now + Duration::from_secs_f64(bytes as f64 / trickle);
        }
        self.all.taken
    }

    fn is_limiting(&self, now: Instant) -> bool {
        self.waited
            .is_some_and(|waited| now.saturating_duration_since(waited) < LIMITING)
    }
}

/// The local time: the weekday from Monday, 0, and the minute of the day.
type WallClock = fn() -> (usize, u16);

/// The caps of one upstream, which all its downloads share.
pub(super) struct Bandwidth {
    prefix: Arc<str>,
    config: BandwidthConfig,
    clock: WallClock,
    observer: Arc<dyn Observer>,
    state: Mutex<State>,
}

struct State {
    ledger: Ledger,
    limit: Option<u64>,
    looked: Instant,
}

impl Bandwidth {
    /// The caps of an upstream; `None` when it has none.
    pub(super) fn new(
        prefix: &str,
        config: &BandwidthConfig,
        observer: Arc<dyn Observer>,
    ) -> Option<Arc<Self>> {
        config
            .is_capped()
            .then(|| Self::by(local_time, prefix, config, observer))
    }

    fn by(
        clock: WallClock,
        prefix: &str,
        config: &BandwidthConfig,
        observer: Arc<dyn Observer>,
    ) -> Arc<Self> {
        let (weekday, minute) = clock();
        let limit = config.at(weekday, minute);
        let now = Instant::now();
        observer.bandwidth(prefix, limit);
        Arc::new(Self {
            prefix: prefix.into(),
            config: config.clone(),
            clock,
            observer,
            state: Mutex::new(State {
                ledger: Ledger::new(limit, config.background, now),
                limit,
                looked: now,
            }),
        })
    }

    /// The cap that holds now, in bytes per second; `None` is no cap.
    pub(super) fn limit(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state();
        self.look(&mut state, now);
        state.limit
    }

    /// Whether it is us who hold downloads back.
    pub(super) fn is_limiting(&self) -> bool {
        self.state().ledger.is_limiting(Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks which cap holds.
    fn look(&self, state: &mut State, now: Instant) {
        state.looked = now;
        let (weekday, minute) = (self.clock)();
        let limit = self.config.at(weekday, minute);
        if limit != state.limit {
            tracing::info!(
                upstream = &*self.prefix,
                bytes_per_second = limit,
                "another bandwidth cap holds"
            );
            state.limit = limit;
            state.ledger.all.set(limit, now);
            self.observer.bandwidth(&self.prefix, limit);
        }
    }

    fn wait(&self, purpose: Purpose, ticket: u64) -> Duration {
        let now = Instant::now();
        let mut state = self.state();
        if now.saturating_duration_since(state.looked) >= LOOK_AGAIN {
            self.look(&mut state, now);
        }
        state.ledger.wait(purpose, ticket, now)
    }
}

/// One download under the caps.
pub(super) struct Pace {
    bandwidth: Arc<Bandwidth>,
    purpose: SharedPurpose,
    ticket: u64,
    /// It may read, and has not yet.
    permitted: bool,
}

impl Pace {
    /// A download that begins.
    pub(super) fn new(bandwidth: Arc<Bandwidth>, purpose: SharedPurpose) -> Self {
        let ticket = bandwidth.state().ledger.all.taken;
        Self {
            bandwidth,
            purpose,
            ticket,
            permitted: false,
        }
    }

    /// Waits until more may be read, which then holds until something was. Giving up waiting changes nothing.
    pub(super) async fn permit(&mut self) {
        while !self.permitted {
            let purpose = self.purpose.get();
            let wait = self.bandwidth.wait(purpose, self.ticket);
            if wait.is_zero() {
                self.permitted = true;
                return;
            }
            let _waiting = Waiting {
                since: Instant::now(),
                bandwidth: &self.bandwidth,
            };
            tokio::select! {
                () = tokio::time::sleep(wait.min(LOOK_AGAIN)) => {}
                () = self.purpose.raised_above(purpose) => {}
            }
        }
    }

    /// Notes what was read.
    pub(super) fn took(&mut self, bytes: u64) {
        let (purpose, now) = (self.purpose.get(), Instant::now());
        self.permitted = false;
        self.ticket = self.bandwidth.state().ledger.take(purpose, bytes, now);
    }
}

/// Counts how long a download is held back, also when nobody waits for it to the end.
struct Waiting<'a> {
    since: Instant,
    bandwidth: &'a Bandwidth,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Bandwidth { observer, prefix, .. } = self.bandwidth;
        observer.waited(prefix, WaitedFor::Bandwidth, self.since.elapsed());
    }
}

/// The weekday and the minute of the day, here.
fn local_time() -> (usize, u16) {
    time_in(&jiff::tz::TimeZone::system(), crate::clock::Timestamp::now().0)
}

/// The same, at `millis` since 1970 in a time zone.
fn time_in(zone: &jiff::tz::TimeZone, millis: u64) -> (usize, u16) {
    let since = i64::try_from(millis).ok();
    let at = since.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    let local = zone.to_datetime(at.unwrap_or(jiff::Timestamp::UNIX_EPOCH));
    let weekday = usize::try_from(local.weekday().to_monday_zero_offset()).unwrap_or(0);
    let minute = i16::from(local.hour()) * 60 + i16::from(local.minute());
    (weekday, u16::try_from(minute).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use super::*;
    use crate::config::BandwidthWindow;

    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Two downloads that read a piece as soon as they may, for so long: what each of them had.
    fn share(ledger: &mut Ledger, purposes: &[Purpose], piece: u64, time: Duration) -> Vec<u64> {
        let start = Instant::now();
        let mut now = start;
        let mut tickets = vec![0; purposes.len()];
        let mut had = vec![0; purposes.len()];
        while now < start + time {
            let mut next = Duration::MAX;
            for (at, purpose) in purposes.iter().enumerate() {
                let wait = ledger.wait(*purpose, tickets[at], now);
                if wait.is_zero() {
                    tickets[at] = ledger.take(*purpose, piece, now);
                    had[at] += piece;
                    next = Duration::ZERO;
                } else {
                    next = next.min(wait);
                }
            }
            now += next.max(Duration::from_micros(1));
        }
        had
    }

    fn near(actual: u64, expected: u64) -> bool {
        actual.abs_diff(expected) <= expected / 10 + 256 * KIB
    }

    #[test]
    fn what_is_taken_is_the_cap() {
        for cap in [64 * KIB, MIB, 50 * MIB] {
            for piece in [4 * KIB, 16 * KIB, 400 * KIB] {
                for downloads in [1, 3] {
                    let mut ledger = Ledger::new(Some(cap), None, Instant::now());
                    let had = share(&mut ledger, &vec![Purpose::Miss; downloads], piece, seconds(20.0));
                    let all: u64 = had.iter().sum();
                    let most = cap * 20 + cap / 4 + (64 + 400 * downloads as u64) * KIB;
                    assert!(all <= most && all >= cap * 19, "{cap} by {piece}: {had:?}");
                    assert!(
                        had.iter().all(|one| near(*one, all / downloads as u64)),
                        "{had:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn background_work_gets_what_is_left_and_a_trickle() {
        use Purpose::{Background, Miss};
        let ledger = || Ledger::new(Some(MIB), None, Instant::now());
        let time = seconds(64.0);
        // Alone it has all.
        let alone = share(&mut ledger(), &[Background], 16 * KIB, time);
        assert!(near(alone[0], 64 * MIB), "{alone:?}");
        let both = share(&mut ledger(), &[Background, Miss], 16 * KIB, time);
        assert!(near(both[0], 4 * MIB) && near(both[1], 60 * MIB), "{both:?}");
        let many = share(
            &mut ledger(),
            &[Background, Background, Miss, Miss],
            16 * KIB,
            time,
        );
        assert!(near(many[0] + many[1], 4 * MIB), "{many:?}");
        assert!(many[0] > 0 && many[1] > 0, "{many:?}");
    }

    #[test]
    fn background_work_has_a_cap_of_its_own() {
        use Purpose::{Background, Miss};
        let time = seconds(32.0);
        let mut ledger = Ledger::new(Some(8 * MIB), Some(MIB), Instant::now());
        let both = share(&mut ledger, &[Background, Miss], 16 * KIB, time);
        assert!(both[0] <= 33 * MIB && both[1] >= 220 * MIB, "{both:?}");
        let mut ledger = Ledger::new(None, Some(MIB), Instant::now());
        let alone = share(&mut ledger, &[Background], 16 * KIB, time);
        assert!(near(alone[0], 32 * MIB), "{alone:?}");
        assert!(ledger.wait(Miss, 0, Instant::now()).is_zero());
    }

    #[test]
    fn another_cap_holds_at_once() {
        let now = Instant::now();
        let mut meter = Meter::new(Some(MIB), now);
        meter.take(4 * MIB, now);
        let ticket = meter.taken;
        let wait = meter.until_paid(ticket, now).as_secs_f64();
        assert!((3.7..3.8).contains(&wait), "{wait}");
        meter.set(Some(10 * MIB), now);
        let wait = meter.until_paid(ticket, now).as_secs_f64();
        assert!((0.37..0.38).contains(&wait), "{wait}");
        meter.set(None, now);
        assert!(meter.until_paid(ticket, now).is_zero());
        // What was taken without a cap is no debt under the next.
        meter.take(100 * MIB, now);
        meter.set(Some(MIB), now);
        assert!(meter.until_paid(meter.taken, now).is_zero());
    }

    #[test]
    fn after_a_pause_no_more_than_the_burst_comes_at_once() {
        let now = Instant::now();
        let mut meter = Meter::new(Some(MIB), now);
        let later = now + seconds(3600.0);
        meter.take(MIB, later);
        let wait = meter.until_paid(meter.taken, later).as_secs_f64();
        assert!((0.74..0.76).contains(&wait), "{wait}");
    }

    fn config(always: Option<u64>, windows: Vec<BandwidthWindow>) -> BandwidthConfig {
        BandwidthConfig {
            always,
            background: None,
            windows,
        }
    }

    fn pace(bandwidth: &Arc<Bandwidth>, purpose: Purpose) -> Pace {
        Pace::new(bandwidth.clone(), SharedPurpose::new(purpose))
    }

    #[tokio::test(start_paused = true)]
    async fn a_download_waits_for_its_debt() {
        let bandwidth = Bandwidth::by(|| (0, 0), "test", &config(Some(MIB), Vec::new()), Arc::new(()));
        let (mut one, start) = (pace(&bandwidth, Purpose::Miss), Instant::now());
        assert!(!bandwidth.is_limiting());
        one.permit().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        one.took(5 * MIB + MIB / 4);
        one.permit().await;
        assert_eq!(start.elapsed().as_secs(), 5);
        assert!(bandwidth.is_limiting());
        tokio::time::sleep(LIMITING).await;
        assert!(!bandwidth.is_limiting());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_joins_is_no_longer_background() {
        let bandwidth = Bandwidth::by(|| (0, 0), "test", &config(Some(MIB), Vec::new()), Arc::new(()));
        let purpose = SharedPurpose::new(Purpose::Background);
        let mut background = Pace::new(bandwidth.clone(), purpose.clone());
        let mut client = pace(&bandwidth, Purpose::Miss);
        background.took(16 * KIB);
        client.took(MIB);
        let start = Instant::now();
        tokio::join!(background.permit(), async {
            tokio::task::yield_now().await;
            purpose.raise(Purpose::Miss);
        });
        assert_eq!(start.elapsed(), Duration::ZERO, "it owes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn windows_begin_and_end_while_downloads_wait() {
        static MINUTE: AtomicU16 = AtomicU16::new(0);
        let night = BandwidthWindow {
            days: [true; 7],
            from: 0,
            to: 60,
            bandwidth: None,
        };
        let clock = || (0, MINUTE.load(Ordering::Relaxed));
        let bandwidth = Bandwidth::by(clock, "test", &config(Some(16 * KIB), vec![night]), Arc::new(()));
        assert_eq!(bandwidth.limit(), None);
        let (mut one, start) = (pace(&bandwidth, Purpose::Miss), Instant::now());
        one.took(100 * MIB);
        one.permit().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        MINUTE.store(60, Ordering::Relaxed);
        assert_eq!(bandwidth.limit(), Some(16 * KIB));
        one.took(MIB);
        let ends = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            MINUTE.store(0, Ordering::Relaxed);
        };
        tokio::join!(one.permit(), ends);
        // A minute's debt, but the cap has gone.
        assert!(
            start.elapsed() <= Duration::from_secs(7) + LOOK_AGAIN,
            "{:?}",
            start.elapsed()
        );
    }

    #[test]
    fn local_time_on_the_days_when_clocks_change() {
        let berlin = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let table = [
            // 2026-03-29: after 01:59 comes 03:00.
            ("2026-03-29T00:59:00Z", (6, 60 + 59)),
            ("2026-03-29T01:00:00Z", (6, 3 * 60)),
            // 2026-10-25: 02:30 comes twice.
            ("2026-10-25T00:30:00Z", (6, 2 * 60 + 30)),
            ("2026-10-25T01:30:00Z", (6, 2 * 60 + 30)),
            ("2026-10-25T02:00:00Z", (6, 3 * 60)),
            // Another day here than in UTC.
            ("2026-06-30T22:30:00Z", (2, 30)),
        ];
        for (text, expected) in table {
            let at: jiff::Timestamp = text.parse().unwrap();
            let millis = u64::try_from(at.as_millisecond()).unwrap();
            assert_eq!(time_in(&berlin, millis), expected, "{text}");
        }
    }
}
