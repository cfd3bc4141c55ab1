//! Tokens of our own (Docker's token authentication): JWTs that say who was proved and what was granted, signed by keys of
//! this data folder. `keys` keeps and turns those; `api` hands tokens out at `/token` and takes them back as `Bearer`.

mod keys;

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;

use super::identity::{Account, Identity, Kind};

pub use keys::{KeySource, Keys};

/// Bytes of tokens that are remembered as verified, and how many each byte of one's text takes in memory.
const REMEMBERED: u64 = 32 * 1024 * 1024;
const WEIGHT: u32 = 4;
/// And for how long after they were shown last.
const FORGOTTEN: Duration = Duration::from_mins(10);
/// How far the clocks of those who share a data folder's backup may be apart.
const LEEWAY: Duration = Duration::from_secs(30);
/// Longer texts are no tokens of ours.
const LONGEST: usize = 16 * 1024;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// To ask with, for minutes.
    Access,
    /// To have another one made, without the password.
    Refresh,
}

/// What is granted on one thing (distribution, "Token Authentication Implementation": `access`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `repository`, or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which one: a repository's name, or `catalog`.
    pub name: String,
    /// `pull`, `push`, `delete`, or `*`.
    pub actions: Vec<String>,
}

impl Access {
    /// Whether both are about one thing.
    pub fn is_of(&self, other: &Self) -> bool {
        self.kind == other.kind && self.name == other.name
    }

    /// Grants what `other` does, too.
    pub fn add(&mut self, other: Self) {
        for action in other.actions {
            if !self.actions.contains(&action) {
                self.actions.push(action);
            }
        }
    }
}

/// Who was proved, and what was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub identity: Identity,
    /// What; of a refresh token nothing.
    pub access: Vec<Access>,
    /// What the token is good for.
    pub purpose: Use,
    /// Which state of the identity it was made of: it is void once that has another one (another password, a new key).
    pub generation: u64,
    /// What it is good for at the most: within each of these lists of scopes.
    pub scopes: Vec<Vec<String>>,
    /// It ends with what it was made of: not a second later, whatever clocks say.
    pub exact: bool,
}

/// Why a text is no token that counts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No token, of another issuer, or altered.
    #[error("the token is not one of this registry")]
    Invalid,
    /// It was one.
    #[error("the token has expired")]
    Expired,
    /// It is for another service, or for another use.
    #[error("the token is for something else")]
    Misused,
    /// Whoever had it made is no more, or has another password.
    #[error("the token is void: log in again")]
    Void,
    /// It would be longer than those that are taken.
    #[error("too much is asked for at once")]
    Long,
    /// Keys cannot be used.
    #[error("tokens cannot be signed")]
    Keys,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
    #[serde(rename = "use")]
    purpose: Use,
    kind: String,
    account: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    generation: u64,
    #[serde(default)]
    access: Vec<Access>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<Vec<String>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    exact: bool,
}

/// A token whose signature was found good.
struct Verified {
    grant: Grant,
    /// In seconds since 1970.
    expires: u64,
    /// Bytes of its text.
    size: u32,
}

/// Makes tokens, and knows them again. Clones share the keys.
#[derive(Clone)]
pub struct Tokens {
    keys: Arc<Keys>,
    /// Both the issuer and the audience: what the challenge calls `service`.
    service: Arc<str>,
    verified: moka::sync::Cache<[u8; 32], Arc<Verified>>,
}

impl Tokens {
    /// Tokens of `service`, by `keys`.
    pub fn new(keys: Arc<Keys>, service: &str) -> Self {
        Self {
            keys,
            service: service.into(),
            verified: moka::sync::Cache::builder()
                .weigher(|_, known: &Arc<Verified>| known.size.saturating_mul(WEIGHT))
                .max_capacity(REMEMBERED)
                .time_to_idle(FORGOTTEN)
                .build(),
        }
    }

    /// A token for `grant`, good for `span` from `now` on.
    ///
    /// # Errors
    /// `Keys`.
    pub fn make(&self, grant: &Grant, span: Duration, now: Timestamp) -> Result<String, TokenError> {
        let issued = now.0 / 1000;
        let claims = Claims {
            iss: self.service.to_string(),
            sub: grant.identity.name().to_owned(),
            aud: self.service.to_string(),
            iat: issued,
            nbf: issued,
            exp: issued.saturating_add(span.as_secs()),
            jti: uuid::Uuid::new_v4().to_string(),
            purpose: grant.purpose,
            kind: grant.identity.kind().as_str().to_owned(),
            account: grant.identity.account().to_string(),
            issuer: grant.identity.issuer().map(str::to_owned),
            generation: grant.generation,
            access: grant.access.clone(),
            scopes: grant.scopes.clone(),
            exact: grant.exact,
        };
        let key = self.keys.newest();
        let header = Header {
            kid: Some(key.id.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        let token = jsonwebtoken::encode(&header, &claims, &key.private).map_err(|_| TokenError::Keys)?;
        // One that would not be taken back is not handed out.
        if token.len() > LONGEST {
            return Err(TokenError::Long);
        }
        Ok(token)
    }

    /// What a token of ours says, if it counts at `now` for this use. Whether the identity still exists, in the same
    /// generation, is for the caller to look up.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn verify(
        &self,
        token: &str,
        purpose: Use,
        now: Timestamp,
    ) -> Result<(Grant, Timestamp), TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::Invalid);
        }
        let name: [u8; 32] = Sha256::digest(token).into();
        let known = if let Some(known) = self.verified.get(&name) {
            known
        } else {
            let (grant, expires) = self.read(token, now)?;
            let size = u32::try_from(token.len()).unwrap_or(u32::MAX);
            let known = Arc::new(Verified { grant, expires, size });
            // Anybody may have those of nobody made, as many as they like.
            if !known.grant.identity.is_anonymous() {
                self.verified.insert(name, known.clone());
            }
            known
        };
        let Verified { grant, expires, .. } = &*known;
        let leeway = if grant.exact { 0 } else { LEEWAY.as_secs() };
        if now.0 / 1000 >= expires.saturating_add(leeway) {
            return Err(TokenError::Expired);
        }
        if grant.purpose != purpose {
            return Err(TokenError::Misused);
        }
        Ok((grant.clone(), Timestamp(expires.saturating_mul(1000))))
    }

    fn read(&self, token: &str, now: Timestamp) -> Result<(Grant, u64), TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        // The algorithm is ours to say, never the token's: one key, one algorithm.
        let key = header
            .kid
            .and_then(|id| self.keys.find(&id))
            .ok_or(TokenError::Invalid)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        validation.set_audience(&[&*self.service]);
        validation.set_issuer(&[&*self.service]);
        // By our clock, below.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.public, &validation)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidAudience => TokenError::Misused,
                _ => TokenError::Invalid,
            })?
            .claims;
        if claims.nbf > (now.0 / 1000).saturating_add(LEEWAY.as_secs()) {
            return Err(TokenError::Invalid);
        }
        let identity = identity(&claims).ok_or(TokenError::Invalid)?;
        let grant = Grant {
            identity,
            access: claims.access,
            purpose: claims.purpose,
            generation: claims.generation,
            scopes: claims.scopes,
            exact: claims.exact,
        };
        Ok((grant, claims.exp))
    }
}

fn identity(claims: &Claims) -> Option<Identity> {
    const KINDS: [Kind; 7] = [
        Kind::Anonymous,
        Kind::User,
        Kind::Robot,
        Kind::Workload,
        Kind::Certificate,
        Kind::Upstream,
        Kind::Operator,
    ];
    let kind = KINDS.into_iter().find(|kind| kind.as_str() == claims.kind)?;
    let account: Account = claims.account.parse().ok()?;
    let identity = Identity::named(kind, &claims.sub, account).ok()?;
    Some(match &claims.issuer {
        Some(issuer) => identity.issued_by(issuer),
        None => identity,
    })
}

#[cfg(test)]
mod tests;
