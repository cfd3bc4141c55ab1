//! Who asks by a login of an upstream: read where a client shows it, tried where tokens are made of it, and asked for where the
//! upstream says who may read (`caller_check`). Called by `api` around the two steps of `authentication`.

use std::sync::Arc;

use http::HeaderValue;

use super::Entrance;
use super::asking::Asking;
use super::rescue::{Denied, Failure, Unauthorized};
use super::route::{Route, Target};
use crate::auth::{Offered, Unproved, UpstreamLogin};
use crate::registry::{CallerIdentity, Door, ErrorKind, Located, Repository};

/// The login as the registry is told.
pub(super) fn identity(login: &UpstreamLogin) -> CallerIdentity<'_> {
    CallerIdentity {
        name: login.name(),
        secret: login.secret(),
        fingerprint: login.fingerprint(),
    }
}

impl Asking<'_> {
    /// Tries the login of an upstream before anything is made of it: where tokens come from, and where `docker login` looks
    /// whether it is right. What may be read by it is asked when it is read.
    pub(super) async fn try_upstream_login(&mut self, route: &Route<'_>) -> Result<(), Failure> {
        let Some(login) = self.caller.upstream_login().cloned() else {
            return Ok(());
        };
        let authenticator = &self.shared.auth.authenticator;
        let made = matches!(route, Route::Token | Route::Base(_));
        if !made || self.caller.shows_token() || authenticator.is_held(&login) {
            return Ok(());
        }
        let accepted = self
            .shared
            .registry
            .accepts(login.prefix(), &identity(&login))
            .await
            .map_err(Failure::Registry)?;
        authenticator.upstream_told(&login, self.from(), accepted);
        if accepted {
            return Ok(());
        }
        Err(Failure::Unauthorized(Unauthorized {
            message: format!("{} does not take this login", login.prefix()),
            challenge: match route {
                // A challenge from where tokens come from would lead clients in a circle.
                Route::Token => None,
                _ => self.challenge(None, None),
            },
            why: None,
        }))
    }

    /// The login that a client brought for the upstream of a repository, where that is asked about callers.
    pub(super) fn upstream_login(
        &self,
        found: &Repository,
        target: &Target<'_>,
    ) -> Result<Option<Arc<UpstreamLogin>>, Failure> {
        if !found.asks_about_callers() || self.entrance == Entrance::Local {
            return Ok(None);
        }
        let authenticator = &self.shared.auth.authenticator;
        let named = self.caller.upstream_login();
        if let Some(login) = named.filter(|login| login.prefix() == found.upstream()) {
            return Ok(Some(login.clone()));
        }
        // What runtimes send there is for the upstream whose image they pull.
        if target.door != Door::Mirror || !self.is_private() {
            return Ok(None);
        }
        let Offered::Basic(name, secret) = self.offered() else {
            return Ok(None);
        };
        let Some(login) = authenticator.upstream_login(found.upstream(), &name, &secret) else {
            return Ok(None);
        };
        if let Some(wait) = authenticator.upstream_wait(&login, self.from()) {
            return Err(Failure::Throttled(wait));
        }
        Ok(Some(login))
    }

    /// What a client is told for `failure`: to log in, where that is what is missing.
    pub(super) fn login_wanted(
        &self,
        failure: Failure,
        target: &Target<'_>,
        found: &Repository,
        login: Option<&Arc<UpstreamLogin>>,
    ) -> Failure {
        let Failure::Registry(error) = &failure else {
            return failure;
        };
        let rejected = error.kind == ErrorKind::LoginRejected;
        if !rejected && error.kind != ErrorKind::LoginNeeded {
            return failure;
        }
        if let Some(login) = login.filter(|_| rejected) {
            let authenticator = &self.shared.auth.authenticator;
            authenticator.upstream_told(login, self.from(), false);
        }
        if target.door != Door::Mirror && !self.is_private() {
            return Failure::Denied(Denied {
                message: Unproved::Exposed.to_string(),
                why: None,
            });
        }
        let challenge = if target.door == Door::Mirror {
            // The login itself, not a token of ours: clients have one for the registry whose image they pull. In clear
            // text none is asked for.
            let realm = || HeaderValue::try_from(format!("Basic realm=\"{}\"", found.upstream())).ok();
            self.is_private().then(realm).flatten()
        } else {
            let located = Located::PullThrough(found.clone());
            self.challenge_for(target, &located)
        };
        Failure::Unauthorized(Unauthorized {
            message: error.message.clone(),
            challenge,
            why: None,
        })
    }
}
