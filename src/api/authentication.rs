//! Who asks, and may they: the two steps between parsing a request and handling it. No handler comes before them; what is
//! decided about more than one thing (the source of a mount, a list of repositories) asks [`Asking::may`] itself.

use std::net::IpAddr;
use std::time::Instant;

use http::{HeaderValue, Method, header};

use super::Entrance;
use super::admin::{self, AdminRoute};
use super::asking::Asking;
use super::challenge::{ADMIN_CHALLENGE, scope};
use super::permission::{self, Need};
use super::query;
use super::rescue::{Denied, Failure, Unauthorized};
use super::route::{Route, Target};
use crate::auth::action::Action;
use crate::auth::identity::Identity;
use crate::auth::policy::{Decision, Why};
use crate::auth::{Arrival, Caller, Circumstances, Offered, Unproved, Wish};
use crate::clock::Timestamp;
use crate::oci::RepositoryName;
use crate::registry::{Door, Located};

impl Asking<'_> {
    /// The client's address, as far as it is to be believed.
    pub(super) fn from(&self) -> Option<IpAddr> {
        let peer = self.connection.peer.address().map(|peer| peer.ip());
        self.exchange
            .origin
            .forwarded_for
            .or(peer)
            .map(|ip| ip.to_canonical())
    }

    /// Whether nobody on the way could read what is shown.
    pub(super) fn is_private(&self) -> bool {
        self.exchange.origin.https
            || self.shared.options.allow_plain_http
            || self.from().is_none_or(|ip| ip.is_loopback())
    }

    /// How it came, for whoever proves.
    pub(super) fn arrival(&self) -> Arrival<'_> {
        let now = Timestamp::now();
        Arrival {
            from: self.from(),
            private: self.is_private(),
            certificate: self.connection.certificate.as_deref().and_then(|one| one.name()),
            now,
            shown_at: now.before(self.spared),
        }
    }

    /// What the request shows to prove who asks.
    pub(super) fn offered(&self) -> Offered {
        Offered::read(self.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes))
    }

    /// Proves who asks.
    pub(super) async fn authenticate(&mut self, route: &Route<'_>) -> Result<(), Failure> {
        let auth = &self.shared.auth;
        if self.entrance == Entrance::Local {
            self.caller = Caller::of(Identity::operator(auth.authenticator.account().clone()));
            return Ok(());
        }
        let offered = match route {
            // For whoever looks after the process, who has no login.
            Route::Live | Route::Ready | Route::Metrics => return Ok(()),
            // What runtimes send there is for somebody else.
            _ if route.door() == Some(Door::Mirror) => Offered::Nothing,
            _ => self.offered(),
        };
        // Nobody in particular, which it is already: what most requests to a cache are.
        if offered == Offered::Nothing && self.connection.certificate.is_none() {
            return Ok(());
        }
        match auth.authenticator.prove(&offered, self.arrival()).await {
            Ok(caller) => self.caller = caller,
            Err(error) => {
                self.note_unproved(&offered, &error);
                return Err(self.unproved(route, error));
            }
        }
        Ok(())
    }

    /// Whether they ask too fast.
    pub(super) fn pace(&self, route: &Route<'_>) -> Result<(), Failure> {
        let rate = &self.shared.auth.rate;
        let spared = matches!(route, Route::Live | Route::Ready | Route::Metrics);
        if spared || self.entrance == Entrance::Local || !rate.is_on() {
            return Ok(());
        }
        // Names at an upstream are as many as anybody likes.
        let nobody = Caller::anonymous();
        let counted = if self.caller.upstream_login().is_some() {
            &nobody
        } else {
            &self.caller
        };
        match rate.take(counted, self.from(), Instant::now()) {
            Some(wait) => Err(Failure::TooFast(wait)),
            None => Ok(()),
        }
    }

    fn unproved(&self, route: &Route<'_>, error: Unproved) -> Failure {
        let challenge = match (route, error) {
            (_, Unproved::Throttled(after)) => return Failure::Throttled(after),
            (_, Unproved::Exposed) => {
                return Failure::Denied(Denied {
                    message: error.to_string(),
                    why: None,
                });
            }
            // A challenge from where tokens come from would lead clients in a circle.
            (Route::Token, _) => None,
            (Route::Admin(_), _) => Some(HeaderValue::from_static(ADMIN_CHALLENGE)),
            _ if route.target().is_some_and(Target::falls_through) => None,
            (_, Unproved::Token(_)) => {
                let scope = route.target().map(|target| scope(target, None, "pull"));
                self.challenge(scope.as_deref(), Some("invalid_token"))
            }
            _ => self.challenge(None, None),
        };
        Failure::Unauthorized(Unauthorized {
            message: error.to_string(),
            challenge,
            why: None,
        })
    }

    /// Decides whether they may.
    pub(super) fn authorize(&self, route: &Route<'_>, located: Option<&Located>) -> Result<(), Failure> {
        match route {
            Route::Live | Route::Ready | Route::Metrics => return Ok(()),
            // A form says by itself who asks.
            Route::Token if *self.method == Method::POST => return Ok(()),
            Route::Token => return self.admit_to_token(),
            Route::Base(door) => return self.greet(*door),
            Route::Admin(route) => return self.admit_operator(route),
            Route::Catalog => return self.admit_to_catalog(),
            _ => {}
        }
        let query = self.uri.query().unwrap_or_default();
        let need = permission::need(route, self.method, query);
        match (need, route.target(), located) {
            (Some(need), Some(target), Some(located)) => self.permit(need, target, located),
            _ => Ok(()),
        }
    }

    /// `GET /v2/`: clients learn here alone that they may log in, and whether their login is right.
    fn greet(&self, door: Door) -> Result<(), Failure> {
        let auth = &self.shared.auth;
        let from = self.from();
        if door == Door::Mirror || self.caller.shows_token() {
            return Ok(());
        }
        if !self.caller.is_anonymous() {
            return self.admit_to_token();
        }
        if auth.rights.is_open(from) {
            return Ok(());
        }
        // Nor is anybody asked for a login that others could read on the way.
        let asks = auth.authenticator.takes_logins() && self.is_private();
        if auth.rights.admit_anonymous(from) && !asks {
            return Ok(());
        }
        Err(self.login_needed(None, None))
    }

    /// Whether they may have a token: all but those whom a policy denies it. Nobody has to allow it, since a token opens
    /// nothing that its owner may not have anyway.
    pub(super) fn admit_to_token(&self) -> Result<(), Failure> {
        let wish = Wish {
            caller: &self.caller,
            action: Action::GetAuthorizationToken,
            repository: None,
            policy: None,
            circumstances: &self.circumstances(),
        };
        let rights = &self.shared.auth.rights;
        match rights.decide(&wish) {
            Decision::Deny(why @ Why::Denied { .. }) => Err(Failure::Denied(Denied {
                message: rights.refusal(&wish),
                why: Some(because(wish.action, &why)),
            })),
            _ => Ok(()),
        }
    }

    fn permit(&self, need: Need, target: &Target<'_>, located: &Located) -> Result<(), Failure> {
        let circumstances = self.circumstances();
        let wish = |action| Wish {
            caller: &self.caller,
            action,
            repository: Some(located.name()),
            policy: policy_of(located),
            circumstances: &circumstances,
        };
        let rights = &self.shared.auth.rights;
        let mut refused = None;
        let allowed = need
            .any_of
            .iter()
            .any(|action| match rights.decide(&wish(*action)) {
                Decision::Allow => true,
                Decision::Deny(why) => {
                    refused.get_or_insert((*action, why));
                    false
                }
            });
        if allowed {
            refused = need.and.and_then(|action| match rights.decide(&wish(action)) {
                Decision::Allow => None,
                Decision::Deny(why) => Some((action, why)),
            });
        }
        let wanted = || {
            let own = scope(target, Some(located), permission::wanted(need.word));
            let source = self.mounted_from().map(|from| format!(" repository:{from}:pull"));
            own + &source.unwrap_or_default()
        };
        // With `ns` or a host, the bare name means another repository than to whoever made the token.
        let whole = target.ns.is_none() && target.host.is_none();
        let asked = if whole {
            target.name.as_str()
        } else {
            located.name()
        };
        if let Some((action, why)) = refused {
            tracing::debug!(
                who = self.caller.identity.name(),
                %action,
                repository = located.name(),
                %why,
                "refused"
            );
            let why = Some(because(action, &why));
            // Who has another place to ask gets no challenge: it would be answered with a login for that place.
            if self.caller.is_anonymous() && !target.falls_through() {
                return Err(self.login_needed(Some(&wanted()), why));
            }
            // As it was asked for: where that leads, or which of its actions lacked, tells what is there.
            let told = Wish {
                repository: Some(asked),
                ..wish(need.any_of[0])
            };
            let message = rights.refusal(&told);
            return Err(Failure::Denied(Denied { message, why }));
        }
        if !self
            .caller
            .was_granted("repository", &[asked, located.name()], need.word)
        {
            return Err(Failure::Unauthorized(Unauthorized {
                message: format!("the token was not made for this: it lacks `{}`", need.word),
                challenge: self.challenge(Some(&wanted()), Some("insufficient_scope")),
                why: None,
            }));
        }
        Ok(())
    }

    /// Whether the caller may do something to a repository that it did not name by itself.
    pub(super) fn may(&self, action: Action, located: &Located, asked: &str, word: &str) -> bool {
        let nobody = Caller::anonymous();
        let wish = Wish {
            // A login of an upstream is none for what is ours.
            caller: match located {
                Located::PullThrough(_) => &self.caller,
                _ if self.caller.upstream_login().is_some() => &nobody,
                _ => &self.caller,
            },
            action,
            repository: Some(located.name()),
            policy: policy_of(located),
            circumstances: &self.circumstances(),
        };
        self.shared.auth.rights.decide(&wish).is_allowed()
            && self
                .caller
                .was_granted("repository", &[asked, located.name()], word)
    }

    /// Whether the caller may see that a hosted repository is there.
    pub(super) fn may_see(
        &self,
        name: &str,
        policy: Option<&str>,
        circumstances: &Circumstances<'_>,
    ) -> bool {
        let wish = Wish {
            caller: &self.caller,
            action: Action::DescribeRepositories,
            repository: Some(name),
            policy,
            circumstances,
        };
        self.shared.auth.rights.decide(&wish).is_allowed()
    }

    /// Who is nobody and may see nothing is asked to log in; all others are shown what they may see.
    fn admit_to_catalog(&self) -> Result<(), Failure> {
        const SCOPE: &str = "registry:catalog:*";
        if !self.caller.was_granted("registry", &["catalog"], "*") {
            return Err(Failure::Unauthorized(Unauthorized {
                message: "the token was not made for the catalog".to_owned(),
                challenge: self.challenge(Some(SCOPE), Some("insufficient_scope")),
                why: None,
            }));
        }
        let wish = Wish {
            caller: &self.caller,
            action: Action::DescribeRepositories,
            repository: None,
            policy: None,
            circumstances: &self.circumstances(),
        };
        let rights = &self.shared.auth.rights;
        match rights.decide(&wish) {
            Decision::Deny(why) if self.caller.is_anonymous() => {
                Err(self.login_needed(Some(SCOPE), Some(because(wish.action, &why))))
            }
            _ => Ok(()),
        }
    }

    /// An operator over TCP: by login, or, as long as nobody can log in, from this machine.
    fn admit_operator(&self, route: &AdminRoute) -> Result<(), Failure> {
        if self.entrance == Entrance::Local {
            return Ok(());
        }
        let auth = &self.shared.auth;
        if self.caller.is_anonymous() && !auth.authenticator.has_logins() {
            let peer = self.connection.peer.address();
            return admin::check_machine(peer, self.method, self.uri, self.headers).map_err(Failure::Refused);
        }
        admin::check_site(self.method, self.uri, self.headers).map_err(Failure::Refused)?;
        self.admit_to(permission::operator(route))
    }

    /// An operator to something in particular.
    pub(super) fn admit_to(&self, action: Action) -> Result<(), Failure> {
        let auth = &self.shared.auth;
        let open = self.caller.is_anonymous() && !auth.authenticator.has_logins();
        if self.entrance == Entrance::Local || open {
            return Ok(());
        }
        let circumstances = self.circumstances();
        let wish = Wish {
            caller: &self.caller,
            action,
            repository: None,
            policy: None,
            circumstances: &circumstances,
        };
        let decision = auth.rights.decide(&wish);
        // A token is for clients of the registry.
        if self.caller.shows_token() || (self.caller.is_anonymous() && !decision.is_allowed()) {
            return Err(Failure::Unauthorized(Unauthorized {
                message: "the admin API needs a login: name and password of an admin".to_owned(),
                challenge: Some(HeaderValue::from_static(ADMIN_CHALLENGE)),
                why: None,
            }));
        }
        match decision {
            Decision::Allow => Ok(()),
            Decision::Deny(why) => Err(Failure::Denied(Denied {
                message: auth.rights.refusal(&wish),
                why: Some(because(action, &why)),
            })),
        }
    }

    /// How it was asked, for policies.
    pub(super) fn circumstances(&self) -> Circumstances<'_> {
        let agent = self.headers.get(header::USER_AGENT);
        Circumstances {
            from: self.from(),
            https: self.exchange.origin.https,
            agent: agent.and_then(|agent| agent.to_str().ok()),
            now: Timestamp::now(),
        }
    }

    /// The repository that a blob is to be mounted from: who asks for a token may ask for both at once.
    fn mounted_from(&self) -> Option<RepositoryName> {
        let query = self.uri.query().filter(|_| *self.method == Method::POST)?;
        query::get(query, "mount")?;
        query::get(query, "from")?.parse().ok()
    }
}

/// The reason in full, for the audit log.
fn because(action: Action, why: &Why) -> String {
    format!("{action}: {why}")
}

/// The policy attached to a repository.
fn policy_of(located: &Located) -> Option<&str> {
    match located {
        Located::Hosted(repository) => repository.settings.policy.as_deref(),
        Located::PullThrough(_) | Located::Absent(_) => None,
    }
}
