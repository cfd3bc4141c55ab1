//! What one credential may still pull, as the registry announces it (Docker Hub: `ratelimit-limit: 100;w=21600`), less
//! what was spent since. Pure: the time is a parameter, and clocks may jump. Kept by `governor`.
//!
//! What a registry does not tell is never in the way: a budget is unknown until it was told.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};

use super::errand::Purpose;
use crate::clock::Timestamp;

/// Docker Hub's window, for a limit that comes without one.
const WINDOW: Duration = Duration::from_hours(6);
/// No limit is believed to last longer than this, whatever a header or a clock says.
const LONGEST: Duration = Duration::from_hours(24);
/// How often a free question may be asked to learn whether the budget is back, in a window of six hours; in a shorter one
/// as often, but for a second.
pub(super) const PROBE_EVERY: Duration = Duration::from_mins(3);
const PROBES: u32 = 120;
const LEAST_PROBE: Duration = Duration::from_secs(1);
/// How long a client is to wait at the least.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// Percent of the limit that have to be left for what nobody waits for, and for what has a copy.
const BACKGROUND_FLOOR: u64 = 40;
const REFRESH_FLOOR: u64 = 20;
/// Spending less than this an hour is no spending.
const LEAST_PACE: f64 = 0.05;

/// What an answer's headers tell of the limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Pulls in a window.
    pub(super) limit: Option<u64>,
    /// Pulls left in it.
    pub(super) remaining: Option<u64>,
    /// How long a window is.
    pub(super) window: Option<Duration>,
    /// Whose budget it is: an address, a network or an account.
    pub(super) source: Option<String>,
}

impl Told {
    /// What these headers tell; `None` when they tell neither a limit nor what is left of it.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let (limit, window) = text("ratelimit-limit").map_or((None, None), count_and_window);
        let (remaining, second) = text("ratelimit-remaining").map_or((None, None), count_and_window);
        if limit.is_none() && remaining.is_none() {
            return None;
        }
        let source = text("docker-ratelimit-source").map(super::error::tidy);
        Some(Self {
            limit,
            remaining,
            window: window.or(second),
            source: source.filter(|source| !source.is_empty()),
        })
    }
}

/// `100;w=21600`, or just `100`.
fn count_and_window(value: &str) -> (Option<u64>, Option<Duration>) {
    // Of a list the first: Docker Hub sends one.
    let first = value.split(',').next().unwrap_or_default();
    let mut parts = first.split(';').map(str::trim);
    let count = parts.next().and_then(|count| count.parse().ok());
    let window = parts.find_map(|part| part.strip_prefix("w=")?.trim().parse().ok());
    let window = window.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    (count, window)
}

/// What is kept of the budget for whom, as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// Percent of the limit that are kept for what is reserved; 0 when nothing is.
    pub(super) reserve: u8,
}

impl Rules {
    /// How many pulls must be left over for others when one is spent on this.
    fn floor(self, purpose: Purpose, reserved: bool, limit: u64) -> u64 {
        let kept = u64::from(self.reserve);
        let percent = match purpose {
            Purpose::Background => kept.max(BACKGROUND_FLOOR),
            Purpose::Refresh => kept.max(REFRESH_FLOOR),
            Purpose::Miss if reserved => 0,
            Purpose::Miss => kept,
        };
        limit.saturating_mul(percent.min(100)) / 100
    }
}

/// Why a counted request is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Nothing is left.
    Empty,
    /// The last pulls are kept for what is more urgent.
    Kept,
}

/// A counted request that is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) reason: Reason,
    /// When it may be asked for again.
    pub(super) retry_after: Duration,
    /// A free question may be asked now to learn whether the budget is back.
    pub(super) probe: bool,
    /// What is under way may leave enough for it: its answers will tell.
    pub(super) soon: bool,
}

/// A request that is under way: its number, and whether it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    number: u64,
    pub(super) counted: bool,
}

/// Until when the registry gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Exhausted {
    until: Timestamp,
    /// The registry said so itself, rather than we by the length of its window.
    told: bool,
    /// It refuses what does not count, too.
    #[serde(default)]
    free: bool,
    /// Answers to requests that began before this one know nothing of it.
    #[serde(skip)]
    order: u64,
}

/// What one credential may still pull.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Budget {
    #[serde(default)]
    limit: Option<u64>,
    #[serde(default)]
    window: Option<Duration>,
    #[serde(default)]
    source: Option<String>,
    /// What was left when it was last told, and when that was.
    #[serde(default)]
    told: Option<(u64, Timestamp)>,
    /// Counted requests since then of which nothing was heard.
    #[serde(default)]
    spent: u64,
    #[serde(default)]
    exhausted: Option<Exhausted>,
    /// When a free question was last asked to learn more.
    #[serde(default)]
    probed: Option<Timestamp>,
    #[serde(default)]
    pace: Pace,
    /// Something was pulled by it in this window.
    #[serde(default)]
    used: bool,
    /// Answers to free questions tell limits.
    #[serde(default)]
    free_tells: bool,
    /// Requests that began, and how many of them when it was last told.
    #[serde(skip)]
    began: u64,
    #[serde(skip)]
    order: u64,
    /// Counted requests under way.
    #[serde(skip)]
    under_way: u64,
}

impl Budget {
    /// A request begins.
    pub(super) fn begin(&mut self, counted: bool, now: Timestamp) -> Ticket {
        self.began += 1;
        if counted {
            self.under_way += 1;
            self.used = true;
            self.pace.add(1.0, now);
        }
        Ticket {
            number: self.began,
            counted,
        }
    }

    /// An answer to a free question told something: then silence of another says something too.
    pub(super) fn note_free_tells(&mut self) {
        self.free_tells = true;
    }

    /// Whether free questions are told limits.
    pub(super) fn free_tells(&self) -> bool {
        self.free_tells
    }

    /// An answer to it told something. Ends a counted one: what it cost is in what was told.
    pub(super) fn hear(&mut self, ticket: Ticket, told: &Told, now: Timestamp) {
        self.settle(now);
        self.limit = told.limit.or(self.limit);
        self.window = told.window.map(|span| span.min(LONGEST)).or(self.window);
        if told.source.is_some() {
            self.source.clone_from(&told.source);
        }
        if let Some(remaining) = told.remaining {
            // It may answer a request that is older than what is known: then the worse of the two holds.
            let newer = ticket.number > self.order;
            match self.told {
                Some((known, at)) if !newer => self.told = Some((known.min(remaining), at)),
                _ => {
                    if let Some(expected) = self.left() {
                        // Others behind the same address spend too.
                        self.pace.add(expected.saturating_sub(remaining) as f64, now);
                    }
                    self.told = Some((remaining, now));
                    self.spent = 0;
                    self.order = self.began;
                }
            }
            if remaining > 0 && self.exhausted.is_some_and(|it| ticket.number > it.order) {
                self.exhausted = None;
            }
        }
        self.over(ticket);
    }

    fn over(&mut self, ticket: Ticket) {
        if ticket.counted {
            self.under_way = self.under_way.saturating_sub(1);
        }
    }

    /// It ended without telling anything, by an answer: registries count no request that they do not tell about, nor
    /// one that they refuse.
    pub(super) fn end(&mut self, ticket: Ticket) {
        self.over(ticket);
        if ticket.counted {
            self.pace.spare();
        }
    }

    /// What was asked for comes, and nothing is told: a registry that never tells limits gives again.
    pub(super) fn give(&mut self, ticket: Ticket) {
        self.end(ticket);
        if self.limit.is_none() {
            self.told = None;
        }
    }

    /// It ended without an answer: it may have been counted.
    pub(super) fn lose(&mut self, ticket: Ticket) {
        self.over(ticket);
        if ticket.counted {
            self.spent += 1;
        }
    }

    /// The registry refuses for its limit on pulls (429), for so long if it told.
    pub(super) fn refuse(&mut self, retry_after: Option<Duration>, now: Timestamp) {
        self.settle(now);
        let told = retry_after.filter(|span| !span.is_zero());
        let span = told.unwrap_or_else(|| self.window());
        self.exhausted = Some(Exhausted {
            until: now.after(span.min(LONGEST)),
            told: told.is_some(),
            free: self.exhausted.is_some_and(|before| before.free),
            order: self.began,
        });
        // Nothing is left, whatever was told before; and the next answer knows better.
        self.told = Some((0, now));
        self.spent = 0;
        self.order = self.began;
    }

    /// It was a free question that was refused so: then free questions are asked now and then only, too.
    pub(super) fn refuse_free(&mut self) {
        if let Some(exhausted) = &mut self.exhausted {
            exhausted.free = true;
        }
    }

    /// Leave to send a free question at `now`.
    ///
    /// # Errors
    /// It would be refused, too.
    pub(super) fn admit_free(&mut self, now: Timestamp) -> Result<(), Held> {
        self.settle(now);
        let Some(exhausted) = self.exhausted.filter(|exhausted| exhausted.free) else {
            return Ok(());
        };
        let next = self.next_probe(now);
        if next.is_zero() {
            self.probed = Some(now);
            return Ok(());
        }
        Err(Held {
            reason: Reason::Empty,
            retry_after: exhausted.until.since(now).min(next).max(SHORTEST_WAIT),
            probe: false,
            soon: false,
        })
    }

    /// In how long a free question may be asked to learn whether the budget is back.
    pub(super) fn next_probe(&self, now: Timestamp) -> Duration {
        let last = self.probed.max(self.told.map(|(_, at)| at));
        last.map_or(Duration::ZERO, |last| {
            self.probe_every().saturating_sub(now.since(last))
        })
    }

    /// Whether a counted request for this may be sent, by what was known when it was last settled.
    pub(super) fn allows(&self, purpose: Purpose, reserved: bool, rules: Rules) -> bool {
        let floor = rules.floor(purpose, reserved, self.limit.unwrap_or(0));
        self.left()
            .is_none_or(|left| self.exhausted.is_none() && left > floor)
    }

    /// Leave to send a counted request for this at `now`.
    ///
    /// # Errors
    /// Why not, and what may be done instead.
    pub(super) fn admit(
        &mut self,
        purpose: Purpose,
        reserved: bool,
        rules: Rules,
        now: Timestamp,
    ) -> Result<(), Held> {
        self.settle(now);
        if self.allows(purpose, reserved, rules) {
            return Ok(());
        }
        let left = self.left().unwrap_or_default();
        let floor = rules.floor(purpose, reserved, self.limit.unwrap_or(0));
        let reason = if self.exhausted.is_some() || left == 0 {
            Reason::Empty
        } else {
            Reason::Kept
        };
        let next_probe = self.next_probe(now);
        let known = self.told.map_or(0, |(left, _)| left.saturating_sub(self.spent));
        let soon = self.exhausted.is_none() && known > floor;
        // A revalidation has just asked its own free question.
        let probe = purpose == Purpose::Miss && next_probe.is_zero() && !soon;
        if probe {
            self.probed = Some(now);
        }
        let back = self.back_at().map_or(self.probe_every(), |at| at.since(now));
        // What we only reckon by the window may be wrong, and a question is free.
        let wait = match self.exhausted {
            _ if soon => SHORTEST_WAIT,
            Some(Exhausted { told: true, .. }) => back,
            _ if probe => back.min(self.probe_every()),
            _ => back.min(next_probe),
        };
        Err(Held {
            reason,
            retry_after: wait.max(SHORTEST_WAIT),
            probe,
            soon,
        })
    }

    /// Brings it up to `now`: windows that have passed, and clocks that were set back.
    pub(super) fn settle(&mut self, now: Timestamp) {
        let window = self.window();
        if let Some((_, at)) = &mut self.told {
            *at = (*at).min(now);
        }
        self.probed = self.probed.map(|at| at.min(now));
        if let Some(exhausted) = &mut self.exhausted {
            if exhausted.until.since(now) > LONGEST {
                exhausted.until = now.after(window);
            }
            if exhausted.until <= now {
                self.exhausted = None;
                // Something is left, nobody knows how much: one request at a time, until it is told.
                let left = self.told.map_or(0, |(left, _)| left);
                self.told = Some((left.max(1), now));
                self.spent = 0;
                self.probed = None;
            }
        }
        let over = self.told.is_some_and(|(_, at)| now.since(at) >= window);
        if over && self.exhausted.is_none() {
            self.told = self.limit.map(|limit| (limit, now));
            self.spent = 0;
            self.used = self.under_way > 0;
        }
    }

    /// Whether something was pulled by it in this window: others are of no use for what is pulled now.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    /// Pulls that are left, by what is known; `None` when nothing is.
    pub(super) fn left(&self) -> Option<u64> {
        let (left, _) = self.told?;
        Some(left.saturating_sub(self.spent.saturating_add(self.under_way)))
    }

    /// Whether anything is known of it.
    pub(super) fn is_known(&self) -> bool {
        self.limit.is_some() || self.told.is_some()
    }

    /// The limit, in pulls.
    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Whose budget it is, as the registry tells.
    pub(super) fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// When all of it is back at the latest, if it is not all there; else when something is.
    pub(super) fn back_at(&self) -> Option<Timestamp> {
        if let Some(exhausted) = self.exhausted {
            return Some(exhausted.until);
        }
        let (_, at) = self.told?;
        let whole = self.limit.is_some_and(|limit| self.left() >= Some(limit));
        (!whole).then(|| at.after(self.window()))
    }

    /// Whether the registry refuses for now.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.is_some() || self.left() == Some(0)
    }

    /// In how long nothing is left, if it is spent as of late; `None` when it lasts.
    pub(super) fn lasts(&self, now: Timestamp) -> Option<Duration> {
        let pace = self.pace.per_hour(now);
        let left = self.left()?;
        if left == 0 || pace < LEAST_PACE {
            return None;
        }
        Duration::try_from_secs_f64(left as f64 / pace * 3600.0).ok()
    }

    /// As it is kept across restarts: what is under way then counts as spent.
    pub(super) fn to_keep(&self) -> Self {
        Self {
            spent: self.spent.saturating_add(self.under_way),
            under_way: 0,
            began: 0,
            order: 0,
            ..self.clone()
        }
    }

    fn probe_every(&self) -> Duration {
        (self.window() / PROBES).clamp(LEAST_PROBE, PROBE_EVERY)
    }

    fn window(&self) -> Duration {
        self.window
            .unwrap_or(WINDOW)
            .clamp(Duration::from_secs(1), LONGEST)
    }
}

/// How fast pulls are spent: an average in which those of an hour ago weigh a third of those of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Pace {
    weight: f64,
    at: Option<Timestamp>,
}

impl Pace {
    fn add(&mut self, pulls: f64, now: Timestamp) {
        self.weight = self.per_hour(now) + pulls;
        self.at = Some(now);
    }

    /// One that was begun a moment ago cost nothing.
    fn spare(&mut self) {
        self.weight = (self.weight - 1.0).max(0.0);
    }

    fn per_hour(&self, now: Timestamp) -> f64 {
        let hours = self.at.map_or(0.0, |at| now.since(at).as_secs_f64() / 3600.0);
        let pace = self.weight * (-hours).exp();
        if pace.is_finite() { pace.max(0.0) } else { 0.0 }
    }
}
