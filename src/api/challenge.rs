//! `WWW-Authenticate`: how a client is told that it needs a login, and where it gets a token. Called by `authentication`.

use http::uri::Authority;
use http::{HeaderValue, header};

use super::asking::Asking;
use super::rescue::{Denied, Failure, Unauthorized};
use super::route::Target;
use crate::auth::Unproved;
use crate::registry::{Door, Located};

/// Browsers and `curl -u` understand it.
pub(super) const ADMIN_CHALLENGE: &str = "Basic realm=\"wharfinger\", charset=\"UTF-8\"";

impl Asking<'_> {
    /// Nobody in particular may not, `why` is for the audit log alone.
    pub(super) fn login_needed(&self, scope: Option<&str>, why: Option<String>) -> Failure {
        if !self.is_private() {
            return Failure::Denied(Denied {
                message: Unproved::Exposed.to_string(),
                why,
            });
        }
        let message = if self.shared.auth.authenticator.takes_logins() {
            "authentication required"
        } else {
            "authentication required, and nobody can log in yet: `wharfinger user add NAME`"
        };
        Failure::Unauthorized(Unauthorized {
            message: message.to_owned(),
            challenge: self.challenge(scope, None),
            why,
        })
    }

    /// `WWW-Authenticate`, with the way to `/token` as the client reaches us (distribution, "Token Authentication
    /// Specification"). `None` where nobody knows how that is.
    pub(super) fn challenge(&self, scope: Option<&str>, error: Option<&str>) -> Option<HeaderValue> {
        let base = if let Some(url) = &self.shared.options.public_url {
            url.clone()
        } else {
            let scheme = if self.exchange.origin.https {
                "https"
            } else {
                "http"
            };
            format!("{scheme}://{}", self.host()?)
        };
        let service = &self.shared.options.service;
        let mut text = format!("Bearer realm=\"{base}/token\",service=\"{service}\"");
        for (key, value) in [("scope", scope), ("error", error)] {
            if let Some(value) = value {
                text = format!("{text},{key}=\"{value}\"");
            }
        }
        HeaderValue::try_from(text).ok()
    }

    /// The same for pulling from a repository.
    pub(super) fn challenge_for(&self, target: &Target<'_>, located: &Located) -> Option<HeaderValue> {
        self.challenge(Some(&scope(target, Some(located), "pull")), None)
    }

    /// The host by which the client reaches us. Nothing but a host gets into the challenge.
    fn host(&self) -> Option<String> {
        let told = self.exchange.origin.host.clone();
        let asked = || {
            let host = self.headers.get(header::HOST).and_then(|host| host.to_str().ok());
            host.map(str::to_owned)
                .or_else(|| self.uri.authority().map(ToString::to_string))
        };
        let host: Authority = told.or_else(asked)?.parse().ok()?;
        let port = host.port().map(|port| format!(":{port}")).unwrap_or_default();
        // Without what may stand before an @.
        Some(format!("{}{port}", host.host()))
    }
}

/// What a token has to be asked for. By the name that the client used, where that says it all, since some clients
/// compare it with their own.
pub(super) fn scope(target: &Target<'_>, located: Option<&Located>, words: &str) -> String {
    let whole = target.ns.is_none() && target.host.is_none() && target.door == Door::Main;
    let name = match located {
        Some(located) if !whole => located.name(),
        _ => target.name.as_str(),
    };
    format!("repository:{name}:{words}")
}
