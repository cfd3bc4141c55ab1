//! From challenge to `Authorization` header. Remembers how the registry challenges, so that later requests bring their
//! token along and save a round trip per repository. Called by `client`, which walks the steps after a refusal.

use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::HeaderValue;
use url::Url;

use super::credentials::{Grant, Login};
use super::error::{Error, ErrorKind};
use super::token::{Token, TokenKey, Tokens};
use super::transport::{Transport, host_of};
use crate::oci::{Challenge, RepositoryName};

/// What a request was authorized with.
pub(super) enum Sent {
    /// What a login gave, as it is: Basic, or a token of ours.
    Own(Arc<Grant>, HeaderValue),
    /// A token.
    Token {
        /// What it was asked for.
        key: TokenKey,
        /// The token.
        token: Arc<Token>,
        /// It was made for this very request.
        fresh: bool,
    },
}

impl Sent {
    pub(super) fn header(&self) -> &HeaderValue {
        match self {
            Self::Own(_, header) => header,
            Self::Token { token, .. } => &token.header,
        }
    }

    /// Whether a 401 to this token, with these challenges, is the registry's last word: a new token for what it asks
    /// for was just refused. Docker Hub answers so for repositories that do not exist.
    pub(super) fn is_last_word(&self, challenges: &[Challenge]) -> bool {
        let Self::Token { key, fresh, .. } = self else {
            return false;
        };
        let same = |challenge: &Challenge| {
            challenge.scheme == "bearer"
                && challenge.parameter("service") == key.service.as_deref()
                && challenge
                    .parameter("realm")
                    .is_some_and(|realm| Url::parse(realm).is_ok_and(|realm| realm == key.realm))
        };
        *fresh && (challenges.is_empty() || challenges.iter().any(same))
    }

    /// Whether it is a token that was made for this very request.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self, Self::Token { fresh: true, .. })
    }

    /// Whether it is a token for this very repository, rather than for a whole registry (ECR Public).
    pub(super) fn is_for(&self, repository: &RepositoryName) -> bool {
        match self {
            Self::Own(..) => false,
            Self::Token { key, .. } => key
                .scope
                .split(':')
                .any(|part| part == repository.as_str() || part.ends_with(&format!("/{repository}"))),
        }
    }
}

/// How the registry wants to be authorized, as its last challenge said.
#[derive(Debug, PartialEq, Eq)]
enum Learnt {
    Basic,
    Bearer {
        realm: Url,
        service: Option<String>,
        scope: ScopeRule,
    },
}

/// How the scope of a challenge depends on the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ScopeRule {
    /// The repository's name stands between these.
    Around(String, String),
    /// It does not (`aws` of ECR Public).
    Constant(String),
    /// It names another repository than the one asked for: only the registry knows which.
    Unknown,
}

impl ScopeRule {
    fn learn(scope: Option<&str>, repository: &RepositoryName) -> Self {
        let Some(scope) = scope.filter(|scope| !scope.trim().is_empty()) else {
            return Self::Around("repository:".to_owned(), ":pull".to_owned());
        };
        let name = repository.as_str();
        let stands_alone = |at: &usize| {
            let (before, after) = (&scope[..*at], &scope[at + name.len()..]);
            before.ends_with([':', '/']) && after.starts_with(':')
        };
        let found = scope.match_indices(name).map(|(at, _)| at).find(stands_alone);
        match found {
            Some(at) => Self::Around(scope[..at].to_owned(), scope[at + name.len()..].to_owned()),
            None if scope.contains("repository:") => Self::Unknown,
            None => Self::Constant(scope.to_owned()),
        }
    }

    fn scope(&self, repository: &RepositoryName) -> Option<String> {
        match self {
            Self::Around(before, after) => Some(format!("{before}{repository}{after}")),
            Self::Constant(scope) => Some(scope.clone()),
            Self::Unknown => None,
        }
    }
}

/// Authorizes the requests to one upstream.
pub(super) struct Authorizer {
    transport: Arc<Transport>,
    tokens: Arc<Tokens>,
    own: Url,
    learnt: Mutex<Option<Arc<Learnt>>>,
}

impl Authorizer {
    pub(super) fn new(own: Url, transport: Arc<Transport>, tokens: Arc<Tokens>) -> Self {
        Self {
            transport,
            tokens,
            own,
            learnt: Mutex::default(),
        }
    }

    /// What to send without having been asked: nothing while no challenge is known.
    pub(super) async fn beforehand(
        &self,
        repository: &RepositoryName,
        login: &Arc<Login>,
    ) -> Result<Option<Sent>, Error> {
        let learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(learnt) = learnt else { return Ok(None) };
        match &*learnt {
            Learnt::Basic => self.own(login).await,
            Learnt::Bearer {
                realm,
                service,
                scope,
            } => {
                let Some(scope) = scope.scope(repository) else {
                    return Ok(None);
                };
                let result = self.token(realm.clone(), service.clone(), scope, login).await;
                if let Err(error) = &result
                    && !matches!(
                        error.kind(),
                        ErrorKind::TokenDenied
                            | ErrorKind::RateLimited { .. }
                            | ErrorKind::CredentialsRejected
                    )
                {
                    // The realm may have moved: the next request asks the registry again.
                    self.forget(&learnt);
                }
                result.map(Some)
            }
        }
    }

    /// What the registry at `from` asks for, or `None` when we have nothing that fits. Remembered for later requests.
    pub(super) async fn answer(
        &self,
        challenges: &[Challenge],
        repository: &RepositoryName,
        login: &Arc<Login>,
        from: &Url,
    ) -> Result<Option<Sent>, Error> {
        if let Some(bearer) = find(challenges, "bearer") {
            let (realm, service) = self.realm(bearer, from)?;
            let told = bearer.parameter("scope");
            let rule = ScopeRule::learn(told, repository);
            let scope = rule.scope(repository).or_else(|| told.map(str::to_owned));
            self.learn(Learnt::Bearer {
                realm: realm.clone(),
                service: service.clone(),
                scope: rule,
            });
            let scope = scope.unwrap_or_default();
            return self.token(realm, service, scope, login).await.map(Some);
        }
        if find(challenges, "basic").is_some() {
            self.learn(Learnt::Basic);
            return self.own(login).await;
        }
        Ok(None)
    }

    /// Whether the login gets a token without scope from the service that these challenges name. `false` when none does.
    pub(super) async fn try_login(
        &self,
        challenges: &[Challenge],
        login: &Arc<Login>,
        from: &Url,
    ) -> Result<bool, Error> {
        let Some(bearer) = find(challenges, "bearer") else {
            return Ok(false);
        };
        let (realm, service) = self.realm(bearer, from)?;
        self.token(realm, service, String::new(), login)
            .await
            .map(|_| true)
    }

    /// An anonymous token that a redirect's target at `from` asks for. Our credentials are none of its business.
    pub(super) async fn answer_foreign(
        &self,
        challenges: &[Challenge],
        from: &Url,
        stranger: &Arc<Login>,
    ) -> Result<Option<Sent>, Error> {
        let Some(bearer) = find(challenges, "bearer") else {
            return Ok(None);
        };
        let (realm, service) = self.realm(bearer, from)?;
        let scope = bearer.parameter("scope").unwrap_or_default().to_owned();
        self.token(realm, service, scope, stranger).await.map(Some)
    }

    /// Forgets what was refused.
    pub(super) fn discard(&self, sent: &Sent) {
        match sent {
            Sent::Own(..) => *self.learnt.lock().unwrap_or_else(PoisonError::into_inner) = None,
            Sent::Token { key, token, .. } => self.tokens.discard(key, token),
        }
    }

    /// What the login gives, for the registry itself. `None` when it gives nothing that could be sent there.
    pub(super) async fn own(&self, login: &Arc<Login>) -> Result<Option<Sent>, Error> {
        let grant = self.tokens.grant(&host_of(&self.own), login).await?;
        Ok(grant.and_then(|grant| {
            let header = match &*grant {
                Grant::Basic(header) | Grant::Bearer(header) => header.clone(),
                Grant::Identity(_) => return None,
            };
            Some(Sent::Own(grant, header))
        }))
    }

    async fn token(
        &self,
        realm: Url,
        service: Option<String>,
        scope: String,
        login: &Arc<Login>,
    ) -> Result<Sent, Error> {
        // A token of ours needs none of theirs.
        if login.may_give_bearer()
            && let Some(grant) = self.tokens.grant(&host_of(&self.own), login).await?
            && let Grant::Bearer(header) = &*grant
        {
            let header = header.clone();
            return Ok(Sent::Own(grant, header));
        }
        let key = TokenKey {
            realm,
            service,
            scope,
            login: login.name().clone(),
            guise: login.guise(),
        };
        let (token, fresh) = self.tokens.get(key.clone(), login).await?;
        Ok(Sent::Token { key, token, fresh })
    }

    /// A challenge's realm, if it may be asked, and its service.
    fn realm(&self, challenge: &Challenge, from: &Url) -> Result<(Url, Option<String>), Error> {
        let realm = challenge
            .parameter("realm")
            .and_then(|realm| from.join(realm).ok());
        let realm = realm.ok_or_else(|| {
            let message = "its challenge names no usable realm";
            self.transport.error(&host_of(from), ErrorKind::Protocol, message)
        })?;
        self.transport.check(from, &realm)?;
        Ok((realm, challenge.parameter("service").map(str::to_owned)))
    }

    fn learn(&self, new: Learnt) {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        if learnt.as_deref() != Some(&new) {
            tracing::debug!(upstream = self.transport.prefix(), challenge = ?new, "learnt how to authorize");
            *learnt = Some(Arc::new(new));
        }
    }

    fn forget(&self, old: &Arc<Learnt>) {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        if learnt.as_ref().is_some_and(|learnt| Arc::ptr_eq(learnt, old)) {
            *learnt = None;
        }
    }
}

fn find<'a>(challenges: &'a [Challenge], scheme: &str) -> Option<&'a Challenge> {
    challenges.iter().find(|challenge| challenge.scheme == scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_of_other_repositories() {
        let name = |text: &str| text.parse::<RepositoryName>().unwrap();
        // scope in the challenge for a/b, scope for c/d
        let table = [
            (None, Some("repository:c/d:pull")),
            (Some(""), Some("repository:c/d:pull")),
            (Some("repository:a/b:pull"), Some("repository:c/d:pull")),
            (Some("repository:a/b:pull,push"), Some("repository:c/d:pull,push")),
            (
                Some("repository:project/a/b:pull"),
                Some("repository:project/c/d:pull"),
            ),
            (Some("repository:xa/b:pull"), None),
            (Some("repository:other:pull"), None),
            (Some("aws"), Some("aws")),
        ];
        for (challenge, expected) in table {
            let rule = ScopeRule::learn(challenge, &name("a/b"));
            assert_eq!(rule.scope(&name("c/d")).as_deref(), expected, "{challenge:?}");
        }
        let awkward = ScopeRule::learn(Some("repository:pull:pull"), &name("pull"));
        assert_eq!(awkward.scope(&name("x")).as_deref(), Some("repository:x:pull"));
    }
}
