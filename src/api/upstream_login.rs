//! Who asks by a login of an upstream: read where a client shows it, tried before anything is made of it, and asked for where
//! the upstream says who may read (`caller_check`). Called by `api` around the two steps of `authentication`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::Entrance;
use super::asking::Asking;
use super::rescue::{Denied, Failure, Unauthorized};
use super::route::{Route, Target};
use crate::auth::{Caller, Offered, Unproved, UpstreamLogin};
use crate::registry::{CallerIdentity, Door, Error, ErrorKind, Located, Repository};

/// How long an upstream may take to say whether it takes a login: what is public is waited for behind that.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a login that was shown for an upstream.
#[derive(Default)]
pub(super) enum Shown {
    /// None was.
    #[default]
    Nothing,
    /// The upstream takes it.
    Taken(Arc<UpstreamLogin>),
    /// The upstream does not.
    Rejected,
    /// It was not asked: whoever guesses has to wait.
    Wait(Duration),
}

/// The login as the registry is told.
pub(super) fn identity(login: &UpstreamLogin) -> CallerIdentity<'_> {
    CallerIdentity {
        name: login.name(),
        secret: login.secret(),
        fingerprint: login.fingerprint(),
    }
}

impl Asking<'_> {
    /// Asks the upstream whether it takes a login, unless it did minutes ago.
    async fn try_at_upstream(&self, login: Arc<UpstreamLogin>) -> Result<Shown, Error> {
        let authenticator = &self.shared.auth.authenticator;
        if authenticator.is_held(&login) {
            return Ok(Shown::Taken(login));
        }
        if authenticator.is_rejected(&login) {
            return Ok(Shown::Rejected);
        }
        let from = self.from();
        let turn = match authenticator.upstream_turn(&login, from).await {
            Ok(turn) => turn,
            Err(wait) => return Ok(Shown::Wait(wait)),
        };
        // Another request may have asked while this one waited.
        if authenticator.is_held(&login) {
            return Ok(Shown::Taken(login));
        }
        let (registry, identity) = (&self.shared.registry, identity(&login));
        let told = match tokio::time::timeout(PATIENCE, registry.accepts(login.prefix(), &identity)).await {
            Ok(told) => told,
            Err(_) => Err(registry.accepts_nothing(login.prefix())),
        };
        match &told {
            Ok(right) => authenticator.upstream_told(&login, from, *right),
            // So do token services answer those who guess.
            Err(error) if matches!(error.kind, ErrorKind::RateLimited { .. }) => {
                authenticator.upstream_limited(&login, from);
            }
            Err(_) => {}
        }
        drop(turn);
        Ok(if told? {
            Shown::Taken(login)
        } else {
            Shown::Rejected
        })
    }

    /// Has an upstream prove whoever asks by a login of its own, by name. While it cannot tell, nobody is proved: what
    /// everyone may have is given all the same.
    pub(super) async fn prove_at_upstream(&mut self, route: &Route<'_>) -> Result<(), Failure> {
        let login = self.caller.upstream_login().cloned();
        let Some(login) = login.filter(|_| !self.caller.shows_token()) else {
            return Ok(());
        };
        let prefix = login.prefix().to_owned();
        match self.try_at_upstream(login).await {
            Ok(Shown::Taken(_)) => Ok(()),
            Ok(Shown::Wait(wait)) => Err(Failure::Throttled(wait)),
            Ok(Shown::Rejected | Shown::Nothing) => {
                let name = self.caller.identity.name().to_owned();
                self.note_unproved(&Offered::Basic(name, String::new()), &Unproved::Wrong);
                Err(Failure::Unauthorized(Unauthorized {
                    message: format!("{prefix} does not take this login"),
                    challenge: match route {
                        // A challenge from where tokens come from would lead clients in a circle.
                        Route::Token => None,
                        _ => self.challenge(None, None),
                    },
                    why: None,
                }))
            }
            Err(error) if matches!(route, Route::Token | Route::Base(_)) => Err(Failure::Registry(error)),
            Err(_) => {
                self.caller = Caller::anonymous();
                Ok(())
            }
        }
    }

    /// A login of an upstream is none for what is ours: who shows it is nobody in particular there.
    pub(super) fn narrow(&mut self, route: &Route<'_>, located: Option<&Located>) {
        let elsewhere = matches!(located, Some(Located::PullThrough(_)))
            || matches!(route, Route::Token | Route::Base(_));
        if !elsewhere && self.caller.upstream_login().is_some() {
            self.caller = Caller::anonymous();
        }
    }

    /// The login that a client brought for the upstream of a repository, where that is asked about callers.
    pub(super) async fn shown_for(&self, found: &Repository, target: &Target<'_>) -> Shown {
        if !found.asks_about_callers() || self.entrance == Entrance::Local {
            return Shown::Nothing;
        }
        let named = self.caller.upstream_login();
        if let Some(login) = named.filter(|login| login.prefix() == found.upstream()) {
            return Shown::Taken(login.clone());
        }
        // What runtimes send there is for the upstream whose image they pull.
        if target.door != Door::Mirror || !self.is_private() {
            return Shown::Nothing;
        }
        let Offered::Basic(name, secret) = self.offered() else {
            return Shown::Nothing;
        };
        let authenticator = &self.shared.auth.authenticator;
        match authenticator.upstream_login(found.upstream(), &name, &secret) {
            // That it cannot tell says nothing of what is public.
            Some(login) => self.try_at_upstream(login).await.unwrap_or_default(),
            None => Shown::Nothing,
        }
    }

    /// What a client is told for `failure`: to log in, where that is what is missing.
    pub(super) fn login_wanted(
        &self,
        failure: Failure,
        target: &Target<'_>,
        found: &Repository,
        shown: &Shown,
    ) -> Failure {
        let Failure::Registry(error) = &failure else {
            return failure;
        };
        if error.kind != ErrorKind::LoginNeeded && error.kind != ErrorKind::LoginRejected {
            return failure;
        }
        if let Shown::Wait(wait) = shown {
            return Failure::Throttled(*wait);
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
        let message = match shown {
            Shown::Rejected => format!("{} does not take this login", found.upstream()),
            _ => error.message.clone(),
        };
        Failure::Unauthorized(Unauthorized {
            message,
            challenge,
            why: None,
        })
    }
}
