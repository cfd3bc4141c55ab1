//! Proves who asks: by password, by a secret of ours, by a token of ours, or by the certificate of the connection. Called
//! once a request by `api`, before anything is looked up for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Timestamp;

use super::caller::Caller;
use super::identity::{Account, Identity, Kind};
use super::offered::Offered;
use super::oidc::{self, Issuer, Workload};
use super::password::{Htpasswd, NoRandomness, Passwords, Secret, Verdict};
use super::policy::Document;
use super::scope::{self, Scope};
use super::store::{IdentityStore, Login};
use super::token::{Access, Grant, TokenError, Tokens, Use};
use super::upstream_login::{UpstreamLogin, UpstreamLogins};

/// How many lists of scopes are remembered as policies.
const REMEMBERED: u64 = 10_000;

/// What is known of how a request came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The client's address; none for a socket of this machine.
    pub from: Option<IpAddr>,
    /// Whether nobody on the way could read it.
    pub private: bool,
    /// The name in the certificate that the connection was opened with.
    pub certificate: Option<&'a str>,
    /// When.
    pub now: Timestamp,
    /// When a token that it shows had to be good still: before `now` where a body came since.
    pub shown_at: Timestamp,
}

/// Why nobody is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    /// Name or password are wrong, or the login has ended: which, nobody is told.
    #[error("the name or the password is wrong")]
    Wrong,
    /// The token is none that counts.
    #[error("{0}")]
    Token(TokenError),
    /// What is shown cannot be read.
    #[error("the Authorization header is neither Basic nor Bearer")]
    Unreadable,
    /// Too many were wrong: not looked at.
    #[error("too many wrong passwords: wait before the next one")]
    Throttled(Duration),
    /// Anybody on the way could have read it.
    #[error(
        "logins over plain HTTP are refused: use HTTPS (server.tls), or set server.allow_plain_http where the network is \
         trusted"
    )]
    Exposed,
}

/// How long tokens last.
#[derive(Clone, Copy, Debug)]
pub struct Spans {
    /// Those to ask with.
    pub access: Duration,
    /// Those that others are made of.
    pub refresh: Duration,
}

/// Tokens as they are handed out.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The token to ask with.
    pub access: String,
    /// How long it lasts.
    pub span: Duration,
    /// The token to have others made, if one was asked for and the caller has a login to come back with.
    pub refresh: Option<String>,
}

/// Proves who asks.
pub struct Authenticator {
    store: Arc<dyn IdentityStore>,
    htpasswd: Option<Arc<Htpasswd>>,
    issuers: Vec<Issuer>,
    passwords: Passwords,
    upstreams: UpstreamLogins,
    tokens: Tokens,
    account: Account,
    spans: Spans,
    bounds: moka::sync::Cache<Vec<String>, Option<Document>>,
}

impl Authenticator {
    /// By those in `store`, then those in `htpasswd`, and the tokens of `issuers`, for `account`.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new(
        store: Arc<dyn IdentityStore>,
        htpasswd: Option<Arc<Htpasswd>>,
        issuers: Vec<Issuer>,
        tokens: Tokens,
        account: Account,
        spans: Spans,
    ) -> Result<Self, NoRandomness> {
        Ok(Self {
            store,
            htpasswd,
            issuers,
            passwords: Passwords::new()?,
            upstreams: UpstreamLogins::new([])?,
            tokens,
            account,
            spans,
            bounds: moka::sync::Cache::new(REMEMBERED),
        })
    }

    /// The same, which takes logins of the upstreams with these prefixes, too.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn taking_logins_of(self, prefixes: impl IntoIterator<Item = String>) -> Result<Self, NoRandomness> {
        Ok(Self {
            upstreams: UpstreamLogins::new(prefixes)?,
            ..self
        })
    }

    /// Whether any login is taken, of ours or of an upstream.
    pub fn takes_logins(&self) -> bool {
        self.has_logins() || self.upstreams.are_taken()
    }

    /// The login that a client brought for the upstream `prefix`, under its name there. `None` where that is not asked
    /// about callers, and for what may be a login of ours, which is nobody else's business.
    pub fn upstream_login(&self, prefix: &str, name: &str, secret: &str) -> Option<Arc<UpstreamLogin>> {
        let of_file = || {
            self.htpasswd
                .as_ref()
                .is_some_and(|file| file.find(name).is_some())
        };
        let ours = secret.starts_with(Secret::PREFIX)
            || self.store.find(name).is_some()
            || self.store.is_broken(name)
            || self.store.access_key(name).is_some()
            || of_file();
        let login = || self.upstreams.of(prefix, name, secret).map(Arc::new);
        (!ours).then(login).flatten()
    }

    /// A turn to ask an upstream about this login.
    ///
    /// # Errors
    /// How long whoever guesses has to wait.
    pub async fn upstream_turn(
        &self,
        login: &UpstreamLogin,
        from: Option<IpAddr>,
    ) -> Result<impl Sized + Send + use<>, Duration> {
        self.upstreams.turn(login, from).await
    }

    /// What an upstream said of a login. One that it takes is held for as long as tokens of it last.
    pub fn upstream_told(&self, login: &Arc<UpstreamLogin>, from: Option<IpAddr>, right: bool) {
        self.upstreams.tried(login, from, right);
        if right {
            self.upstreams.hold(login);
        }
    }

    /// An upstream did not say, because too many ask it: that counts like a guess, and says nothing of the login.
    pub fn upstream_limited(&self, login: &UpstreamLogin, from: Option<IpAddr>) {
        self.upstreams.limited(login, from);
    }

    /// Whether the upstream did not take this login a moment ago.
    pub fn is_rejected(&self, login: &UpstreamLogin) -> bool {
        self.upstreams.is_wrong(login)
    }

    /// Whether the upstream took this login minutes ago.
    pub fn is_held(&self, login: &UpstreamLogin) -> bool {
        let held = self.upstreams.held(login.number());
        held.is_some_and(|held| held.fingerprint() == login.fingerprint())
    }

    /// Whether anybody can log in at all.
    pub fn has_logins(&self) -> bool {
        self.htpasswd.is_some() || !self.issuers.is_empty() || !self.store.is_empty()
    }

    /// The account that names without one belong to.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Who asks.
    ///
    /// # Errors
    /// When something is shown, and proves nobody: that is never taken for nothing shown.
    pub async fn prove(&self, offered: &Offered, arrival: Arrival<'_>) -> Result<Caller, Unproved> {
        match offered {
            Offered::Nothing => Ok(self.by_certificate(arrival.certificate)),
            Offered::Unreadable => Err(Unproved::Unreadable),
            Offered::Basic(..) if !arrival.private => Err(Unproved::Exposed),
            Offered::Basic(name, password) => self.by_password(name, password, arrival).await,
            Offered::Bearer(token) => {
                let caller = self.by_token(token, Use::Access, arrival)?;
                // Everybody has the rights of nobody's token.
                if !arrival.private && !caller.is_anonymous() {
                    return Err(Unproved::Exposed);
                }
                Ok(caller)
            }
        }
    }

    /// Who had this refresh token made.
    pub fn by_refresh(&self, token: &str, arrival: Arrival<'_>) -> Result<Caller, Unproved> {
        if !arrival.private {
            return Err(Unproved::Exposed);
        }
        let mut caller = self.by_token(token, Use::Refresh, arrival)?;
        caller.granted = None;
        Ok(caller)
    }

    /// Tokens for `caller`, who was granted `access`.
    ///
    /// # Errors
    /// `Keys`
    pub fn issue(
        &self,
        caller: &Caller,
        access: Vec<Access>,
        refresh: bool,
        now: Timestamp,
    ) -> Result<Issued, TokenError> {
        let make = |access, purpose, span: Duration| {
            let left = caller
                .ends
                .map(|end| Duration::from_millis(end.0.saturating_sub(now.0)));
            // A secret that ends does not live on in what was made of it.
            let ends = left.filter(|left| *left < span);
            let grant = Grant {
                identity: caller.identity.clone(),
                access,
                purpose,
                generation: caller.generation,
                scopes: caller.scopes.to_vec(),
                exact: ends.is_some(),
            };
            let span = ends.unwrap_or(span);
            self.tokens.make(&grant, span, now).map(|token| (token, span))
        };
        let (token, span) = make(access, Use::Access, self.spans.access)?;
        // A certificate is shown each time anyway, and nobody has nothing to come back with.
        let returns = matches!(caller.identity.kind(), Kind::User | Kind::Robot);
        let refresh = (refresh && returns)
            .then(|| make(Vec::new(), Use::Refresh, self.spans.refresh))
            .transpose()?
            .map(|(token, _)| token);
        Ok(Issued {
            access: token,
            span,
            refresh,
        })
    }

    fn by_certificate(&self, name: Option<&str>) -> Caller {
        let named = name.and_then(|name| Identity::named(Kind::Certificate, name, self.account.clone()).ok());
        named.map_or_else(Caller::anonymous, Caller::of)
    }

    async fn by_password(
        &self,
        name: &str,
        password: &str,
        arrival: Arrival<'_>,
    ) -> Result<Caller, Unproved> {
        if let Some(issuer) = self.issuer_of(password) {
            return self.by_id_token(issuer, password, arrival.shown_at).await;
        }
        if let Some(login) = self.upstreams.named(name, password) {
            return self
                .of_upstream(Arc::new(login), arrival.now)
                .ok_or(Unproved::Wrong);
        }
        let login = self.store.find(name);
        if password.starts_with(Secret::PREFIX) {
            // So much chance is in one that no guess comes true: there is nothing to slow down.
            let login = login.ok_or(Unproved::Wrong)?;
            return self.by_secret(&login, password, arrival.now);
        }
        if let Some((login, secret)) = self.store.access_key(name) {
            let same =
                aws_lc_rs::constant_time::verify_slices_are_equal(secret.as_bytes(), password.as_bytes());
            if same.is_err() || !login.is_good(arrival.now) {
                return Err(Unproved::Wrong);
            }
            return self.of_login(&login, None);
        }
        // A login of ours hides one of the file of the same name, whatever state it is in.
        let (stored, of_file) = match &login {
            Some(login) => (login.password.clone(), false),
            None => (self.htpasswd.as_ref().and_then(|file| file.find(name)), true),
        };
        if let Some(file) = &self.htpasswd {
            self.passwords.imitate(&file.users());
        }
        let verdict = self
            .passwords
            .check(name, password, stored.as_ref(), arrival.from, Instant::now());
        match verdict.await {
            Verdict::Right => {}
            Verdict::Wrong => return Err(Unproved::Wrong),
            Verdict::Throttled { retry_after } => return Err(Unproved::Throttled(retry_after)),
        }
        if of_file {
            return self.of_file(name).ok_or(Unproved::Wrong);
        }
        let login = login.filter(|login| login.is_good(arrival.now));
        let login = login.ok_or(Unproved::Wrong)?;
        self.of_login(&login, None)
    }

    /// Whose ID token this says that it is, if it is somebody's whom we trust.
    fn issuer_of(&self, token: &str) -> Option<&Issuer> {
        if self.issuers.is_empty() || !token.starts_with("ey") {
            return None;
        }
        let url = oidc::issuer_of(token)?;
        let audiences = oidc::audiences_of(token);
        let of_url = || self.issuers.iter().filter(|issuer| issuer.url() == url);
        // Several may differ in the audience alone.
        let meant = of_url().find(|issuer| audiences.iter().any(|one| one == issuer.audience()));
        meant.or_else(|| of_url().next())
    }

    async fn by_id_token(&self, issuer: &Issuer, token: &str, now: Timestamp) -> Result<Caller, Unproved> {
        let proved = issuer.prove(token, &self.account, now).await;
        let workload = proved.map_err(|error| {
            tracing::info!(issuer = issuer.url(), %error, "an ID token proves nobody");
            Unproved::Wrong
        })?;
        self.workload(workload).ok_or(Unproved::Wrong)
    }

    fn workload(&self, workload: Workload) -> Option<Caller> {
        let own = self.bound(&workload.scopes)?;
        let caller = Caller {
            documents: Arc::new([own]),
            ..Caller::of(workload.identity)
        };
        self.bounded(caller, vec![workload.scopes])
    }

    /// Whoever brought a login of an upstream: it may read there what the upstream says, as far as we let callers at all.
    fn of_upstream(&self, login: Arc<UpstreamLogin>, now: Timestamp) -> Option<Caller> {
        let name = format!("{}/{}", login.prefix(), login.name());
        let identity = Identity::named(Kind::Upstream, &name, self.account.clone()).ok()?;
        let there = vec![format!("pull,list:{}/*", login.prefix())];
        let caller = Caller {
            generation: login.number(),
            ends: Some(now.after(UpstreamLogins::HELD)),
            upstream: Some(login),
            ..Caller::of(identity)
        };
        self.bounded(caller, vec![there])
    }

    fn by_secret(&self, login: &Login, secret: &str, now: Timestamp) -> Result<Caller, Unproved> {
        let found = login
            .secrets
            .iter()
            .filter(|one| !one.stored.is_slow() && one.expires_at.is_none_or(|end| now < end))
            .find(|one| one.stored.verify(secret));
        let found = found.filter(|_| login.is_good(now)).ok_or(Unproved::Wrong)?;
        let caller = self.of_login(login, found.scopes.as_deref())?;
        let ends = [caller.ends, found.expires_at].into_iter().flatten().min();
        Ok(Caller { ends, ..caller })
    }

    fn of_login(&self, login: &Login, secret: Option<&[Scope]>) -> Result<Caller, Unproved> {
        let told = |scopes: &[Scope]| scopes.iter().map(ToString::to_string).collect::<Vec<_>>();
        let lists = login.scopes.as_deref().into_iter().chain(secret).map(told);
        let mut caller = Caller {
            generation: login.generation,
            ends: login.expires_at,
            documents: login.documents.clone().into(),
            ..Caller::of(login.identity.clone())
        };
        // A secret's scopes only bound; a login's are what it may, too.
        if let Some(scopes) = &login.scopes {
            let own = self.bound(&told(scopes)).ok_or(Unproved::Wrong)?;
            caller.documents = caller.documents.iter().cloned().chain([own]).collect();
        }
        self.bounded(caller, lists.collect()).ok_or(Unproved::Wrong)
    }

    fn bounded(&self, caller: Caller, lists: Vec<Vec<String>>) -> Option<Caller> {
        let bounds = lists.iter().map(|list| self.bound(list)).collect::<Option<_>>()?;
        Some(Caller {
            bounds,
            scopes: lists.into(),
            ..caller
        })
    }

    /// A list of scopes as a policy; `None` when it cannot be read, and so allows nothing.
    fn bound(&self, list: &[String]) -> Option<Document> {
        if let Some(known) = self.bounds.get(list) {
            return known;
        }
        let scopes: Option<Vec<Scope>> = list.iter().map(|text| text.parse().ok()).collect();
        let made = scopes.and_then(|scopes| scope::document(&scopes, &self.account).ok());
        self.bounds.insert(list.to_vec(), made.clone());
        made
    }

    fn of_file(&self, name: &str) -> Option<Caller> {
        // It may have been disabled, or bounded: nobody knows any more.
        if self.store.is_broken(name) {
            return None;
        }
        let generation = self.htpasswd.as_ref()?.generation(name)?;
        let identity = Identity::named(Kind::User, name, self.account.clone()).ok()?;
        Some(Caller {
            generation,
            ..Caller::of(identity)
        })
    }

    fn by_token(&self, token: &str, purpose: Use, arrival: Arrival<'_>) -> Result<Caller, Unproved> {
        let (grant, ends) = self
            .tokens
            .verify(token, purpose, arrival.shown_at)
            .map_err(Unproved::Token)?;
        let void = Unproved::Token(TokenError::Void);
        // What it was made of has to be there still, and the same.
        let caller = match grant.identity.kind() {
            Kind::Anonymous => Caller::anonymous(),
            Kind::Certificate => Caller::of(grant.identity),
            Kind::User | Kind::Robot => {
                let name = grant.identity.name();
                if let Some(login) = self.store.find(name) {
                    let same = login.identity == grant.identity && login.generation == grant.generation;
                    if !same || !login.is_good(arrival.now) {
                        return Err(void);
                    }
                    let login = self.of_login(&login, None).map_err(|_| void)?;
                    self.bounded(login, grant.scopes).ok_or(void)?
                } else {
                    let caller = self.of_file(name).ok_or(void)?;
                    if caller.generation != grant.generation || caller.identity != grant.identity {
                        return Err(void);
                    }
                    caller
                }
            }
            Kind::Workload => {
                let issuer = grant.identity.issuer();
                if !self.issuers.iter().any(|known| Some(known.url()) == issuer) {
                    return Err(void);
                }
                let scopes = grant.scopes.into_iter().next().unwrap_or_default();
                let identity = grant.identity;
                self.workload(Workload { identity, scopes }).ok_or(void)?
            }
            Kind::Upstream => {
                let held = self.upstreams.held(grant.generation).ok_or(void)?;
                let caller = self.of_upstream(held, arrival.now).ok_or(void)?;
                if caller.identity != grant.identity {
                    return Err(void);
                }
                caller
            }
            // Nobody hands such out.
            Kind::Operator => return Err(void),
        };
        Ok(Caller {
            granted: Some(grant.access.into()),
            ends: [caller.ends, Some(ends)].into_iter().flatten().min(),
            ..caller
        })
    }
}
