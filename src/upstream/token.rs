//! Tokens from token services (Docker token spec): asked for once however many requests wait, kept until shortly before
//! they expire. A login that the service rejects is set aside here, so that a wrong password is not tried until an
//! account locks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Deserialize;
use url::Url;

use super::credentials::{Grant, Login, sensitive};
use super::errand::{Guise, Purpose, SharedPurpose};
use super::error::{Error, ErrorKind, Failure};
use super::logins::LoginName;
use super::observer::RequestKind;
use super::realm;
use super::reply::Reply;
use super::retry::Window;
use super::transport::{Request, Transport, host_of};
use super::turns::Lane;
use crate::clock::Timestamp;
use crate::collapse::Collapse;
use crate::config::{Secret, UpstreamConfig};

/// Largest answer of a token service, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Tokens kept at most: one per repository in use.
const MAX_TOKENS: u64 = 2048;
/// How long it is believed that a login is good, though not for everything.
const VERDICT_TIME: Duration = Duration::from_mins(1);
/// Redirects of a token service that are followed.
const MAX_HOPS: usize = 5;

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    /// Scopes separated by spaces; may be empty.
    pub(super) scope: String,
    /// As whom it is asked for.
    pub(super) login: LoginName,
    /// As whom it is asked for.
    pub(super) guise: Guise,
}

/// A token as it is sent.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) header: HeaderValue,
    expires: Instant,
}

/// The tokens of one upstream.
pub(super) struct Tokens {
    transport: Arc<Transport>,
    own: Url,
    realms: Vec<String>,
    kept: moka::sync::Cache<TokenKey, Arc<Token>>,
    running: Collapse<TokenKey, Result<Arc<Token>, Error>>,
    /// The first request with a login that nobody has accepted yet.
    proving: Collapse<LoginName, Result<Arc<Token>, Error>>,
    /// When a login was found to be good after a refusal, by realm.
    accepted: Mutex<HashMap<(String, LoginName), Instant>>,
}

impl Tokens {
    pub(super) fn new(config: &UpstreamConfig, transport: Arc<Transport>) -> Self {
        Self {
            transport,
            own: config.url.clone(),
            realms: config.realms.clone(),
            kept: moka::sync::Cache::new(MAX_TOKENS),
            running: Collapse::default(),
            proving: Collapse::default(),
            accepted: Mutex::default(),
        }
    }

    /// A token for `key`, whose login this is. The flag says that it was made for this call (or for others at the same
    /// moment).
    pub(super) async fn get(
        self: &Arc<Self>,
        key: TokenKey,
        login: &Arc<Login>,
    ) -> Result<(Arc<Token>, bool), Error> {
        // While it is not known whether a login is good, a token of before proves nothing.
        if !login.is_unproven()
            && let Some(token) = self.kept.get(&key)
        {
            if token.expires > Instant::now() {
                return Ok((token, false));
            }
            self.discard(&key, &token);
        }
        let host = host_of(&key.realm);
        let work = || {
            let (this, key, login) = (self.clone(), key.clone(), login.clone());
            move || async move { this.fetch(key, &login).await }
        };
        // A login that may be wrong is tried by one request: each failure counts towards the account's lock.
        let mut tried = None;
        if login.is_unproven() {
            let (result, joined) = self.proving.run(login.name().clone(), work()).await;
            if !joined {
                tried = Some(result);
            } else if let Some(why) = login.why_aside() {
                let message = format!("the credential {} was set aside: {why}", login.name());
                let kind = ErrorKind::CredentialsRejected;
                return Err(self.transport.error(&host, kind, message));
            } else if let Some(token) = self.kept.get(&key).filter(|kept| kept.expires > Instant::now())
                // What a client's login got before says nothing of it now.
                && key.guise != Guise::Caller
            {
                return Ok((token, true));
            }
        }
        let result = match tried {
            Some(result) => result,
            None => self.running.run(key.clone(), work()).await.0,
        };
        let lost = || {
            let kind = ErrorKind::Unavailable(Failure::Cut);
            self.transport
                .error(&host, kind, "the request for a token was lost")
        };
        result.unwrap_or_else(|| Err(lost())).map(|token| (token, true))
    }

    /// Forgets a token that was refused, unless another has taken its place.
    pub(super) fn discard(&self, key: &TokenKey, token: &Arc<Token>) {
        if self.kept.get(key).is_some_and(|kept| Arc::ptr_eq(&kept, token)) {
            self.kept.invalidate(key);
        }
    }

    /// Whether the login was found to be good at `place` lately.
    fn was_accepted(&self, place: &str, login: &Login) -> bool {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted
            .get(&(place.to_owned(), login.name().clone()))
            .is_some_and(|at| at.elapsed() < VERDICT_TIME)
    }

    /// Remembers that the login is good at `place`, though not for everything.
    fn accept(&self, place: &str, login: &Login) {
        login.accepted();
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.retain(|_, at| at.elapsed() < VERDICT_TIME);
        accepted.insert((place.to_owned(), login.name().clone()), Instant::now());
    }

    /// What a login gives.
    pub(super) async fn grant(&self, place: &str, login: &Arc<Login>) -> Result<Option<Arc<Grant>>, Error> {
        if self.transport.offline().is_on() {
            return Err(self.transport.is_offline(place));
        }
        login.given().await.map_err(|why| {
            if self.transport.offline().is_on() {
                return self.transport.is_offline(place);
            }
            let message = format!("the credential {} cannot be had: {why}", login.name());
            self.transport
                .error(place, ErrorKind::CredentialsRejected, message)
        })
    }

    async fn fetch(self: Arc<Self>, key: TokenKey, login: &Arc<Login>) -> Result<Arc<Token>, Error> {
        // It may have come between the look for it and this run.
        let kept = self.kept.get(&key).filter(|kept| kept.expires > Instant::now());
        if let Some(kept) = kept.filter(|_| !login.is_unproven()) {
            return Ok(kept);
        }
        let place = host_of(&key.realm);
        let mut grant = self.grant(&place, login).await?;
        if grant.is_some() && !realm::is_trusted(&self.own, &key.realm, &self.realms) {
            let message = format!(
                "its token service {place} is on another domain, so our credentials are not sent there; if it \
                 is the right one, add it to `upstream.{}.realms`",
                self.transport.prefix()
            );
            return Err(self.transport.error(&place, ErrorKind::Refused, message));
        }
        let mut reply = loop {
            let reply = self.ask(&key, &key.scope, grant.as_deref()).await?;
            if reply.status().is_success() {
                break reply;
            }
            let refusal = self.refusal(&key, &place, reply, login, grant.as_ref()).await;
            match &grant {
                Some(refused)
                    if *refusal.kind() == ErrorKind::CredentialsRejected
                        && login.is_renewed(refused).await =>
                {
                    grant = self.grant(&place, login).await?;
                }
                Some(_) if self.transport.offline().is_on() => {
                    return Err(self.transport.is_offline(&place));
                }
                Some(refused) if *refusal.kind() == ErrorKind::CredentialsRejected => {
                    let why = format!("rejected by {place}: {}", refusal.message());
                    login.set_aside(Some(refused), why.trim_end_matches(": "));
                    return Err(refusal);
                }
                _ => return Err(refusal),
            }
        };
        let body = reply.read(MAX_ANSWER).await.map_err(|error| {
            let (kind, message) = error.explain();
            self.transport.error(&place, kind, message)
        })?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| {
            let message = format!("the token service's answer is no token: {error}");
            self.transport.error(&place, ErrorKind::Protocol, message)
        })?;
        let header = answer.header().ok_or_else(|| {
            let message = "the token service's answer has no usable token";
            self.transport.error(&place, ErrorKind::Protocol, message)
        })?;
        login.accepted();
        let lifetime = answer.lifetime(Timestamp::now());
        let token = Arc::new(Token {
            header,
            expires: Instant::now() + lifetime,
        });
        if !lifetime.is_zero() && key.guise != Guise::Caller {
            self.kept.insert(key, token.clone());
        }
        Ok(token)
    }

    /// Sorts out a refusal. With a login, 401 and 403 may mean the login or this one repository (GHCR): a request
    /// without scope tells.
    async fn refusal(
        &self,
        key: &TokenKey,
        place: &str,
        reply: Reply,
        login: &Login,
        grant: Option<&Arc<Grant>>,
    ) -> Error {
        let status = reply.status().as_u16();
        let (kind, message) = reply.into_excuse().await;
        // A refresh token that is not good is a 400 (RFC 6749, section 5.2).
        let is_refresh = matches!(grant.map(AsRef::as_ref), Some(Grant::Identity(_)));
        let kind = match (kind, status) {
            (ErrorKind::Unexpected, 400) if is_refresh => ErrorKind::Denied,
            (kind, _) => kind,
        };
        let refused = |kind| self.transport.status_error(place, kind, status, message.clone());
        match kind {
            ErrorKind::Denied if grant.is_none() => refused(ErrorKind::TokenDenied),
            ErrorKind::Denied => {
                let accepted = if self.was_accepted(place, login) {
                    true
                } else if key.scope.is_empty() {
                    false
                } else {
                    match self.ask(key, "", grant.map(AsRef::as_ref)).await {
                        Ok(reply) if reply.status().is_success() => {
                            reply.drain().await;
                            true
                        }
                        Ok(reply) if matches!(reply.status().as_u16(), 401 | 403) => false,
                        Ok(reply) if is_refresh && reply.status().as_u16() == 400 => false,
                        Ok(reply) => {
                            let status = reply.status().as_u16();
                            let (kind, message) = reply.into_excuse().await;
                            return self.transport.status_error(place, kind, status, message);
                        }
                        Err(error) => return error,
                    }
                };
                if accepted {
                    self.accept(place, login);
                    return refused(ErrorKind::TokenDenied);
                }
                refused(ErrorKind::CredentialsRejected)
            }
            // A token service is an endpoint, not content: its absence says nothing about images.
            ErrorKind::NotFound => refused(ErrorKind::Unexpected),
            kind => refused(kind),
        }
    }

    /// Asks: with `GET` and Basic, or for a refresh token with `POST` (Docker's `oauth2` form of it).
    async fn ask(&self, key: &TokenKey, scope: &str, grant: Option<&Grant>) -> Result<Reply, Error> {
        let window = Window::new();
        let identity = match grant {
            Some(Grant::Identity(token)) => Some(token),
            _ => None,
        };
        let mut url = match identity {
            Some(_) => key.realm.clone(),
            None => token_url(&key.realm, key.service.as_deref(), scope),
        };
        let mut login = match grant {
            Some(Grant::Basic(header)) => Some(header),
            _ => None,
        };
        for _ in 0..=MAX_HOPS {
            let mut request = Request {
                kind: RequestKind::Token,
                lane: Lane::Login,
                // One token is for all who ask meanwhile.
                purpose: SharedPurpose::new(Purpose::Miss),
                method: Method::GET,
                url: &url,
                headers: HeaderMap::new(),
                form: None,
                guise: key.guise,
            };
            if let Some(token) = identity {
                request.method = Method::POST;
                request.form = Some(refresh_form(key.service.as_deref(), scope, token));
            }
            let reply = self.transport.send(&request, login, window).await?;
            let Some(next) = reply.redirect(&url) else {
                return Ok(reply);
            };
            self.transport.check(&url, &next)?;
            if next.origin() != url.origin() {
                login = None;
                if identity.is_some() {
                    let message = "a token service that sends us elsewhere gets no refresh token";
                    return Err(self.transport.error(&host_of(&url), ErrorKind::Refused, message));
                }
            }
            reply.drain().await;
            url = next;
        }
        let message = format!("more than {MAX_HOPS} redirects");
        Err(self.transport.error(&host_of(&url), ErrorKind::Protocol, message))
    }
}

/// The body of a token request with a refresh token (Docker, "OAuth 2.0 token authentication").
fn refresh_form(service: Option<&str>, scope: &str, token: &Secret) -> Secret {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    form.append_pair("client_id", "wharfinger");
    if let Some(service) = service {
        form.append_pair("service", service);
    }
    if !scope.is_empty() {
        form.append_pair("scope", scope);
    }
    form.append_pair("refresh_token", token.expose());
    Secret::new(form.finish())
}

/// The URL of a token request: the realm with `service` and each scope added to its own query.
fn token_url(realm: &Url, service: Option<&str>, scope: &str) -> Url {
    let mut url = realm.clone();
    url.set_fragment(None);
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scope.split_whitespace() {
            query.append_pair("scope", scope);
        }
    }
    if url.query() == Some("") {
        url.set_query(None);
    }
    url
}

/// A token service's answer.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
    issued_at: Option<String>,
}

impl Answer {
    fn header(&self) -> Option<HeaderValue> {
        let token = [&self.token, &self.access_token]
            .into_iter()
            .flatten()
            .find(|token| !token.is_empty())?;
        sensitive(&format!("Bearer {token}"))
    }

    /// How long the token may be used from now on: what is left of `expires_in` (60 s unless told), less a tenth, and
    /// at least 5 s, for clocks and for the way. An `issued_at` in the future does not count.
    fn lifetime(&self, now: Timestamp) -> Duration {
        let told = self.expires_in.filter(|seconds| *seconds >= 1.0);
        // A year is forever, and does not overflow.
        let whole = Duration::from_secs_f64(told.unwrap_or(60.0).min(31_536_000.0));
        let issued = self.issued_at.as_deref().and_then(realm::rfc3339);
        let age = issued.map_or(Duration::ZERO, |issued| now.since(issued));
        let margin = (whole / 10).max(Duration::from_secs(5));
        whole.saturating_sub(margin).saturating_sub(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_token_requests() {
        let realm = Url::parse("https://a.test/token?x=1#f").unwrap();
        let url = token_url(
            &realm,
            Some("r.test"),
            "repository:a/b:pull repository:c:pull,push",
        );
        let query = "x=1&service=r.test&scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ac%3Apull%2Cpush";
        assert_eq!(url.as_str(), format!("https://a.test/token?{query}"));
        let bare = token_url(&Url::parse("https://a.test/token").unwrap(), None, "");
        assert_eq!(bare.as_str(), "https://a.test/token");
    }

    #[test]
    fn lifetimes() {
        let now = Timestamp(1_704_164_645_000); // 2024-01-02T03:04:05Z
        let table = [
            (r#"{"token":"t"}"#, 54),
            (r#"{"token":"t","expires_in":0}"#, 54),
            (r#"{"token":"t","expires_in":-7}"#, 54),
            (r#"{"token":"t","expires_in":30}"#, 25),
            (r#"{"token":"t","expires_in":5}"#, 0),
            (r#"{"token":"t","expires_in":300}"#, 270),
            (
                r#"{"token":"t","expires_in":300,"issued_at":"2024-01-02T03:03:05Z"}"#,
                210,
            ),
            (
                r#"{"token":"t","expires_in":300,"issued_at":"2024-01-02T04:04:05Z"}"#,
                270,
            ),
            (
                r#"{"token":"t","expires_in":300,"issued_at":"2024-01-02T01:04:05Z"}"#,
                0,
            ),
            (r#"{"token":"t","expires_in":300,"issued_at":"yesterday"}"#, 270),
            (r#"{"token":"t","expires_in":1e300}"#, 28_382_400),
        ];
        for (json, seconds) in table {
            let answer: Answer = serde_json::from_str(json).unwrap();
            assert_eq!(answer.lifetime(now).as_secs(), seconds, "{json}");
        }
    }

    #[test]
    fn either_key_holds_the_token() {
        let header = |json: &str| serde_json::from_str::<Answer>(json).unwrap().header();
        let is = |json, value: &str| assert_eq!(header(json).unwrap(), value, "{json}");
        is(r#"{"token":"a"}"#, "Bearer a");
        is(r#"{"access_token":"b"}"#, "Bearer b");
        is(r#"{"token":"","access_token":"b"}"#, "Bearer b");
        is(r#"{"token":null,"access_token":"b"}"#, "Bearer b");
        assert_eq!(header("{}"), None);
        assert_eq!(header(r#"{"token":"a\nb"}"#), None);
        assert!(header(r#"{"token":"a"}"#).unwrap().is_sensitive());
    }
}
