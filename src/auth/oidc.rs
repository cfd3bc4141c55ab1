//! Workloads: ID tokens of issuers that are trusted (OpenID Connect Core, section 2), as GitHub Actions, GitLab CI and
//! Kubernetes hand them to what they run. Rules on their claims say what each may. Called by
//! [`Authenticator`](super::Authenticator).

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::identity::{Account, Identity, Kind};
use super::scope::Scope;
use crate::clock::Timestamp;
use crate::collapse::Collapse;
use crate::config::Glob;

/// How far the issuer's clock may be from ours.
const LEEWAY: Duration = Duration::from_mins(1);
/// Keys are asked for again after this.
const KEYS_LAST: Duration = Duration::from_hours(1);
/// And when a token names one that is not known, not sooner than this after the last time.
const BETWEEN_ASKS: Duration = Duration::from_secs(30);
/// Keys of an issuer that does not answer go on for so long.
const KEYS_END: Duration = Duration::from_hours(24);
/// An issuer that has more keys than this is none.
const MOST_KEYS: usize = 100;

/// What an issuer publishes, fetched. Implemented in `app`.
pub trait Fetch: Send + Sync {
    /// The body of the answer to a GET of `url`, or why there is none.
    fn get(&self, url: &str) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>;
}

/// What tokens of an issuer are good for.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Claims, and the values that they have to have, all of them.
    pub claims: BTreeMap<String, Glob>,
    /// What whoever shows such a token may.
    pub scopes: Vec<Scope>,
}

/// An issuer that is trusted.
pub struct Issuer {
    url: String,
    audience: String,
    /// Where its keys are, if its own metadata is not to be asked for that.
    jwks_url: Option<String>,
    rules: Vec<Rule>,
    fetch: Arc<dyn Fetch>,
    known: Arc<RwLock<Known>>,
    asking: Collapse<(), bool>,
}

#[derive(Default)]
struct Known {
    keys: Vec<Jwk>,
    /// When they came.
    at: Option<Timestamp>,
    /// When they were asked for last.
    asked_at: Option<Timestamp>,
}

/// Why an ID token proves nobody. For the log: clients hear that it is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotProved {
    /// Its signature, time, audience or issuer is not what it has to be.
    #[error("it does not count: {0}")]
    Invalid(String),
    /// The issuer's keys cannot be had.
    #[error("the keys of the issuer cannot be had")]
    NoKeys,
    /// It is good, and nothing is granted to it.
    #[error("no rule grants anything to it")]
    NoRule,
}

/// Who was proved, and what the rules grant.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) identity: Identity,
    pub(super) scopes: Vec<String>,
}

impl Issuer {
    /// The issuer with this URL, whose tokens have to be made for `audience`.
    pub fn new(
        url: &str,
        audience: &str,
        jwks_url: Option<&str>,
        rules: Vec<Rule>,
        fetch: Arc<dyn Fetch>,
    ) -> Self {
        Self {
            url: url.to_owned(),
            audience: audience.to_owned(),
            jwks_url: jwks_url.map(str::to_owned),
            rules,
            fetch,
            known: Arc::default(),
            asking: Collapse::default(),
        }
    }

    /// Its URL, as tokens write it.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// For whom its tokens have to be made.
    pub(super) fn audience(&self) -> &str {
        &self.audience
    }

    /// Who this token is.
    pub(super) async fn prove(
        &self,
        token: &str,
        account: &Account,
        now: Timestamp,
    ) -> Result<Workload, NotProved> {
        let invalid = |error: &dyn ToString| NotProved::Invalid(error.to_string());
        let header = jsonwebtoken::decode_header(token).map_err(|error| invalid(&error))?;
        let key = self.key(header.kid.as_deref(), now).await?;
        let allowed = algorithms(&key);
        // What the key can do decides; the token only chooses among that. A shared secret never.
        if !allowed.contains(&header.alg) {
            return Err(invalid(&"it is signed in a way that the key is not for"));
        }
        let decoding = DecodingKey::from_jwk(&key).map_err(|error| invalid(&error))?;
        let mut validation = Validation::new(header.alg);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.url]);
        // By our clock, below.
        validation.validate_exp = false;
        let decoded = jsonwebtoken::decode::<BTreeMap<String, Value>>(token, &decoding, &validation);
        let claims = decoded.map_err(|error| invalid(&error))?.claims;
        check_time(&claims, now).map_err(|reason| invalid(&reason))?;
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        let named = Identity::named(Kind::Workload, subject, account.clone());
        let identity = named.map_err(|error| invalid(&error))?.issued_by(&self.url);
        let granted = self.rules.iter().filter(|rule| rule.is_about(&claims));
        let scopes: Vec<String> = granted
            .flat_map(|rule| rule.scopes.iter().map(ToString::to_string))
            .collect();
        if scopes.is_empty() {
            return Err(NotProved::NoRule);
        }
        Ok(Workload { identity, scopes })
    }

    /// The key of this name; the only one there is, where the token names none.
    async fn key(&self, id: Option<&str>, now: Timestamp) -> Result<Jwk, NotProved> {
        let (found, fresh) = self.known(id, now);
        if let (Some(key), true) = (&found, fresh) {
            return Ok(key.clone());
        }
        if self.may_ask(now) {
            let (fetch, known) = (self.fetch.clone(), self.known.clone());
            let (url, jwks_url) = (self.url.clone(), self.jwks_url.clone());
            let ask = move || async move {
                let keys = keys_of(&*fetch, &url, jwks_url).await;
                let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
                known.asked_at = Some(now);
                match keys {
                    Ok(keys) => {
                        known.keys = keys;
                        known.at = Some(now);
                        true
                    }
                    Err(reason) => {
                        tracing::warn!(issuer = url, reason, "the keys of an issuer cannot be had");
                        false
                    }
                }
            };
            self.asking.run((), ask).await;
        }
        let (found, _) = self.known(id, now);
        found.ok_or(NotProved::NoKeys)
    }

    fn known(&self, id: Option<&str>, now: Timestamp) -> (Option<Jwk>, bool) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let age = known.at.map(|at| now.since(at));
        if age.is_none_or(|age| age >= KEYS_END) {
            return (None, false);
        }
        let found = match id {
            Some(id) => known
                .keys
                .iter()
                .find(|key| key.common.key_id.as_deref() == Some(id)),
            None => known.keys.first().filter(|_| known.keys.len() == 1),
        };
        (found.cloned(), age.is_some_and(|age| age < KEYS_LAST))
    }

    /// Tokens with invented keys make us ask no more often than this.
    fn may_ask(&self, now: Timestamp) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.asked_at.is_none_or(|at| now.since(at) >= BETWEEN_ASKS)
    }
}

/// The issuer's keys that sign, by its metadata (OpenID Connect Discovery 1.0, section 4) unless said otherwise.
async fn keys_of(fetch: &dyn Fetch, issuer: &str, jwks_url: Option<String>) -> Result<Vec<Jwk>, String> {
    let url = match jwks_url {
        Some(url) => url,
        None => jwks_uri(fetch, issuer).await?,
    };
    let set = fetch.get(&url).await?;
    let mut set: Value = serde_json::from_slice(&set).map_err(|error| error.to_string())?;
    let all = set["keys"].take();
    let all = all.as_array().ok_or("there are no keys at its jwks_uri")?;
    // One of a kind that nobody knows yet spoils no others.
    let keys: Vec<Jwk> = all
        .iter()
        .take(MOST_KEYS)
        .filter_map(|key| serde_json::from_value(key.clone()).ok())
        .filter(|key: &Jwk| {
            let signs = key.common.public_key_use.as_ref();
            signs.is_none_or(|signs| *signs == PublicKeyUse::Signature) && !algorithms(key).is_empty()
        })
        .collect();
    if keys.is_empty() {
        return Err("none of its keys can be used".to_owned());
    }
    Ok(keys)
}

/// Where the issuer's metadata says that its keys are.
async fn jwks_uri(fetch: &dyn Fetch, issuer: &str) -> Result<String, String> {
    let base = issuer.trim_end_matches('/');
    let metadata = fetch
        .get(&format!("{base}/.well-known/openid-configuration"))
        .await?;
    let metadata: Value = serde_json::from_slice(&metadata).map_err(|error| error.to_string())?;
    if metadata["issuer"].as_str() != Some(issuer) {
        return Err(format!("its metadata is that of {}", metadata["issuer"]));
    }
    let url = metadata["jwks_uri"]
        .as_str()
        .ok_or("its metadata names no jwks_uri")?;
    // It must not lead from a protected way to one that is none.
    if issuer.starts_with("https:") && !url.starts_with("https:") {
        return Err(format!("its keys are at {url}, which is not HTTPS"));
    }
    Ok(url.to_owned())
}

/// How a key may have signed.
fn algorithms(key: &Jwk) -> Vec<Algorithm> {
    use Algorithm as A;
    let by_kind: &[A] = match &key.algorithm {
        AlgorithmParameters::RSA(_) => &[A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512],
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => &[A::ES256],
            EllipticCurve::P384 => &[A::ES384],
            _ => &[],
        },
        AlgorithmParameters::OctetKeyPair(_) => &[A::EdDSA],
        _ => &[],
    };
    let said = key.common.key_algorithm.map(|said| said.to_string());
    let is_said = |one: &&A| said.as_ref().is_none_or(|said| *said == format!("{one:?}"));
    by_kind.iter().filter(is_said).copied().collect()
}

fn check_time(claims: &BTreeMap<String, Value>, now: Timestamp) -> Result<(), &'static str> {
    let (now, leeway) = (now.0 / 1000, LEEWAY.as_secs());
    let seconds = |name: &str| claims.get(name).and_then(seconds_of);
    match (seconds("exp"), seconds("nbf")) {
        (None, _) => Err("it has no end"),
        (Some(end), _) if now >= end.saturating_add(leeway) => Err("it has expired"),
        (_, Some(start)) if start > now.saturating_add(leeway) => Err("it does not count yet"),
        _ => Ok(()),
    }
}

/// A number of seconds (RFC 7519, section 2: NumericDate), which may have a fraction.
fn seconds_of(value: &Value) -> Option<u64> {
    let whole = value.to_string();
    whole.split('.').next()?.parse().ok()
}

impl Rule {
    fn is_about(&self, claims: &BTreeMap<String, Value>) -> bool {
        self.claims
            .iter()
            .all(|(name, pattern)| match find(claims, name) {
                Some(Value::String(text)) => pattern.matches(text),
                Some(Value::Bool(value)) => pattern.matches(&value.to_string()),
                Some(Value::Number(value)) => pattern.matches(&value.to_string()),
                Some(Value::Array(values)) => values
                    .iter()
                    .any(|value| value.as_str().is_some_and(|text| pattern.matches(text))),
                _ => false,
            })
    }
}

/// The claim of this name; `a.b` is `b` within `a`, as Kubernetes nests them, unless there is a claim that is called so.
fn find<'a>(claims: &'a BTreeMap<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    // `kubernetes.io` has a dot of its own: the longest beginning that there is.
    let cuts = name.match_indices('.').map(|(at, _)| at).collect::<Vec<_>>();
    cuts.into_iter().rev().find_map(|at| {
        let mut value = claims.get(&name[..at])?;
        for part in name[at + 1..].split('.') {
            value = value.get(part)?;
        }
        Some(value)
    })
}

/// Whose token this may be: the `iss` of its claims, which nothing has proved yet.
pub(super) fn issuer_of(token: &str) -> Option<String> {
    claims_of(token)?.get("iss")?.as_str().map(str::to_owned)
}

/// For whom it may be made: its `aud`, likewise.
pub(super) fn audiences_of(token: &str) -> Vec<String> {
    match claims_of(token).as_mut().map(|claims| claims["aud"].take()) {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all
            .iter()
            .filter_map(|one| one.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

fn claims_of(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice(&bytes).ok().filter(Value::is_object)
}
