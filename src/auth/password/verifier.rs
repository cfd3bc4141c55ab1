//! Is this the password: what `api` asks at each login. Remembers answers, computes each once for all who wait, never more
//! at a time than there is memory and time for, and makes those wait who guess.
//!
//! Nothing here tells whether there is a name: an unknown one costs and answers like a wrong password.

use std::net::IpAddr;
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::Semaphore;

use crate::collapse::Collapse;

use super::stored::Stored;
use super::throttle::{Name, Network, Throttle};
use super::users::Users;
use super::{NoRandomness, random};

/// How long a right password is known without computing, and a wrong one.
const RIGHT_FOR: Duration = Duration::from_mins(5);
const WRONG_FOR: Duration = Duration::from_mins(1);
/// How long after that a right one is computed whoever guesses meanwhile: it is no guess.
const KNOWN_FOR: Duration = Duration::from_hours(24);
/// What the log has of a name.
const NAME_IN_LOG: usize = 64;
/// How many of each.
const MOST_RIGHT: u64 = 20_000;
const MOST_WRONG: u64 = 10_000;
/// Passwords that wait to be computed; more of them are sent away for `BUSY`.
const QUEUE: usize = 1000;
const BUSY: Duration = Duration::from_secs(2);
/// One in so many unknown names costs what one of our own costs, however many the file has.
const OURS: usize = 4;

/// What comes of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one.
    Right,
    /// It is not, or there is no such name.
    Wrong,
    /// It was not looked at: too many wrong ones came before, or too many wait.
    Throttled {
        /// How long to wait before another one.
        retry_after: Duration,
    },
}

/// A name, the hash and a password under a key of this process: what is remembered gives nobody a password.
type Fingerprint = [u8; 32];

/// Compares passwords. Clones share what is remembered.
#[derive(Clone)]
pub struct Passwords {
    shared: Arc<Shared>,
}

struct Shared {
    key: hmac::Key,
    right: Cache<Fingerprint, Instant>,
    wrong: Cache<Fingerprint, Instant>,
    running: Collapse<Fingerprint, Verdict>,
    throttle: Throttle,
    queue: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    /// What a password of ours costs.
    ours: Arc<Stored>,
    imitated: RwLock<Arc<Users>>,
    /// How many hashes were computed: what it is all about, so tests count them.
    #[cfg(test)]
    computed: AtomicU64,
}

/// One password that is to be computed.
struct Guess {
    fingerprint: Fingerprint,
    name: String,
    key: Name,
    password: String,
    stored: Option<Arc<Stored>>,
    from: Network,
    is_known: bool,
    /// What the caller calls now, and our clock at that moment.
    now: Instant,
    begun: Instant,
}

impl Passwords {
    /// One that remembers nothing yet.
    ///
    /// # Errors
    /// When the system has no random bits for its key.
    pub fn new() -> Result<Self, NoRandomness> {
        // A flood of guesses takes half of the processors at the most: pulls go on.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_turns((cores / 2).max(1), QUEUE)
    }

    pub(super) fn with_turns(turns: usize, queue: usize) -> Result<Self, NoRandomness> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()?);
        let shared = Shared {
            key,
            right: Cache::builder()
                .max_capacity(MOST_RIGHT)
                .time_to_live(KNOWN_FOR)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            wrong: Cache::builder()
                .max_capacity(MOST_WRONG)
                .time_to_live(WRONG_FOR)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            running: Collapse::default(),
            throttle: Throttle::new(),
            queue: Arc::new(Semaphore::new(turns + queue)),
            turns: Arc::new(Semaphore::new(turns)),
            ours: Arc::new(Stored::decoy()),
            imitated: RwLock::default(),
            #[cfg(test)]
            computed: AtomicU64::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// From here on an unknown name costs what those of a file cost, and what passwords cost that [`Stored::hash`] hashed.
    /// To be called before [`Passwords::check`] where there is a file; costs nothing while its users stay the same.
    pub fn imitate(&self, users: &Arc<Users>) {
        let imitated = &self.shared.imitated;
        let is_same = Arc::ptr_eq(&imitated.read().unwrap_or_else(PoisonError::into_inner), users);
        if !is_same {
            *imitated.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(users);
        }
    }

    /// Whether `password` is the one of `name`, whose hash is `stored` (`None`: there is no such name), asked by a client at
    /// `from` (`None`: on this machine).
    ///
    /// A password that was right within a day, and a secret of 256 random bits, are right whoever guesses meanwhile. What
    /// was wrong a moment ago is wrong again, and does not count as another guess.
    pub async fn check(
        &self,
        name: &str,
        password: &str,
        stored: Option<&Arc<Stored>>,
        from: Option<IpAddr>,
        now: Instant,
    ) -> Verdict {
        // Nobody guesses those, and to compare one is as quick as to find it remembered.
        if stored.is_some_and(|stored| !stored.is_slow() && stored.verify(password)) {
            return Verdict::Right;
        }
        let shared = &self.shared;
        let stored = stored.filter(|stored| stored.is_slow());
        let begun = Instant::now();
        let fingerprint = shared.mac(&[
            b"password",
            name.as_bytes(),
            stored.map_or("", |stored| stored.as_str()).as_bytes(),
            password.as_bytes(),
        ]);
        let key = shared.mac(&[b"name", name.as_bytes()]);
        let from = Network::of(from);
        loop {
            let at = now + begun.elapsed();
            if let Some(verdict) = shared.remembered(&fingerprint, at) {
                return verdict;
            }
            let is_known = shared.is_known(&fingerprint, at);
            if let Some(retry_after) = shared.throttle.wait(from, &key, at).filter(|_| !is_known) {
                return Verdict::Throttled { retry_after };
            }
            let work = || {
                let guess = Guess {
                    fingerprint,
                    name: name.chars().take(NAME_IN_LOG).collect(),
                    key,
                    password: password.to_owned(),
                    stored: stored.cloned(),
                    from,
                    is_known,
                    now,
                    begun,
                };
                Arc::clone(shared).compute(guess)
            };
            match shared.running.run(fingerprint, work).await {
                // Whoever was joined has to wait, from another address perhaps.
                (Some(Verdict::Throttled { .. }), true) => {}
                (Some(Verdict::Right), true) => {
                    shared.throttle.right(from, &key, now + begun.elapsed());
                    return Verdict::Right;
                }
                (Some(verdict), _) => return verdict,
                // It panicked.
                (None, _) => return Verdict::Wrong,
            }
        }
    }
}

impl Shared {
    fn remembered(&self, fingerprint: &Fingerprint, now: Instant) -> Option<Verdict> {
        let within = |known: &Cache<Fingerprint, Instant>, span| {
            known
                .get(fingerprint)
                .is_some_and(|at| now.saturating_duration_since(at) < span)
        };
        if within(&self.right, RIGHT_FOR) {
            Some(Verdict::Right)
        } else {
            within(&self.wrong, WRONG_FOR).then_some(Verdict::Wrong)
        }
    }

    fn is_known(&self, fingerprint: &Fingerprint, now: Instant) -> bool {
        self.right
            .get(fingerprint)
            .is_some_and(|at| now.saturating_duration_since(at) < KNOWN_FOR)
    }

    async fn compute(self: Arc<Self>, guess: Guess) -> Verdict {
        let busy = Verdict::Throttled { retry_after: BUSY };
        let Ok(_place) = Arc::clone(&self.queue).try_acquire_owned() else {
            return busy;
        };
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else {
            return busy;
        };
        let at = guess.now + guess.begun.elapsed();
        // Those before it may have been wrong meanwhile. So no more guesses get through than there are turns.
        let wait = self.throttle.wait(guess.from, &guess.key, at);
        if let Some(retry_after) = wait.filter(|_| !guess.is_known) {
            return Verdict::Throttled { retry_after };
        }
        let done = tokio::task::spawn_blocking(move || {
            let verdict = self.verify(&guess);
            // Only now that it is noted.
            drop(turn);
            verdict
        });
        // A panic is no answer.
        done.await.unwrap_or(Verdict::Wrong)
    }

    /// Blocks.
    fn verify(&self, guess: &Guess) -> Verdict {
        #[cfg(test)]
        self.computed.fetch_add(1, Ordering::Relaxed);
        let is_right = if let Some(stored) = &guess.stored {
            stored.verify(&guess.password)
        } else {
            std::hint::black_box(self.decoy(&guess.key).verify(&guess.password));
            false
        };
        let at = guess.now + guess.begun.elapsed();
        if is_right {
            self.right.insert(guess.fingerprint, at);
            self.throttle.right(guess.from, &guess.key, at);
            return Verdict::Right;
        }
        self.wrong.insert(guess.fingerprint, at);
        if self.throttle.wrong(guess.from, &guess.key, at) {
            let (name, from) = (&guess.name, guess.from);
            tracing::warn!(?name, %from, "too many wrong passwords: from now on each one costs a wait");
        }
        let longest = guess.stored.as_ref().and_then(|stored| stored.longest_password());
        if longest.is_some_and(|longest| guess.password.len() > longest) {
            let name = &guess.name;
            tracing::warn!(
                ?name,
                "a password of more than 72 bytes is wrong, because bcrypt ignores the rest: hash it with Argon2"
            );
        }
        Verdict::Wrong
    }

    /// What an unknown name is compared with: always the same, so that asking again tells nothing.
    fn decoy(&self, key: &Name) -> Arc<Stored> {
        let imitated = self.imitated.read().unwrap_or_else(PoisonError::into_inner);
        let [a, b, c, d, ..] = *key;
        let number = u32::from_be_bytes([a, b, c, d]) as usize;
        let samples = imitated.samples();
        let of_file = (number / OURS).checked_rem(samples.len());
        let of_file = of_file.filter(|_| !number.is_multiple_of(OURS));
        let decoy = of_file.and_then(|at| samples.get(at)).unwrap_or(&self.ours);
        Arc::clone(decoy)
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            // With their lengths, so that nothing can move from one to the next.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }
}

#[cfg(test)]
mod tests;
