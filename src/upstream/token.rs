//! Tokens from token services (Docker token spec): asked for once however many requests wait, kept until shortly before
//! they expire. Also remembers logins that were rejected, so that a wrong password is not tried until an account locks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Deserialize;
use url::Url;

use super::errand::{Purpose, SharedPurpose};
use super::error::{Error, ErrorKind, Failure};
use super::observer::RequestKind;
use super::realm;
use super::reply::Reply;
use super::retry::Window;
use super::transport::{Request, Transport, host_of};
use super::turns::Lane;
use crate::clock::Timestamp;
use crate::collapse::Collapse;
use crate::config::UpstreamConfig;

/// Largest answer of a token service, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Tokens kept at most: one per repository in use.
const MAX_TOKENS: u64 = 2048;
/// How long a verdict on our login is believed.
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
    /// Asked for with our credentials.
    pub(super) login: bool,
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
    basic: Option<HeaderValue>,
    kept: moka::sync::Cache<TokenKey, Arc<Token>>,
    running: Collapse<TokenKey, Result<Arc<Token>, Error>>,
    /// By whom we logged in at, a realm or the registry itself: were we let in, and when was that?
    verdicts: Mutex<HashMap<String, (bool, Instant)>>,
}

impl Tokens {
    pub(super) fn new(config: &UpstreamConfig, transport: Arc<Transport>) -> Result<Self, Error> {
        let basic = match &config.credentials {
            Some(credentials) => {
                let pair = format!("{}:{}", credentials.username, credentials.password.expose());
                Some(
                    secret(&format!("Basic {}", STANDARD.encode(pair))).ok_or_else(|| {
                        transport.error(&host_of(&config.url), ErrorKind::Setup, "unusable credentials")
                    })?,
                )
            }
            None => None,
        };
        Ok(Self {
            transport,
            own: config.url.clone(),
            realms: config.realms.clone(),
            basic,
            kept: moka::sync::Cache::new(MAX_TOKENS),
            running: Collapse::default(),
            verdicts: Mutex::default(),
        })
    }

    /// Our credentials as a header.
    pub(super) fn basic(&self) -> Option<&HeaderValue> {
        self.basic.as_ref()
    }

    /// A token for `key`. The flag says that it was made for this call (or for others at the same moment).
    pub(super) async fn get(self: &Arc<Self>, key: TokenKey) -> Result<(Arc<Token>, bool), Error> {
        if let Some(token) = self.kept.get(&key) {
            if token.expires > Instant::now() {
                return Ok((token, false));
            }
            self.discard(&key, &token);
        }
        let this = self.clone();
        let host = host_of(&key.realm);
        let (result, _) = self
            .running
            .run(key.clone(), move || async move { this.fetch(key).await })
            .await;
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

    /// What was said lately about our login at `place`.
    fn verdict(&self, place: &str) -> Option<bool> {
        let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let (accepted, at) = verdicts.get(place)?;
        (at.elapsed() < VERDICT_TIME).then_some(*accepted)
    }

    /// Remembers whether our login was accepted at `place`.
    pub(super) fn judge(&self, place: &str, accepted: bool) {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.retain(|_, (_, at)| at.elapsed() < VERDICT_TIME);
        verdicts.insert(place.to_owned(), (accepted, Instant::now()));
    }

    /// Fails while our login counts as rejected at `place`.
    pub(super) fn check_login(&self, place: &str) -> Result<(), Error> {
        if self.verdict(place) == Some(false) {
            let message = "the configured credentials were rejected a moment ago";
            return Err(self
                .transport
                .error(place, ErrorKind::CredentialsRejected, message));
        }
        Ok(())
    }

    async fn fetch(self: Arc<Self>, key: TokenKey) -> Result<Arc<Token>, Error> {
        let place = host_of(&key.realm);
        if key.login {
            self.check_login(&place)?;
            if !realm::is_trusted(&self.own, &key.realm, &self.realms) {
                let message = format!(
                    "its token service {place} is on another domain, so our credentials are not sent there; if it \
                     is the right one, add it to `upstream.{}.realms`",
                    self.transport.prefix()
                );
                return Err(self.transport.error(&place, ErrorKind::Refused, message));
            }
        }
        let mut reply = self.ask(&key, &key.scope).await?;
        let status = reply.status().as_u16();
        if !reply.status().is_success() {
            return Err(self.refusal(&key, &place, status, reply).await);
        }
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
        if key.login {
            self.judge(&place, true);
        }
        let lifetime = answer.lifetime(Timestamp::now());
        let token = Arc::new(Token {
            header,
            expires: Instant::now() + lifetime,
        });
        if !lifetime.is_zero() {
            self.kept.insert(key, token.clone());
        }
        Ok(token)
    }

    /// Sorts out a refusal. With a login, 401 and 403 may mean the login or this one repository (GHCR): a request
    /// without scope tells, and its verdict is remembered so that neither of them is asked again and again.
    async fn refusal(&self, key: &TokenKey, place: &str, status: u16, reply: Reply) -> Error {
        let (kind, message) = reply.into_excuse().await;
        let refused = |kind| self.transport.status_error(place, kind, status, message.clone());
        match kind {
            ErrorKind::Denied if !key.login => refused(ErrorKind::TokenDenied),
            ErrorKind::Denied => {
                let accepted = match self.verdict(place) {
                    Some(accepted) => accepted,
                    None if key.scope.is_empty() => false,
                    None => match self.ask(key, "").await {
                        Ok(reply) if reply.status().is_success() => true,
                        Ok(reply) if matches!(reply.status().as_u16(), 401 | 403) => false,
                        Ok(reply) => {
                            let status = reply.status().as_u16();
                            let (kind, message) = reply.into_excuse().await;
                            return self.transport.status_error(place, kind, status, message);
                        }
                        Err(error) => return error,
                    },
                };
                self.judge(place, accepted);
                if accepted {
                    return refused(ErrorKind::TokenDenied);
                }
                tracing::warn!(
                    upstream = self.transport.prefix(),
                    realm = place,
                    status,
                    message,
                    "the token service rejects the configured credentials"
                );
                refused(ErrorKind::CredentialsRejected)
            }
            // A token service is an endpoint, not content: its absence says nothing about images.
            ErrorKind::NotFound => refused(ErrorKind::Unexpected),
            kind => refused(kind),
        }
    }

    async fn ask(&self, key: &TokenKey, scope: &str) -> Result<Reply, Error> {
        let window = Window::new();
        let mut url = token_url(&key.realm, key.service.as_deref(), scope);
        let mut login = if key.login { self.basic() } else { None };
        for _ in 0..=MAX_HOPS {
            let request = Request {
                kind: RequestKind::Token,
                lane: Lane::Login,
                // One token is for all who ask meanwhile.
                purpose: SharedPurpose::new(Purpose::Miss),
                method: Method::GET,
                url: &url,
                headers: HeaderMap::new(),
            };
            let reply = self.transport.send(&request, login, window).await?;
            let Some(next) = reply.redirect(&url) else {
                return Ok(reply);
            };
            self.transport.check(&url, &next)?;
            if next.origin() != url.origin() {
                login = None;
            }
            reply.drain().await;
            url = next;
        }
        let message = format!("more than {MAX_HOPS} redirects");
        Err(self.transport.error(&host_of(&url), ErrorKind::Protocol, message))
    }
}

/// A header's value that never shows up in debug output.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
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
        secret(&format!("Bearer {token}"))
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
