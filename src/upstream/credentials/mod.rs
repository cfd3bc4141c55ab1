//! A login: where it comes from, what it gives, until when, and whether it is set aside. Each kind is in a file of its
//! own. Which of several is used is in `logins`; how what it gives is sent, in `authorization` and `token`.

mod aws;
mod docker;
mod ecr;
mod files;
mod helper;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use reqwest::header::HeaderValue;
use tokio::time::Instant;

use super::errand::Guise;
use super::logins::{ANONYMOUS, LoginName, LoginState};
use super::observer::Observer;
use super::offline::Offline;
use crate::collapse::Collapse;
use crate::config::{Credential, CredentialKind, Secret};
pub(super) use aws::Web;
use docker::DockerFile;
use ecr::Ecr;
use files::{PasswordFile, TokenFile};
use helper::Helper;

/// How long a refused login is set aside, at first and at most.
const ASIDE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_mins(10));
/// The same for one that could not be had: a file that is gone, a service that is down.
const TROUBLE: Duration = Duration::from_secs(10);
/// How long one request may take that tries a login again, before another does.
const TRIAL: Duration = Duration::from_secs(30);
/// How soon after a refusal it is asked for again.
const ANEW: Duration = Duration::from_secs(30);
/// How long it is believed that it opens the registry, though not all in there.
const OPENS: Duration = Duration::from_mins(1);
/// When a renewal is tried again that failed while what is there still holds.
const RENEW_AGAIN: Duration = Duration::from_mins(1);

/// What a login gives.
#[derive(PartialEq, Eq)]
pub(super) enum Grant {
    /// User and password, as the header in which they are sent: to the token service, or to the registry.
    Basic(HeaderValue),
    /// A refresh token, for the token service.
    Identity(Secret),
    /// A token, as the header in which it is sent to the registry.
    Bearer(HeaderValue),
}

impl Grant {
    /// User and password.
    pub(super) fn basic(username: &str, password: &str) -> Option<Self> {
        let pair = STANDARD.encode(format!("{username}:{password}"));
        sensitive(&format!("Basic {pair}")).map(Self::Basic)
    }

    /// A token for the registry.
    pub(super) fn bearer(token: &str) -> Option<Self> {
        sensitive(&format!("Bearer {token}")).map(Self::Bearer)
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic(_) => "Basic",
            Self::Identity(_) => "Identity",
            Self::Bearer(_) => "Bearer",
        })
    }
}

/// A header's value that never shows up in debug output.
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a source gave, and for how long.
pub(super) struct Obtained {
    pub(super) grant: Grant,
    /// After this it is asked for again, while it is still good.
    pub(super) renew_in: Option<Duration>,
    /// After this it is good no longer.
    pub(super) ends_in: Option<Duration>,
}

impl Obtained {
    /// What is good until the source says something else, which is looked at after this time.
    pub(super) fn for_now(grant: Grant, renew_in: Duration) -> Self {
        Self {
            grant,
            renew_in: Some(renew_in),
            ends_in: None,
        }
    }
}

/// A kind of login that is asked for.
trait Obtain: Send + Sync {
    /// # Errors
    /// Why there is none, for log and operators: without any secret.
    fn obtain(&self) -> BoxFuture<'_, Result<Obtained, String>>;

    /// Looking again costs nothing, so whoever asks waits for it.
    fn is_cheap(&self) -> bool {
        false
    }

    /// It may be a token for the registry itself.
    fn may_be_bearer(&self) -> bool {
        false
    }
}

/// Where a login comes from.
enum Source {
    /// There is none.
    Nobody,
    /// Nobody at all: who asks must not be seen, by a certificate of ours either.
    Stranger,
    /// Somebody else, for whom the same holds.
    Caller(Arc<Grant>),
    /// It never changes.
    Fixed(Arc<Grant>),
    /// It is asked for, again and again.
    Asked(Box<dyn Obtain>),
}

/// What was obtained last.
struct Held {
    grant: Arc<Grant>,
    renew_at: Option<Instant>,
    ends_at: Option<Instant>,
}

/// A login that is not used for a while.
struct Aside {
    until: Instant,
    why: String,
    /// What was refused, if that was the reason: anything else is worth a try at once.
    refused: Option<Arc<Grant>>,
    /// Until when the one request that tries it again has the field.
    trial: Option<Instant>,
}

#[derive(Default)]
struct Standing {
    /// It was accepted since it was last set aside.
    proven: bool,
    aside: Option<Aside>,
    /// How long it is set aside the next time.
    pause: Option<Duration>,
    /// Token services give it nothing for so long.
    rests_until: Option<Instant>,
    renewed_after_refusal: Option<Instant>,
    /// When this was last found to open the registry, after something in there was refused to it.
    opened: Option<(Instant, Arc<Grant>)>,
    looked_at: Option<Instant>,
}

/// One login of an endpoint.
pub(super) struct Login {
    prefix: Arc<str>,
    name: LoginName,
    kind: &'static str,
    source: Source,
    observer: Arc<dyn Observer>,
    offline: Offline,
    held: Mutex<Option<Held>>,
    renewing: Collapse<(), Result<Arc<Grant>, String>>,
    /// The same after a refusal, by what was refused.
    replacing: Collapse<usize, bool>,
    standing: Mutex<Standing>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Login").field(&self.name).finish()
    }
}

impl Login {
    /// # Errors
    /// When what is configured can be no header, or there is no `web` for who needs one.
    pub(super) fn new(
        prefix: Arc<str>,
        credential: &Credential,
        observer: Arc<dyn Observer>,
        offline: Offline,
        web: impl FnOnce() -> Result<Web, String>,
    ) -> Result<Self, String> {
        let source = match &credential.kind {
            CredentialKind::Anonymous => Source::Nobody,
            CredentialKind::Password {
                username,
                password,
                file,
            } => {
                let fixed = Grant::basic(username, password.expose()).ok_or("unusable credentials")?;
                match file {
                    None => Source::Fixed(Arc::new(fixed)),
                    Some(path) => Source::Asked(Box::new(PasswordFile::new(username.clone(), path.clone()))),
                }
            }
            CredentialKind::DockerConfig { path, hosts } => {
                Source::Asked(Box::new(DockerFile::new(path.clone(), hosts.clone())))
            }
            CredentialKind::Helper { program, server } => {
                Source::Asked(Box::new(Helper::new(program.clone(), server.clone())))
            }
            CredentialKind::TokenFile { path } => Source::Asked(Box::new(TokenFile::new(path.clone()))),
            CredentialKind::Ecr(config) => Source::Asked(Box::new(Ecr::new(config.clone(), web()?))),
        };
        observer.credential(&prefix, &credential.name, false);
        let name = credential.name.as_str().into();
        Ok(Self {
            offline,
            ..Self::with(prefix, name, credential.kind.word(), source, observer)
        })
    }

    /// No login.
    pub(super) fn nobody(prefix: Arc<str>) -> Self {
        Self::with(prefix, ANONYMOUS.into(), ANONYMOUS, Source::Nobody, Arc::new(()))
    }

    /// Anybody but us: what is asked so is open to everyone.
    pub(super) fn stranger(prefix: Arc<str>) -> Self {
        Self::with(
            prefix,
            ANONYMOUS.into(),
            ANONYMOUS,
            Source::Stranger,
            Arc::new(()),
        )
    }

    /// A client of ours, by what it brought.
    pub(super) fn caller(prefix: Arc<str>, name: LoginName, grant: Arc<Grant>) -> Self {
        Self::with(prefix, name, "caller", Source::Caller(grant), Arc::new(()))
    }

    fn with(
        prefix: Arc<str>,
        name: LoginName,
        kind: &'static str,
        source: Source,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            prefix,
            name,
            kind,
            source,
            observer,
            offline: Offline::default(),
            held: Mutex::default(),
            renewing: Collapse::default(),
            replacing: Collapse::default(),
            standing: Mutex::default(),
        }
    }

    /// What it is called.
    pub(super) fn name(&self) -> &LoginName {
        &self.name
    }

    /// Whether it is the absence of one.
    fn is_nobody(&self) -> bool {
        matches!(self.source, Source::Nobody | Source::Stranger)
    }

    /// As whom it is shown.
    pub(super) fn guise(&self) -> Guise {
        match self.source {
            Source::Stranger => Guise::Stranger,
            Source::Caller(_) => Guise::Caller,
            Source::Nobody | Source::Fixed(_) | Source::Asked(_) => Guise::Own,
        }
    }

    /// Whether it may give a token for the registry itself.
    pub(super) fn may_give_bearer(&self) -> bool {
        matches!(&self.source, Source::Asked(source) if source.may_be_bearer())
    }

    /// What it gives now; `None` for no login. Asked for once however many wait, and again shortly before it ends.
    ///
    /// # Errors
    /// Why it cannot be had. It is set aside then.
    pub(super) async fn given(self: &Arc<Self>) -> Result<Option<Arc<Grant>>, String> {
        let source = match &self.source {
            Source::Nobody | Source::Stranger => return Ok(None),
            Source::Fixed(grant) | Source::Caller(grant) => return Ok(Some(grant.clone())),
            Source::Asked(source) => source,
        };
        let now = Instant::now();
        let held = {
            let held = self.held();
            held.as_ref()
                .filter(|held| held.ends_at.is_none_or(|end| now < end))
                .map(|held| (held.grant.clone(), held.renew_at.is_some_and(|due| now >= due)))
        };
        let on_trial = self.standing().aside.is_some();
        let renewed = match held {
            Some((grant, false)) if !on_trial => return Ok(Some(grant)),
            Some((grant, _)) if !on_trial && !source.is_cheap() => {
                let this = self.clone();
                tokio::spawn(async move { this.renew().await });
                return Ok(Some(grant));
            }
            Some((grant, _)) => self.renew().await.or(Ok(grant)),
            None => self.renew().await,
        };
        renewed.map(Some).inspect_err(|why| {
            // That we do not ask says nothing of it.
            if !self.offline.is_on() {
                self.set_aside(None, why);
            }
        })
    }

    /// What it gave was refused: whether it now gives something else, which is worth another try.
    pub(super) async fn is_renewed(self: &Arc<Self>, refused: &Arc<Grant>) -> bool {
        if !matches!(self.source, Source::Asked(_)) {
            return false;
        }
        if self.has_other_than(refused) {
            return true;
        }
        let key = Arc::as_ptr(refused).addr();
        let (this, refused) = (self.clone(), refused.clone());
        let work = || async move { this.replace(&refused).await };
        let (renewed, _) = self.replacing.run(key, work).await;
        renewed.unwrap_or(false)
    }

    fn has_other_than(&self, refused: &Arc<Grant>) -> bool {
        self.held()
            .as_ref()
            .is_some_and(|held| !Arc::ptr_eq(&held.grant, refused))
    }

    async fn replace(self: &Arc<Self>, refused: &Arc<Grant>) -> bool {
        {
            let mut standing = self.standing();
            let now = Instant::now();
            if standing.renewed_after_refusal.is_some_and(|at| now < at + ANEW) {
                return self.has_other_than(refused);
            }
            standing.renewed_after_refusal = Some(now);
        }
        tracing::info!(
            upstream = &*self.prefix,
            credential = &*self.name,
            "refused: asking for it anew"
        );
        let renewed = self.renew().await;
        if self.offline.is_on() {
            self.standing().renewed_after_refusal = None;
        }
        renewed.is_ok_and(|grant| !Arc::ptr_eq(&grant, refused))
    }

    async fn renew(self: &Arc<Self>) -> Result<Arc<Grant>, String> {
        let this = self.clone();
        let work = || async move {
            let Source::Asked(source) = &this.source else {
                return Err("there is nothing to ask for".to_owned());
            };
            // A service or a program that is asked ends with that: both connect.
            let obtained = tokio::select! {
                biased;
                () = this.offline.until(true), if !source.is_cheap() => {
                    return Err("nobody is asked while we are offline".to_owned());
                }
                obtained = source.obtain() => obtained,
            };
            this.keep(obtained)
        };
        let (result, _) = self.renewing.run((), work).await;
        result.unwrap_or_else(|| Err("asking for it was given up".to_owned()))
    }

    fn keep(&self, obtained: Result<Obtained, String>) -> Result<Arc<Grant>, String> {
        let now = Instant::now();
        let obtained = obtained.inspect_err(|why| {
            if let Some(held) = self.held().as_mut() {
                held.renew_at = Some(now + RENEW_AGAIN);
            }
            tracing::warn!(
                upstream = &*self.prefix,
                credential = &*self.name,
                why,
                "a credential cannot be had"
            );
        })?;
        let grant = {
            let mut held = self.held();
            let same = held.as_ref().filter(|held| *held.grant == obtained.grant);
            let grant = same.map_or_else(|| Arc::new(obtained.grant), |held| held.grant.clone());
            *held = Some(Held {
                grant: grant.clone(),
                renew_at: obtained.renew_in.map(|span| now + span),
                ends_at: obtained.ends_in.map(|span| now + span),
            });
            grant
        };
        // Something else than what was refused need not wait.
        let mut standing = self.standing();
        if let Some(aside) = &mut standing.aside
            && aside.refused.as_ref().is_none_or(|refused| **refused != *grant)
        {
            aside.until = now;
        }
        Ok(grant)
    }

    /// Whether it is not to be used now. While it is aside, a file that changes is noticed.
    pub(super) fn is_aside(self: &Arc<Self>, now: Instant) -> bool {
        let look = {
            let mut standing = self.standing();
            let Some(aside) = &standing.aside else {
                return false;
            };
            if now >= aside.until && aside.trial.is_none_or(|end| now >= end) {
                return false;
            }
            let look = matches!(&self.source, Source::Asked(source) if source.is_cheap())
                && !self.offline.is_on()
                && standing.looked_at.is_none_or(|at| now >= at + files::LOOK_AGAIN);
            if look {
                standing.looked_at = Some(now);
            }
            look
        };
        if look {
            let this = self.clone();
            tokio::spawn(async move { this.renew().await });
        }
        true
    }

    /// Whether nobody has accepted it yet, or it was refused since.
    pub(super) fn is_unproven(&self) -> bool {
        !self.is_nobody() && !self.standing().proven
    }

    /// Why it is not to be used now.
    pub(super) fn why_aside(&self) -> Option<String> {
        let (standing, now) = (self.standing(), Instant::now());
        let aside = standing.aside.as_ref()?;
        (now < aside.until).then(|| aside.why.clone())
    }

    /// It is used: when it was aside, as a trial that others wait for.
    pub(super) fn taken(&self, now: Instant) {
        if let Some(aside) = &mut self.standing().aside {
            aside.trial = Some(now + TRIAL);
        }
    }

    /// Sets it aside: `refused` is what was refused, or `None` when it could not be had at all.
    pub(super) fn set_aside(&self, refused: Option<&Arc<Grant>>, why: &str) {
        // Nobody's, of what is no longer sent, or somebody else's business.
        let others = self.is_nobody() || matches!(self.source, Source::Caller(_));
        if others || refused.is_some_and(|refused| self.has_other_than(refused)) {
            return;
        }
        let now = Instant::now();
        let mut standing = self.standing();
        let first = match &standing.aside {
            // Another request told so a moment ago.
            Some(aside) if now < aside.until => return,
            Some(_) => false,
            None => true,
        };
        let shortest = if refused.is_some() { ASIDE.0 } else { TROUBLE };
        let pause = standing.pause.unwrap_or(shortest).max(shortest);
        standing.pause = Some((pause * 2).min(ASIDE.1));
        standing.proven = false;
        standing.aside = Some(Aside {
            until: now + pause,
            why: why.to_owned(),
            refused: refused.cloned(),
            trial: None,
        });
        drop(standing);
        if first {
            tracing::warn!(
                upstream = &*self.prefix,
                credential = &*self.name,
                why,
                "a credential is set aside"
            );
        } else {
            tracing::debug!(
                upstream = &*self.prefix,
                credential = &*self.name,
                why,
                "still aside"
            );
        }
        self.observer.credential(&self.prefix, &self.name, true);
    }

    /// It was accepted.
    pub(super) fn accepted(&self) {
        let mut standing = self.standing();
        standing.proven = true;
        standing.pause = None;
        let was_aside = standing.aside.take().is_some();
        drop(standing);
        if was_aside {
            tracing::info!(
                upstream = &*self.prefix,
                credential = &*self.name,
                "the credential is accepted again"
            );
            self.observer.credential(&self.prefix, &self.name, false);
        }
    }

    /// What it gave opens the registry, though not all in there.
    pub(super) fn opens(&self, grant: &Arc<Grant>) {
        self.standing().opened = Some((Instant::now(), grant.clone()));
        self.accepted();
    }

    /// Whether that was found out lately.
    pub(super) fn is_known_to_open(&self, grant: &Arc<Grant>) -> bool {
        let standing = self.standing();
        let known = standing.opened.as_ref();
        known.is_some_and(|(at, known)| at.elapsed() < OPENS && Arc::ptr_eq(known, grant))
    }

    /// Token services give it nothing for so long: others come first.
    pub(super) fn rest(&self, span: Duration) {
        self.standing().rests_until = Some(Instant::now() + span);
    }

    /// Whether it rests.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.standing().rests_until.is_some_and(|end| now < end)
    }

    /// How it stands.
    pub(super) fn state(&self) -> LoginState {
        let now = Instant::now();
        let standing = self.standing();
        LoginState {
            name: self.name.to_string(),
            kind: self.kind,
            aside: standing
                .aside
                .as_ref()
                .map(|aside| (aside.until.saturating_duration_since(now), aside.why.clone())),
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
