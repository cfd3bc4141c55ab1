//! Whether an endpoint is asked: a circuit breaker (closed, open, half-open), and who is asked last. A pure machine with the
//! time as a parameter, behind a lock. Called by `endpoints`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::{Error, ErrorKind, Failure, Limit};

/// Failed questions in a row that open it. Each of them was asked several times already.
const OPENS_AT: u32 = 3;
/// How long it is open, doubled for each trial that fails.
pub(super) const FIRST_SPAN: Duration = Duration::from_secs(5);
const LONGEST_SPAN: Duration = Duration::from_mins(1);
/// How long a trial has the field: it may be one that waits for its turn.
const TRIAL: Duration = Duration::from_secs(5);
/// How long an endpoint that failed is asked last.
const AVOID: Duration = Duration::from_secs(10);
/// Races lost in a row without any answer after which an endpoint is asked last, for longer with each further one. Whoever
/// is raced is not heard to the end, so an endpoint that hangs would else be waited for again and again.
const OVERTAKEN: u32 = 3;
const MOST_OVERTAKEN: Duration = Duration::from_mins(1);
/// How long one that sent wrong content is.
const DISTRUST: Duration = Duration::from_mins(10);
/// How long one that limits us is, unless it told how long, and at the most.
const LIMITED: Duration = Duration::from_secs(5);
const MOST_LIMITED: Duration = Duration::from_mins(10);

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Asked as usual.
    Closed,
    /// Not asked: it failed too often.
    Open,
    /// Asked once, to see whether it is well again.
    HalfOpen,
}

impl BreakerState {
    /// The log word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// What a request is for, as far as limits go: pulls are limited where blobs are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// GET of a manifest.
    Manifest,
    /// GET of a blob.
    Blob,
    /// Anything else.
    Other,
}

const CLASSES: usize = 3;

/// Whether a request may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Ask,
    /// It decides whether the breaker closes.
    Trial,
    Refuse {
        until: Instant,
        /// A trial runs that will tell, and is waited for until then.
        trial: Option<Instant>,
    },
}

#[derive(Clone, Copy, Debug)]
struct Opened {
    until: Instant,
    span: Duration,
    /// Since when one tries it.
    trial: Option<Instant>,
}

impl Opened {
    /// Until when others wait for a trial, if one runs.
    fn others_wait_until(&self, now: Instant) -> Option<Instant> {
        let end = self.trial? + TRIAL;
        (now < end).then_some(end)
    }
}

/// How a question failed, as far as a breaker cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fall {
    /// No answer at all came, which has nothing to do with what was asked for.
    silent: bool,
    /// What was asked for, as a hash: a registry may well fail over one repository alone.
    subject: u64,
}

#[derive(Debug)]
struct Machine {
    /// How long it is open at first; never for `None`.
    first_span: Option<Duration>,
    failures: u32,
    /// The failures in a row cannot be one repository's fault.
    general: bool,
    subject: Option<u64>,
    opened: Option<Opened>,
    last_until: Option<Instant>,
    limited: [Option<Instant>; CLASSES],
    /// Races lost since it last answered.
    overtaken: [u32; CLASSES],
}

/// What became of a breaker by what was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It stands as it did.
    None,
    Opened,
    Closed,
}

impl Machine {
    fn new(first_span: Option<Duration>) -> Self {
        Self {
            first_span,
            failures: 0,
            general: false,
            subject: None,
            opened: None,
            last_until: None,
            limited: [None; CLASSES],
            overtaken: [0; CLASSES],
        }
    }

    fn admit(&mut self, now: Instant) -> Admission {
        match &mut self.opened {
            None => Admission::Ask,
            Some(opened) => {
                let trial = opened.others_wait_until(now);
                if trial.is_some() || now < opened.until {
                    return Admission::Refuse {
                        until: opened.until,
                        trial,
                    };
                }
                opened.trial = Some(now);
                Admission::Trial
            }
        }
    }

    /// Whether it closed by this.
    fn answered(&mut self) -> bool {
        self.failures = 0;
        self.general = false;
        self.subject = None;
        self.opened.take().is_some()
    }

    /// Another answered before it did.
    fn overtaken(&mut self, class: Class, now: Instant) {
        let times = &mut self.overtaken[class as usize];
        *times = times.saturating_add(1);
        if let Some(more) = times.checked_sub(OVERTAKEN) {
            let span = AVOID
                .saturating_mul(2_u32.saturating_pow(more))
                .min(MOST_OVERTAKEN);
            self.limit(class, now + span);
        }
    }

    /// Asked last about this class until then.
    fn limit(&mut self, class: Class, until: Instant) {
        let limited = &mut self.limited[class as usize];
        *limited = (*limited).max(Some(until));
    }

    /// `spread` (0.5 to 1.5) keeps many daemons from coming back together. Whether it opened by this.
    fn failed(&mut self, now: Instant, fall: Fall, spread: f64) -> bool {
        self.last_until = self.last_until.max(Some(now + AVOID));
        self.failures = self.failures.saturating_add(1);
        self.general |= fall.silent || self.subject.is_some_and(|subject| subject != fall.subject);
        self.subject = Some(fall.subject);
        let span = match (&self.opened, self.first_span) {
            // Asked before it opened.
            (Some(opened), _) if opened.trial.is_none() => return false,
            (Some(opened), _) => (opened.span * 2).min(LONGEST_SPAN),
            (None, Some(span)) if self.failures >= OPENS_AT && self.general => span,
            (None, _) => return false,
        };
        self.opened = Some(Opened {
            until: now + span.mul_f64(spread),
            span,
            trial: None,
        });
        true
    }

    /// The trial ended without a verdict.
    fn released(&mut self) {
        if let Some(opened) = &mut self.opened {
            opened.trial = None;
        }
    }

    fn state(&self, now: Instant) -> BreakerState {
        match &self.opened {
            None => BreakerState::Closed,
            Some(opened) if opened.trial.is_some() || now >= opened.until => BreakerState::HalfOpen,
            Some(_) => BreakerState::Open,
        }
    }

    fn is_asked_last(&self, class: Class, now: Instant) -> bool {
        let limited = self.limited[class as usize];
        self.last_until.max(limited).is_some_and(|until| now < until)
    }
}

/// How readily an endpoint is asked, the readiest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Readiness {
    /// As usual, or to try it.
    Ready,
    /// It failed, limited us or sent something wrong lately.
    Last,
    /// Not at all.
    Refusing,
}

/// One endpoint's breaker.
pub(super) struct Breaker {
    machine: Mutex<Machine>,
    /// Why it is open.
    why: Mutex<Option<Error>>,
    /// A trial has ended.
    settled: Notify,
}

impl Breaker {
    /// Closed; open for `first_span` when it opens first, which `None` never does.
    pub(super) fn new(first_span: Option<Duration>) -> Self {
        Self {
            machine: Mutex::new(Machine::new(first_span)),
            why: Mutex::default(),
            settled: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it stands.
    pub(super) fn state(&self) -> BreakerState {
        self.lock().state(Instant::now())
    }

    pub(super) fn readiness(&self, class: Class) -> Readiness {
        let (machine, now) = (self.lock(), Instant::now());
        match machine.state(now) {
            BreakerState::Open => Readiness::Refusing,
            BreakerState::HalfOpen
                if machine
                    .opened
                    .is_some_and(|opened| opened.others_wait_until(now).is_some()) =>
            {
                Readiness::Refusing
            }
            BreakerState::Closed if machine.is_asked_last(class, now) => Readiness::Last,
            BreakerState::Closed | BreakerState::HalfOpen => Readiness::Ready,
        }
    }

    /// Leave to ask. When a trial is running and `patient`, its end is waited for; one that takes long is followed by
    /// another.
    ///
    /// # Errors
    /// How long it is left alone still, and why.
    pub(super) async fn enter(&self, patient: bool) -> Result<Pass<'_>, (Duration, Option<Error>)> {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // Before looking, or its end could be missed.
            settled.as_mut().enable();
            let admission = self.lock().admit(Instant::now());
            let is_trial = match admission {
                Admission::Ask => false,
                Admission::Trial => true,
                Admission::Refuse { trial: Some(end), .. } if patient => {
                    // Either way it is looked at again.
                    let _ = tokio::time::timeout_at(end, settled).await;
                    continue;
                }
                Admission::Refuse { until, .. } => {
                    let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    return Err((until.saturating_duration_since(Instant::now()), why));
                }
            };
            return Ok(Pass {
                breaker: self,
                is_trial,
            });
        }
    }

    /// It was raced about something of this class and lost without having answered.
    pub(super) fn overtaken(&self, class: Class) {
        self.lock().overtaken(class, Instant::now());
    }

    /// What it sends breaks off, or comes too slowly: asked last for a while.
    pub(super) fn avoid(&self) {
        self.last_for(AVOID);
    }

    /// What it sent was wrong: asked last for a long while.
    pub(super) fn distrust(&self) {
        self.last_for(DISTRUST);
    }

    fn last_for(&self, span: Duration) {
        let mut machine = self.lock();
        machine.last_until = machine.last_until.max(Some(Instant::now() + span));
    }
}

/// Leave to ask once. Dropped without a word it says nothing about the endpoint.
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    is_trial: bool,
}

impl Pass<'_> {
    /// It answered about something of this class, whatever the answer was.
    pub(super) fn answered(self, class: Class) -> Change {
        let closed = {
            let mut machine = self.breaker.lock();
            machine.overtaken[class as usize] = 0;
            machine.answered()
        };
        self.end(closed)
    }

    /// What the error says about the endpoint, which was asked about `subject` (a hash). `elsewhere`: it is of a host that
    /// the endpoint sent us to.
    pub(super) fn heard(self, error: &Error, class: Class, subject: u64, elsewhere: bool) -> Change {
        let now = Instant::now();
        let mut machine = self.breaker.lock();
        let closed = match error.kind() {
            // It does not know what is asked of it, but it is well.
            ErrorKind::Unavailable(Failure::Status(501)) => machine.answered(),
            // Where its blobs or its tokens come from is in trouble: no reason to leave its manifests alone, nor a proof
            // that it is well.
            ErrorKind::Unavailable(_) if elsewhere && class == Class::Blob => {
                machine.limit(class, now + AVOID);
                drop(machine);
                return Change::None;
            }
            ErrorKind::Unavailable(failure) => {
                let fall = Fall {
                    silent: !matches!(failure, Failure::Status(_)),
                    subject,
                };
                let opened = machine.failed(now, fall, 0.5 + fastrand::f64());
                drop(machine);
                if opened {
                    let mut why = self.breaker.why.lock().unwrap_or_else(PoisonError::into_inner);
                    *why = Some(error.clone());
                }
                self.end(false);
                return if opened { Change::Opened } else { Change::None };
            }
            // It was not asked.
            ErrorKind::RateLimited {
                limit: Limit::Held, ..
            } => {
                drop(machine);
                return Change::None;
            }
            ErrorKind::RateLimited { retry_after, .. } => {
                let span = retry_after.unwrap_or(LIMITED).min(MOST_LIMITED);
                machine.limited[class as usize] = Some(now + span);
                machine.answered()
            }
            kind => {
                if matches!(
                    kind,
                    ErrorKind::Protocol
                        | ErrorKind::Unexpected
                        | ErrorKind::Refused
                        | ErrorKind::CredentialsRejected
                ) {
                    machine.last_until = machine.last_until.max(Some(now + AVOID));
                }
                machine.overtaken[class as usize] = 0;
                machine.answered()
            }
        };
        drop(machine);
        self.end(closed)
    }

    /// Those who wait for a trial hear of its end, or that none is needed any more.
    fn end(mut self, closed: bool) -> Change {
        if std::mem::take(&mut self.is_trial) || closed {
            self.breaker.settled.notify_waiters();
        }
        if closed { Change::Closed } else { Change::None }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            self.breaker.lock().released();
            self.breaker.settled.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT: Fall = Fall {
        silent: true,
        subject: 1,
    };

    fn status(subject: u64) -> Fall {
        Fall {
            silent: false,
            subject,
        }
    }

    #[test]
    fn a_life() {
        let (mut machine, t0) = (Machine::new(Some(FIRST_SPAN)), Instant::now());
        let at = |seconds| t0 + Duration::from_secs(seconds);
        assert!(!machine.failed(at(0), SILENT, 1.0));
        assert!(!machine.failed(at(0), SILENT, 1.0));
        assert_eq!(machine.admit(at(0)), Admission::Ask);
        assert!(machine.failed(at(0), SILENT, 1.0));
        assert_eq!(machine.state(at(4)), BreakerState::Open);
        let refused = |until, trial: Option<u64>| Admission::Refuse {
            until: at(until),
            trial: trial.map(at),
        };
        assert_eq!(machine.admit(at(4)), refused(5, None));
        // One trial, the others wait for it.
        assert_eq!(machine.state(at(5)), BreakerState::HalfOpen);
        assert_eq!(machine.admit(at(5)), Admission::Trial);
        assert_eq!(machine.admit(at(5)), refused(5, Some(10)));
        // It fails: twice as long. One that was asked before counts for nothing.
        assert!(machine.failed(at(6), SILENT, 1.0));
        assert!(!machine.failed(at(7), SILENT, 1.0));
        assert_eq!(machine.admit(at(15)), refused(16, None));
        assert_eq!(machine.admit(at(16)), Admission::Trial);
        // It takes too long: another.
        assert_eq!(machine.admit(at(20)), refused(16, Some(21)));
        assert_eq!(machine.admit(at(21)), Admission::Trial);
        assert_eq!(machine.admit(at(22)), refused(16, Some(26)));
        // It is dropped: the next one is the trial.
        machine.released();
        assert_eq!(machine.admit(at(22)), Admission::Trial);
        machine.answered();
        assert_eq!(machine.state(at(22)), BreakerState::Closed);
        assert_eq!(machine.admit(at(22)), Admission::Ask);
        // Afresh.
        assert!(!machine.failed(at(23), SILENT, 1.0));
    }

    #[test]
    fn spans_grow_up_to_a_minute() {
        let (mut machine, mut now) = (Machine::new(Some(FIRST_SPAN)), Instant::now());
        let mut spans = Vec::new();
        for _ in 0..OPENS_AT {
            machine.failed(now, SILENT, 1.0);
        }
        for _ in 0..6 {
            let opened = machine.opened.unwrap();
            spans.push(opened.span.as_secs());
            now = opened.until;
            assert_eq!(machine.admit(now), Admission::Trial);
            machine.failed(now, SILENT, 1.0);
        }
        assert_eq!(spans, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn one_broken_repository_closes_no_registry() {
        let (mut machine, now) = (Machine::new(Some(FIRST_SPAN)), Instant::now());
        for _ in 0..10 {
            assert!(!machine.failed(now, status(7), 1.0));
        }
        assert!(machine.failed(now, status(8), 1.0));
        machine.answered();
        for (fall, opens) in [(status(1), false), (status(2), false), (status(2), true)] {
            assert_eq!(machine.failed(now, fall, 1.0), opens);
        }
    }

    #[test]
    fn asked_last_for_a_while() {
        let (mut machine, now) = (Machine::new(Some(FIRST_SPAN)), Instant::now());
        machine.limited[Class::Manifest as usize] = Some(now + Duration::from_mins(1));
        let last =
            |machine: &Machine, class, after| machine.is_asked_last(class, now + Duration::from_secs(after));
        assert!(last(&machine, Class::Manifest, 59) && !last(&machine, Class::Manifest, 60));
        assert!(!last(&machine, Class::Blob, 0));
        machine.failed(now, SILENT, 1.0);
        assert!(last(&machine, Class::Blob, 9) && !last(&machine, Class::Blob, 10));
    }

    #[test]
    fn who_loses_races_without_answering_is_asked_last_for_longer_and_longer() {
        let (mut machine, now) = (Machine::new(Some(FIRST_SPAN)), Instant::now());
        let mut spans = Vec::new();
        for _ in 0..7 {
            machine.overtaken(Class::Blob, now);
            let until = machine.limited[Class::Blob as usize];
            spans.push(until.map_or(0, |until| (until - now).as_secs()));
        }
        assert_eq!(spans, [0, 0, 10, 20, 40, 60, 60]);
        assert!(!machine.is_asked_last(Class::Manifest, now));
        assert_eq!(machine.state(now), BreakerState::Closed);
        // An answer ends the row.
        let breaker = Breaker::new(Some(FIRST_SPAN));
        let answer = || {
            let pass = Pass {
                breaker: &breaker,
                is_trial: false,
            };
            pass.answered(Class::Blob)
        };
        for _ in 0..10 {
            breaker.overtaken(Class::Blob);
            breaker.overtaken(Class::Blob);
            assert_eq!(answer(), Change::None);
        }
        assert_eq!(breaker.readiness(Class::Blob), Readiness::Ready);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_trial_hears_of_its_end() {
        let breaker = Breaker::new(Some(FIRST_SPAN));
        for _ in 0..OPENS_AT {
            breaker.lock().failed(Instant::now(), SILENT, 1.0);
        }
        assert!(breaker.enter(true).await.is_err());
        tokio::time::advance(FIRST_SPAN).await;
        let trial = breaker.enter(true).await.ok().unwrap();
        assert!(trial.is_trial);
        assert!(breaker.enter(false).await.is_err());
        let (waiting, ()) = tokio::join!(breaker.enter(true), async {
            tokio::task::yield_now().await;
            assert_eq!(trial.answered(Class::Other), Change::Closed);
        });
        assert!(!waiting.ok().unwrap().is_trial);
        // A trial that waits for its turn is not waited for for ever.
        for _ in 0..OPENS_AT {
            breaker.lock().failed(Instant::now(), SILENT, 1.0);
        }
        tokio::time::advance(FIRST_SPAN).await;
        let slow = breaker.enter(false).await.ok().unwrap();
        let second = breaker.enter(true).await.ok().unwrap();
        assert!(slow.is_trial && second.is_trial);
        drop(slow);
        assert_eq!(second.answered(Class::Other), Change::Closed);
        // And of one that was dropped: then it is theirs.
        for _ in 0..OPENS_AT {
            breaker.lock().failed(Instant::now(), SILENT, 1.0);
        }
        tokio::time::advance(FIRST_SPAN).await;
        let trial = breaker.enter(true).await.ok().unwrap();
        let (waiting, ()) = tokio::join!(breaker.enter(true), async {
            tokio::task::yield_now().await;
            drop(trial);
        });
        assert!(waiting.ok().unwrap().is_trial);
    }
}
