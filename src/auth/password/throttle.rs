//! Who guesses too often: wrong passwords by address and name, by address, and by name, each with a wait that doubles. Pure
//! but for what it counts: the time comes in. Used by `verifier`, and for logins of
//! upstreams.

use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// What is counted at most: the least recently seen is forgotten first.
const PAIRS: u64 = 50_000;
const ADDRESSES: u64 = 20_000;
const NAMES: u64 = 20_000;
/// Where a name gave its password rightly, it does not suffer from those who guess elsewhere, for so long.
const TRUSTED: Duration = Duration::from_hours(24);

/// What wrong passwords lead to.
struct Rule {
    /// After so many each one costs a wait,
    free: u32,
    /// of a second at first, doubled so often.
    doublings: u32,
    /// How long until one is forgiven.
    forgives: Duration,
}

/// Somebody who guesses, or forgot.
const PAIR: Rule = Rule {
    free: 5,
    doublings: 6,
    forgives: Duration::from_mins(2),
};
/// A whole company may be behind one address, with a program or two that were not told of a new password.
const ADDRESS: Rule = Rule {
    free: 30,
    doublings: 6,
    forgives: Duration::from_secs(20),
};
/// Gently, for it falls on the real one too.
const NAME: Rule = Rule {
    free: 50,
    doublings: 3,
    forgives: Duration::from_secs(20),
};

/// A name, or what stands for it.
pub(in crate::auth) type Name = [u8; 32];

/// Whom an address belongs to: one IPv4 address, or a /64, of which each host has as many addresses as it likes. `None`
/// for callers without one, who are on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::auth) struct Network(Option<IpAddr>);

impl Network {
    pub(in crate::auth) fn of(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (!0 << 64)).into()),
            v4 @ IpAddr::V4(_) => v4,
        }))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("this machine"),
            Some(IpAddr::V6(v6)) => write!(f, "{v6}/64"),
            Some(v4) => write!(f, "{v4}"),
        }
    }
}

#[derive(Debug)]
struct Tally {
    wrong: u32,
    /// From when on the next one is being forgiven.
    since: Instant,
    until: Option<Instant>,
    right_at: Option<Instant>,
}

impl Tally {
    fn new(now: Instant) -> Self {
        Self {
            wrong: 0,
            since: now,
            until: None,
            right_at: None,
        }
    }

    /// How long to wait.
    fn wait(&self, now: Instant) -> Option<Duration> {
        self.until
            .map(|until| until.saturating_duration_since(now))
            .filter(|wait| !wait.is_zero())
    }

    /// Another wrong one. Whether this is the first that costs a wait.
    fn wrong(&mut self, rule: &Rule, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_millis() / rule.forgives.as_millis();
        let forgiven = u32::try_from(passed).unwrap_or(u32::MAX).min(self.wrong);
        self.wrong -= forgiven;
        // What has passed towards the next one is not lost.
        self.since = if self.wrong == 0 {
            now
        } else {
            self.since + rule.forgives * forgiven
        };
        // No more than the longest wait needs, so that it ends in foreseeable time.
        self.wrong = (self.wrong + 1).min(rule.free + rule.doublings);
        let Some(doubled) = self.wrong.checked_sub(rule.free) else {
            return false;
        };
        let until = now + Duration::from_secs(1 << doubled);
        self.until = Some(self.until.map_or(until, |before| before.max(until)));
        doubled == 0
    }
}

type Tallies<K> = Cache<K, Arc<Mutex<Tally>>>;

/// What is counted.
pub(in crate::auth) struct Throttle {
    pairs: Tallies<(Network, Name)>,
    addresses: Tallies<Network>,
    names: Tallies<Name>,
}

impl Throttle {
    pub(in crate::auth) fn new() -> Self {
        Self {
            pairs: tallies(PAIRS),
            addresses: tallies(ADDRESSES),
            names: tallies(NAMES),
        }
    }

    /// How long until this one may try again; `None`: at once.
    pub(in crate::auth) fn wait(&self, from: Network, name: &Name, now: Instant) -> Option<Duration> {
        let pair = self.pairs.get(&(from, *name));
        let pair = pair.as_deref().map(lock);
        let is_trusted = pair
            .as_ref()
            .and_then(|pair| pair.right_at)
            .is_some_and(|at| now.saturating_duration_since(at) < TRUSTED);
        let own = pair.and_then(|pair| pair.wait(now));
        let by_name = if is_trusted {
            None
        } else {
            self.names.get(name).and_then(|tally| lock(&tally).wait(now))
        };
        let by_address = self.addresses.get(&from).and_then(|tally| lock(&tally).wait(now));
        own.max(by_address).max(by_name)
    }

    /// A wrong password. Whether a wait begins with it for this address, or for this name from there.
    pub(in crate::auth) fn wrong(&self, from: Network, name: &Name, now: Instant) -> bool {
        lock(&of(&self.names, *name, now)).wrong(&NAME, now);
        let address = lock(&of(&self.addresses, from, now)).wrong(&ADDRESS, now);
        let pair = lock(&of(&self.pairs, (from, *name), now)).wrong(&PAIR, now);
        address || pair
    }

    /// The right one: whatever this name did wrong from there is forgotten.
    pub(in crate::auth) fn right(&self, from: Network, name: &Name, now: Instant) {
        let tally = of(&self.pairs, (from, *name), now);
        *lock(&tally) = Tally {
            right_at: Some(now),
            ..Tally::new(now)
        };
    }
}

fn tallies<K: Hash + Eq + Send + Sync + 'static>(most: u64) -> Tallies<K> {
    Cache::builder()
        .max_capacity(most)
        .eviction_policy(EvictionPolicy::lru())
        .time_to_idle(TRUSTED)
        .build()
}

fn of<K: Hash + Eq + Send + Sync + 'static>(tallies: &Tallies<K>, key: K, now: Instant) -> Arc<Mutex<Tally>> {
    tallies.get_with(key, || Arc::new(Mutex::new(Tally::new(now))))
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
