//! Whether one more connection for a blob is worth it: judged by what the last one brought. Pure, time is a parameter;
//! `parallel` does what it says.

use std::time::Duration;

use tokio::time::Instant;

/// What a connection has to come to its speed.
const SETTLE: Duration = Duration::from_millis(500);
/// How long a rate is measured.
const MEASURE: Duration = Duration::from_secs(1);
/// With less to come, or less time to wait for it, another connection is not worth its opening.
const WORTH_BYTES: u64 = 32 * 1024 * 1024;
const WORTH_TIME: f64 = 3.0;
/// The same, where it is known that it helps and one has ended.
const STILL_WORTH_TIME: f64 = 1.0;
/// What one more connection must bring: a fifth more.
const GAIN: f64 = 1.2;
/// The part of their time that connections must wait for the network; else the disk or the processor limits.
const IDLE: f64 = 0.5;

/// What is seen of a fill at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) now: Instant,
    /// Bytes that are here.
    pub(super) present: u64,
    /// Bytes that lack.
    pub(super) left: u64,
    /// Connections.
    pub(super) running: usize,
    /// How long connections have waited for the network so far, added up.
    pub(super) idle: Duration,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Open one more connection, and say how that went: [`Ramp::opened`] or [`Ramp::refused`].
    Add,
    /// The newest connection brings nothing: end it.
    End,
}

#[derive(Debug)]
enum Phase {
    /// Connections come to their speed.
    Settling(Instant),
    /// Since then, with so much here, and so long waited for.
    Measuring(Seen),
    /// As many as are useful are known.
    Known,
}

/// The connections of one fill: more and more of them, as long as each helps.
#[derive(Debug)]
pub(super) struct Ramp {
    most: usize,
    phase: Phase,
    /// So many are known to be useful, and brought so much per second.
    useful: usize,
    rate: Option<f64>,
    /// So many are tried.
    tried: usize,
}

impl Ramp {
    /// A fill that has just begun, over one connection, and may have `most`.
    pub(super) fn new(most: usize, now: Instant) -> Self {
        Self {
            most,
            phase: Phase::Settling(now + SETTLE),
            useful: 1,
            rate: None,
            tried: 1,
        }
    }

    /// What to do, seeing this.
    pub(super) fn judge(&mut self, seen: &Seen) -> Step {
        match &self.phase {
            Phase::Known => {
                let worth = self.is_worth(seen.left, STILL_WORTH_TIME);
                if (1..self.useful.min(self.most)).contains(&seen.running) && worth {
                    return Step::Add;
                }
                Step::Nothing
            }
            // One has come to its end meanwhile: what is measured would be the rest.
            _ if seen.running < self.tried.min(self.most) => {
                if seen.running > 0 && self.is_worth(seen.left, STILL_WORTH_TIME) {
                    return Step::Add;
                }
                self.settle(seen.now);
                Step::Nothing
            }
            Phase::Settling(until) if seen.now < *until => Step::Nothing,
            Phase::Settling(_) => {
                self.phase = Phase::Measuring(*seen);
                Step::Nothing
            }
            Phase::Measuring(since) => {
                let time = seen.now.saturating_duration_since(since.now);
                if time < MEASURE {
                    return Step::Nothing;
                }
                let rate = seen.present.saturating_sub(since.present) as f64 / time.as_secs_f64();
                let idle = seen.idle.saturating_sub(since.idle).as_secs_f64()
                    / (time.as_secs_f64() * seen.running.max(1) as f64);
                self.measured(rate, idle, seen)
            }
        }
    }

    fn measured(&mut self, rate: f64, idle: f64, seen: &Seen) -> Step {
        if self.tried > self.useful && self.rate.is_some_and(|before| rate < before * GAIN) {
            self.tried = self.useful;
            self.phase = Phase::Known;
            return Step::End;
        }
        self.useful = self.tried;
        self.rate = Some(rate);
        if self.useful >= self.most || seen.left < WORTH_BYTES {
            self.phase = Phase::Known;
            return Step::Nothing;
        }
        if idle >= IDLE && self.is_worth(seen.left, WORTH_TIME) {
            return Step::Add;
        }
        self.phase = Phase::Measuring(*seen);
        Step::Nothing
    }

    fn is_worth(&self, left: u64, time: f64) -> bool {
        self.rate.is_none_or(|rate| left as f64 > rate * time)
    }

    fn settle(&mut self, now: Instant) {
        self.phase = Phase::Settling(now + SETTLE);
    }

    /// The connection that was wanted brings bytes; with it there are so many.
    pub(super) fn opened(&mut self, running: usize, now: Instant) {
        if matches!(self.phase, Phase::Known) {
            return;
        }
        self.tried = running.max(self.useful).min(self.useful + 1);
        self.settle(now);
    }

    /// There will be no further connections.
    pub(super) fn refused(&mut self) {
        self.tried = self.useful;
        self.most = 0;
        self.phase = Phase::Known;
    }

    /// One was given up for others: with what is left, it begins again after `pause`.
    pub(super) fn gave_way(&mut self, now: Instant, pause: Duration) {
        self.useful = self.useful.saturating_sub(1).max(1);
        self.tried = self.useful;
        self.phase = Phase::Settling(now + SETTLE + pause);
    }

    /// What was seen says nothing: begin again, after `pause`.
    pub(super) fn again(&mut self, now: Instant, pause: Duration) {
        if !matches!(self.phase, Phase::Known) {
            self.phase = Phase::Settling(now + SETTLE + pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;
    const TICK: Duration = Duration::from_millis(250);

    /// A download of `size` bytes from an upstream that gives so much per second by so many connections: how many there
    /// were at a time, at the most and at the end, and how many were opened.
    struct Trial {
        most: usize,
        last: usize,
        opened: usize,
        seconds: f64,
    }

    fn download(most: usize, size: u64, idle: f64, rate: impl Fn(usize) -> u64) -> Trial {
        let start = Instant::now();
        let (mut now, mut present, mut waited) = (start, 0, Duration::ZERO);
        let mut ramp = Ramp::new(most, now);
        let (mut running, mut trial) = (
            1,
            Trial {
                most: 1,
                last: 1,
                opened: 1,
                seconds: 0.0,
            },
        );
        while present < size {
            now += TICK;
            present = size.min(present + rate(running) / 4);
            waited += TICK.mul_f64(idle * running as f64);
            let seen = Seen {
                now,
                present,
                left: size - present,
                running,
                idle: waited,
            };
            match ramp.judge(&seen) {
                Step::Nothing => {}
                Step::Add => {
                    running += 1;
                    trial.opened += 1;
                    ramp.opened(running, now);
                }
                Step::End => running -= 1,
            }
            trial.most = trial.most.max(running);
        }
        trial.last = running;
        trial.seconds = (now - start).as_secs_f64();
        trial
    }

    #[test]
    fn connections_are_added_as_long_as_they_help() {
        let each = |of: u64| move |running: usize| of * running as u64;
        let limited = |all: u64| move |_: usize| all;
        // What it is, most connections allowed, size, then: most at a time, at the end, opened.
        let slow = download(4, 2048 * MIB, 1.0, each(16 * MIB));
        assert_eq!((slow.most, slow.last, slow.opened), (4, 4, 4));
        assert!(slow.seconds < 45.0, "{}", slow.seconds);
        let useless = download(4, 512 * MIB, 1.0, limited(16 * MIB));
        assert_eq!((useless.most, useless.last, useless.opened), (2, 1, 2));
        let half = download(8, 2048 * MIB, 1.0, |running| 16 * MIB * running.min(3) as u64);
        assert_eq!((half.most, half.last, half.opened), (4, 3, 4));
        for (what, trial) in [
            ("parallel is off", download(1, 2048 * MIB, 1.0, each(16 * MIB))),
            ("too small", download(4, 48 * MIB, 1.0, each(16 * MIB))),
            ("too fast", download(4, 1024 * MIB, 1.0, each(400 * MIB))),
            ("we are what limits", download(4, 512 * MIB, 0.2, each(16 * MIB))),
        ] {
            assert_eq!((trial.most, trial.opened), (1, 1), "{what}");
        }
    }

    fn seen(now: Instant, mib: u64, running: usize) -> Seen {
        Seen {
            now,
            present: mib * MIB,
            left: (1024 - mib) * MIB,
            running,
            idle: now.elapsed(),
        }
    }

    #[test]
    fn what_gave_way_begins_again_after_a_pause() {
        let start = Instant::now();
        let mut ramp = Ramp::new(4, start);
        let pause = Duration::from_secs(10);
        ramp.opened(2, start);
        ramp.gave_way(start, pause);
        let mut steps = (1..100_u32).map(|tick| {
            let idle = TICK * tick;
            let seen = Seen {
                idle,
                ..seen(start + TICK * tick, u64::from(tick), 1)
            };
            (tick, ramp.judge(&seen))
        });
        let (tick, step) = steps.find(|(_, step)| *step != Step::Nothing).unwrap();
        assert_eq!(step, Step::Add);
        assert!(TICK * tick > pause, "{tick}");
    }

    #[test]
    fn a_refusal_ends_it() {
        let start = Instant::now();
        let mut ramp = Ramp::new(4, start);
        ramp.refused();
        for tick in 1..100 {
            let seen = seen(start + TICK * tick, u64::from(tick), 1);
            assert_eq!(ramp.judge(&seen), Step::Nothing);
        }
    }

    #[test]
    fn one_that_came_to_its_end_is_replaced_while_that_is_worth_it() {
        let start = Instant::now();
        let mut ramp = Ramp::new(2, start);
        let mut idle = Duration::ZERO;
        let mut look = |ramp: &mut Ramp, tick: u32, mib: u64, running| {
            idle += TICK * 2;
            let seen = Seen {
                idle,
                ..seen(start + TICK * tick, mib, running)
            };
            ramp.judge(&seen)
        };
        let mut steps: Vec<Step> = (1..=6)
            .map(|tick| look(&mut ramp, tick, u64::from(tick), 1))
            .collect();
        assert_eq!(steps.pop(), Some(Step::Add));
        ramp.opened(2, start + TICK * 6);
        // Before it is known whether it helps, and after.
        assert_eq!(look(&mut ramp, 7, 8, 1), Step::Add);
        ramp.opened(2, start + TICK * 7);
        for tick in 8..20 {
            let step = look(&mut ramp, tick, u64::from(tick * 2), 2);
            assert_eq!(step, Step::Nothing, "{tick}");
        }
        assert_eq!(look(&mut ramp, 20, 40, 1), Step::Add);
        assert_eq!(look(&mut ramp, 21, 1023, 1), Step::Nothing);
        assert_eq!(look(&mut ramp, 22, 1023, 0), Step::Nothing);
    }
}
