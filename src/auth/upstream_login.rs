//! Logins that are an upstream's, not ours: `ghcr.io/octocat` with the password there. They prove nothing by themselves; what
//! may be read by them the upstream is asked (`caller_check`). Held here, in memory alone, while tokens of theirs last.
//! Called by [`Authenticator`](super::Authenticator).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::password::{Network, NoRandomness, Throttle, random};

/// How long a token of one lasts at the most, and the login behind it is held.
const HELD: Duration = Duration::from_mins(5);
/// Bytes of a name and a secret at the most: passwords of clouds are keys in JSON.
const LONGEST: (usize, usize) = (256, 8 * 1024);
/// How long one that was not taken is known.
const WRONG_FOR: Duration = Duration::from_mins(1);
/// How long one that was taken is no guess.
const KNOWN_FOR: Duration = Duration::from_hours(24);
/// How many are tried at a time, so that no more guesses than these come before the first wait.
const TURNS: usize = 4;
/// How many of each.
const MOST: u64 = 20_000;

/// The login of somebody at an upstream.
pub struct UpstreamLogin {
    prefix: Arc<str>,
    name: Box<str>,
    secret: Box<str>,
    fingerprint: [u8; 32],
}

impl UpstreamLogin {
    /// The prefix of the upstream.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name there.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The password or token there.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// What stands for all of it, under a key of this process.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// What its tokens call it: of the fingerprint.
    pub(super) fn number(&self) -> u64 {
        let first = self.fingerprint.first_chunk::<8>();
        first.copied().map_or(0, u64::from_be_bytes)
    }
}

impl fmt::Debug for UpstreamLogin {
    /// Without what must not be told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.prefix, self.name)
    }
}

/// Those who ask by logins of upstreams.
pub(super) struct UpstreamLogins {
    /// The prefixes of upstreams that say themselves who may read what.
    prefixes: Box<[Arc<str>]>,
    key: hmac::Key,
    held: moka::sync::Cache<u64, Arc<UpstreamLogin>>,
    /// What was not taken a moment ago: the same again is no further guess.
    wrong: moka::sync::Cache<[u8; 32], ()>,
    /// What was taken within a day: no guess, whoever guesses meanwhile.
    right: moka::sync::Cache<[u8; 32], ()>,
    throttle: Throttle,
    turns: Arc<Semaphore>,
}

impl UpstreamLogins {
    pub(super) const HELD: Duration = HELD;

    pub(super) fn new(prefixes: impl IntoIterator<Item = String>) -> Result<Self, NoRandomness> {
        Ok(Self {
            prefixes: prefixes.into_iter().map(Arc::from).collect(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()?),
            held: moka::sync::Cache::builder()
                .max_capacity(MOST)
                .time_to_live(HELD)
                .build(),
            wrong: moka::sync::Cache::builder()
                .max_capacity(MOST)
                .time_to_live(WRONG_FOR)
                .build(),
            right: moka::sync::Cache::builder()
                .max_capacity(MOST)
                .time_to_live(KNOWN_FOR)
                .build(),
            throttle: Throttle::new(),
            turns: Arc::new(Semaphore::new(TURNS)),
        })
    }

    pub(super) fn are_taken(&self) -> bool {
        !self.prefixes.is_empty()
    }

    /// The login that a name says to be an upstream's, by its prefix: ours have no slash.
    pub(super) fn named(&self, name: &str, secret: &str) -> Option<UpstreamLogin> {
        let its = |prefix: &&Arc<str>| name.strip_prefix(&***prefix)?.strip_prefix('/');
        let prefix = self.prefixes.iter().find(|prefix| its(prefix).is_some())?;
        self.at(prefix, its(&prefix).filter(|rest| !rest.is_empty())?, secret)
    }

    /// The login of `name` at the upstream `prefix`; `None` when that one is not asked about callers. The name may say whose
    /// it is, as everywhere else.
    pub(super) fn of(&self, prefix: &str, name: &str, secret: &str) -> Option<UpstreamLogin> {
        let named = self.named(name, secret);
        named.filter(|login| &*login.prefix == prefix).or_else(|| {
            let prefix = self.prefixes.iter().find(|known| ***known == *prefix)?;
            self.at(prefix, name, secret)
        })
    }

    /// `None` for what is longer than any.
    fn at(&self, prefix: &Arc<str>, name: &str, secret: &str) -> Option<UpstreamLogin> {
        (name.len() <= LONGEST.0 && secret.len() <= LONGEST.1).then(|| UpstreamLogin {
            prefix: prefix.clone(),
            name: name.into(),
            secret: secret.into(),
            fingerprint: self.mac(&[prefix, name, secret]),
        })
    }

    fn mac(&self, parts: &[&str]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let tag = context.sign();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// The upstream takes it: its tokens count from now on.
    pub(super) fn hold(&self, login: &Arc<UpstreamLogin>) {
        self.held.insert(login.number(), login.clone());
    }

    pub(super) fn held(&self, number: u64) -> Option<Arc<UpstreamLogin>> {
        self.held.get(&number)
    }

    /// Whether the upstream did not take it a moment ago.
    pub(super) fn is_wrong(&self, login: &UpstreamLogin) -> bool {
        self.wrong.contains_key(&login.fingerprint)
    }

    /// A turn to ask the upstream about it; or how long whoever guesses has to wait.
    pub(super) async fn turn(
        &self,
        login: &UpstreamLogin,
        from: Option<IpAddr>,
    ) -> Result<Option<OwnedSemaphorePermit>, Duration> {
        // It is never closed.
        let turn = self.turns.clone().acquire_owned().await.ok();
        let wait = || {
            let name = self.mac(&[&login.prefix, &login.name]);
            self.throttle.wait(Network::of(from), &name, Instant::now())
        };
        match wait().filter(|_| !self.right.contains_key(&login.fingerprint)) {
            Some(wait) => Err(wait),
            None => Ok(turn),
        }
    }

    /// The upstream took it, or did not.
    pub(super) fn tried(&self, login: &UpstreamLogin, from: Option<IpAddr>, right: bool) {
        let (from, name) = (Network::of(from), self.mac(&[&login.prefix, &login.name]));
        if right {
            self.throttle.right(from, &name, Instant::now());
            self.right.insert(login.fingerprint, ());
            return;
        }
        if self.wrong.contains_key(&login.fingerprint) {
            return;
        }
        self.wrong.insert(login.fingerprint, ());
        self.count(login, from);
    }

    /// The upstream says that too many come: so it answers those who guess. That says nothing of this one.
    pub(super) fn limited(&self, login: &UpstreamLogin, from: Option<IpAddr>) {
        self.count(login, Network::of(from));
    }

    fn count(&self, login: &UpstreamLogin, from: Network) {
        let name = self.mac(&[&login.prefix, &login.name]);
        if self.throttle.wrong(from, &name, Instant::now()) {
            tracing::warn!(login = ?login, %from, "too many logins that an upstream does not take: they have to wait");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_login_it_is() {
        let logins = UpstreamLogins::new(["ghcr.io".to_owned(), "hub".to_owned()]).unwrap();
        let cases = [
            ("ghcr.io/octocat", Some(("ghcr.io", "octocat"))),
            ("hub/a/b", Some(("hub", "a/b"))),
            ("hub/", None),
            ("hub", None),
            ("hubs/a", None),
            ("quay.io/a", None),
            ("alice", None),
        ];
        for (name, expected) in cases {
            let found = logins.named(name, "secret");
            let found = found.as_ref().map(|login| (login.prefix(), login.name()));
            assert_eq!(found, expected, "{name}");
        }
        assert!(logins.of("quay.io", "a", "b").is_none());
        let secret = "s".repeat(LONGEST.1);
        assert!(logins.of("hub", "a", &secret).is_some() && logins.named("hub/a", &secret).is_some());
        let secret = format!("{secret}s");
        assert!(logins.of("hub", "a", &secret).is_none() && logins.named("hub/a", &secret).is_none());
        assert!(logins.of("hub", &"a".repeat(LONGEST.0 + 1), "b").is_none());
        let of = |name: &str, secret: &str| logins.of("hub", name, secret).unwrap();
        let one = of("a", "secret");
        assert_eq!(one.fingerprint(), of("a", "secret").fingerprint());
        assert_ne!(one.fingerprint(), of("a", "other").fingerprint());
        assert_ne!(one.fingerprint(), of("as", "ecret").fingerprint());
        assert!(!format!("{one:?}").contains("secret"));
    }

    #[tokio::test]
    async fn who_guesses_waits_and_who_is_known_does_not() {
        let logins = UpstreamLogins::new(["hub".to_owned()]).unwrap();
        let from = Some("192.0.2.1".parse().unwrap());
        let right = Arc::new(logins.of("hub", "a", "right").unwrap());
        let wrong = |guess: u8| logins.of("hub", "a", &guess.to_string()).unwrap();
        for _ in 0..50 {
            // The same again is no further guess.
            logins.tried(&wrong(0), from, false);
        }
        assert!(logins.turn(&right, from).await.is_ok());
        for guess in 0..10 {
            logins.tried(&wrong(guess), from, false);
        }
        assert!(logins.turn(&right, from).await.is_err());
        logins.tried(&right, from, true);
        logins.hold(&right);
        for guess in 10..90 {
            logins.tried(&wrong(guess), from, false);
        }
        assert!(logins.turn(&wrong(1), from).await.is_err());
        assert!(logins.turn(&right, from).await.is_ok());
        assert!(logins.held(right.number()).is_some());
    }
}
